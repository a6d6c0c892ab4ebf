"""Scratch directories: for the length of a block, and gone afterwards, whatever happens.

A directory is locked (flock) as long as its block runs, so that the next run there knows and removes what a killed one
has left: it may have the size of a database.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import BusyError, CouldNotCheckError


@contextlib.contextmanager
def scratch_place(parent: str | None, prefix: str) -> Iterator[str]:
    """Make a directory for the length of the block; first remove what killed runs have left beside it.

    :param parent: where; None: the directory of temporary files.
    :param prefix: of its name; what is swept away has the same.
    :raises CouldNotCheckError: when there is no such place, or no room in it.
    """
    parent = parent or tempfile.gettempdir()
    try:
        _sweep(parent, prefix)
        place, lock = _make_locked(parent, prefix)
    except OSError as error:
        raise CouldNotCheckError(
            f"{parent}: a scratch directory cannot be made there: {error.strerror}; name another (scratch_dir)"
        ) from None
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _make_locked(parent: str, prefix: str) -> tuple[str, int]:
    while True:
        place = tempfile.mkdtemp(prefix=prefix, dir=parent)
        with contextlib.suppress(FileNotFoundError, BusyError):  # a run that begins just now takes it for litter
            lock = durable.lock_directory(place)
            if os.path.isdir(place):
                return place, lock
            os.close(lock)


def _sweep(parent: str, prefix: str) -> None:
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(prefix)]
    for path in found:
        with contextlib.suppress(OSError, BusyError):  # not a directory of this user, or a run that goes on
            if os.lstat(path).st_uid == os.geteuid():
                lock = durable.lock_directory(path)
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
