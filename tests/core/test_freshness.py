"""A complete backup that is new enough is found; what is passed over on the way is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.format.backup_meta import BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.freshness import FoundBackup, find_backup
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.core.repository import create_backup
from tests.core.databases import put
from tests.core.repositories import ONCE, build_old, read_local_meta, take
from tests.core.test_verify import FailingFileSystem, upload

LOCAL = LocalFileSystem()
MADE = datetime(2030, 5, 17, 12, tzinfo=UTC)  # of backup 1; backup 2 is an hour newer


@pytest.fixture(scope="session")
def inventories(tmp_path_factory: pytest.TempPathFactory) -> list[Inventory]:
    place = tmp_path_factory.mktemp("inventories")
    database = build_old(str(place / "db"))
    taken = [take(str(place / "db"), str(place / "1"))]
    put(database, 1500, 1600)
    taken.append(take(str(place / "db"), str(place / "2")))
    database.close()
    return taken


@pytest.fixture
def repository(tmp_path: Path, inventories: list[Inventory]) -> Path:
    place = tmp_path / "repository"
    for backup_id, inventory in enumerate(inventories, start=1):
        create_backup(inventory, LOCAL, str(place))
        captured = MADE + timedelta(hours=backup_id - 1)
        change_meta(place, backup_id, captured + timedelta(minutes=10), captured)
    return place


def change_meta(repository: Path, backup_id: int, made: datetime, captured: datetime | None) -> None:
    meta = read_local_meta(repository, backup_id)
    metadata = b""
    if captured is not None:
        metadata = json.dumps({**json.loads(meta.metadata), "checkpoint_time": captured.isoformat()}).encode()
    changed = BackupMeta(int(made.timestamp()), meta.sequence_number, metadata, meta.files)
    (repository / "meta" / str(backup_id)).write_bytes(encode_backup_meta(changed))


def find(repository: Path, **options: Any) -> FoundBackup:
    return find_backup(LOCAL, str(repository), options=ONCE, **options)


def test_newest(repository: Path, inventories: list[Inventory]) -> None:
    """The newest backup is found, with its time, sequence number, database and host."""
    found = find(repository)
    assert (found.state, found.reason, found.passed_over, found.backup_id) == (State.COMPLETE, "", (), 2)
    assert (found.sequence_number, found.db_id) == (1600, inventories[0].db_id)
    assert found.time == "2030-05-17T13:00:00+00:00"
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"newer_than": MADE + timedelta(minutes=59)}, State.COMPLETE),
        ({"newer_than": MADE + timedelta(minutes=60)}, State.INCOMPLETE),
        ({"max_age": timedelta(hours=2), "now": MADE + timedelta(hours=2)}, State.COMPLETE),
        ({"max_age": timedelta(hours=1), "now": MADE + timedelta(hours=2, minutes=5)}, State.INCOMPLETE),
        ({"newer_than": MADE, "max_age": timedelta(hours=1), "now": MADE + timedelta(hours=3)}, State.INCOMPLETE),
        ({"newer_than": MADE + timedelta(hours=5), "max_age": timedelta(days=9), "now": MADE}, State.INCOMPLETE),
    ],
)
def test_limits(repository: Path, options: dict[str, Any], state: State) -> None:
    """A backup must be newer than a time, and not older than an age, both; its time is its checkpoint's."""
    found = find(repository, **options)
    assert found.state is state
    assert ("backup 2 is of 2030-05-17T13:00:00+00:00" in found.reason) == (state is State.INCOMPLETE)


def test_time_of_others(repository: Path) -> None:
    """A backup of another program has its meta's time; none is newer than its meta."""
    change_meta(repository, 2, MADE + timedelta(hours=1, minutes=10), None)
    assert find(repository, newer_than=MADE + timedelta(hours=1, minutes=9)).backup_id == 2
    change_meta(repository, 1, MADE, MADE + timedelta(days=900))
    (repository / "meta" / "2").unlink()
    assert find(repository).time == MADE.isoformat()


def test_nothing(tmp_path: Path) -> None:
    """Where there is no repository, there is no backup yet, and the reason says what was looked for."""
    found = find(tmp_path / "nothing", newer_than=MADE, db_id="x")
    assert found.state is State.INCOMPLETE
    assert found.reason == f"a complete backup newer than {MADE.isoformat()} of database x: there is none at all"


def test_database(repository: Path, inventories: list[Inventory]) -> None:
    """Only a backup of the database that is asked for counts, by our record or by its IDENTITY."""
    change_meta(repository, 2, MADE, None)
    assert find(repository, db_id=inventories[0].db_id).backup_id == 2
    found = find(repository, db_id="another")
    assert found.state is State.INCOMPLETE
    assert found.passed_over == tuple(f"backup {i} is of database {inventories[0].db_id}" for i in (2, 1))


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda place: next(place.glob("private/2/MANIFEST-*")).unlink(), State.INCOMPLETE),
        (lambda place: (place / "private" / "2" / "CURRENT").write_bytes(bytes(100)), State.CORRUPT),
        (lambda place: (place / "meta" / "2").write_bytes(b"damaged"), State.CORRUPT),
        (lambda place: (place / "meta" / "2").write_bytes(b"schema_version 3\n"), State.COULD_NOT_CHECK),
    ],
)
def test_passed_over(repository: Path, damage: Any, state: State) -> None:
    """What is wrong with a newer backup is told, an older one is taken; where none is new enough, it is the answer."""
    damage(repository)
    found = find(repository)
    assert (found.state, found.backup_id, len(found.passed_over)) == (State.COMPLETE, 1, 1)
    found = find(repository, newer_than=MADE)
    assert found.state is state
    assert "/2" in found.reason
    assert "backup 1 is of 2030-05-17T12:00:00" in found.reason


@pytest.mark.parametrize("failing", ["ls /r", "ls /r/meta", "cat /r/meta/2", "ls /r/shared_checksum"])
def test_failing_store(repository: Path, failing: str) -> None:
    """What could not be looked at is never taken for a backup, nor for its absence."""
    store = upload(repository, FailingFileSystem(failing, RuntimeError("ExpiredToken")))
    store.fails = True
    found = find_backup(store, "/r", newer_than=MADE, options=ONCE)
    assert (found.state, "ExpiredToken" in found.reason) == (State.COULD_NOT_CHECK, True)


def test_directory(tmp_path: Path, inventories: list[Inventory]) -> None:
    """A database that was uploaded as it is counts by its checkpoint.json, and without that has no time."""
    place = tmp_path / "directory"
    assert inventories[1].checkpoint is not None
    created = datetime.fromisoformat(inventories[1].checkpoint.created)
    upload_directory(inventories[1], LOCAL, str(place))
    found = find(place, newer_than=created - timedelta(seconds=1), db_id=inventories[1].db_id)
    assert (found.state, found.layout, found.backup_id, found.sequence_number) == (
        State.COMPLETE,
        "directory",
        None,
        1600,
    )
    assert find(place, newer_than=created).state is State.INCOMPLETE
    assert find(place, db_id="another").state is State.INCOMPLETE
    (place / "checkpoint.json").unlink()
    assert find(place).state is State.COMPLETE
    assert find(place, newer_than=created).state is State.COULD_NOT_CHECK
    next(place.glob("*.sst")).unlink()
    assert find(place).state is State.INCOMPLETE


def test_time_zone(repository: Path) -> None:
    """A time without a time zone is refused."""
    with pytest.raises(InvalidArgumentError, match="time zone"):
        find(repository, newer_than=datetime(2030, 1, 1))  # noqa: DTZ001 -- that is the mistake
