"""Archives back into databases: whole, into the directories they belong to, or what was there before."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.archive_restore import restore_archive
from airflow_provider_rocksdb.core.errors import (
    BusyError,
    CancelledError,
    CorruptionError,
    ExistsError,
    IncompleteError,
    NoSpaceError,
    RocksDBError,
)
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.progress import Progress
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.core.databases import build, count_keys, fingerprint, flip, options, put
from tests.core.repositories import QUICK, take
from tests.core.test_archive_hostile import Members, stream
from tests.servers import S3Server

LOCAL = LocalFileSystem()


@pytest.fixture
def inventory(db_dir: str, tmp_path: Path) -> Inventory:
    """Checkpoint a database: keys 0-999 in an SST file, 1000-1499 in the WAL."""
    return take(db_dir, str(tmp_path / "checkpoint"))


@pytest.fixture
def archive(inventory: Inventory, tmp_path: Path) -> str:
    """Make an archive of it."""
    path = str(tmp_path / "archives" / "x.tar.zst")
    upload_archive(inventory, LOCAL, path)
    return path


def test_restore(archive: str, inventory: Inventory, tmp_path: Path) -> None:
    """A restored database has every key, its files but for the checkpoint's records, and nothing beside it."""
    place = tmp_path / "restored"
    result = restore_archive(LOCAL, archive, DatabasePaths(str(place / "db")))
    assert count_keys(str(place / "db"))["default"] == 1500
    assert set(os.listdir(place / "db")) - {"LOCK"} == set(os.listdir(inventory.directory)) - {"checkpoint.json"}
    assert os.listdir(place) == ["db"]
    assert (result.layout, result.backup_id, result.backup_dir) == ("archive", None, archive)
    assert (result.db_id, result.sequence_number) == (inventory.db_id, inventory.sequence_number)
    assert (result.replaced, result.file_count) == (False, len(inventory.files) + len(inventory.extras) - 1)


def test_restore_from_s3(inventory: Inventory, tmp_path: Path, s3_server: S3Server) -> None:
    """From an S3 server, too."""
    filesystem = fsspec.filesystem("s3", **s3_server.storage_options)
    upload_archive(inventory, filesystem, f"{s3_server.place}/x.tar.gz")
    restore_archive(filesystem, f"{s3_server.place}/x.tar.gz", DatabasePaths(str(tmp_path / "db2")))
    assert count_keys(str(tmp_path / "db2"))["default"] == 1500


def test_directories(tmp_path: Path) -> None:
    """SST files go to their column family's directory, WALs to theirs, as the caller names them."""
    database = build(str(tmp_path / "db"))
    other = database.create_column_family("other", options())
    put(other, 0, 700)
    other.flush()
    put(other, 700, 800)
    path = str(tmp_path / "x.tar.zst")
    upload_archive(take(str(tmp_path / "db"), str(tmp_path / "checkpoint")), LOCAL, path)
    database.close()
    new = tmp_path / "new"
    paths = DatabasePaths(str(new / "db"), str(new / "wal"), (str(new / "sst"),), {"other": (str(new / "other-sst"),)})
    restore_archive(LOCAL, path, paths)
    suffixes = {name: {file.suffix for file in (new / name).iterdir()} for name in ("wal", "sst", "other-sst")}
    assert suffixes == {"wal": {".log"}, "sst": {".sst"}, "other-sst": {".sst"}}
    assert not list((new / "db").glob("*.sst")) + list((new / "db").glob("*.log"))


@pytest.mark.parametrize("in_place", [False, True])
def test_replace(in_place: bool, archive: str, tmp_path: Path) -> None:
    """A database that is there is replaced only when that is allowed."""
    old = tmp_path / "old"
    build(str(old)).close()
    before = fingerprint(old)
    with pytest.raises(ExistsError, match="replace"):
        restore_archive(LOCAL, archive, DatabasePaths(str(old)))
    assert fingerprint(old) == before
    assert restore_archive(LOCAL, archive, DatabasePaths(str(old)), replace=True, in_place=in_place).replaced
    assert count_keys(str(old))["default"] == 1500


def test_open_database(archive: str, tmp_path: Path) -> None:
    """A database that a process has open is not replaced."""
    database = build(str(tmp_path / "old"))
    with pytest.raises(BusyError):
        restore_archive(LOCAL, archive, DatabasePaths(str(tmp_path / "old")), replace=True)
    database.close()
    assert count_keys(str(tmp_path / "old"))["default"] == 1500


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damaged(damage: str, in_place: bool, archive: str, tmp_path: Path) -> None:
    """A damaged archive leaves the old database as it was, in place too, and nothing beside it."""
    old = tmp_path / "place" / "old"
    old.parent.mkdir()
    build(str(old)).close()
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    if damage == "cut":
        os.truncate(archive, os.path.getsize(archive) - 100)
    else:
        flip(archive, os.path.getsize(archive) - 100)
    with pytest.raises(CorruptionError, match=r"x\.tar\.zst"):
        restore_archive(LOCAL, archive, DatabasePaths(str(old)), replace=True, in_place=in_place)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert os.listdir(old.parent) == ["old"]


