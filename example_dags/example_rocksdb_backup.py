"""Back up a RocksDB database every hour, while another process is writing it.

The connection ``rocksdb_default`` says where the database and its backup repository are. Run as a script, this file
makes a database with a writer and an Airflow of its own, runs the DAG twice and prints what came of it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

if __name__ == "__main__":  # before Airflow is imported: it gets a home of its own
    from rocksdb_demo import Demo

    demo = Demo(os.path.dirname(os.path.abspath(__file__)))

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import (
    RocksDBCreateCheckpointOperator,
    RocksDBDeleteCheckpointOperator,
)
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBCheckpointSensor
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator

START = datetime(2026, 1, 1, tzinfo=UTC)

with DAG("example_rocksdb_backup", schedule="@hourly", start_date=START, catchup=False, max_active_runs=1) as dag:
    create = RocksDBCreateCheckpointOperator(task_id="create_checkpoint")
    whole = RocksDBCheckpointSensor(task_id="checkpoint_is_whole", level="checksums", mode="reschedule")
    upload = RocksDBToFsspecOperator(task_id="upload")
    delete = RocksDBDeleteCheckpointOperator(task_id="delete_checkpoint")

    create >> whole >> upload >> delete.as_teardown(setups=create)

if __name__ == "__main__":
    demo.run(dag)
