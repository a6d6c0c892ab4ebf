"""A restore drill: restore a backup into a scratch directory, read every block of it, remove it."""

from __future__ import annotations

import os
import threading

from airflow_provider_rocksdb.core.completeness import Completeness, check_completeness
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.scratch_place import scratch_place
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions

_PREFIX = "rocksdb-drill-"


def drill(
    storage: Storage,
    backup_id: int | None,
    *,
    scratch_dir: str | None,
    timeout_seconds: float,
    options: TransferOptions,
    stop: threading.Event | None,
) -> Completeness:
    """Restore a backup and check it at level ``blocks``; nothing stays of it, whatever happens.

    :param backup_id: None for the layouts ``directory`` and ``archive``.
    :param scratch_dir: where; default: the directory of temporary files.
    :raises CouldNotCheckError: when there is no such place, or no room in it.
    :raises RocksDBError: as :func:`.restore.restore_backup`.
    """
    from airflow_provider_rocksdb.core.restore import restore_backup  # a check that restores nothing does without

    with scratch_place(scratch_dir, _PREFIX) as place:
        db_dir = os.path.join(place, "db")
        restore_backup(
            storage.filesystem, storage.root, DatabasePaths(db_dir), backup_id=backup_id, options=options, stop=stop
        )
        return check_completeness(db_dir, level="blocks", timeout_seconds=timeout_seconds, stop=stop)
