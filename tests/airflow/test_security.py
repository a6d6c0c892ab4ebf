"""What tasks and templates know of credentials."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator
from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor
from airflow_provider_rocksdb.transfers.fsspec_to_rocksdb import FsspecToRocksDBOperator
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator

RunDag = Callable[[DAG], Any]
IMPORTED = (RocksDBBackupOperator, RocksDBBackupSensor, FsspecToRocksDBOperator, RocksDBToFsspecOperator)


def all_kinds(kind: type[RocksDBBaseOperator]) -> set[type[RocksDBBaseOperator]]:
    return {kind}.union(*(all_kinds(child) for child in kind.__subclasses__()))


def test_template_fields() -> None:
    """No operator or sensor renders storage options: rendered fields are stored, and shown to who may see the run."""
    kinds = all_kinds(RocksDBBaseOperator)
    assert set(IMPORTED) <= kinds
    for kind in kinds:
        fields = set(kind.template_fields)
        assert not fields & {"storage_options", "options", "hook", "password", "extra"}, kind


def test_nothing_keeps_a_credential(
    run_dag: RunDag, live_db: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch, stored: Callable[[], str]
) -> None:
    """A task has connections' names and not what is in them: a template that prints the task prints no credential."""
    secret = s3_server.secret
    extra = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    store = {"conn_type": "aws", "login": s3_server.key, "password": secret, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(store))
    own = {"db_dir": str(live_db), "backup_dir": s3_server.url, "storage_conn_id": "store"}
    monkeypatch.setenv("AIRFLOW_CONN_ROCKSDB_DEFAULT", json.dumps({"conn_type": "rocksdb", "extra": own}))
    seen = []

    class Backup(RocksDBBackupOperator):
        def post_execute(self, context: Any, result: Any = None) -> None:
            seen.append(f"{vars(self)} {result} {vars(self.hook)}")

    with DAG("keeps_nothing", schedule=None) as dag:
        Backup(task_id="backup", doc="{{ task.__dict__ }}")
    run = run_dag(dag)
    assert run.state == "success"
    assert seen
    assert secret not in seen[0] + run.log + stored()
