"""Restore the newest backup of a RocksDB database into a new place, read all of it, then point the service there.

The connection ``rocksdb_default`` says where the database and its backup repository are. Run as a script, this file
makes a database with a writer, a backup of it and an Airflow of its own, runs the DAG and prints what came of it.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before Airflow is imported: it gets a home of its own
    from rocksdb_demo import Demo

    demo = Demo(os.path.dirname(os.path.abspath(__file__)))

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_rocksdb.sensors.rocksdb import RocksDBCheckpointSensor
from airflow_provider_rocksdb.transfers.fsspec_to_rocksdb import FsspecToRocksDBOperator

DB_DIR = "{{ conn.rocksdb_default.extra_dejson.db_dir }}"
RESTORED = f"{DB_DIR}.restored"


@task
def hand_over(restored: str, link: str) -> None:
    """Point a symbolic link, which the service opens when it starts, to the restored database."""
    os.symlink(restored, f"{link}.new")
    os.replace(f"{link}.new", link)


with DAG("example_rocksdb_restore", schedule=None, catchup=False) as dag:
    restore = FsspecToRocksDBOperator(task_id="restore", db_dir=RESTORED, replace=True, delta=True)
    whole = RocksDBCheckpointSensor(
        task_id="database_is_whole", checkpoint_dir=RESTORED, level="blocks", mode="reschedule"
    )
    restore >> whole >> hand_over(RESTORED, f"{DB_DIR}.current")

if __name__ == "__main__":
    demo.run_restore(dag)
