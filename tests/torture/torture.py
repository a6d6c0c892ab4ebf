"""Checkpoints of databases while writer processes write them, with pauses between all steps, each one judged.

A pause is not so many milliseconds but so many numbers: it lasts until the writer has written them (at most a second),
so it lets the same things happen on a fast machine and on a slow one. While a checkpoint is judged its writer is
stopped, to leave it the processor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from airflow_provider_rocksdb.core import live_checkpoint
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint
from airflow_provider_rocksdb.core.errors import RocksDBError
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from tests.core.databases import ROOT
from tests.torture.judge import Verdict, judge
from tests.torture.kinds import Kind

START_SECONDS = 0.4  # of writing before the first checkpoint, at the writer's mean rate
PAUSE_SECONDS = 0.06  # the longest random one, at the writer's mean rate
PAUSE_LIMIT_SECONDS = 1.0
TORN_BYTES = 100  # what is written of the last record when the disk is full
TIMEOUT_SECONDS = 60.0

Pause = Callable[[str, int], int]
"""``pause(step, round)`` returns for how many numbers to wait before the step."""


@dataclass
class Tally:
    """What has come out of a kind's checkpoints so far."""

    checkpoints: int = 0
    rounds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    keys: int = 0
    lost: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, made: Checkpoint | None, verdict: Verdict) -> None:
        """Count one checkpoint."""
        self.checkpoints += 1
        if made is not None:
            self.rounds.append(made.rounds)
            self.seconds.append(made.seconds)
        self.keys += verdict.keys
        self.lost += verdict.lost
        self.failed += bool(verdict.problems)
        self.problems += verdict.problems


class Running:
    """A writer process and its database, in a directory of its own."""

    def __init__(self, kind: Kind, place: str, seed: int) -> None:
        self.kind, self.place = kind, place
        self.paths = dataclasses.replace(kind.paths(place), wal_dir=None)  # OPTIONS has it
        arguments = json.dumps({"kind": kind.name, "place": place, "seed": seed})
        with open(os.path.join(place, "writer.stderr"), "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.writers", arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=errors,
                start_new_session=True,
            )

    def acknowledged(self) -> int:
        """How many numbers have been acknowledged."""
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.place, "acknowledged"), "rb") as file:
            return int.from_bytes(file.read(8), "little")
        return 0

    def wait_for(self, numbers: int, seconds: float) -> None:
        """Wait until so many more have been acknowledged.

        :raises RuntimeError: when the writer has died.
        """
        end, deadline = self.acknowledged() + numbers, time.monotonic() + seconds
        while self.acknowledged() < end and time.monotonic() < deadline:
            if self._process.poll() is not None:
                with open(os.path.join(self.place, "writer.stderr"), encoding="utf-8", errors="replace") as errors:
                    raise RuntimeError(f"the writer {self.kind.name!r} has died: {errors.read()[-1000:]}")
            time.sleep(0.001)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the writer for the length of a block."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill -9."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def fill_disk(self) -> None:
        """Let the writer's next write end in the middle, as on a full disk, of which it dies."""
        directory = self.kind.paths(self.place).wal_dir or self.paths.db_dir
        with self.stopped():
            newest = max(name for name in os.listdir(directory) if name.endswith(".log"))
            limit = os.path.getsize(os.path.join(directory, newest)) + TORN_BYTES
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PAUSE_LIMIT_SECONDS)
        self.kill()

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, number)

    def checkpoint(
        self, pause: Pause, *, timeout_seconds: float = TIMEOUT_SECONDS, linger: int = 0
    ) -> tuple[Checkpoint | None, Verdict]:
        """Take a checkpoint and judge it; pause as told, and let so many numbers pass before it is judged."""
        target = os.path.join(self.place, "checkpoint")
        before = self.acknowledged()
        try:
            with _pausing(self, pause):
                made = create_live_checkpoint(self.paths, target, timeout_seconds=timeout_seconds)
        except (RocksDBError, OSError) as error:
            return None, Verdict(problems=[f"{type(error).__name__}: {error}"])
        try:
            if linger and self._process.poll() is None:
                self.wait_for(linger, PAUSE_LIMIT_SECONDS)
            with self.stopped():
                verdict = judge(self.kind, target, before)
        finally:
            shutil.rmtree(target)
        verdict.problems += [f"damage: {item}" for item in made.damage]
        return made, verdict


