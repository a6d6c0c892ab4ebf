"""The list of backups: what each takes, what is missing of it, and how few requests that costs."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import AccessError
from airflow_provider_rocksdb.core.format.backup_meta import BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.repository_usage import BackupUsage, list_usage
from benchmarks.scale import MADE_UP, Store, StoreFileSystem, fill
from tests.core.databases import put
from tests.core.repositories import ONCE, QUICK, aimrocks, build_old, grow, read_local_meta, take
from tests.servers import S3Server

LOCAL = LocalFileSystem()


@pytest.fixture(scope="session")
def inventories(tmp_path_factory: pytest.TempPathFactory) -> list[Inventory]:
    """Checkpoint a database twice; the second time it has one SST file more."""
    place = tmp_path_factory.mktemp("inventories")
    database = build_old(str(place / "db"))
    taken = [take(str(place / "db"), str(place / "1"))]
    grow(database, 1500, 2000)
    put(database, 2000, 2100)
    taken.append(take(str(place / "db"), str(place / "2")))
    database.close()
    return taken


@pytest.fixture
def repository(tmp_path: Path, inventories: list[Inventory]) -> Path:
    for number, inventory in enumerate(inventories):
        metadata = {"dag_id": "nightly", "run_id": f"run {number}"}
        create_backup(inventory, LOCAL, str(tmp_path / "repository"), app_metadata=metadata)
    return tmp_path / "repository"


def usage(repository: Path) -> tuple[BackupUsage, ...]:
    return list_usage(LOCAL, str(repository), options=QUICK)


def test_list(repository: Path, inventories: list[Inventory]) -> None:
    """Each backup is listed with its time, sequence number, files, bytes, database, host and run."""
    first, second = usage(repository)
    assert (first.backup_id, first.state, first.problems, first.layout) == (1, "complete", (), "backup_engine")
    assert (first.sequence_number, second.sequence_number) == (1500, 2100)
    for found, inventory in zip((first, second), inventories, strict=True):
        assert inventory.checkpoint is not None
        assert (found.db_id, found.hostname) == (inventory.db_id, inventory.checkpoint.hostname)
        assert found.time == inventory.checkpoint.created[:19] + "+00:00"
        assert (found.file_count, found.total_bytes) == (
            len(inventory.files),
            sum(file.size for file in inventory.files),
        )
    assert second.run == {"dag_id": "nightly", "run_id": "run 1"}
    assert json.loads(json.dumps(second.to_dict())) == second.to_dict()


def test_own_bytes(repository: Path) -> None:
    """A backup's own bytes are the files that no other names; with an unreadable meta, no other readable one."""
    metas = [{file.path: file.size or 0 for file in read_local_meta(repository, i).files} for i in (1, 2)]
    first, second = usage(repository)
    assert first.own_bytes == sum(size for path, size in metas[0].items() if path not in metas[1])
    assert second.own_bytes == sum(size for path, size in metas[1].items() if path not in metas[0])
    assert 0 < first.own_bytes < first.total_bytes
    (repository / "meta" / "1").write_bytes(b"")
    first, second = usage(repository)
    assert (first.state, first.total_bytes, second.own_bytes) == ("unreadable", 0, second.total_bytes)
    assert "meta/1" in first.problems[0]


def test_missing_files(repository: Path) -> None:
    """A backup of which files are missing, or have another size, says which; the others are complete."""
    next(repository.glob("private/1/MANIFEST-*")).unlink()
    (repository / "private" / "1" / "CURRENT").write_bytes(b"much too long to be a CURRENT")
    first, second = usage(repository)
    assert (first.state, second.state) == ("corrupt", "complete")
    texts = sorted(first.problems)
    assert texts[0] == "private/1/CURRENT: expected 16 bytes, got 29 bytes"
    assert texts[1].startswith("private/1/MANIFEST-")
    assert texts[1].endswith("got no file")
    shutil.rmtree(repository / "shared_checksum")
    assert [found.state for found in usage(repository)] == ["corrupt", "incomplete"]


