"""What is done under faults, and how it is judged.

Each scenario begins with a store in a known state, does one thing while requests fail by a schedule, as a scheduler
would do it: again, when the error says that another try may help. Then, without faults: what is committed is whole, and
so is what was there before; the same thing, done again, succeeds.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.archive_reader import check_archive
from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import CouldNotCheckError, RocksDBError, TransferError
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.repository_listing import list_backups
from airflow_provider_rocksdb.core.repository_marks import LastLook, list_marks
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.retention import RetentionPolicy
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions
from airflow_provider_rocksdb.core.verify import verify_backups
from tests.core.databases import count_keys
from tests.core.repositories import build_old, grow, list_with_aimrocks, restore_with_aimrocks, take
from tests.faults.filesystem import FaultyFileSystem, Kind, Objects, Schedule

OPTIONS = TransferOptions(max_workers=2, backoff_seconds=0.0)
ROOT = "bucket/repository"
ARCHIVE = "bucket/archives/db.tar.gz"
RUNS = 3  # of a task: one, and two retries
STOCK_EVERY = 50  # schedules between two that stock RocksDB judges, which takes long
KEYS = (1500, 2500)  # in the first and in the second backup
_KINDS: tuple[Kind, ...] = ("object store", "server")
_NEWEST, _ALL = RetentionPolicy(keep_last=1), RetentionPolicy(keep_last=99)
_SECOND_META = f"{ROOT}/meta/2"


@dataclass
class World:
    """Two checkpoints of a database, and stores in which they were backed up."""

    place: Path
    checkpoints: tuple[Inventory, Inventory]
    stores: dict[tuple[str, Kind], Objects] = field(default_factory=dict)
    usual: dict[tuple[str, Kind], int] = field(default_factory=dict)  # requests, when nothing fails


@dataclass
class Seen:
    """What came of one scenario's schedules."""

    schedules: int = 0
    faults: int = 0
    committed: int = 0
    succeeded: int = 0
    most_requests: float = 0.0  # of one run, as a multiple of what is usual
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def build_world(place: Path) -> World:
    """Make what every schedule begins with."""
    database = build_old(str(place / "db"))
    first = take(str(place / "db"), str(place / "checkpoint-1"))
    grow(database, 1500, 2500)
    second = take(str(place / "db"), str(place / "checkpoint-2"))
    world = World(place, (first, second))
    for kind in _KINDS:
        empty = Objects()
        one, two = empty.copy(), empty.copy()
        create_backup(first, _quiet(one, kind), ROOT, options=OPTIONS)
        for inventory in (first, second):
            create_backup(inventory, _quiet(two, kind), ROOT, options=OPTIONS)
        upload_archive(second, _quiet(two, kind), ARCHIVE, options=OPTIONS)
        for name, objects in (("empty", empty), ("one", one), ("two", two), ("reserved", _reserve(two, kind))):
            world.stores[name, kind] = objects
    return world


def _reserve(two: Objects, kind: Kind) -> Objects:
    """Make a store in which the second backup has reserved what its meta is going to name, all of which is marked."""
    objects = two.copy()
    objects.remove(_SECOND_META)
    prune_backups(_quiet(objects, kind), ROOT, _ALL, options=OPTIONS)
    storage = Storage(_quiet(objects, kind), ROOT)
    LastLook(storage, "0123456789abcdef", OPTIONS, None).begin(list_marks(storage, OPTIONS, None).marked)
    return objects


def _quiet(objects: Objects, kind: Kind) -> FaultyFileSystem:
    return FaultyFileSystem(objects, Schedule(0), kind)


@dataclass
class Scenario:
    """One thing done under one schedule."""

    world: World
    objects: Objects
    kind: Kind
    schedule: Schedule

    begins = "empty"

    @property
    def filesystem(self) -> FaultyFileSystem:
        return FaultyFileSystem(self.objects, self.schedule, self.kind)

    @property
    def quiet(self) -> FaultyFileSystem:
        return _quiet(self.objects, self.kind)

    def run(self) -> Any:
        """Do it once."""
        raise NotImplementedError

    def judge(self) -> bool:
        """Look at what is there; return whether the thing is done."""
        raise NotImplementedError

    def check_answer(self, answer: Any) -> None:
        """Look at what a run without an error has answered."""

    def finish(self) -> None:
        """Do it again without faults, and look again."""
        self.schedule.rate, self.schedule.outage = 0.0, (0, 0)
        self.check_answer(self.run())
        assert self.judge(), "is not done after an undisturbed run"

    def whole_backups(self) -> list[int]:
        """Ids of the backups, all of which must be whole."""
        if not list_backups(self.quiet, ROOT):
            return []
        report = verify_backups(self.quiet, ROOT, all_backups=True, level="checksums", options=OPTIONS)
        assert report.state is State.COMPLETE, f"verify says {report.state}: {report.problems[:3]}"
        return list(report.backup_ids)

    def stock_restores(self, keys: dict[int, int]) -> None:
        """Let stock RocksDB restore backups; they must have so many keys."""
        place = self.world.place / "stock"
        shutil.rmtree(place, ignore_errors=True)
        for name, data in self.objects.contents.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        assert list_with_aimrocks(place / ROOT) == sorted(keys)
        for backup_id, count in keys.items():
            assert restore_with_aimrocks(place / ROOT, backup_id, self.world.place / "restored") == count


