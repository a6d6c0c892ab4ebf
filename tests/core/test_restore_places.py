"""Restores that die at any moment, and directories of every kind: beside, mount points, several at once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from rocksdict import Options, Rdict

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import BusyError, CorruptionError, ExistsError, InvalidArgumentError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.restore_places import BLOCKED, plan_places, undo_unfinished
from airflow_provider_rocksdb.core.restore_record import RECORD_NAME, read_record
from tests.core.databases import DYING, ENDINGS, count_keys, fingerprint, mounted, names, put, run_child
from tests.core.repositories import build_old, take

LOCAL = LocalFileSystem()


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """Back up a database: keys 0-999 in an SST file, 1000-1499 in the WAL."""
    database = build_old(str(tmp_path / "db"))
    create_backup(take(database.path(), str(tmp_path / "1")), LOCAL, str(tmp_path / "repository"))
    database.close()
    return str(tmp_path / "repository")


@pytest.fixture
def place(in_memory: str) -> str:
    return in_memory


def open_with(paths: dict[str, Any], raw: bool = True) -> Rdict:
    """Open as the database's own program does, with its own directories."""
    from rocksdict import DBPath

    options = Options(raw_mode=raw)
    if "wal_dir" in paths:
        options.set_wal_dir(paths["wal_dir"])
    if "db_paths" in paths:
        options.set_db_paths([DBPath(path, 1 << 40) for path in paths["db_paths"]])
    return Rdict(paths["db_dir"], options)


def build_old_one(paths: dict[str, Any]) -> None:
    """Put a database of another time there: keys 0-99."""
    database = open_with(paths)
    put(database, 0, 50)
    database.flush()
    put(database, 50, 100)
    database.close()


def paths_of(kind: str, place: str) -> dict[str, Any]:
    paths: dict[str, Any] = {"db_dir": f"{place}/restored"}
    if "several" in kind:
        paths |= {"wal_dir": f"{place}/wal", "db_paths": [f"{place}/fast", f"{place}/slow"]}
    if "nested" in kind:
        paths |= {"wal_dir": f"{place}/restored/wal"}
    return paths


EACH_ENDING = (
    """
import hashlib
from airflow_provider_rocksdb.core import restore_places
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.transfer import TransferOptions
"""
    + DYING
    + """
place, kind = arguments["place"], arguments["kind"]
paths = DatabasePaths(arguments["paths"]["db_dir"], arguments["paths"].get("wal_dir"),
                      tuple(arguments["paths"].get("db_paths", ())))
replace, in_place = arguments["old"] is not None, "in place" in kind

def state():
    found = {}
    for directory, _, files in os.walk(place):
        for name in files:
            path = os.path.join(directory, name)
            if name != "LOCK":
                with open(path, "rb") as file:
                    found[os.path.relpath(path, place)] = hashlib.sha256(file.read()).hexdigest()
    return found

def clear():
    for name in os.listdir(place):
        path = os.path.join(place, name)
        if os.path.ismount(path):
            for inner in os.listdir(path):
                inner = os.path.join(path, inner)
                shutil.rmtree(inner) if os.path.isdir(inner) else os.unlink(inner)
        else:
            shutil.rmtree(path)
    if replace:
        shutil.copytree(arguments["old"], place, dirs_exist_ok=True)

def restore():
    restore_backup(LocalFileSystem(), arguments["repository"], paths, replace=replace, in_place=in_place, delta=replace,
                   options=TransferOptions(backoff_seconds=0))

clear()
old = state()
restore()
new = state()
counts = {"old": 0, "new": 0, "between": 0}
number = 0
while True:
    clear()
    died = dies(restore, number, arguments["ending"])
    now = state()
    inside = {name: digest for name, digest in now.items() if ".tmp/" not in name and ".restore.old/" not in name
              and os.path.basename(name) != "restore.json"}
    current = os.path.join(paths.db_dir, "CURRENT")
    blocked = os.path.exists(current) and open(current, "rb").read() == restore_places.BLOCKED
    if inside == old or (not replace and not os.path.exists(current)):
        counts["old"] += 1
    elif inside == new:
        counts["new"] += 1
    else:
        assert blocked, (number, sorted(inside))
        counts["between"] += 1
        if not in_place:
            restore_places.undo_unfinished(paths.db_dir)
            undone = {name: digest for name, digest in state().items() if ".tmp/" not in name}
            assert undone == old, (number, sorted(set(undone) ^ set(old)))
    restore()
    assert state() == new, (number, sorted(set(state()) ^ set(new)))
    litter = [name for name in os.listdir(place) if name.endswith(".tmp")]
    assert not litter, (number, litter)
    if not died:
        break
    number += 1
print(json.dumps({"number": number, **counts}))
"""
)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "kind",
    ["new", "old", "new several", "old several", "old nested", "old in place", "old several in place"],
)
def test_ended_anywhere(repository: str, place: str, tmp_path: Path, kind: str, ending: str) -> None:
    """Ended before any change of the file system, the old database is there, or the new one, or none that opens."""
    paths, old = paths_of(kind, place), None
    if "old" in kind:
        build_old_one(paths)
        old = str(tmp_path / "old")
        shutil.copytree(place, old)
    counts = run_ending(repository, place, kind, paths, old, ending)
    assert counts["number"] > 15
    assert counts["old"] > 5
    assert counts["new"] > 0
    if "several" not in kind and "in place" not in kind:
        assert counts["between"] == 0


