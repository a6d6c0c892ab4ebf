"""What the crash harness does for each command: run it, kill it, judge what is left, run it again, judge that."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_rocksdb.__main__ import main
from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.format.filename import parse_file_name
from tests.core.databases import count_keys, wait_until
from tests.core.repositories import list_with_aimrocks, read_local_meta, restore_with_aimrocks

_WRITER = """
import os, sys, time
from rocksdict import BlockBasedOptions, Options, Rdict
table = BlockBasedOptions()
table.set_format_version(5)
options = Options(raw_mode=True)
options.set_write_buffer_size(64 * 1024)
options.set_block_based_table_factory(table)
database = Rdict(sys.argv[1], options)
acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
number, parent = 0, os.getppid()
while os.getppid() == parent:
    for number in range(number, number + 50):
        database[b"%09d" % number] = b"value-%09d" % number
    number += 1
    os.pwrite(acknowledged, number.to_bytes(8, "little"), 0)
    time.sleep(0.02)
"""

_ADD_KEY = """
import sys
from rocksdict import Options, Rdict
Rdict(sys.argv[1], Options(raw_mode=True))[sys.argv[2].encode()] = b""
"""


@dataclass
class Seen:
    """What came of one scenario."""

    killed: int = 0
    too_late: int = 0
    committed: int = 0
    keys: int = 0
    wrong: list[str] = field(default_factory=list)


class Writer:
    """A process that writes keys 0, 1, 2… and tells outside the database how many are in."""

    def __init__(self, place: Path) -> None:
        self.db_dir = str(place / "db")
        self._acknowledged = place / "acknowledged"
        self._process = subprocess.Popen([sys.executable, "-c", _WRITER, self.db_dir, str(self._acknowledged)])
        wait_until(lambda: self.acknowledged() > 3000)

    def acknowledged(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return int.from_bytes(self._acknowledged.read_bytes(), "little")
        return 0

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def foreign_names(self) -> list[str]:
        """Names in the DB directory that RocksDB does not know."""
        names = os.listdir(self.db_dir)
        return [name for name in names if parse_file_name(name) is None and name != "rocksdict-config.json"]


class Scenario:
    """One command, and what must hold after it was killed, and after it was run again."""

    def __init__(self, place: Path, writer: Writer) -> None:
        self.place = place
        self.writer = writer
        self.keys = 0

    def prepare(self) -> None:
        """Make what the command works on."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def committed(self) -> bool:
        """Judge what a killed command has left; return whether it was done before it was killed."""
        raise NotImplementedError

    def judge(self, acknowledged: int) -> None:
        """Judge what a second, undisturbed run has made: ``acknowledged`` keys are in, and there is no litter."""
        raise NotImplementedError

    def count(self, directory: Path) -> int:
        found = count_keys(str(directory))["default"]
        self.keys += found
        return found


class Checkpoint(Scenario):
    """An older checkpoint is replaced."""

    def prepare(self) -> None:
        self.target = self.place / "checkpoint"
        assert run_to_the_end(self.command()) == 0
        self.before = (self.target / "checkpoint.json").read_bytes()

    def command(self) -> list[str]:
        return ["checkpoint", self.writer.db_dir, str(self.target), "--replace"]

    def committed(self) -> bool:
        check_completeness(str(self.target), level="checksums").raise_for_state()
        after = (self.target / "checkpoint.json").read_bytes()
        changed, self.before = after != self.before, after
        return changed

    def judge(self, acknowledged: int) -> None:
        self.committed()
        held = self.count(self.target)
        assert held >= acknowledged, f"{acknowledged} keys were acknowledged, {held} are in the checkpoint"
        litter = [path.name for path in self.place.iterdir() if path.name.startswith("checkpoint.")]
        assert not litter, f"litter: {litter}"


class Backup(Scenario):
    """One more backup is made in a repository; stock RocksDB lists and restores it."""

    def prepare(self) -> None:
        self.repository = self.place / "repository"
        assert run_to_the_end(self.command()) == 0
        self.ids = [1]

    def command(self) -> list[str]:
        return ["backup", self.writer.db_dir, str(self.repository)]

    def committed(self) -> bool:
        before, self.ids = self.ids, self.judge_repository()
        return self.ids != before

    def judge_repository(self) -> list[int]:
        """Every file has the size that its name says, every meta is whole, and stock RocksDB agrees."""
        for path in (self.repository / "shared_checksum").iterdir():
            size = re.search(r"_(\d+)\.\w+$", path.name)
            assert size is not None, f"partial or foreign: {path}"
            assert path.stat().st_size == int(size[1]), f"partial: {path}"
        ids = sorted(int(path.name) for path in (self.repository / "meta").iterdir() if path.name.isdecimal())
        for backup_id in ids:
            for file in read_local_meta(self.repository, backup_id).files:
                assert (self.repository / file.path).stat().st_size == file.size, f"backup {backup_id}: {file.path}"
        assert list_with_aimrocks(self.repository) == ids
        return ids

    def judge(self, acknowledged: int) -> None:
        assert self.committed(), "no new backup"
        held = restore_with_aimrocks(self.repository, self.ids[-1], self.place / "restored")
        self.keys += held
        assert held >= acknowledged, f"{acknowledged} keys were acknowledged, {held} are in backup {self.ids[-1]}"
        assert not list(self.place.glob("db.checkpoints")), "a checkpoint has stayed"