class Backup(Scenario):
    """The first backup of a repository: after a failure there is none, or it is whole."""

    inventory = 0
    before: tuple[int, ...] = ()

    def run(self) -> Any:
        return create_backup(self.world.checkpoints[self.inventory], self.filesystem, ROOT, options=OPTIONS)

    def judge(self) -> bool:
        ids = self.whole_backups()
        assert ids[: len(self.before)] == list(self.before), f"backups {ids}"
        return len(ids) > len(self.before)

    def check_answer(self, answer: Any) -> None:
        assert answer.backup_id in self.whole_backups(), f"backup {answer.backup_id} was reported, and is not there"

    def finish(self) -> None:
        super().finish()
        if self.schedule.seed % STOCK_EVERY == 0:
            found = self.whole_backups()
            self.stock_restores({i: KEYS[0 if i in self.before else self.inventory] for i in found})
        for _ in range(2):
            prune_backups(self.quiet, ROOT, _ALL, grace_seconds=0)
        litter = [name for name in self.objects.contents if "/incoming/" in name or "/unreferenced/" in name]
        assert not litter, f"litter: {litter}"
        self.whole_backups()


class SecondBackup(Backup):
    """A backup in a repository that has one: that one stays whole."""

    begins = "one"
    inventory = 1
    before = (1,)


class Verify(Scenario):
    """Two whole backups: a verification says so, or that it could not look; never that they are damaged."""

    begins = "two"

    def run(self) -> Any:
        return verify_backups(self.filesystem, ROOT, all_backups=True, level="checksums", options=OPTIONS)

    def check_answer(self, answer: Any) -> None:
        assert answer.state in (State.COMPLETE, State.COULD_NOT_CHECK), f"{answer.state}: {answer.problems[:3]}"
        if answer.state is State.COULD_NOT_CHECK:
            raise CouldNotCheckError("could not look")
        assert answer.backup_ids == (1, 2), f"only {answer.backup_ids} were looked at"

    def judge(self) -> bool:
        return self.whole_backups() == [1, 2]


class Prune(Scenario):
    """Of two backups the newer stays, and what it needs; what cannot be read is not deleted."""

    begins = "two"

    def run(self) -> Any:
        return prune_backups(self.filesystem, ROOT, _NEWEST, grace_seconds=0, options=OPTIONS)

    def check_answer(self, answer: Any) -> None:
        if answer.failures or answer.unreadable:
            raise TransferError(f"{answer.failures[:2]} {answer.unreadable}")

    def judge(self) -> bool:
        ids = self.whole_backups()
        assert ids in ([1, 2], [2]), f"backups {ids}"
        return ids == [2]

    def finish(self) -> None:
        super().finish()
        self.check_answer(self.run())
        left = [name.removeprefix(f"{ROOT}/") for name in self.objects.contents]
        # the sign of a prune whose storage died: the next one deletes it when it is old
        litter = [n for n in left if n.startswith(("unreferenced/shared", "unreferenced/private", "private/1/"))]
        assert not litter, f"litter: {litter}"
        if self.schedule.seed % STOCK_EVERY == 0:
            self.stock_restores({2: KEYS[1]})


class PruneBesideBackup(Scenario):
    """A backup has reserved what it needs, and writes its meta only later: a prune meanwhile deletes none of it."""

    begins = "reserved"

    def run(self) -> Any:
        return prune_backups(self.filesystem, ROOT, _ALL, grace_seconds=0, options=OPTIONS)

    def check_answer(self, answer: Any) -> None:
        if answer.failures or answer.unreadable:
            raise TransferError(f"{answer.failures} {answer.unreadable}")

    def judge(self) -> bool:
        before = self.objects.copy()
        self.objects.put(_SECOND_META, self.world.stores["two", self.kind].contents[_SECOND_META])
        try:
            return self.whole_backups() == [1, 2]
        finally:
            self.objects.__dict__ |= before.__dict__


