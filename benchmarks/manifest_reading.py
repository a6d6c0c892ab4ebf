"""How fast a MANIFEST is read, whole and by tailing, beside ``ldb manifest_dump`` of the same file.

``python benchmarks/manifest_reading.py [MEGABYTES]``, from the repository's root; ldb is in Debian's rocksdb-tools. The
MANIFEST is what a busy database of RocksDB 9 leaves behind: flushes, each with a new log number, and compactions of ten
files into ten.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from airflow_provider_rocksdb.core.format.manifest import ManifestReader
from tests.core.format import encoders as e
from tests.core.format.encoders import LogWriter, s, v

LIVE_FILES = 500
LDB = "ldb manifest_dump"
MANNERS = {"read whole": 1, "in 1,000 steps": 1000}


def new_file(number: int, rng: random.Random) -> bytes:
    """Encode one file as RocksDB 9 does: times, epoch, no checksum, unique id, tail size; user keys of 24 bytes."""
    sequences = (number * 1000, number * 1000 + 999)
    smallest, largest = (rng.randbytes(24) + (sequence << 8 | 1).to_bytes(8, "little") for sequence in sequences)
    times, checksum = ((5, v(1_700_000_000)), (6, v(1_700_000_000))), ((7, b""), (8, b"Unknown"))
    fields = (*times, (13, v(number)), *checksum, (12, rng.randbytes(16)), (15, v(4000)))
    keys = (min(smallest, largest), max(smallest, largest))
    return e.new_file_4(0, number, 67_108_864 + number, *fields, sequences=sequences, keys=keys)


def edits() -> Iterator[bytes]:
    """Yield the edits of an endless MANIFEST."""
    rng = random.Random(1)  # noqa: S311 -- the same MANIFEST each time
    yield e.db_id(b"0" * 36) + e.comparator(b"leveldb.BytewiseComparator") + v(8201) + s(b"\1")
    yield e.log_number(4) + e.next_file_number(5) + e.last_sequence(0)
    live: list[int] = []
    number = 10
    while True:
        head = e.log_number(number) + e.prev_log_number(0) + e.next_file_number(number + 20)
        tail = e.last_sequence(number * 1000 + 999)
        added = 1 if len(live) < LIVE_FILES or number % 3 else 10
        removed = live[:added] if len(live) >= LIVE_FILES else []
        live = [*live[len(removed) :], *range(number, number + added)]
        deletions = b"".join(e.deleted_file(0, old) for old in removed)
        yield head + tail + deletions + b"".join(new_file(number + index, rng) for index in range(added))
        number += added


def write_manifest(path: Path, size: int) -> None:
    """Write a MANIFEST of at least ``size`` bytes."""
    writer = LogWriter()
    for edit in edits():
        writer.add(edit)
        if len(writer.data) >= size:
            break
    path.write_bytes(writer.data)


def read(path: Path, steps: int) -> ManifestReader:
    """Read a MANIFEST as if it had grown in that many steps."""
    reader = ManifestReader(path.name)
    size = path.stat().st_size
    with path.open("rb") as file:
        for step in range(1, steps + 1):
            reader.read(lambda offset, length: os.pread(file.fileno(), length, offset), size * step // steps)
    return reader


def measure(call: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock and seconds of CPU time, child processes included, of the best of three."""
    measured = []
    for _ in range(3):
        before = os.times()
        call()
        after = os.times()
        measured.append((after.elapsed - before.elapsed, sum(after[:4]) - sum(before[:4])))
    return min(measured)


def main() -> None:
    """Write, measure, print."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "MANIFEST-000005")
        write_manifest(path, megabytes << 20)
        size = path.stat().st_size
        reader = read(path, 1)
        files = sum(len(family.tables) for family in reader.version.column_families.values())
        print(f"{size / 1e6:.1f} MB, {reader.version.next_file_number} file numbers, {files} live files at the end")
        rows = {name: measure(lambda steps=steps: read(path, steps)) for name, steps in MANNERS.items()}
        if shutil.which("ldb"):
            command = ["ldb", "manifest_dump", f"--path={path}"]
            rows[LDB] = measure(lambda: subprocess.run(command, capture_output=True, check=True))
        for name, (elapsed, cpu) in rows.items():
            ratio = f"  {cpu / rows[LDB][1]:.1f} times ldb's" if LDB in rows else ""
            print(f"{name:18} {elapsed:5.2f} s  {size / 1e6 / elapsed:5.1f} MB/s, CPU time {cpu:5.2f} s{ratio}")


if __name__ == "__main__":
    main()
