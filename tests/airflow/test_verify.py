"""Verify backups, and wait for one, from a DAG."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.operators.rocksdb import RocksDBVerifyBackupOperator
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor
from airflow_provider_rocksdb.triggers.rocksdb import RocksDBBackupTrigger
from tests.airflow.conftest import Run
from tests.core.databases import flip
from tests.servers import S3Server

RunDag = Callable[[DAG], Run]
MODES: list[dict[str, Any]] = [{"mode": "poke"}, {"mode": "reschedule"}, {"deferrable": True}]
HURRY: dict[str, Any] = {"poke_interval": 0.1, "timeout": 30}
IMPATIENT: dict[str, Any] = {"poke_interval": 0, "timeout": 0}

mode = pytest.mark.parametrize("mode", MODES, ids=["poke", "reschedule", "deferrable"])


class Repository:
    """A repository on this host, and a checkpoint of which backups are made."""

    def __init__(self, live_db: Path, place: Path) -> None:
        self.path = place / "repository"
        create_live_checkpoint(DatabasePaths(str(live_db)), str(place / "ck"))
        self.inventory = read_inventory(str(place / "ck"))

    def back_up(self) -> int:
        return create_backup(self.inventory, LocalFileSystem(), str(self.path)).backup_id

    def one(self, pattern: str) -> Path:
        (path,) = self.path.glob(pattern)
        return path


@pytest.fixture
def repository(live_db: Path, tmp_path: Path) -> Repository:
    return Repository(live_db, tmp_path)


def verify_dag(name: str, backup_dir: Path | str | None, **options: Any) -> DAG:
    with DAG(name, schedule=None) as dag:
        place = None if backup_dir is None else str(backup_dir)
        RocksDBVerifyBackupOperator(task_id="verify", backup_dir=place, retry_delay=0.1, **options)
    return dag


def wait_dag(name: str, backup_dir: Path | str | None, sensor: type[Any] = RocksDBBackupSensor, **options: Any) -> DAG:
    with DAG(name, schedule=None) as dag:
        place = None if backup_dir is None else str(backup_dir)
        sensor(task_id="wait", backup_dir=place, retry_delay=0.1, **options)
    return dag


# the operator


@pytest.mark.parametrize(
    ("options", "backups", "share"),
    [
        ({}, [2], 0),
        ({"all_backups": True, "level": "checksums"}, [1, 2], 1),
        ({"backup_id": "{{ 1 }}", "level": "checksums", "sample_percent": 100}, [1], 1),
        ({"level": "restore"}, [2], 1),
    ],
)
def test_whole(
    run_dag: RunDag, repository: Repository, options: dict[str, Any], backups: list[int], share: float, tmp_path: Path
) -> None:
    """Whole backups pass at each level; the result is small, and says what was read; a drill leaves nothing."""
    repository.back_up()
    repository.back_up()
    (tmp_path / "scratch").mkdir()
    run = run_dag(verify_dag("verify_whole", repository.path, scratch_dir=str(tmp_path / "scratch"), **options))
    assert run.state == "success"
    result = run.xcom("verify")
    assert (result["state"], result["backup_ids"], result["read_share"]) == ("complete", backups, share)
    assert len(json.dumps(result)) < 1000
    assert not os.listdir(tmp_path / "scratch")


def test_archive(run_dag: RunDag, repository: Repository, tmp_path: Path) -> None:
    """An archive is verified, too; one that is cut fails the task at its first try."""
    archive = tmp_path / "archives" / "db.tar.gz"
    upload_archive(repository.inventory, LocalFileSystem(), str(archive))
    result = run_dag(verify_dag("archive", archive, level="checksums")).xcom("verify")
    assert (result["state"], result["layout"], result["read_share"]) == ("complete", "archive", 1)
    archive.write_bytes(archive.read_bytes()[:-30])
    run = run_dag(verify_dag("archives", archive.parent, retries=2))
    assert run.tries == {"verify": ("failed", 1)}
    assert "the archive is cut" in run.log


def test_damage(run_dag: RunDag, repository: Repository) -> None:
    """Damage fails the task at its first try; every problem is in the log."""
    repository.back_up()
    repository.one("private/1/MANIFEST-*").unlink()
    flip(repository.one("shared_checksum/*.sst"), 100)
    run = run_dag(verify_dag("damage", repository.path, level="checksums", retries=2))
    assert run.tries == {"verify": ("failed", 1)}
    assert "private/1/MANIFEST-" in run.log
    assert "expected 1 bytes" not in run.log
    assert "got no file (backup 1)" in run.log
    assert "corrupt: shared_checksum/" in run.log


def test_no_backup(run_dag: RunDag, tmp_path: Path) -> None:
    """A repository without a backup fails the task at its first try."""
    run = run_dag(verify_dag("none", tmp_path / "nothing", retries=1))
    assert run.tries == {"verify": ("failed", 1)}
    assert "incomplete: meta: expected a backup, got no backup" in run.log


def test_could_not_check(run_dag: RunDag, repository: Repository) -> None:
    """What could not be checked fails the task, and is tried again."""
    repository.back_up()
    run = run_dag(verify_dag("backup_unchecked", repository.path, level="restore", check_timeout_seconds=0, retries=1))
    assert run.tries == {"verify": ("failed", 2)}
    assert "could not check: meta/1" in run.log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "blocks"}, "expected one of files, checksums, restore"),
        ({"backup_id": "None"}, "expected a number from 1 on"),
        ({"sample_percent": 5}, "goes with level checksums"),
    ],
)
def test_arguments(run_dag: RunDag, repository: Repository, options: dict[str, Any], message: str) -> None:
    """What is asked for and impossible fails at the first try, and not when the DAG is read."""
    repository.back_up()
    run = run_dag(verify_dag("backup_arguments", repository.path, retries=1, **options))
    assert run.tries == {"verify": ("failed", 1)}
    assert message in run.log


def test_s3(
    run_dag: RunDag,
    repository: Repository,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    stored: Callable[[], str],
) -> None:
    """On S3, by connections alone: verified at level checksums, waited for in the triggerer; no secret is stored."""
    extra = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    store = {"conn_type": "aws", "login": s3_server.key, "password": s3_server.secret, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(store))
    where = {"backup_dir": s3_server.url, "storage_conn_id": "store"}
    monkeypatch.setenv("AIRFLOW_CONN_ROCKSDB_DEFAULT", json.dumps({"conn_type": "rocksdb", "extra": where}))
    Waiting.meanwhile.append(lambda: repository.path.rename(s3_server.behind))
    repository.back_up()
    run = run_dag(wait_dag("s3_wait", None, Waiting, deferrable=True, **HURRY))
    assert run.state == "success"
    assert (run.xcom("wait")["backup_id"], run.xcom("wait")["backup_dir"]) == (1, s3_server.url)
    run = run_dag(verify_dag("s3_verify", None, level="checksums"))
    assert run.state == "success"
    assert run.xcom("verify")["read_share"] == 1
    assert s3_server.secret not in stored()


# the sensor


class Waiting(RocksDBBackupSensor):
    """A sensor during which something happens: after its first look, and once."""

    meanwhile: ClassVar[list[Callable[[], object]]] = []

    def poke(self, context: Any) -> Any:
        found = super().poke(context)
        while self.meanwhile:
            self.meanwhile.pop()()
        return found


@mode
def test_found(run_dag: RunDag, repository: Repository, mode: dict[str, Any]) -> None:
    """A backup that is there is found at once; the result says which."""
    repository.back_up()
    options = {"max_age": timedelta(hours=1), "newer_than": "2020-01-01", "db_id": repository.inventory.db_id}
    run = run_dag(wait_dag("found", repository.path, **options, **mode))
    assert run.state == "success"
    found = run.xcom("wait")
    assert (found["state"], found["backup_id"], found["sequence_number"]) == ("complete", 1, 1100)
    assert found["backup_dir"] == str(repository.path)


@mode
def test_waits(run_dag: RunDag, repository: Repository, mode: dict[str, Any]) -> None:
    """A backup that is not there yet is waited for, and the log says what is missing."""
    Waiting.meanwhile.append(repository.back_up)
    run = run_dag(wait_dag("backup_waits", repository.path, Waiting, **HURRY, **mode))
    assert run.state == "success"
    assert f"{repository.path} has not what is waited for: a complete backup: there is none at all" in run.log


@mode
def test_waits_for_a_file(run_dag: RunDag, repository: Repository, mode: dict[str, Any]) -> None:
    """A backup of which a file is missing is waited for: it may be a copy that is not finished."""
    repository.back_up()
    sst = repository.one("shared_checksum/*.sst")
    away = sst.rename(repository.path / sst.name)
    Waiting.meanwhile.append(lambda: away.rename(sst))
    run = run_dag(wait_dag("waits_for_a_file", repository.path, Waiting, **HURRY, **mode))
    assert run.state == "success"
    assert f"{sst.name}: expected {sst.stat().st_size} bytes, got no file" in run.log


@mode
def test_time_out(run_dag: RunDag, repository: Repository, mode: dict[str, Any]) -> None:
    """When time is up, the error says what was wanted, and what there was; with soft_fail it is a skip."""
    repository.back_up()
    options = {"newer_than": "{{ dag_run.start_date }}", **mode}  # the backup was there before
    run = run_dag(wait_dag("backup_time_out", repository.path, retries=1, **IMPATIENT, **options))
    assert run.tries == {"wait": ("failed", 1)}
    assert "Still missing: a complete backup newer than 20" in run.log
    assert "backup 1 is of 20" in run.log
    run = run_dag(wait_dag("backup_soft", repository.path, soft_fail=True, **IMPATIENT, **options))
    assert run.states == {"wait": "skipped"}


@pytest.mark.parametrize("softness", ["", "soft_fail", "never_fail"])
@mode
def test_corrupt(run_dag: RunDag, repository: Repository, mode: dict[str, Any], softness: str) -> None:
    """A damaged backup fails the task at its first try, also when it turns up later, however softly it may fail."""

    def damage() -> None:
        repository.back_up()
        repository.one("meta/1").write_bytes(b"damaged\n")

    Waiting.meanwhile.append(damage)
    options = {softness: True} if softness else {}
    run = run_dag(wait_dag("backup_corrupt", repository.path, Waiting, retries=2, **HURRY, **options, **mode))
    assert run.tries == {"wait": ("failed", 1)}
    assert f"{repository.path} is corrupt: a complete backup: backup 1: " in run.log


@mode
def test_unknown_schema(run_dag: RunDag, repository: Repository, mode: dict[str, Any]) -> None:
    """What could not be checked fails the try, and never passes; the next try may be luckier."""
    repository.back_up()
    repository.one("meta/1").write_text("schema_version 3\n")
    run = run_dag(wait_dag("unknown", repository.path, retries=1, soft_fail=True, **HURRY, **mode))
    assert run.tries == {"wait": ("failed", 2)}
    assert f"{repository.path} could not be checked: " in run.log


@pytest.mark.parametrize("value", ["None", "", "tomorrow"])
def test_newer_than_nothing(run_dag: RunDag, repository: Repository, value: str) -> None:
    """What a template without a value makes of newer_than is an error, and not a wait for any backup."""
    repository.back_up()
    run = run_dag(wait_dag("nothing", repository.path, newer_than=value, retries=1))
    assert run.tries == {"wait": ("failed", 1)}
    assert f"newer_than: expected a time as ISO 8601, got {value!r}" in run.log


# the trigger


def trigger(place: Path | str, **changes: Any) -> RocksDBBackupTrigger:
    arguments: dict[str, Any] = {
        "rocksdb_conn_id": "rocksdb_default",
        "backup_dir": str(place),
        "storage_conn_id": None,
        "newer_than": None,
        "max_age_seconds": None,
        "db_id": None,
        "poke_interval": 0.05,
        "end_time": time.time() + 0.2,
    }
    return RocksDBBackupTrigger(**{**arguments, **changes})


def test_trigger_serializes(repository: Repository) -> None:
    """A trigger made from what another has serialized is the same, and its path leads to its class."""
    first = trigger("s3://a/b", storage_conn_id="aws", newer_than="2030-01-01T00:00:00+00:00", max_age_seconds=1.5)
    path, arguments = first.serialize()
    module, _, name = path.rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is RocksDBBackupTrigger
    assert RocksDBBackupTrigger(**json.loads(json.dumps(arguments))).serialize() == (path, arguments)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "complete"),
        ({"backup_dir": "/nowhere"}, "incomplete"),
        ({"newer_than": datetime(2050, 1, 1, tzinfo=UTC).isoformat()}, "incomplete"),
        ({"max_age_seconds": 0}, "incomplete"),
        ({"db_id": "another"}, "incomplete"),
        ({"newer_than": "tomorrow"}, "refused"),
        ({"backup_dir": "nosuchscheme://a/b"}, "refused"),
        ({"backup_dir": "s3://a/b", "storage_conn_id": "missing"}, "could_not_check"),
        ({"backup_dir": "s3://a/b", "rocksdb_conn_id": "missing"}, "could_not_check"),
    ],
)
def test_trigger_has_one_event(repository: Repository, changes: dict[str, Any], state: str) -> None:
    """A trigger yields one event, whatever happens, and says why."""
    repository.back_up()

    async def collect() -> list[Any]:
        return [event.payload async for event in trigger(repository.path, **changes).run()]

    (event,) = asyncio.run(collect())
    assert event["state"] == state
    assert bool(event["reason"]) == (state != "complete")


def test_trigger_stops(tmp_path: Path) -> None:
    """A trigger that is cancelled ends, and its look with it."""

    async def cancel() -> None:
        running = trigger(tmp_path / "nothing", end_time=time.time() + 60, poke_interval=60)
        task = asyncio.ensure_future(anext(running.run()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await running.cleanup()

    asyncio.run(cancel())
