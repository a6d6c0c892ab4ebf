"""Peak memory of a process that uploads SST files of 2 GiB, above a bare interpreter's: prints a table.

To an S3 server that forgets what it gets (``tests/s3_sink.py``), with s3fs, and to a directory. The files of the
layouts ``backup_engine`` and ``directory`` are sparse; those of archives have content that nothing compresses.

    python -m benchmarks.upload_memory [DIRECTORY]

DIRECTORY (default: a temporary one) must have room for 10 GiB.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.transfer_memory import make_files, measure, s3_sink

LIMIT_MIB = 256
GIB = 1 << 30

UPLOADS: list[tuple[str, str, dict[str, Any]]] = [
    ("4 files of 2 GiB, 4 at a time", "files", {}),
    ("1 GiB as .tar", "archive", {}),
    ("1 GiB as .tar.gz", "archive", {"level": 1}),
    ("1 GiB as .tar.zst", "archive", {"threads": 4}),
    ("1 GiB as .tar.zst, level 9", "archive", {"level": 9, "threads": 4}),
]


def measure_all(directory: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what was uploaded, where to, and what it took."""
    make_files(directory / "files", 4, 2 * GIB)
    make_files(directory / "archive", 4, GIB // 4, random=True)
    with s3_sink() as options:
        for kind, protocol, storage_options, root in (
            ("s3", "s3", options, "bucket/there"),
            ("local", "file", {}, f"{directory}/there"),
        ):
            for number, (title, what, settings) in enumerate(UPLOADS):
                ending = title.partition(" as ")[2].partition(",")[0]
                place = root if what == "files" else f"{root}/{number}{ending}"
                yield title, kind, measure(what, directory / what, protocol, storage_options, place, **settings)
                shutil.rmtree(directory / "there", ignore_errors=True)


def main() -> int:
    """Print the table; status 1 when a process exceeded the limit."""
    place = sys.argv[1] if len(sys.argv) > 1 else None
    worst = 0.0
    print(f"{'upload':32} {'to':6} {'peak MiB':>9} {'seconds':>8}")
    with tempfile.TemporaryDirectory(dir=place) as directory:
        for title, kind, result in measure_all(Path(directory)):
            mebibytes = result["peak_bytes"] / 2**20
            worst = max(worst, mebibytes)
            print(f"{title:32} {kind:6} {mebibytes:9.0f} {result['seconds']:8.1f}", flush=True)
    print(f"the limit is {LIMIT_MIB} MiB above the start of the process")
    return int(worst > LIMIT_MIB)


if __name__ == "__main__":
    raise SystemExit(main())
