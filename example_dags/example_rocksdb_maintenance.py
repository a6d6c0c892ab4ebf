"""Keep a backup repository in order: read a part of it each day, restore its newest backup each week, and prune it.

The connection ``rocksdb_default`` says where the repository is. Three DAGs, as the three cost very different amounts:
a part of the objects, the size of the database in scratch space, a few listings.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBPruneBackupsOperator, RocksDBVerifyBackupOperator

START = datetime(2026, 1, 1, tzinfo=UTC)

with DAG("example_rocksdb_verify", schedule="0 4 * * *", start_date=START, catchup=False) as verify:
    RocksDBVerifyBackupOperator(
        task_id="verify",
        all_backups=True,
        level="checksums",
        sample_percent=5,  # each day another part: everything in 20 days
        max_bytes_per_second=50_000_000,
    )

with DAG("example_rocksdb_restore_drill", schedule="0 5 * * 0", start_date=START, catchup=False) as drill:
    RocksDBVerifyBackupOperator(task_id="restore", level="restore")

with DAG("example_rocksdb_prune", schedule="0 6 * * *", start_date=START, catchup=False) as prune:
    RocksDBPruneBackupsOperator(task_id="prune", keep_last=3, keep_daily=7, keep_weekly=5, keep_monthly=12)
