"""Alert when a database has had no good backup for 26 hours, for whatever reason, also when no backup ran at all.

This DAG looks at the repository itself, every hour: so it also fires when the backup's DAG is paused, deleted, or has
never run. (Airflow's DeadlineAlert counts from a run of the DAG that it belongs to: without a run there is no
deadline.) The connection ``rocksdb_default`` says where the repository is. Run as a script, this file makes a database
with a writer and an Airflow of its own, runs the DAG before there is any backup and after one, and prints what came of
it.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Any

if __name__ == "__main__":  # before Airflow is imported: it gets a home of its own
    from rocksdb_demo import Demo

    demo = Demo(os.path.dirname(os.path.abspath(__file__)))

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor


def alert(context: Any) -> None:
    """Tell who is on call. A notifier does it as well: SmtpNotifier, SlackNotifier, PagerdutyNotifier, ..."""
    task = context["task"]
    logging.getLogger(__name__).error("ALERT %s: %s", task.rocksdb_conn_id, context["exception"])


with DAG(
    "example_rocksdb_backup_alert",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
) as dag:
    RocksDBBackupSensor(
        task_id="backup_is_fresh",
        max_age=timedelta(hours=26),  # a day, and two hours for the backup itself
        timeout=0,  # look once; what could not be looked at is tried again
        retries=2,
        retry_delay=timedelta(minutes=5),
        on_failure_callback=alert,
    )

if __name__ == "__main__":
    demo.run_alert(dag)
