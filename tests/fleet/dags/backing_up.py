"""A DAG that makes a backup, and emits an event of the repository's asset for it."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator

REPOSITORY = Asset(os.environ["EXAMPLE_REPOSITORY"])


@task(outlets=[REPOSITORY])
def emit(backup: dict[str, Any], outlet_events: Any = None) -> None:
    outlet_events[REPOSITORY].extra = {"backup_id": backup["backup_id"]}


with DAG("backing_up", schedule=None) as dag:
    emit(RocksDBBackupOperator(task_id="backup").output)
