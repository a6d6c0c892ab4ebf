"""DAGs whose databases are in each of the states that the page tells apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator, RocksDBVerifyBackupOperator

START = datetime(2026, 1, 1, tzinfo=UTC)


def back_up(name: str, schedule: str | timedelta) -> DAG:
    with DAG(f"{name}_backup", schedule=schedule, start_date=START, catchup=False, max_active_runs=1) as dag:
        backup = RocksDBBackupOperator(task_id="backup", rocksdb_conn_id=name)
        backup >> RocksDBVerifyBackupOperator(task_id="verify", rocksdb_conn_id=name, level="checksums")
    return dag


orders = back_up("orders", "@daily")
users = back_up("users", "@daily")
events = back_up("events", timedelta(seconds=20))