@contextlib.contextmanager
def _pausing(running: Running, pause: Pause) -> Iterator[None]:
    rounds = 0
    original = live_checkpoint._step

    def step(name: str) -> None:
        nonlocal rounds
        rounds += name == "read MANIFEST"
        numbers = pause(name, rounds)
        if numbers:
            running.wait_for(numbers, PAUSE_LIMIT_SECONDS)

    live_checkpoint._step = step
    try:
        yield
    finally:
        live_checkpoint._step = original


def no_pause(_step: str, _round: int) -> int:
    """Do not pause."""
    return 0


def random_pauses(kind: Kind, chance: random.Random) -> Pause:
    """Pause before every step, ever less from round to round, so that one of them holds."""
    longest = int(kind.rate * PAUSE_SECONDS)
    return lambda _, rounds: chance.randint(0, longest) // rounds**2


@contextlib.contextmanager
def running_writer(kind: Kind, seed: int, directory: str | None = None) -> Iterator[Running]:
    """Run a writer on a new database for the length of a block; its files are removed then."""
    place = tempfile.mkdtemp(prefix="torture-", dir=directory)
    try:
        running = Running(kind, place, seed)
        try:
            running.wait_for(int(kind.rate * START_SECONDS), 60)
            yield running
        finally:
            running.kill()
    finally:
        shutil.rmtree(place)


@dataclass(frozen=True)
class Turn:
    """A number of checkpoints of one new database, the last when its writer has died: of a full disk, or by kill -9.

    Between two of them the writer goes on for a random while. ``pause``: None for random pauses. ``linger``: how many
    numbers pass between a checkpoint and its judgement.
    """

    kind: Kind
    checkpoints: int
    seed: int
    pause: Pause | None = None
    linger: int = 0
    timeout_seconds: float = TIMEOUT_SECONDS
    directory: str | None = None

    def run(self, tally: Tally, *, until_failed: bool = False) -> None:
        """Take and judge them."""
        chance = random.Random(self.seed)  # noqa: S311 -- any pauses will do
        pause = self.pause or random_pauses(self.kind, chance)
        with running_writer(self.kind, self.seed, self.directory) as running:
            for left in range(self.checkpoints, 0, -1):
                if left == 1:
                    running.kill() if self.kind.restarts or self.kind.recycles else running.fill_disk()
                    pause = no_pause
                else:
                    running.wait_for(chance.randint(0, self.kind.rate // 10), PAUSE_LIMIT_SECONDS)
                tally.add(*running.checkpoint(pause, timeout_seconds=self.timeout_seconds, linger=self.linger))
                if until_failed and tally.failed:
                    return


def table(tallies: dict[str, Tally]) -> str:
    """Lay the tallies out as a Markdown table, with a last line for all of them."""
    total = Tally()
    for tally in tallies.values():
        for name, value in vars(tally).items():
            setattr(total, name, getattr(total, name) + value)
    lines = [
        "| writer | checkpoints | rounds, median (max) | keys checked | keys lost | failed | seconds, median |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, tally in {**tallies, "all": total}.items():
        rounds = f"{statistics.median(tally.rounds):g} ({max(tally.rounds)})" if tally.rounds else ""
        seconds = f"{statistics.median(tally.seconds):.3f}" if tally.seconds else ""
        counts = f"{tally.keys:,} | {tally.lost:,} | {tally.failed:,}"
        lines.append(f"| {name} | {tally.checkpoints:,} | {rounds} | {counts} | {seconds} |")
    return "\n".join(lines)
