"""Sensors that wait for a backup, in each way that gives their slot back; and a DAG that makes one on a schedule."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor

# A busy scheduler takes the end of the process that has deferred or rescheduled for the end of the one that it has
# started since, and fails the task (Airflow's issue 71580): so there are retries, and pokes are not more frequent.
RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=1)}

with DAG("waiting", schedule=None, default_args=RETRIES) as waiting:
    RocksDBBackupSensor(task_id="rescheduled", mode="reschedule", poke_interval=20)
    RocksDBBackupSensor(task_id="deferred", deferrable=True, poke_interval=3)

with DAG("scheduled", schedule=timedelta(seconds=5), catchup=False, max_active_runs=1) as scheduled:
    RocksDBBackupOperator(task_id="backup")
