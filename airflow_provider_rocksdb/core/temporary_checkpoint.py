"""A checkpoint that lives as long as an upload.

It lies in ``<DB directory>.checkpoints/backup-<random>`` (``<DB directory>/.checkpoints/…`` for a mount point). Every
run holds a shared flock on the parent as long as it needs its checkpoint; whoever gets it exclusively is alone, so that
what lies there under our prefix is left by runs that were killed, and is deleted. An abandoned checkpoint would keep
the space of every file that the database deletes afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator

from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint
from airflow_provider_rocksdb.core.errors import AccessError, NotFoundError, RocksDBError

_PREFIX = "backup-"


@contextlib.contextmanager
def temporary_checkpoint_dir(db_dir: str, *, inside: bool = False) -> Iterator[str]:
    """Give the block a name for a checkpoint, and delete what it makes there, however it ends.

    :param inside: in the DB directory, for one that is a mount point; else beside it.
    :raises NotFoundError: when there is no DB directory.
    :raises AccessError: when the directory of the checkpoints cannot be made.
    """
    place = os.path.realpath(db_dir)
    if not os.path.isdir(place):
        raise NotFoundError(f"{db_dir}: no such directory on host {socket.gethostname()}")
    parent = os.path.join(place, ".checkpoints") if inside else place + ".checkpoints"
    with _sweeping(parent):
        checkpoint_dir = os.path.join(parent, _PREFIX + secrets.token_hex(8))
        try:
            yield checkpoint_dir
        finally:
            delete_checkpoint(checkpoint_dir)


@contextlib.contextmanager
def _sweeping(parent: str) -> Iterator[None]:
    """Hold the parent for the length of the block; before and after, alone, clear what nobody uses."""
    descriptor = _open_locked(parent)
    try:
        yield
    finally:
        if _lock_alone(descriptor):
            with contextlib.suppress(OSError):  # somebody else's checkpoints are in it
                os.rmdir(parent)
        os.close(descriptor)


def _open_locked(parent: str) -> int:
    while True:
        _make_directory(parent)
        try:
            descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            if _lock_alone(descriptor) and _is_named(descriptor, parent):
                _delete_abandoned(parent)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_named(descriptor, parent):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by a run that ended meanwhile


def _make_directory(parent: str) -> None:
    try:
        os.mkdir(parent, mode=0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise AccessError(
            f"{parent}: the directory of the temporary checkpoint cannot be made: {error.strerror}; make it, or name "
            "another place with the command checkpoint and give backup that checkpoint"
        ) from None


def _lock_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _delete_abandoned(parent: str) -> None:
    names = {name.removesuffix(".tmp") for name in os.listdir(parent) if name.startswith(_PREFIX)}
    for name in names:
        with contextlib.suppress(RocksDBError):  # not what a run of ours leaves: not ours to delete
            delete_checkpoint(os.path.join(parent, name))
