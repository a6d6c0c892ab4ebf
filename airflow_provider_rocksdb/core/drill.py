"""A restore drill: restore a backup into a scratch directory, read every block of it, remove it.

The directory is locked (flock) as long as the drill runs, so that the next drill there knows and removes what a killed
one has left: it has the size of a database.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.completeness import Completeness, check_completeness
from airflow_provider_rocksdb.core.errors import BusyError, CouldNotCheckError
from airflow_provider_rocksdb.core.paths import DatabasePaths
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

    with _scratch_place(scratch_dir or tempfile.gettempdir()) as place:
        db_dir = os.path.join(place, "db")
        restore_backup(
            storage.filesystem, storage.root, DatabasePaths(db_dir), backup_id=backup_id, options=options, stop=stop
        )
        return check_completeness(db_dir, level="blocks", timeout_seconds=timeout_seconds, stop=stop)


@contextlib.contextmanager
def _scratch_place(parent: str) -> Iterator[str]:
    """Make a directory for the length of the block, and lock it; first remove what dead drills have left beside it."""
    try:
        _sweep(parent)
        place, lock = _make_locked(parent)
    except OSError as error:
        raise CouldNotCheckError(
            f"{parent}: a scratch directory cannot be made there: {error.strerror}; name another (scratch_dir)"
        ) from None
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _make_locked(parent: str) -> tuple[str, int]:
    while True:
        place = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        with contextlib.suppress(FileNotFoundError, BusyError):  # a drill that begins just now takes it for litter
            lock = durable.lock_directory(place)
            if os.path.isdir(place):
                return place, lock
            os.close(lock)


def _sweep(parent: str) -> None:
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in found:
        with contextlib.suppress(OSError, BusyError):  # not a directory of this user, or a drill that runs
            if os.lstat(path).st_uid == os.geteuid():
                lock = durable.lock_directory(path)
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
