"""Verify each new backup in a repository as soon as it is there, whoever makes it: RocksDB's own BackupEngine, too.

The triggerer looks into the repository of the connection ``rocksdb_default`` (Airflow 3; from 3.3 on it tells after a
restart what came meanwhile). The asset that it watches has a name of its own: the repository's URI is the name of the
asset that gets the events of this provider's tasks, and each of their backups would be two events.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task
from airflow.sdk import AssetWatcher

from airflow_provider_rocksdb.operators.rocksdb import RocksDBVerifyBackupOperator
from airflow_provider_rocksdb.triggers.rocksdb import RocksDBBackupTrigger

CONNECTION = "rocksdb_default"
NEW_BACKUP = Asset(
    "rocksdb_new_backup",
    watchers=[AssetWatcher("repository", trigger=RocksDBBackupTrigger(rocksdb_conn_id=CONNECTION, poke_interval=10))],
)


@task
def list_new(triggering_asset_events: Any = None) -> list[int]:
    """Return the ids: backups that came at the same time may have started one run."""
    return [event.extra["payload"]["backup_id"] for event in triggering_asset_events[NEW_BACKUP]]


with DAG("example_rocksdb_backup_watch", schedule=[NEW_BACKUP], catchup=False) as dag:
    verify = RocksDBVerifyBackupOperator.partial(
        task_id="verify",
        rocksdb_conn_id=CONNECTION,
        level="checksums",
        map_index_template="backup {{ task.backup_id }}",
    )
    verify.expand(backup_id=list_new())
