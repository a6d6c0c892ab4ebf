"""A restore drill: restore a backup into a scratch directory, read every block of it, remove it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading

from airflow_provider_rocksdb.core.completeness import Completeness, check_completeness
from airflow_provider_rocksdb.core.errors import CouldNotCheckError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions


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

    try:
        place = tempfile.mkdtemp(prefix="rocksdb-drill-", dir=scratch_dir)
    except OSError as error:
        where = scratch_dir or tempfile.gettempdir()
        raise CouldNotCheckError(
            f"{where}: a scratch directory cannot be made there: {error.strerror}; name another (scratch_dir)"
        ) from None
    try:
        db_dir = os.path.join(place, "db")
        restore_backup(
            storage.filesystem, storage.root, DatabasePaths(db_dir), backup_id=backup_id, options=options, stop=stop
        )
        return check_completeness(db_dir, level="blocks", timeout_seconds=timeout_seconds, stop=stop)
    finally:
        shutil.rmtree(place, ignore_errors=True)
