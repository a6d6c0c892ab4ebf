"""Each new backup is told once, whoever made it, whatever ids it has and however the storage behaves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.errors import RocksDBError
from airflow_provider_rocksdb.core.format.backup_meta import BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.core.new_backups import NewBackup, find_new_backups
from airflow_provider_rocksdb.core.repository import create_backup
from tests.core.repositories import ONCE, StockRepository, WatchedFileSystem, build_old, read_local_meta, take
from tests.core.test_verify import FailingFileSystem, upload

LOCAL = LocalFileSystem()


class Watch:
    """Looks at a repository, each of which is given what the one before had seen, as JSON."""

    def __init__(self, repository: Path, **options: Any) -> None:
        self.repository, self.options = repository, options
        self.seen: str = "null"
        self.waiting: dict[int, str] = {}
        self.passed_over: dict[int, str] = {}

    def look(self, filesystem: Any = LOCAL, root: str = "") -> list[int]:
        return [backup.backup_id for backup in self.find(filesystem, root)]

    def find(self, filesystem: Any = LOCAL, root: str = "") -> tuple[NewBackup, ...]:
        found = find_new_backups(
            filesystem, root or str(self.repository), json.loads(self.seen), options=ONCE, **self.options
        )
        self.seen, self.waiting, self.passed_over = json.dumps(found.seen), found.waiting, found.passed_over
        return found.backups


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def stock(tmp_path: Path) -> StockRepository:
    return StockRepository(tmp_path)


@pytest.fixture(scope="session")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inventory]:
    place = tmp_path_factory.mktemp("inventory")
    database = build_old(str(place / "db"))
    yield take(str(place / "db"), str(place / "checkpoint"))
    database.close()


def change_meta(repository: Path, backup_id: int, **changes: Any) -> None:
    meta = read_local_meta(repository, backup_id)
    changed = BackupMeta(**{**vars(meta), **changes})
    (repository / "meta" / str(backup_id)).write_bytes(encode_backup_meta(changed))


def test_stock(repository: Path, stock: StockRepository) -> None:
    """Backups of stock RocksDB are told once each, several at a time too, with what meta and IDENTITY say."""
    stock.back_up()
    watch = Watch(repository)
    assert watch.look() == []
    assert watch.look() == []
    stock.back_up()
    (second,) = watch.find()
    meta = read_local_meta(repository, 2)
    paths = [repository / file.path for file in meta.files]
    assert second == NewBackup(
        backup_id=2,
        time=datetime.fromtimestamp(meta.timestamp, UTC).isoformat(timespec="seconds"),
        db_id="",  # stock RocksDB 6.29 backs up no IDENTITY
        sequence_number=2,
        file_count=len(paths),
        total_bytes=sum(path.stat().st_size for path in paths),
        hostname="",
        db_dir="",
    )
    stock.back_up()
    stock.back_up()
    assert watch.look() == [3, 4]
    assert watch.look() == []


def test_ours(repository: Path, inventory: Inventory) -> None:
    """Of a backup of ours host, directory and database are told, and the time of the checkpoint."""
    watch = Watch(repository)
    assert watch.look() == []
    result = create_backup(inventory, LOCAL, str(repository))
    (found,) = watch.find()
    assert inventory.checkpoint is not None
    assert found.to_dict() == {
        "backup_id": 1,
        "time": datetime.fromisoformat(inventory.checkpoint.created).isoformat(timespec="seconds"),
        "db_id": result.db_id,
        "sequence_number": result.sequence_number,
        "file_count": result.file_count,
        "total_bytes": result.total_bytes,
        "hostname": inventory.checkpoint.hostname,
        "db_dir": inventory.checkpoint.source["db_dir"],
    }


def test_late(repository: Path, stock: StockRepository) -> None:
    """A backup that becomes visible after one with a higher id is told; one that is deleted meanwhile is not."""
    stock.back_up()
    watch = Watch(repository)
    watch.look()
    stock.back_up()
    stock.back_up()
    away = repository / "away"
    (repository / "meta" / "2").rename(away)
    assert watch.look() == [3]
    away.rename(repository / "meta" / "2")
    assert watch.look() == [2]
    stock.back_up()
    stock.engine.delete_backup(4)
    stock.engine.delete_backup(1)
    assert watch.look() == []


def test_id_again(repository: Path, stock: StockRepository) -> None:
    """Stock RocksDB gives the id of a deleted newest backup again; this backup is told although its id was seen."""
    for _ in range(3):
        stock.back_up()
    watch = Watch(repository)
    watch.look()
    stock.engine.delete_backup(3)
    stock.engine.delete_backup(2)
    stock.reopen()
    stock.back_up()
    assert sorted(os.listdir(repository / "meta")) == ["1", "2"]
    assert watch.look() == [2]
    assert watch.look() == []


def test_written_again(repository: Path, stock: StockRepository) -> None:
    """Metas that are copied again, as by a mirror that keeps no times, are no new backups."""
    stock.back_up()
    stock.back_up()
    watch = Watch(repository)
    watch.look()
    for path in (repository / "meta").iterdir():
        os.utime(path, (2_000_000_000, 2_000_000_000))
    assert watch.look() == []


def test_not_whole_yet(repository: Path, stock: StockRepository, inventory: Inventory) -> None:
    """A backup of which a file is missing, also one seen at the first look, is told when that has come; once."""
    stock.back_up()
    (file,) = repository.glob("shared*/*.sst")
    file.rename(repository / "away")
    watch = Watch(repository)
    assert watch.look() == []
    assert file.name in watch.waiting[1]
    (repository / "away").rename(file)
    assert watch.look() == [1]
    assert watch.look() == []


def test_half_a_meta(repository: Path, stock: StockRepository) -> None:
    """A meta that is damaged is passed over and said; when it is written to its end, the backup is told."""
    stock.back_up()
    watch = Watch(repository)
    watch.look()
    stock.back_up()
    path = repository / "meta" / "2"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert watch.look() == []
    assert "meta/2" in watch.passed_over[2]
    assert watch.look() == []
    assert watch.passed_over == {}
    path.write_bytes(whole)
    assert watch.look() == [2]


def test_not_mounted(repository: Path, stock: StockRepository) -> None:
    """A repository that is not there for a while brings no old backup again."""
    stock.back_up()
    watch = Watch(repository)
    watch.look()
    repository.rename(repository.parent / "away")
    assert watch.look() == []
    (repository.parent / "away").rename(repository)
    assert watch.look() == []


@pytest.mark.parametrize("failing", ["ls /r/meta", "cat /r/meta/2", "find /r/private", "ls /r/shared_checksum"])
def test_failing_store(repository: Path, stock: StockRepository, failing: str) -> None:
    """While a storage fails nothing is told, and nothing is lost: when it works again, the backup is told once."""
    stock.back_up()
    watch = Watch(repository)
    watch.look()
    stock.back_up()
    store = upload(repository, FailingFileSystem(failing, OSError("no route")))
    watch.seen = json.dumps({"metas": {"1": "of the store"}, "newest": [read_local_meta(repository, 1).timestamp, 1]})
    store.fails = True
    for _ in range(2):
        if failing == "ls /r/meta":
            with pytest.raises(RocksDBError, match="no route"):
                watch.look(store, "/r")
        else:
            assert watch.look(store, "/r") == []
            assert "no route" in watch.waiting[2]
    store.fails = False
    assert watch.look(store, "/r") == [2]
    assert watch.look(store, "/r") == []


def test_filters(repository: Path, inventory: Inventory) -> None:
    """A backup of another database, or one that is too old, is passed over for good, and the reason is told."""
    watches = [
        Watch(repository, db_id="another"),
        Watch(repository, max_age=timedelta(hours=1)),
        Watch(repository, newer_than=datetime(2020, 1, 1, tzinfo=UTC)),
        Watch(repository, db_id=inventory.db_id),
    ]
    for watch in watches:
        watch.look()
    create_backup(inventory, LOCAL, str(repository))
    change_meta(repository, 1, timestamp=1_500_000_000)
    assert [watch.look() for watch in watches] == [[], [], [], [1]]
    reasons = [watch.passed_over.get(1) for watch in watches]
    made = "is of 2017-07-14T02:40:00+00:00"
    assert reasons == [f"is of database {inventory.db_id}", made, made, None]
    assert [watch.look() for watch in watches] == [[], [], [], []]


def test_schema_1(repository: Path, inventory: Inventory) -> None:
    """Where a meta has no sizes, the listing tells how large the backup is."""
    watch = Watch(repository)
    watch.look()
    result = create_backup(inventory, LOCAL, str(repository))
    change_meta(repository, 1, schema_version="1")
    (found,) = watch.find()
    assert found.total_bytes == result.total_bytes


def test_cost(repository: Path, stock: StockRepository) -> None:
    """A look that finds nothing new is one listing, of meta/."""
    stock.back_up()
    store = upload(repository, WatchedFileSystem())
    watch = Watch(repository)
    watch.look(store, "/r")
    store.requests.clear()
    watch.look(store, "/r")
    assert store.requests == {"ls": 1}
