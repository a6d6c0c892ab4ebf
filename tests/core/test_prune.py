"""Prune on real repositories: what goes, when, and what stays whatever the policy says; judged by stock RocksDB."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from rocksdict import Rdict

from airflow_provider_rocksdb.core import prune, repository_marks
from airflow_provider_rocksdb.core.errors import CancelledError, CouldNotCheckError, InvalidArgumentError, NotFoundError
from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.prune_result import Amount, PruneResult
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.repository_marks import LastLook
from airflow_provider_rocksdb.core.retention import RetentionPolicy
from airflow_provider_rocksdb.core.storage import Storage
from tests.core.databases import DYING, NOBODY, run_child, start_child
from tests.core.repositories import (
    ONCE,
    QUICK,
    WatchedFileSystem,
    aimrocks,
    build_old,
    grow,
    list_with_aimrocks,
    read_local_meta,
    restore_with_aimrocks,
    restore_with_ldb,
    take,
)
from tests.servers import Server

LOCAL = LocalFileSystem()
LAST = RetentionPolicy(keep_last=1)
HOUR, DAY = 3600.0, 86400.0


def age(place: Path, seconds: float) -> None:
    """Let time pass: everything that lies there is older by so much."""
    for path in place.rglob("*"):
        status = path.stat()
        os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def tree(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def prune_now(repository: Path, policy: RetentionPolicy = LAST, **options: Any) -> PruneResult:
    return prune_backups(LOCAL, str(repository), policy, **{"options": QUICK, **options})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Rdict]:
    """Open a database with keys 0-999 in an SST file and 1000-1499 in the WAL."""
    made = build_old(str(tmp_path / "db"))
    yield made
    made.close()


@pytest.fixture
def repository(tmp_path: Path, database: Rdict) -> Path:
    """Back it up, and again after a compaction that has replaced its SST file: 1,500 and 2,000 keys."""
    place = tmp_path / "repository"
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "1")), LOCAL, str(place))
    replace_files(database)
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "2")), LOCAL, str(place))
    return place


def replace_files(database: Rdict) -> None:
    grow(database, 0, 2000)  # what overlaps is not merely moved
    database.compact_range(None, None)


def test_marks_then_deletes(repository: Path, tmp_path: Path) -> None:
    """The first prune deletes the meta and marks; one a day later deletes; stock RocksDB restores what is kept."""
    before = tree(repository)
    listed = {file.path for file in read_local_meta(repository, 2).files}
    old = {file.path for file in read_local_meta(repository, 1).files} | {"private/1/checkpoint.json"}
    old |= {"private/1/rocksdict-config.json"}
    result = prune_now(repository)
    assert (result.removed_backups, result.plan.kept, result.failures) == ((1,), (2,), ())
    marks = {path for path in tree(repository) if path.startswith("unreferenced/")}
    assert len(marks) == 2
    assert tree(repository) == before - {"meta/1"} | marks
    assert result.marked == Amount(len(old), sum(os.path.getsize(repository / path) for path in old))
    assert (result.removed, result.waiting, result.kept.objects) == (Amount(), Amount(), 1)
    age(repository, DAY - HOUR)
    assert prune_now(repository).waiting == result.marked
    age(repository, HOUR)
    second = prune_now(repository)
    assert (second.removed, second.waiting, second.marked) == (result.marked, Amount(), Amount())
    assert tree(repository) == before - {"meta/1"} - old
    assert listed <= tree(repository)
    assert list_with_aimrocks(repository) == [2]
    assert restore_with_ldb(repository, tmp_path / "restored") == 2000


def test_dry_run_tells_the_same(repository: Path) -> None:
    """A dry run changes nothing, and says what a prune at that time then does."""
    for _ in range(2):
        before = {path: os.stat(repository / path).st_mtime_ns for path in tree(repository)}
        told = prune_now(repository, dry_run=True)
        assert {path: os.stat(repository / path).st_mtime_ns for path in tree(repository)} == before
        done = prune_now(repository)
        assert (told.dry_run, told.plan, told.removed_backups) == (True, done.plan, done.removed_backups)
        assert (told.marked, told.removed, told.waiting) == (done.marked, done.removed, done.waiting)
        age(repository, DAY + HOUR)
    assert done.removed.objects == 8


def test_needed_again(repository: Path, tmp_path: Path) -> None:
    """A backup of a checkpoint whose SST file is marked for long reuses it, and takes it out of the prune's way."""
    prune_now(repository)
    age(repository, DAY + HOUR)
    result = create_backup(read_inventory(str(tmp_path / "1")), LOCAL, str(repository), allow_other_source=True)
    assert result.reused_files == 1
    assert not list((repository / "unreferenced").glob("reserved.*"))
    result = prune_now(repository, RetentionPolicy(keep_last=2))
    assert (result.removed.objects, result.kept.objects) == (7, 2)
    assert tree(repository / "unreferenced") == set()
    assert restore_with_aimrocks(repository, 3, tmp_path / "restored") == 1500


