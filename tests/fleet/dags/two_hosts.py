"""Tasks on the wrong host: what is only on db-host-1's disk is wanted on db-host-2."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import (
    RocksDBBackupOperator,
    RocksDBCreateCheckpointOperator,
    RocksDBDeleteCheckpointOperator,
)
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBCheckpointSensor
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator

with DAG("two_hosts", schedule=None, default_args={"rocksdb_conn_id": "rocksdb_users", "retries": 2}) as dag:
    create = RocksDBCreateCheckpointOperator(task_id="create", queue="db-host-1")
    delete = RocksDBDeleteCheckpointOperator(task_id="delete", queue="db-host-1").as_teardown(setups=create)
    upload = RocksDBToFsspecOperator(task_id="upload", queue="db-host-2")
    sensor = RocksDBCheckpointSensor(task_id="sensor", queue="db-host-2", mode="reschedule")
    delete_elsewhere = RocksDBDeleteCheckpointOperator(task_id="delete_elsewhere", queue="db-host-2")
    create >> [upload, sensor, delete_elsewhere] >> delete

    RocksDBBackupOperator(task_id="backup", queue="db-host-2")  # the database itself is not there
