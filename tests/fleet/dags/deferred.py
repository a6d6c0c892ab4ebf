"""Deferred sensors, at places that the run is given."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor, RocksDBCheckpointSensor

WAIT = {"deferrable": True, "poke_interval": 1}

with DAG("deferred", schedule=None, default_args={"rocksdb_conn_id": "rocksdb_events"}):
    RocksDBBackupSensor(task_id="backup", backup_dir="{{ dag_run.conf.backup_dir }}", **WAIT)
    RocksDBCheckpointSensor(task_id="checkpoint", checkpoint_dir="{{ dag_run.conf.checkpoint_dir }}", **WAIT)
    RocksDBBackupSensor(task_id="late", backup_dir="{{ dag_run.conf.backup_dir }}", timeout=45, **WAIT)