def run_ending(
    repository: str, place: str, kind: str, paths: dict[str, Any], old: str | None, ending: str
) -> dict[str, int]:
    done = run_child(EACH_ENDING, repository=repository, place=place, kind=kind, paths=paths, old=old, ending=ending)
    assert not done.stderr, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["new", "old", "old several"])
def test_mount_point_ended_anywhere(repository: str, place: str, tmp_path: Path, kind: str, ending: str) -> None:
    """The same for a DB directory that is a mount point, whose entries are exchanged one by one."""
    paths, old = paths_of(kind, place), None
    with mounted(Path(paths["db_dir"]), "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        if "old" in kind:
            build_old_one(paths)
            old = str(tmp_path / "old")
            shutil.copytree(place, old)
        counts = run_ending(repository, place, kind, paths, old, ending)
    assert counts["new"] > 0
    assert (counts["between"] > 0) == (ending == "killed")  # else it was undone at once


@pytest.mark.parametrize("with_old", [False, True])
def test_mount_point(repository: str, other_file_system: str, with_old: bool) -> None:
    """A mount point is filled without leaving anything behind, and without touching what belongs to the volume."""
    os.mkdir(f"{other_file_system}/lost+found")
    if with_old:
        build_old_one({"db_dir": other_file_system})
    result = restore_backup(LOCAL, repository, DatabasePaths(other_file_system), replace=with_old)
    assert result.replaced == with_old
    assert count_keys(other_file_system)["default"] == 1500
    assert {name for name in os.listdir(other_file_system) if name.startswith((".", "restore"))} == set()
    assert os.path.isdir(f"{other_file_system}/lost+found")


def test_mount_point_below(repository: str, place: str) -> None:
    """A ``wal_dir`` inside the DB directory that is a volume of its own stays where it is mounted."""
    paths = paths_of("nested", place)
    os.mkdir(paths["db_dir"])
    with mounted(Path(paths["wal_dir"]), "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        build_old_one(paths)
        restore_backup(LOCAL, repository, DatabasePaths(paths["db_dir"], paths["wal_dir"]), replace=True)
        assert os.path.ismount(paths["wal_dir"])
        assert len(names(paths["wal_dir"], ".log")) == 1
        database = open_with(paths)
        assert len(list(database.keys())) == 1500
        database.close()


def test_kinds(place: str, tmp_path: Path) -> None:
    """One place for directories within each other, another for each of the others, the DB directory first."""
    nested = f"{place}/db/wal"
    places = plan_places(f"{place}/db", [f"{place}/a", nested], inside=False)
    assert [(p.root, p.kind) for p in places] == [(f"{place}/db", "beside"), (f"{place}/a", "beside")]
    with mounted(tmp_path / "volume", "-t", "tmpfs", "tmpfs") as volume:
        places = plan_places(volume, [f"{volume}/wal", f"{volume}-2"], inside=False)
        assert [(p.root, p.kind) for p in places] == [(volume, "inside"), (f"{volume}-2", "beside")]


def test_blocked_current_is_refused(repository: str, place: str) -> None:
    """What stands in CURRENT during an exchange of several renames is opened by no RocksDB, and not created over."""
    db_dir = f"{place}/restored"
    restore_backup(LOCAL, repository, DatabasePaths(db_dir))
    Path(db_dir, "CURRENT").write_bytes(BLOCKED)
    before = set(os.listdir(db_dir))
    with pytest.raises(Exception, match="CURRENT file corrupted"):
        Rdict(db_dir, Options(raw_mode=True))
    assert {name for name in os.listdir(db_dir) if name.endswith((".sst", ".log"))} <= before
    assert Path(db_dir, "CURRENT").read_bytes() == BLOCKED


def test_without_exchange(repository: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no atomic exchange, two renames do it."""

    class NoExchange:
        @staticmethod
        def renameat2(*_: Any) -> int:
            import ctypes
            import errno

            ctypes.set_errno(errno.EINVAL)
            return -1

    build_old_one({"db_dir": f"{place}/restored"})
    monkeypatch.setattr(durable, "_libc", NoExchange)
    restore_backup(LOCAL, repository, DatabasePaths(f"{place}/restored"), replace=True)
    assert count_keys(f"{place}/restored")["default"] == 1500
    assert os.listdir(place) == ["restored"]


def test_exchange_fails_halfway(repository: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second of several directories cannot be exchanged, the first one is put back."""
    paths = paths_of("several", place)
    build_old_one(paths)
    before = {path: seen for path, seen in fingerprint(place).items() if os.path.isfile(path)}
    real, calls = durable.exchange_directories, []

    def fail_once(first: str, second: str) -> None:
        calls.append(second)
        if len(calls) == 2:
            raise OSError(16, "Device or resource busy", first, None, second)
        real(first, second)

    monkeypatch.setattr(durable, "exchange_directories", fail_once)
    target = DatabasePaths(paths["db_dir"], paths["wal_dir"], tuple(paths["db_paths"]))
    with pytest.raises(OSError, match="busy"):
        restore_backup(LOCAL, repository, target, replace=True)
    assert {path: seen for path, seen in fingerprint(place).items() if os.path.isfile(path)} == before
    database = open_with(paths)
    assert len(list(database.keys())) == 100
    database.close()


def test_exchange_fails_and_so_does_its_undoing(repository: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When not even the undoing works, nothing is removed, and the next run puts the old database back first."""
    paths = paths_of("several", place)
    build_old_one(paths)
    real, calls = durable.exchange_directories, []

    def fail_after_the_first(first: str, second: str) -> None:
        calls.append(second)
        if len(calls) > 1:
            raise OSError(5, "Input/output error", first, None, second)
        real(first, second)

    target = DatabasePaths(paths["db_dir"], paths["wal_dir"], tuple(paths["db_paths"]))
    with monkeypatch.context() as patch:
        patch.setattr(durable, "exchange_directories", fail_after_the_first)
        with pytest.raises(OSError, match="Input/output"):
            restore_backup(LOCAL, repository, target, replace=True)
    assert Path(paths["db_dir"], "CURRENT").read_bytes() == BLOCKED
    assert undo_unfinished(paths["db_dir"])
    database = open_with(paths)
    assert len(list(database.keys())) == 100
    database.close()
    restore_backup(LOCAL, repository, target, replace=True)
    assert sorted(os.listdir(place)) == ["fast", "restored", "slow", "wal"]


def test_old_database_that_nothing_is_known_of(repository: str, other_file_system: str) -> None:
    """Where a record was lost, the old database in its waiting place is not taken for litter."""
    build_old_one({"db_dir": other_file_system})
    waiting = Path(other_file_system, ".restore.old")
    waiting.mkdir()
    shutil.copy(f"{other_file_system}/CURRENT", waiting)
    Path(other_file_system, "CURRENT").write_bytes(BLOCKED)
    with pytest.raises(ExistsError, match=r"\.restore\.old: holds the old database"):
        restore_backup(LOCAL, repository, DatabasePaths(other_file_system), replace=True)
    assert (waiting / "CURRENT").read_text().startswith("MANIFEST-")


def test_locked_leftover(repository: str, place: str) -> None:
    """A temporary place that another process has locked is another run; unlocked, it is litter and goes."""
    os.mkdir(f"{place}/restored.tmp")
    Path(place, "restored.tmp", RECORD_NAME).touch()
    Path(place, "restored.tmp", "000001.sst").write_bytes(b"half")
    descriptor = durable.lock_directory(f"{place}/restored.tmp")
    with pytest.raises(BusyError, match="another run is restoring"):
        restore_backup(LOCAL, repository, DatabasePaths(f"{place}/restored"))
    assert sorted(os.listdir(f"{place}/restored.tmp")) == ["000001.sst", RECORD_NAME]
    os.close(descriptor)
    restore_backup(LOCAL, repository, DatabasePaths(f"{place}/restored"))
    assert os.listdir(place) == ["restored"]


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "id": "a", "roots": 1, "old": null, "new_names": [], "old_names": []}',
        '{"format": 1, "id": "a", "roots": [], "old": null, "new_names": ["../x"], "old_names": []}',
        '{"format": 1, "id": "a", "roots": [], "old": null, "new_names": [], "old_names": [1]}',
    ],
)
def test_bad_record(tmp_path: Path, text: str) -> None:
    """A record that is not ours is an error that names it."""
    (tmp_path / RECORD_NAME).write_text(text)
    with pytest.raises(CorruptionError, match=RECORD_NAME):
        read_record(str(tmp_path))


def test_leftovers_elsewhere(repository: str, place: str) -> None:
    """WALs left in ``wal_dir`` are refused, and gone when they may be replaced: one would be replayed."""
    paths = DatabasePaths(f"{place}/restored", f"{place}/wal")
    os.mkdir(f"{place}/wal")
    Path(place, "wal", "000999.log").write_bytes(b"newer")
    with pytest.raises(ExistsError, match="wal: is already there"):
        restore_backup(LOCAL, repository, paths)
    restore_backup(LOCAL, repository, paths, replace=True)
    assert [name for name in names(f"{place}/wal", "") if name.endswith(".log")] != ["000999.log"]
    assert len(os.listdir(f"{place}/wal")) == 1


def test_another_database_in_the_way(repository: str, place: str) -> None:
    """A directory named as ``wal_dir`` that is a database of its own is refused also with ``replace``."""
    build_old_one({"db_dir": f"{place}/other"})
    with pytest.raises(InvalidArgumentError, match="is a database of its own"):
        restore_backup(LOCAL, repository, DatabasePaths(f"{place}/restored", f"{place}/other"), replace=True)
    with pytest.raises(InvalidArgumentError, match="lies inside"):
        restore_backup(LOCAL, repository, DatabasePaths(f"{place}/data/db", f"{place}/data"))
    assert os.listdir(place) == ["other"]
