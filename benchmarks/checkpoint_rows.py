"""Rows about making checkpoints."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.databases import make_database
from benchmarks.harness import OURS, Row, Sample, run
from benchmarks.sizes import Bench

WITHOUT, AGAIN = "the writer without it", "the same again"

_MANY_FILES = 1000  # below, a checkpoint takes milliseconds, whose spread is large

WRITER = """
import sys, time
from rocksdict import Options, Rdict, WriteBatch
directory, seconds = sys.argv[1], float(sys.argv[2])
options = Options(raw_mode=True)
options.create_if_missing(True)
database = Rdict(directory, options)
value, number = bytes(100), 0
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + seconds
while time.monotonic() < end:
    batch = WriteBatch(raw_mode=True)
    for _ in range(100):
        batch.put(b"%016d" % number, value)
        number += 1
    database.write(batch)
print(number, flush=True)
"""


def idle(bench: Bench) -> Iterator[Row]:
    """Yield the checkpoint of a database that nobody writes, by the number of its SST files, and by their size."""
    database, made = bench.place("idle"), bench.place("checkpoint")
    for count, file_bytes in bench.sizes.checkpoints:
        make_database(database, count, file_bytes)
        ours = [sys.executable, "-m", "benchmarks.ours", "checkpoint", str(database), str(made)]
        theirs = [sys.executable, "-m", "benchmarks.theirs", "checkpoint", str(database), str(made)]
        bare = [sys.executable, "-m", "benchmarks.theirs", "system_calls", str(database), str(made)]
        contenders = {
            OURS: lambda command=ours: run(command, own_clock=True),
            "rocksdict create_checkpoint, without the opening": lambda command=theirs: run(command, own_clock=True),
            "its system calls alone, in Python": lambda command=bare: run(command, own_clock=True),
            "cp -r": lambda: run(["cp", "-r", str(database), str(made)]),
        }
        times = 10 if count < _MANY_FILES else 1
        samples = bench.alternate(contenders, prepare=lambda: _remove_from_disk(made), times=times)
        targets = {"rocksdict create_checkpoint, without the opening": 0.5}
        what = f"checkpoint of an idle database, {count:,} SST files of {file_bytes / 1000:,.0f} kB"
        yield Row(what, samples, targets)
        _remove(made)
        shutil.rmtree(database)


def busy(bench: Bench) -> Iterator[Row]:
    """Yield what a checkpoint costs the writer: seconds for a million keys, with one every second and without."""
    seconds = bench.sizes.writer_seconds
    contenders = {
        OURS: lambda: _write(bench, seconds, checkpoints=True),
        WITHOUT: lambda: _write(bench, seconds, checkpoints=False),
        AGAIN: lambda: _write(bench, seconds, checkpoints=False),
    }
    samples = bench.alternate(contenders)
    yield Row("a writer's million keys, checkpointed each second", samples)
    spread = [a.seconds / b.seconds for a, b in zip(samples[WITHOUT], samples[AGAIN], strict=True)]
    print(f"A/A: {statistics.median(spread):.2f} ({min(spread):.2f} to {max(spread):.2f})", flush=True)


def _write(bench: Bench, seconds: float, *, checkpoints: bool) -> Sample:
    """Let a process write as fast as it can; the sample's seconds are those for a million keys."""
    database = bench.place("busy")
    command = [sys.executable, "-c", WRITER, str(database), str(seconds)]
    figures: dict[str, float] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None  # noqa: S101 -- for the type checker
        assert child.stdout is not None  # noqa: S101 -- for the type checker
        child.stdout.readline()
        child.stdin.write("\n")
        child.stdin.flush()
        if checkpoints:
            made, lasts = str(bench.place("checkpoint")), str(seconds - 0.5)
            figures |= run([sys.executable, "-m", "benchmarks.ours", "checkpoints", str(database), made, lasts]).figures
        keys = int(child.stdout.readline())
    shutil.rmtree(database)
    return Sample(seconds / keys * 1e6, 0.0, 0, {**figures, "keys_per_second": keys / seconds})


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _remove_from_disk(directory: Path) -> None:
    """Remove what the one before has made, from the disk, too: its writes are not to be waited for by the next."""
    _remove(directory)
    os.sync()
