"""A DAG that makes a backup, for which the operator emits an event of the repository's asset."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator

with DAG("backing_up", schedule=None) as dag:
    RocksDBBackupOperator(task_id="backup")
