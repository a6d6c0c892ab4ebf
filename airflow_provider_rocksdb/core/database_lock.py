"""RocksDB's own lock of a DB directory: a POSIX record lock on the file LOCK, held while a database is open."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import BusyError


@contextlib.contextmanager
def locked_database(db_dir: str) -> Iterator[None]:
    """Hold RocksDB's own lock of a DB directory, so that no program opens it meanwhile; do nothing where none is.

    :raises BusyError: when a process has the database open; names its pid.
    """
    path = os.path.join(db_dir, "LOCK")
    require_closed(db_dir)
    if not os.path.lexists(os.path.join(db_dir, "CURRENT")):
        yield
        return
    descriptor = _open_lock(path)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            descriptor = -1
            require_closed(db_dir)
            raise BusyError(f"{path}: another process has just opened the database, or closed it; try again") from None
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_lock(path: str) -> int:
    """Open a LOCK file; a new one belongs to whom the directory belongs to, whose program will want to open it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    if os.geteuid() == 0:
        owner = os.stat(os.path.dirname(path))
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def require_closed(db_dir: str) -> None:
    """Check that no process has a database open.

    :raises BusyError: when one has; names its pid.
    """
    owner = durable.lock_owner(os.path.join(db_dir, "LOCK"))
    if owner is not None:
        raise BusyError(
            f"{db_dir}: process {owner or '(not visible here)'} has the database open (LOCK); stop it first"
        )
