"""What a database of very many SST files costs: checkpoint, checks, backups, restore, and how that grows.

    python -m benchmarks.many_files [--place DIRECTORY] [--rounds N] [FILES ...]

The database is a real one, of FILES (1,000, 10,000, 100,000) SST files with one key each, all of it on the file system
of DIRECTORY; compactions are off. Each step is a process of its own: seconds and CPU seconds are the step's without
the start, memory is the process's peak above what it had before the step. Checkpoints by rocksdict, the opening
excluded, take turns with ours for N rounds (3); the table has the medians, the last line their ratio. The last column
is the time for one file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rocksdict import IngestExternalFileOptions, Options, Rdict, SstFileWriter

ROOT = Path(__file__).parent.parent
MEMORY = Path("/dev/shm")  # noqa: S108 -- where there is one, files are made there without waiting for a disk

FRAME = """
import json, re, sys, time
from pathlib import Path
from airflow_provider_rocksdb.core import *
import fsspec
def memory():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
{before}
began, cpu, start = time.perf_counter(), time.process_time(), memory()
{work}
print(json.dumps([time.perf_counter() - began, time.process_time() - cpu, memory() - start]))
"""
OPEN = """
from rocksdict import Checkpoint, Options, Rdict
options = Options(raw_mode=True)
options.set_max_open_files(256)
options.set_disable_auto_compactions(True)
database = Rdict(sys.argv[1] + "/db", options)
checkpoint = Checkpoint(database)
"""
BACKUP = """
result = upload_checkpoint(sys.argv[1] + "/checkpoint", fsspec.filesystem("file"), sys.argv[1] + "/repository")
"""
RESTORE = """
target = DatabasePaths(sys.argv[1] + "/restored")
restore_backup(fsspec.filesystem("file"), sys.argv[1] + "/repository", target)
"""
STEPS = {
    "checkpoint by rocksdict": (OPEN, 'checkpoint.create_checkpoint(sys.argv[1] + "/theirs")'),
    "live checkpoint": (
        "",
        'create_live_checkpoint(DatabasePaths(sys.argv[1] + "/db"), sys.argv[1] + "/checkpoint", replace=True)',
    ),
    "check, files": ("", 'check_completeness(sys.argv[1] + "/checkpoint").raise_for_state()'),
    "check, checksums": ("", 'check_completeness(sys.argv[1] + "/checkpoint", level="checksums").raise_for_state()'),
    "first backup": ("", BACKUP),
    "second backup": ("", BACKUP),
    "restore": ("", RESTORE),
}
THEIRS, OURS = list(STEPS)[:2]


class Cost(NamedTuple):
    """What a step took. ``mebibytes``: above the start."""

    seconds: float
    cpu_seconds: float
    mebibytes: float


def make_database(db_dir: Path, files: int) -> None:
    """Make a database of so many SST files: written one by one, and ingested together."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else db_dir.parent) as text:
        written = []
        for number in range(files):
            writer = SstFileWriter(Options(raw_mode=True))
            written.append(f"{text}/{number}.sst")
            writer.open(written[-1])
            writer[b"%012d" % number] = b"value"
            writer.finish()
        options = Options(raw_mode=True)
        options.set_max_open_files(256)
        options.set_disable_auto_compactions(True)
        database = Rdict(f"{text}/db", options)
        ingestion = IngestExternalFileOptions()
        ingestion.set_move_files(True)
        database.ingest_external_file(written, ingestion)
        database[b"in the WAL"] = b"value"
        database.close()
        shutil.copytree(f"{text}/db", db_dir)


def run(step: str, directory: Path) -> Cost:
    """Do a step in a process of its own."""
    before, work = STEPS[step]
    command = [sys.executable, "-c", FRAME.format(before=before, work=work), str(directory)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return Cost(*json.loads(done.stdout))


def compare_checkpoints(directory: Path, rounds: int) -> dict[str, list[Cost]]:
    """Make checkpoints in turns; the last of ours stays."""
    costs: dict[str, list[Cost]] = {THEIRS: [], OURS: []}
    for _ in range(rounds):
        for step, name in ((THEIRS, "theirs"), (OURS, "checkpoint")):
            shutil.rmtree(directory / name, ignore_errors=True)
            costs[step].append(run(step, directory))
    shutil.rmtree(directory / "theirs")
    return costs


def median(costs: list[Cost]) -> Cost:
    """Return the median of each number."""
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def measure(directory: Path, files: int, rounds: int) -> dict[str, Cost]:
    """Make a database, and do everything with it."""
    make_database(directory / "db", files)

    found = {step: median(costs) for step, costs in compare_checkpoints(directory, rounds).items()}
    for step in list(STEPS)[2:]:
        found[step] = run(step, directory)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.many_files")
    parser.add_argument("files", nargs="*", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--place", help="where to work: takes about four inodes a file")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    previous: dict[str, Cost] = {}
    for files in given.files:
        with tempfile.TemporaryDirectory(dir=given.place) as text:
            costs = measure(Path(text), files, given.rounds)
        print(f"{f'{files} SST files':26}{'seconds':>9}{'CPU s':>9}{'MiB':>9}{'us/file':>9}   growth: s, CPU, MiB")
        for step, cost in costs.items():
            row = f"{cost.seconds:9.2f}{cost.cpu_seconds:9.2f}{cost.mebibytes:9.1f}{cost.seconds / files * 1e6:9.0f}"
            pairs = zip(cost, previous.get(step, ()), strict=False)
            growth = "".join(f"{new / old:9.1f}" if old else f"{'':9}" for new, old in pairs)
            print(f"  {step:24}{row}{growth}", flush=True)
        print(f"  live checkpoint / rocksdict's: {costs[OURS].seconds / costs[THEIRS].seconds:.2f}", flush=True)
        previous = costs


if __name__ == "__main__":
    main()
