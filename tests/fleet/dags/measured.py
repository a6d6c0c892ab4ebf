"""Every task that emits metrics: those that succeed, and those that fail."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator, RocksDBVerifyBackupOperator
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor

with DAG("measured", schedule=None) as dag:
    backup = RocksDBBackupOperator(task_id="backup")
    fresh = RocksDBBackupSensor(task_id="fresh", max_age=timedelta(hours=26), timeout=0)
    too_old = RocksDBBackupSensor(task_id="too_old", max_age=timedelta(0), timeout=0)
    verify = RocksDBVerifyBackupOperator(task_id="verify", backup_id=99)
    backup >> [fresh, too_old, verify]