def test_written_since_the_mark(repository: Path) -> None:
    """An object that was written again since its mark, by a program that knows no marks, gets the whole time again."""
    prune_now(repository)
    age(repository, DAY + HOUR)
    (shared,) = {file.path for file in read_local_meta(repository, 2).files if file.path.startswith("shared")}
    (again,) = {path for path in tree(repository) if path.startswith("shared")} - {shared}
    os.utime(repository / again)
    result = prune_now(repository)
    assert (result.marked.objects, result.removed.objects) == (1, 7)
    assert again in tree(repository)
    age(repository, DAY + HOUR)
    assert prune_now(repository).removed.objects == 1


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_clock_of_the_host(repository: Path, monkeypatch: pytest.MonkeyPatch, skew: float) -> None:
    """A host whose clock is an hour off waits as long as any other: the store's clock counts."""

    class Clock:
        monotonic = time.monotonic

        @staticmethod
        def time() -> float:
            return time.time() + skew

    monkeypatch.setattr(prune, "time", Clock)
    prune_now(repository)
    age(repository, DAY - HOUR / 2)
    assert prune_now(repository).removed == Amount()
    age(repository, HOUR)
    assert prune_now(repository).removed.objects == 8


@pytest.mark.parametrize("kind", ["s3", "sftp", "webdav", "ftp"])
def test_servers(kind: str, request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> None:
    """On real servers, too, a prune marks, one a day later deletes, and stock RocksDB restores what is left."""
    server: Server = request.getfixturevalue(f"{kind}_server")
    shutil.copytree(repository, server.behind, dirs_exist_ok=True)
    age(server.behind, HOUR)
    filesystem = fsspec.filesystem(server.protocol, **server.storage_options)
    first = prune_backups(filesystem, server.place, LAST, options=QUICK)
    assert (first.removed_backups, first.marked.objects, first.failures) == ((1,), 8, ())
    again = prune_backups(filesystem, server.place, LAST, options=QUICK)
    assert (again.waiting.objects, again.removed, again.failures) == (8, Amount(), ())
    age(server.behind, DAY + HOUR)
    second = prune_backups(filesystem, server.place, LAST, options=QUICK)
    assert (second.removed.objects, second.failures) == (8, ())
    assert {path.partition("/")[0] for path in tree(server.behind)} == {"meta", "private", "shared_checksum"}
    assert restore_with_ldb(server.behind, tmp_path / "restored") == 2000


def stock_repository(tmp_path: Path) -> Path:
    """Have stock RocksDB make three backups (schema 1), each with an SST file of its own, of 100, 200 and 300 keys."""
    place = tmp_path / "stock"
    for number in (1, 2, 3):
        for _ in range(number):  # each opening takes file numbers
            database = aimrocks.DB(str(tmp_path / f"stock-db-{number}"), aimrocks.Options(create_if_missing=True))
            del database
        database = aimrocks.DB(str(tmp_path / f"stock-db-{number}"), aimrocks.Options())
        for key in range(100 * number):
            database.put(b"%06d" % key, b"value")
        aimrocks.BackupEngine(str(place)).create_backup(database, flush_before_backup=True)
        del database
    return place


def to_old_names(place: Path) -> None:
    """Rename the SST files as BackupEngine names them without ``share_files_with_checksum``."""
    (place / "shared").mkdir()
    for meta in (place / "meta").iterdir():
        text = meta.read_text()
        for path in re.findall("shared_checksum/[^ ]+", text):
            old = f"shared/{path.partition('/')[2].partition('_')[0]}.sst"
            os.rename(place / path, place / old)
            text = text.replace(path, old)
        meta.write_text(text)


@pytest.mark.parametrize("names", ["shared_checksum", "shared"])
def test_backups_of_stock(tmp_path: Path, names: str) -> None:
    """Backups that stock RocksDB made are pruned as ours are; stock lists and restores what is kept."""
    place = stock_repository(tmp_path)
    if names == "shared":
        to_old_names(place)
    assert len(os.listdir(place / names)) == 3
    result = prune_now(place, RetentionPolicy(keep_last=2))
    assert (result.removed_backups, result.plan.kept) == ((1,), (3, 2))
    age(place, DAY + HOUR)
    assert prune_now(place, RetentionPolicy(keep_last=2)).removed.objects == 4
    assert len(os.listdir(place / names)) == 2
    assert list_with_aimrocks(place) == [2, 3]
    assert restore_with_aimrocks(place, 2, tmp_path / "restored") == 200
    assert restore_with_aimrocks(place, 3, tmp_path / "restored") == 300


def purge_with_librocksdb(place: Path, keep: int) -> None:
    """Let stock RocksDB 7.8 purge all but the newest backups, through its C API."""
    found = ctypes.util.find_library("rocksdb")
    if found is None:
        pytest.skip("needs librocksdb7.8")
    library, error = ctypes.CDLL(found), ctypes.c_char_p()
    for name in ("rocksdb_options_create", "rocksdb_backup_engine_open"):
        getattr(library, name).restype = ctypes.c_void_p
    options = ctypes.c_void_p(library.rocksdb_options_create())
    engine = ctypes.c_void_p(library.rocksdb_backup_engine_open(options, os.fsencode(place), ctypes.byref(error)))
    assert not error.value, error.value
    library.rocksdb_backup_engine_purge_old_backups(engine, ctypes.c_uint32(keep), ctypes.byref(error))
    assert not error.value, error.value
    library.rocksdb_backup_engine_close(engine)


def purge_with_aimrocks(place: Path, keep: int) -> None:
    aimrocks.BackupEngine(str(place)).purge_old_backups(keep)


@pytest.mark.parametrize("purge", [purge_with_aimrocks, purge_with_librocksdb])
def test_stock_purges_among_marks(
    repository: Path, database: Rdict, tmp_path: Path, purge: Callable[[Path, int], None]
) -> None:
    """Stock RocksDB purges a repository with marks in it: it leaves these alone, and the rest can be restored.

    The next prune takes the marks away of what stock has deleted.
    """
    prune_now(repository)
    replace_files(database)
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "3")), LOCAL, str(repository))
    marks = tree(repository / "unreferenced")
    assert len(marks) == 2
    purge(repository, 1)
    assert tree(repository / "unreferenced") == marks
    assert list_with_aimrocks(repository) == [3]
    assert restore_with_ldb(repository, tmp_path / "restored") == 2000
    result = prune_now(repository)
    assert (result.failures, tree(repository / "unreferenced")) == ((), set())
    assert create_backup(take(str(tmp_path / "db"), str(tmp_path / "4")), LOCAL, str(repository)).backup_id == 4
    assert restore_with_aimrocks(repository, 4, tmp_path / "restored") == 2000