def test_stop(archive: str, tmp_path: Path) -> None:
    """A restore that is told to stop leaves nothing."""
    stop = threading.Event()

    def at_once(_: Progress) -> None:
        stop.set()

    place = DatabasePaths(str(tmp_path / "place" / "db"))
    with pytest.raises(CancelledError):
        restore_archive(
            LOCAL, archive, place, options=TransferOptions(progress_seconds=0, on_progress=at_once), stop=stop
        )
    assert not list((tmp_path / "place").glob("*"))


def members_of(inventory: Inventory) -> dict[str, bytes]:
    return {file.name: Path(file.path).read_bytes() for file in inventory.files}


def refuse(members: Members, tmp_path: Path) -> str:
    """Restore an archive of these members, in vain; return the error."""
    (tmp_path / "x.tar").write_bytes(stream(members))
    with pytest.raises((CorruptionError, IncompleteError)) as caught:
        restore_archive(LOCAL, str(tmp_path / "x.tar"), DatabasePaths(str(tmp_path / "place" / "db")), options=QUICK)
    assert not list((tmp_path / "place").glob("*"))
    assert str(tmp_path / "x.tar") in str(caught.value)
    return str(caught.value)


def test_what_is_no_database(inventory: Inventory, tmp_path: Path) -> None:
    """An archive whose list is right, but which is no whole database, is not restored."""
    files = members_of(inventory)
    (sst,) = (name for name in files if name.endswith(".sst"))
    (manifest,) = (name for name in files if name.startswith("MANIFEST"))
    last = {sst: files.pop(sst), "CURRENT": files.pop("CURRENT")}
    good = {**files, **last}
    no_manifest = {name: data for name, data in good.items() if name != manifest}
    assert "0 MANIFEST files" in refuse([*no_manifest.items()], tmp_path)
    assert "2 MANIFEST files" in refuse([("MANIFEST-000099", b""), *good.items()], tmp_path)
    assert "names MANIFEST-000099" in refuse([*{**good, "CURRENT": b"MANIFEST-000099\n"}.items()], tmp_path)
    assert "CURRENT" in refuse([(name, data) for name, data in good.items() if name != "CURRENT"], tmp_path)
    assert sst in refuse([(name, data) for name, data in good.items() if name != sst], tmp_path)
    assert manifest in refuse([*{**good, manifest: good[manifest][:-20]}.items()], tmp_path)
    alias = f"0{sst}"
    assert alias in refuse([*good.items(), (alias, b"")], tmp_path)
    ldb = sst.replace(".sst", ".blob")
    assert "the same file" in refuse([*good.items(), (ldb, b"")], tmp_path)


def test_too_large(inventory: Inventory, tmp_path: Path, tiny: str) -> None:
    """What the disk has no room for is refused by its declared size, before it is written."""
    large = tmp_path / "000099.log"
    large.write_bytes(bytes(4 << 20))
    file = DatabaseFile(large.name, str(large), 4 << 20, FileType.WAL)
    path = str(tmp_path / "x.tar.zst")
    upload_archive(dataclasses.replace(inventory, files=(*inventory.files, file)), LOCAL, path)
    with pytest.raises(NoSpaceError, match=f"{4 << 20} bytes are needed"):
        restore_archive(LOCAL, path, DatabasePaths(f"{tiny}/db"))
    assert not list(Path(tiny).glob("db*"))


def test_in_place_says_what_is_gone(archive: str, tmp_path: Path) -> None:
    """When a restore in place fails after the old database was removed, the error says so."""
    build(str(tmp_path / "old")).close()
    stop = threading.Event()
    rounds = []

    def second(progress: Progress) -> None:
        rounds.append(progress)
        if len(rounds) > 2:  # it is read twice
            stop.set()

    settings: dict[str, Any] = {"replace": True, "in_place": True, "stop": stop}
    with pytest.raises(RocksDBError, match="the old database was removed") as caught:
        restore_archive(
            LOCAL,
            archive,
            DatabasePaths(str(tmp_path / "old")),
            options=TransferOptions(progress_seconds=0, on_progress=second),
            **settings,
        )
    assert isinstance(caught.value, CancelledError)
    restore_archive(LOCAL, archive, DatabasePaths(str(tmp_path / "old")), replace=True)
    assert count_keys(str(tmp_path / "old"))["default"] == 1500