@dataclass
class Restore(Scenario):
    """A database is replaced: it is the old one or the newest backup, whole; never an older backup."""

    begins = "two"

    def __post_init__(self) -> None:
        self.target = self.world.place / "service" / "db"
        shutil.rmtree(self.target.parent, ignore_errors=True)
        shutil.copytree(self.world.checkpoints[0].directory, self.target)
        (self.target / "checkpoint.json").unlink()
        self.old = _tables(self.target)
        self.new = _tables(Path(self.world.checkpoints[1].directory))

    def run(self) -> Any:
        return restore_backup(self.filesystem, ROOT, DatabasePaths(str(self.target)), replace=True, options=OPTIONS)

    def check_answer(self, answer: Any) -> None:
        assert answer.backup_id in (2, None), f"backup {answer.backup_id} was restored"
        assert not answer.skipped_backups, f"passed over: {answer.skipped_backups}"
        assert self.judge(), "the old database is still there"

    def judge(self) -> bool:
        found = check_completeness(str(self.target), level="checksums")
        assert found.state is State.COMPLETE, f"{found.state}: {found.problems[:3]}"
        tables = _tables(self.target)
        assert tables in (self.old, self.new), f"neither the old database nor the new one: {tables}"
        return tables == self.new

    def finish(self) -> None:
        super().finish()
        assert os.listdir(self.target.parent) == ["db"], "litter"
        if self.schedule.seed % STOCK_EVERY == 0:
            assert count_keys(str(self.target))["default"] == KEYS[1]


class RestoreArchive(Restore):
    """The same from an archive."""

    def run(self) -> Any:
        return restore_backup(self.filesystem, ARCHIVE, DatabasePaths(str(self.target)), replace=True, options=OPTIONS)


class Archive(Scenario):
    """An archive is there whole, or not at all."""

    def run(self) -> Any:
        return upload_archive(self.world.checkpoints[1], self.filesystem, ARCHIVE, options=OPTIONS)

    def check_answer(self, answer: Any) -> None:
        assert self.judge(), "was reported, and is not there"

    def judge(self) -> bool:
        if ARCHIVE not in self.objects.contents:
            return False
        check_archive(self.quiet, ARCHIVE)
        return True

    def finish(self) -> None:
        super().finish()
        assert list(self.objects.contents) == [ARCHIVE], f"litter: {list(self.objects.contents)}"


class Directory(Scenario):
    """A checkpoint as it is: CURRENT comes last, so that what has one is whole."""

    def run(self) -> Any:
        return upload_directory(self.world.checkpoints[1], self.filesystem, ROOT, options=OPTIONS)

    def check_answer(self, answer: Any) -> None:
        assert self.judge(), "was reported, and is not there"

    def judge(self) -> bool:
        if f"{ROOT}/CURRENT" not in self.objects.contents:
            return False
        report = verify_backups(self.quiet, ROOT, level="checksums", options=OPTIONS)
        assert (report.state, report.layout) == (State.COMPLETE, "directory"), f"{report.state}: {report.problems[:3]}"
        return True


SCENARIOS: dict[str, type[Scenario]] = {
    "backup": Backup,
    "second backup": SecondBackup,
    "verify": Verify,
    "prune": Prune,
    "prune beside a backup": PruneBesideBackup,
    "restore": Restore,
    "archive": Archive,
    "restore archive": RestoreArchive,
    "directory": Directory,
}


def _tables(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir() if path.suffix == ".sst"}


def run_schedule(world: World, name: str, seed: int, seen: Seen, draw: Callable[[int], Schedule]) -> None:
    """Run one schedule; note what is wrong."""
    kind = _KINDS[seed % 2]
    usual = _usual_requests(world, name, kind)
    schedule = draw(seed)
    scenario = _begin(world, name, kind, schedule)
    try:
        for _ in range(RUNS):
            asked = schedule.requests.total()
            has_ended = _run_once(scenario, seen)
            times = (schedule.requests.total() - asked) / usual
            seen.most_requests = max(seen.most_requests, times)
            seen.committed += scenario.judge()
            if has_ended:
                break
        scenario.finish()
    except Exception as error:  # noqa: BLE001 -- one row of the table
        seen.wrong.append(f"{name}, seed {seed}, {kind}, {schedule.failed}: {type(error).__name__}: {error}")
    seen.schedules += 1
    seen.faults += schedule.failed.total()


def _begin(world: World, name: str, kind: Kind, schedule: Schedule) -> Scenario:
    make = SCENARIOS[name]
    return make(world, world.stores[make.begins, kind].copy(), kind, schedule)


def _usual_requests(world: World, name: str, kind: Kind) -> int:
    if (name, kind) not in world.usual:
        scenario = _begin(world, name, kind, Schedule(0))
        scenario.run()
        world.usual[name, kind] = scenario.schedule.requests.total()
    return world.usual[name, kind]


def _run_once(scenario: Scenario, seen: Seen) -> bool:
    """Run a task once; return whether a scheduler would leave it at that."""
    try:
        scenario.check_answer(scenario.run())
    except RocksDBError as error:
        seen.errors[type(error).__name__] += 1
        if not error.transient and not isinstance(error, CouldNotCheckError):
            raise AssertionError(f"would not be tried again: {error!r}") from error
        return False
    seen.succeeded += 1
    return True