def test_unreadable_meta(repository: Path) -> None:
    """While a meta cannot be read, backups go by policy, and no object is marked or deleted; the result says so."""
    prune_now(repository)
    age(repository, DAY + HOUR)
    (repository / "meta" / "9").write_bytes(b"schema_version 3\n")
    before = tree(repository)
    result = prune_now(repository)
    assert tree(repository) == before
    assert list(result.unreadable) == [9]
    with pytest.raises(CouldNotCheckError, match="schema version"):
        result.raise_for_unreadable()
    assert "cannot be read" in "\n".join(result.lines())
    (repository / "meta" / "9").unlink()
    assert prune_now(repository).removed.objects == 8


def test_unreadable_meta_keeps_its_own(repository: Path) -> None:
    """A meta that cannot be read is no backup for the policy: one that can be is kept beside it."""
    (repository / "meta" / "2").write_bytes(b"damaged")
    result = prune_now(repository)
    assert (result.plan.kept, result.removed_backups, list(result.unreadable)) == ((1,), (), [2])


def test_foreign_things_stay(repository: Path) -> None:
    """Files and folders that neither BackupEngine nor we write are left where they are, and as they are."""
    foreign = {
        "README",
        "other/000001.sst",
        "meta/notes.txt",
        "shared_checksum/notes.txt",
        "shared_checksum/folder/000001.sst",
        "private/1/notes.txt",
        "private/notes/CURRENT",
        "private/01/CURRENT",
        "incoming/upload",
        "unreferenced/notes",
    }
    for path in foreign:
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text("mine")
    for _ in range(3):
        result = prune_now(repository)
        age(repository, DAY + HOUR)
    assert foreign <= tree(repository)
    assert result.failures == ()
    assert {path for path in tree(repository) if path.startswith("private/1/")} == {"private/1/notes.txt"}


