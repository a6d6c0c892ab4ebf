"""Backups of a database that the run names: slow ones, one of them with a time limit, and one without limits."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator

PLACES = {"db_dir": "{{ dag_run.conf.db_dir }}", "backup_dir": "{{ dag_run.conf.backup_dir }}"}
SLOW = {"max_bytes_per_second": 200_000, "max_workers": 2}

with DAG("limited", schedule=None, default_args={"rocksdb_conn_id": "rocksdb_events", "queue": "db-host-2"}):
    RocksDBBackupOperator(task_id="backup", **PLACES, **SLOW)

with DAG("limited_in_time", schedule=None, default_args={"rocksdb_conn_id": "rocksdb_events", "queue": "db-host-2"}):
    RocksDBBackupOperator(task_id="backup", execution_timeout=timedelta(seconds=15), **PLACES, **SLOW)

with DAG("unlimited", schedule=None, default_args={"rocksdb_conn_id": "rocksdb_events", "queue": "db-host-2"}):
    RocksDBBackupOperator(task_id="backup", **PLACES)
