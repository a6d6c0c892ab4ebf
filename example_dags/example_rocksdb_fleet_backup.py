"""Back up the databases of several hosts every night, each on the worker that sees its disk; then verify the backups.

Each host has a Celery worker on a queue of its own (``airflow celery worker --queues db-host-1``), and each database a
connection of type ``rocksdb``. A pool says how many upload at a time: ``airflow pools set rocksdb_uploads 2 Uploads``.
Run as a script, this file makes databases with writers and an Airflow of its own, in which all hosts are this one, runs
the DAG twice and prints what came of it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

if __name__ == "__main__":  # before Airflow is imported: it gets a home of its own
    from rocksdb_demo import Demo

    demo = Demo(os.path.dirname(os.path.abspath(__file__)), ["rocksdb_users", "rocksdb_orders", "rocksdb_events"])

from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator, RocksDBVerifyBackupOperator

FLEET = {  # queue of a host's worker: connections of the databases there
    "db-host-1": ["rocksdb_users", "rocksdb_orders"],
    "db-host-2": ["rocksdb_events"],
}


@task_group
def back_up(rocksdb_conn_id: str, host: str) -> None:
    """Back up one database on its host, then verify the backup on any worker that sees the repository."""
    backup = RocksDBBackupOperator(
        task_id="backup",
        rocksdb_conn_id=rocksdb_conn_id,
        queue=host,
        pool="rocksdb_uploads",
        max_bytes_per_second=20_000_000,  # leaves the service its disk and its network
        retention={"keep_daily": 7, "keep_weekly": 5},
        retries=3,
        map_index_template="{{ task.rocksdb_conn_id }}",
    )
    verify = RocksDBVerifyBackupOperator(
        task_id="verify",
        rocksdb_conn_id=rocksdb_conn_id,
        level="checksums",
        map_index_template="{{ task.rocksdb_conn_id }}",
    )
    backup >> verify


with DAG(
    "example_rocksdb_fleet_backup",
    schedule="30 2 * * *",  # off-peak
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
) as dag:
    for host, databases in FLEET.items():
        back_up.override(group_id=host).partial(host=host).expand(rocksdb_conn_id=databases)

if __name__ == "__main__":
    demo.run_fleet(dag)