def test_left_overs(repository: Path, database: Rdict, tmp_path: Path) -> None:
    """What killed runs have left goes a grace period after it was seen; the highest id's folder, after a new backup."""
    random = "0123456789ab"
    left = {f"private/3/claim.{random}", "private/3/CURRENT", "shared_checksum/000099_s0_5.sst"}
    left |= {f"incoming/000098.sst.{random}", f"meta/.3.{random}.tmp", f"unreferenced/.private.1.{random}.tmp"}
    for path in left:
        (repository / path).parent.mkdir(exist_ok=True)
        (repository / path).write_bytes(b"left")
    policy = RetentionPolicy(keep_last=9)
    for _ in range(2):
        assert left <= tree(repository)
        age(repository, DAY + HOUR)
        result = prune_now(repository, policy)
    assert left & tree(repository) == {"private/3/CURRENT", f"private/3/claim.{random}"}
    assert create_backup(take(str(tmp_path / "db"), str(tmp_path / "4")), LOCAL, str(repository)).backup_id == 4
    for _ in range(2):
        age(repository, DAY + HOUR)
        result = prune_now(repository, policy)
    assert not left & tree(repository)
    assert not (repository / "private" / "3").exists()
    assert result.removed.objects == 2


def test_grace_period_of_zero(repository: Path) -> None:
    """Without a grace period, one prune deletes all at once, but what was written in the same second as its mark."""
    age(repository, HOUR)
    result = prune_now(repository, grace_seconds=0)
    assert (result.removed_backups, result.removed.objects, result.waiting) == ((1,), 8, Amount())