def test_none(tmp_path: Path) -> None:
    """Where there is no repository, none is listed."""
    assert usage(tmp_path / "nothing") == ()


def test_stock(tmp_path: Path) -> None:
    """A stock repository (schema 1) is listed with its bytes, by the sizes of names and of the listing."""
    options = aimrocks.Options()
    options.create_if_missing = True
    database = aimrocks.DB(str(tmp_path / "db"), options)
    engine = aimrocks.BackupEngine(str(tmp_path / "repository"))
    for number in range(3):
        database.put(b"key%d" % number, b"value" * 100)
        engine.create_backup(database, flush_before_backup=True)
    found = usage(tmp_path / "repository")
    assert [(backup.backup_id, backup.state) for backup in found] == [(1, "complete"), (2, "complete"), (3, "complete")]
    for backup in found:
        meta = read_local_meta(tmp_path / "repository", backup.backup_id or 0)
        assert backup.total_bytes == sum((tmp_path / "repository" / file.path).stat().st_size for file in meta.files)
        assert datetime.fromisoformat(backup.time).timestamp() == meta.timestamp


def test_stock_with_identity(repository: Path, inventories: list[Inventory]) -> None:
    """The database id of another program's backup is that of the IDENTITY file in it."""
    for backup_id in (1, 2):
        meta = read_local_meta(repository, backup_id)
        (repository / "meta" / str(backup_id)).write_bytes(
            encode_backup_meta(BackupMeta(meta.timestamp, meta.sequence_number, b"", meta.files))
        )
    assert [(backup.db_id, backup.hostname) for backup in usage(repository)] == [(inventories[0].db_id, "")] * 2


def test_directory(tmp_path: Path, inventories: list[Inventory]) -> None:
    """A database that was uploaded as it is is one line without an id."""
    upload_directory(inventories[1], LOCAL, str(tmp_path / "directory"))
    (found,) = usage(tmp_path / "directory")
    assert (found.backup_id, found.layout, found.state) == (None, "directory", "complete")
    assert (found.db_id, found.sequence_number) == (inventories[1].db_id, 2100)
    assert found.time
    next((tmp_path / "directory").glob("*.sst")).unlink()
    assert usage(tmp_path / "directory")[0].state == "incomplete"


def test_s3(repository: Path, s3_server: S3Server) -> None:
    """On a real S3 server the list is the same as of the same files on a disk."""
    shutil.copytree(repository, s3_server.behind)
    filesystem = fsspec.filesystem("s3", **s3_server.storage_options)
    assert list_usage(filesystem, s3_server.place, options=QUICK) == usage(repository)


def test_requests() -> None:
    """A list takes four listings and one read for each meta, however many backups and files there are."""
    store = Store()
    fill(store, backups=200, new_files=20, live_files=50)
    found = list_usage(StoreFileSystem(store), "/r", options=ONCE)
    assert {backup.state for backup in found} == {"complete"}
    assert len(found) == 200
    assert found[100].total_bytes == 54 * MADE_UP.size
    assert store.requests["listing"] == 4  # the root, meta/, shared_checksum/, and all of private/ as one tree
    assert (store.requests["read"], store.requests["info"]) == (200, 0)


def test_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    """When a folder of files cannot be listed, the backups could not be checked; without meta/ there is no list."""
    store = Store()
    fill(store, backups=3, new_files=2, live_files=4)
    store.refused = "shared_checksum"
    found = list_usage(StoreFileSystem(store), "/r", options=ONCE)
    assert [backup.state for backup in found] == ["could_not_check"] * 3
    assert "shared_checksum" in found[0].problems[0]
    store.refused = "meta"
    with pytest.raises(AccessError):
        list_usage(StoreFileSystem(store), "/r", options=ONCE)
