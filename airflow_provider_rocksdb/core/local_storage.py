"""The local file system as a storage: a file gets its name when it is whole and on disk, and each name is durable."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import ExistsError

_NO_LINK = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextlib.contextmanager
def open_new(path: str) -> Iterator[Any]:
    """Open a new file for writing; it is on disk when the block ends, and gone unless it ends well."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield file
            os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise


def iter_folder(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield names in a folder with what they are, links not followed; fsspec's own listing takes five times as long.

    :raises OSError: as ``scandir(3)``.
    """
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # deleted meanwhile
                continue
            yield entry.name, status


def make_folders(path: str) -> None:
    """Create a folder and its parents, each name durable."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_folders(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        durable.fsync_directory(parent)


def link(source: str, target: str) -> bool:
    """Give a file a name that nobody has; False where there are no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    os.unlink(source)
    return True


def create(path: str, data: bytes) -> None:
    """Write a file under a name that nobody has.

    :raises ExistsError: when it is taken.
    """
    try:
        durable.write_file(path, data, exclusive=True)
    except ExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        durable.create_file(path, data)  # no hard links here: a name at once, and content that a reader checks
        durable.fsync_directory(os.path.dirname(path))