class Locked(WatchedFileSystem):
    """Refuses to delete some objects, or to answer."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.locked: tuple[str, ...] = ()
        self.error: type[Exception] = PermissionError

    def rm_file(self, path: str) -> None:
        if any(part in path for part in self.locked):
            raise self.error(f"{path}: is locked")
        super().rm_file(path)


@pytest.fixture
def store(repository: Path) -> Locked:
    """Copy the repository into a store in memory."""
    made = Locked()
    for path in tree(repository):
        made.pipe_file(f"/r/{path}", (repository / path).read_bytes())
    age_store(made, HOUR)
    return made


def age_store(store: Locked, seconds: float) -> None:
    for file in store.store.values():
        file.created -= timedelta(seconds=seconds)


ANNOUNCES = """
from airflow_provider_rocksdb.core.process_record import ProcessRecord
from pathlib import Path
Path(arguments["repository"], "unreferenced").mkdir()
Path(arguments["repository"], "unreferenced", "deleting.0123").write_bytes(ProcessRecord.of_this().encode())
print("deleting", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("store", ["local", "remote"])
def test_backup_after_a_killed_prune(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    """A backup waits for a prune that is deleting, and says so; not for one whose process, on this host, was killed.

    A store that is not local may still have a request of it: it is given a minute.
    """
    child = start_child(ANNOUNCES, repository=str(repository))
    assert child.stdout is not None
    assert child.stdout.readline() == "deleting\n"
    now, waits = 0.0, []

    def wait(seconds: float, _stop: Any) -> None:
        nonlocal now
        now += seconds
        waits.append(seconds)
        if len(waits) == 3:
            child.kill()
            child.communicate()

    monkeypatch.setattr(repository_marks, "wait", wait)
    monkeypatch.setattr(repository_marks, "elapsed", lambda: now)
    caplog.set_level("INFO")
    storage = Storage(LOCAL, str(repository))
    storage.is_local = store == "local"
    LastLook(storage, "4567", QUICK, None).begin({"meta/3"})
    assert sum(waits) == (6.0 if store == "local" else 66.0)
    said = [record.message for record in caplog.records if "waiting for a prune" in record.message]
    assert len(said) == 1
    assert f"deleting.0123: waiting for a prune that may be deleting (process {child.pid} on " in said[0]
    assert re.search(r"at most (900|89\d) s$", said[0])


def test_backup_after_a_prune_that_cannot_be_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a prune that has not told its process, a backup waits as long as it may delete, and no longer."""
    (repository / "unreferenced").mkdir()
    (repository / "unreferenced" / "deleting.0123").write_bytes(b"of another version")
    now = 0.0

    def wait(seconds: float, _stop: Any) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(repository_marks, "wait", wait)
    monkeypatch.setattr(repository_marks, "elapsed", lambda: now)
    LastLook(Storage(LOCAL, str(repository)), "4567", QUICK, None).begin({"meta/3"})
    assert now == repository_marks.WAIT_SECONDS


def test_object_lock(store: Locked) -> None:
    """What may not be deleted is named, with the reason; the rest goes, and the next prune tries again."""
    store.locked = ("/private/1/CURRENT", "/meta/1")
    kept = prune_backups(store, "/r", LAST, options=ONCE)
    assert (kept.removed_backups, kept.marked) == ((), Amount())
    assert [text.partition(":")[0] for text in kept.failures] == ["meta/1"]
    assert "is locked" in kept.failures[0]
    store.locked = store.locked[:1]
    assert prune_backups(store, "/r", LAST, options=ONCE).removed_backups == (1,)
    age_store(store, DAY + HOUR)
    result = prune_backups(store, "/r", LAST, options=ONCE)
    assert (result.removed.objects, [text.partition(":")[0] for text in result.failures]) == (1, ["private/1"])
    store.locked = ()
    result = prune_backups(store, "/r", LAST, options=ONCE)
    assert (result.removed.objects > 0, result.failures) == (True, ())
    assert not [path for path in store.store if "/private/1/" in path or "/unreferenced/" in path]


def test_storage_that_keeps_failing(store: Locked) -> None:
    """After some requests that no retry mends, the rest is left for the next prune, and the result says so."""
    for number in range(40):
        store.pipe_file(f"/r/shared_checksum/{number:06}_s0_1.sst", b"x")
    age_store(store, HOUR)
    prune_backups(store, "/r", LAST, options=ONCE)
    age_store(store, DAY + HOUR)
    store.locked, store.error = ("/shared_checksum/",), OSError
    result = prune_backups(store, "/r", LAST, options=ONCE)
    assert len(result.failures) == 11
    assert "more were not tried" in result.failures[-1]
    store.locked = ()
    assert prune_backups(store, "/r", LAST, options=ONCE).removed.objects >= 41


class Closed(Locked):
    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if path.endswith("/private/1"):
            raise PermissionError(f"{path}: is closed")
        return super().ls(path, detail=detail, **kwargs)


def test_folder_that_cannot_be_listed(store: Locked) -> None:
    """A folder that may not be looked into is reported and left alone, and stops nothing else."""
    closed = Closed()
    closed.store = store.store
    result = prune_backups(closed, "/r", LAST, options=ONCE)
    assert (result.removed_backups, result.marked.objects, len(result.failures)) == ((1,), 1, 1)
    assert "private/1: cannot be listed: PermissionError" in result.failures[0]


def test_listing_that_takes_too_long(store: Locked, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all of the time for deleting goes into listing, nothing is deleted, and the result says why."""
    prune_backups(store, "/r", LAST, options=ONCE)
    age_store(store, DAY + HOUR)
    ticks = itertools.count(step=400)
    monkeypatch.setattr(prune, "elapsed", lambda: float(next(ticks)))
    result = prune_backups(store, "/r", LAST, options=ONCE)
    assert (result.removed, result.waiting.objects) == (Amount(), 8)
    assert "to list took" in result.failures[0]


class Timeless(Locked):
    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        return [{key: value for key, value in entry.items() if key != "created"} for entry in super().ls(path)]


def test_store_without_times(store: Locked) -> None:
    """On a store that does not tell when an object was written, backups go by policy, and objects stay."""
    timeless = Timeless()
    timeless.store = store.store
    result = prune_backups(timeless, "/r", LAST, options=ONCE)
    assert (result.removed_backups, result.marked, len(result.failures)) == ((1,), Amount(), 2)
    assert "does not tell" in result.failures[0]


def test_read_only(repository: Path, public_path: Path) -> None:
    """Where this user may only read, everything that could not be done is reported, and nothing is raised."""
    shutil.copytree(repository, public_path / "repository")
    for path in [public_path / "repository", *(public_path / "repository").rglob("*")]:
        path.chmod(0o755)
    code = """
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.retention import RetentionPolicy
result = prune_backups(LocalFileSystem(), arguments["repository"], RetentionPolicy(keep_last=1))
print(json.dumps(result.to_dict()))
"""
    before = tree(public_path / "repository")
    done = run_child(code, uid=NOBODY, repository=str(public_path / "repository"))
    result = json.loads(done.stdout)
    assert (result["removed_backups"], result["marked"]["objects"]) == ([], 0)
    assert (
        "meta/1: Permission" in result["failures"][0].replace("AccessError: ", "") or "denied" in result["failures"][0]
    )
    assert tree(public_path / "repository") == before


def test_killed_anywhere(repository: Path, tmp_path: Path) -> None:
    """A prune that is killed (-9) at any change it makes harms no backup, and the next one leaves nothing behind."""
    code = (
        DYING
        + """
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.retention import RetentionPolicy
def work():
    prune_backups(LocalFileSystem(), arguments["repository"], RetentionPolicy(keep_last=1))
print(dies(work, arguments["number"]))
"""
    )
    number, died = 0, True
    while died:
        place = tmp_path / f"killed-{number}"
        shutil.copytree(repository, place)
        prune_now(place)
        age(place, DAY + HOUR)
        died = run_child(code, repository=str(place), number=number).stdout == "True\n"
        assert list_with_aimrocks(place) == [2]
        for _ in range(3):
            age(place, DAY + HOUR)
            assert prune_now(place).failures == ()
        assert {path.partition("/")[0] for path in tree(place)} == {"meta", "private", "shared_checksum"}
        assert os.listdir(place / "private") == ["2"]
        shutil.rmtree(place)
        number += 1
    assert number > 10


def test_no_repository(tmp_path: Path) -> None:
    """A place without any backup is an error: it may be the wrong one."""
    with pytest.raises(NotFoundError, match="is this the backup repository"):
        prune_now(tmp_path)
    assert os.listdir(tmp_path) == []


def test_stop(repository: Path) -> None:
    """A prune that is told to stop raises, and leaves no announcement behind."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        prune_now(repository, stop=stop)
    assert (repository / "meta" / "1").exists()


@pytest.mark.parametrize("grace_seconds", [-1, float("nan"), float("inf")])
def test_bad_grace_period(repository: Path, grace_seconds: float) -> None:
    """A grace period that is no number from 0 is refused."""
    with pytest.raises(InvalidArgumentError, match="grace_seconds"):
        prune_now(repository, grace_seconds=grace_seconds)


def test_result(repository: Path) -> None:
    """The result goes through JSON unchanged, can be cut, and reads as a table."""
    result = prune_now(repository, dry_run=True)
    values = result.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert [item["action"] for item in values["plan"]] == ["keep", "remove"]
    assert result.to_dict(limit=1)["left_out"] == {"plan": 1}
    assert len(result.to_dict(limit=1)["plan"]) == 1
    head, first, second, end = result.lines()
    assert head.split() == ["backup", "time", "reasons"]
    assert (first.split()[0], first.split()[2:]) == ("2", ["keep", "last"])
    assert second.endswith("remove  no rule keeps it")
    assert end.startswith("1 of 2 backups would be removed; ")


@pytest.mark.parametrize(
    "entry",
    [
        {"mtime": 1700000000.5},
        {"LastModified": datetime.fromtimestamp(1700000000.5, UTC)},
        {"last_modified": datetime.fromtimestamp(1700000000.5, UTC).replace(tzinfo=None)},
        {"modify": "20231114221320.500"},
        {"modify": "20231114221320", "created": 1},
    ],
)
def test_times_of_drivers(entry: dict[str, Any]) -> None:
    """Every driver's way to tell a time means the same second."""
    assert int(read_time(entry) or 0) == 1700000000


def read_time(entry: dict[str, Any]) -> float | None:
    class One(WatchedFileSystem):
        def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
            return [{"name": f"{path}/x", "type": "file", "size": 1, **entry}]

    return Storage(One(), "/r").list_entries("meta")["x"].modified


@pytest.mark.parametrize("entry", [{}, {"modify": "Nov 14 22:13"}, {"mtime": None}])
def test_no_time(entry: dict[str, Any]) -> None:
    """What is no time is none."""
    assert read_time(entry) is None
