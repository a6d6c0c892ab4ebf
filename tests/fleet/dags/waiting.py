"""Sensors that wait for a backup, in each way that gives their slot back; and a DAG that makes one on a schedule."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor

with DAG("waiting", schedule=None) as waiting:
    # not less: a busy scheduler takes the end of the poke before for the end of the one that it has started since
    RocksDBBackupSensor(task_id="rescheduled", mode="reschedule", poke_interval=20)
    RocksDBBackupSensor(task_id="deferred", deferrable=True, poke_interval=3)

with DAG("scheduled", schedule=timedelta(seconds=5), catchup=False, max_active_runs=1) as scheduled:
    RocksDBBackupOperator(task_id="backup")