class Prune(Backup):
    """Of two backups and the objects of three more, already marked, only the newest backup is left."""

    def prepare(self) -> None:
        self.repository = self.place / "repository"
        self.template = self.place / "template"
        for _ in range(5):
            before = self.writer.acknowledged()
            wait_until(lambda before=before: self.writer.acknowledged() > before + 1000)
            assert run_to_the_end(["backup", self.writer.db_dir, str(self.template)]) == 0
        shutil.copytree(self.template, self.repository)
        marking = ["prune", str(self.repository), "--keep-last", "2", "--grace-period", "1d"]
        assert run_to_the_end(marking) == 0
        shutil.rmtree(self.template)
        self.repository.rename(self.template)
        shutil.copytree(self.template, self.repository)

    def command(self) -> list[str]:
        return ["prune", str(self.repository), "--keep-last", "1", "--grace-period", "0"]

    def committed(self) -> bool:
        ids = self.judge_repository()
        assert ids in ([4, 5], [5]), f"backups {ids}"
        return ids == [5]

    def judge(self, acknowledged: int) -> None:
        assert run_to_the_end(self.command()) == 0  # what the first has marked, the second deletes
        assert self.committed(), "backup 4 is still there"
        named = {file.path for file in read_local_meta(self.repository, 5).files}
        for folder in ("shared_checksum", "private/5"):
            there = {f"{folder}/{path.name}" for path in (self.repository / folder).iterdir()}
            litter = there - named - {"private/5/checkpoint.json", "private/5/rocksdict-config.json"}
            assert not litter, f"litter: {litter}"
        assert [path.name for path in (self.repository / "private").iterdir()] == ["5"], "private folders have stayed"
        self.keys += restore_with_aimrocks(self.repository, 5, self.place / "restored")
        shutil.rmtree(self.repository)
        shutil.copytree(self.template, self.repository)


class Restore(Scenario):
    """A database is replaced by the newest backup; the old one has 1 key more than any backup."""

    def prepare(self) -> None:
        self.repository = self.place / "repository"
        self.target = self.place / "service" / "db"
        self.target.parent.mkdir()
        assert run_to_the_end(["backup", self.writer.db_dir, str(self.repository)]) == 0
        self.new = restore_with_aimrocks(self.repository, 1, self.place / "restored")
        self._put_old()

    def _put_old(self) -> None:
        """Put a database in the way that differs from the backup."""
        shutil.rmtree(self.target, ignore_errors=True)
        shutil.copytree(self.place / "restored", self.target)
        subprocess.run([sys.executable, "-c", _ADD_KEY, str(self.target), f"{self.new:09d}"], check=True)

    def command(self) -> list[str]:
        return ["restore", str(self.repository), str(self.target), "--replace"]

    def committed(self) -> bool:
        held = self.count(self.target)
        assert held in (self.new, self.new + 1), f"{held} keys are neither the old database nor the new one"
        return held == self.new

    def judge(self, acknowledged: int) -> None:
        assert self.committed(), "the old database is still there"
        litter = [path.name for path in self.target.parent.iterdir() if path != self.target]
        assert not litter, f"litter: {litter}"
        assert not [name for name in os.listdir(self.target) if parse_file_name(name) is None and name.startswith(".")]
        self._put_old()


SCENARIOS: dict[str, type[Scenario]] = {
    "checkpoint": Checkpoint,
    "backup": Backup,
    "prune": Prune,
    "restore": Restore,
}


def run_to_the_end(command: list[str]) -> int:
    return _wait(_start(command))


def _start(command: list[str]) -> int:
    """Run a command in a fork, which has its modules in memory; return the process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        if "CRASH_DEBUG" not in os.environ:
            os.dup2(null, 2)
        status = main(command)
    finally:
        os._exit(status)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[Writer]:
    writer = Writer(place)
    try:
        yield writer
    finally:
        writer.stop()


def run_scenario(name: str, place: Path, kills: int, randomness: random.Random) -> Seen:
    """Kill a command so many times; judge what is left after each."""
    seen = Seen()
    with _writing(place) as writer:
        scenario = SCENARIOS[name](place, writer)
        scenario.prepare()
        seconds = 1.0  # of the last undisturbed run
        while seen.killed < kills and len(seen.wrong) < 5:
            child = _start(scenario.command())
            time.sleep(randomness.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            if _wait(child) == -signal.SIGKILL:
                seen.killed += 1
            else:
                seen.too_late += 1
            try:
                seen.committed += scenario.committed()
                assert not writer.foreign_names(), f"in the database: {writer.foreign_names()}"
                acknowledged = writer.acknowledged()
                began = time.monotonic()
                status = run_to_the_end(scenario.command())
                seconds = time.monotonic() - began
                assert status == 0, f"the second run failed with status {status}"
                scenario.judge(acknowledged)
            except Exception as error:  # noqa: BLE001 -- one row of the table
                seen.wrong.append(f"{name}, kill {seen.killed}: {type(error).__name__}: {error}")
        seen.keys = scenario.keys
    return seen
