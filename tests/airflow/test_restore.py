"""Restore a database from a DAG."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBCheckpointSensor
from airflow_provider_rocksdb.transfers.fsspec_to_rocksdb import FsspecToRocksDBOperator
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator
from tests.airflow.conftest import Run
from tests.servers import S3Server

RunDag = Callable[[DAG], Run]
Connect = Callable[..., None]


@pytest.fixture
def checkpoint_dir(live_db: Path, tmp_path: Path) -> Path:
    create_live_checkpoint(DatabasePaths(str(live_db)), str(tmp_path / "ck"))
    return tmp_path / "ck"


@pytest.fixture
def repository(checkpoint_dir: Path, tmp_path: Path) -> Path:
    """Back up a live database: 1,000 keys in an SST file, 100 in the WAL."""
    create_backup(read_inventory(str(checkpoint_dir)), LocalFileSystem(), str(tmp_path / "repository"))
    return tmp_path / "repository"


def restore_dag(dag_id: str, **arguments: Any) -> DAG:
    with DAG(dag_id, schedule=None) as dag:
        FsspecToRocksDBOperator(task_id="restore", **arguments)
    return dag


def count(db_dir: Path) -> int:
    from rocksdict import AccessType, Options, Rdict

    database = Rdict(str(db_dir), Options(raw_mode=True), access_type=AccessType.read_only())
    found = len(list(database.keys()))
    database.close()
    return found


def test_restore_and_check(run_dag: RunDag, repository: Path, tmp_path: Path) -> None:
    """The newest backup is restored, and the sensor finds it whole; the XCom is small, its values have keys."""
    target = tmp_path / "restored"
    with DAG("restore_and_check", schedule=None) as dag:
        restore = FsspecToRocksDBOperator(task_id="restore", db_dir=str(target), backup_dir=str(repository))
        db_dir = "{{ ti.xcom_pull(task_ids='restore', key='db_dir') }}"
        restore >> RocksDBCheckpointSensor(task_id="whole", checkpoint_dir=db_dir, level="blocks")
    run = run_dag(dag)
    assert run.state == "success"
    result = run.xcom("restore")
    assert (result["backup_id"], result["db_dir"], result["sequence_number"]) == (1, str(target), 1100)
    assert len(json.dumps(result)) < 2000
    assert count(target) == 1100


def test_by_connection(run_dag: RunDag, connect: Connect, repository: Path, tmp_path: Path) -> None:
    """Where to and where from may all come from the connection."""
    wal_dir = tmp_path / "wal"
    extra = {"db_dir": str(tmp_path / "restored"), "backup_dir": str(repository), "wal_dir": str(wal_dir)}
    connect("rocksdb_default", "rocksdb", extra=extra)
    run = run_dag(restore_dag("by_connection"))
    assert run.state == "success"
    assert len(list(wal_dir.glob("*.log"))) == 1
    assert run.xcom("restore")["options_changes"] == {"wal_dir": ""}


def test_s3_round_trip(
    run_dag: RunDag,
    connect: Connect,
    checkpoint_dir: Path,
    tmp_path: Path,
    s3_server: S3Server,
    stored: Callable[[], str],
) -> None:
    """Upload to S3 and restore from there, the backup's id by a template; the password is nowhere to be read."""
    connection = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    connect("store", "aws", login=s3_server.key, password=s3_server.secret, extra=connection)
    connect("rocksdb_default", "rocksdb", extra={"backup_dir": s3_server.url, "storage_conn_id": "store"})
    with DAG("round_trip", schedule=None) as dag:
        upload = RocksDBToFsspecOperator(task_id="upload", checkpoint_dir=str(checkpoint_dir))
        upload >> FsspecToRocksDBOperator(
            task_id="restore",
            db_dir=f"{tmp_path}/{{{{ dag.dag_id }}}}",
            backup_id="{{ ti.xcom_pull('upload')['backup_id'] }}",
        )
    run = run_dag(dag)
    assert run.state == "success"
    assert run.xcom("restore")["backup_dir"] == s3_server.url
    assert count(tmp_path / "round_trip") == 1100
    assert s3_server.secret not in run.log + stored()


@pytest.mark.parametrize("options", [{"delta": True}, {"in_place": True}], ids=["delta", "in place"])
def test_replace(run_dag: RunDag, repository: Path, stopped_db: Path, options: dict[str, Any]) -> None:
    """A database that is there is refused at the first try, and untouched, until it may be replaced."""
    arguments = {"db_dir": str(stopped_db), "backup_dir": str(repository)}
    run = run_dag(restore_dag("restore_refused", retries=2, **arguments))
    assert run.tries == {"restore": ("failed", 1)}
    assert "ExistsError" in run.log
    assert count(stopped_db) == 1100
    result = run_dag(restore_dag("replaced", replace=True, **arguments, **options)).xcom("restore")
    assert (result["replaced"], result["reused_files"]) == (True, 1 if options.get("delta") else 0)
    assert count(stopped_db) == 1100


def test_running_database(run_dag: RunDag, repository: Path, live_db: Path) -> None:
    """A database that a process has open is not replaced; the task may try again, for the process may end."""
    before = sorted(os.listdir(live_db))
    run = run_dag(restore_dag("running", db_dir=str(live_db), backup_dir=str(repository), replace=True, retries=0))
    assert run.state == "failed"
    assert "has the database open" in run.log
    assert sorted(os.listdir(live_db)) == before


@pytest.mark.parametrize("backup_id", ["three", "-1", "1.0", True])
def test_bad_backup_id(run_dag: RunDag, repository: Path, tmp_path: Path, backup_id: Any) -> None:
    """What is no id is refused at the first try."""
    arguments = {"db_dir": str(tmp_path / "restored"), "backup_dir": str(repository), "backup_id": backup_id}
    run = run_dag(restore_dag("bad_id", retries=2, **arguments))
    assert run.tries == {"restore": ("failed", 1)}
    assert "backup_id: expected a number" in run.log


def test_damaged_backup(run_dag: RunDag, repository: Path, tmp_path: Path) -> None:
    """A damaged backup fails at the first try and makes nothing; the object is named."""
    (sst,) = (repository / "shared_checksum").iterdir()
    data = bytearray(sst.read_bytes())
    data[100] ^= 1
    sst.write_bytes(data)
    run = run_dag(restore_dag("damaged", db_dir=str(tmp_path / "restored"), backup_dir=str(repository), retries=2))
    assert run.tries == {"restore": ("failed", 1)}
    assert sst.name in run.log
    assert not (tmp_path / "restored").exists()


def test_killed(run_dag: RunDag, repository: Path, tmp_path: Path, killed_when: Callable[[Path], None]) -> None:
    """A restore that gets SIGTERM stops at once, fails, and leaves nothing; the next one succeeds."""
    target = tmp_path / "place" / "restored"
    killed_when(Path(f"{target}.tmp", "restore.json"))  # until then an exception leaves an empty directory
    arguments = {"db_dir": str(target), "backup_dir": str(repository)}
    run = run_dag(restore_dag("restore_killed", max_bytes_per_second=200, **arguments))
    assert run.tries == {"restore": ("failed", 1)}
    assert os.listdir(target.parent) == []
    assert run_dag(restore_dag("restore_killed_again", **arguments)).state == "success"
    assert count(target) == 1100
