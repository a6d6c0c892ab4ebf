"""From a checkpoint to a storage: checked first, then uploaded in the layout that is asked for."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from typing import Any, Literal, get_args

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.archive import name_archive, upload_archive
from airflow_provider_rocksdb.core.archive_layout import Compression
from airflow_provider_rocksdb.core.completeness import Level, check_completeness
from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.inventory import Inventory, read_inventory
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions

Layout = Literal["backup_engine", "directory", "archive"]


def upload_checkpoint(
    checkpoint_dir: str,
    filesystem: AbstractFileSystem,
    root: str,
    *,
    layout: Layout = "backup_engine",
    level: Level = "files",
    app_metadata: Mapping[str, Any] | None = None,
    allow_other_source: bool = False,
    compression: Compression | None = None,
    compression_level: int | None = None,
    compression_threads: int | None = None,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Check a checkpoint, or a DB directory at rest, and upload it; return what was sent, as JSON-able values.

    :param root: the backup repository on ``filesystem``; for layout ``directory``, one for this checkpoint alone; for
        ``archive``, its name, or the folder for one named by :func:`.name_archive`.
    :param level: how far the checkpoint is checked first.
    :param app_metadata: JSON-able values to remember with a backup (``backup_engine``).
    :param allow_other_source: accept a repository that belongs to another database, host or path (``backup_engine``).
    :param compression: of an ``archive``, as ``compression_level`` and ``compression_threads``: see
        :func:`.upload_archive`.
    :raises InvalidArgumentError: for an unknown layout or level.
    :raises IncompleteError, CorruptionError, CouldNotCheckError: when the checkpoint is not whole; nothing is sent.
    :raises RocksDBError: as :func:`.create_backup`, :func:`.upload_directory`, :func:`.upload_archive`.
    """
    if layout not in get_args(Layout):
        raise InvalidArgumentError(f"layout {layout!r}: expected one of {', '.join(get_args(Layout))}")
    check_completeness(checkpoint_dir, level=level, stop=stop).raise_for_state()
    inventory = read_inventory(checkpoint_dir)
    if isinstance(filesystem, LocalFileSystem):
        _check_outside(root, inventory)
    if layout == "directory":
        return upload_directory(inventory, filesystem, root, options=options, stop=stop).to_dict()
    if layout == "archive":
        return upload_archive(
            inventory,
            filesystem,
            name_archive(inventory, root, compression),
            level=compression_level,
            threads=compression_threads,
            options=options,
            stop=stop,
        ).to_dict()
    return create_backup(
        inventory,
        filesystem,
        root,
        app_metadata=app_metadata,
        allow_other_source=allow_other_source,
        options=options,
        stop=stop,
    ).to_dict()


def _check_outside(root: str, inventory: Inventory) -> None:
    """Check that nothing will be written in the database's directory, nor in the checkpoint's.

    :raises InvalidArgumentError: when it would.
    """
    directories = [inventory.directory]
    checkpoint = inventory.checkpoint
    if checkpoint is not None and checkpoint.hostname == socket.gethostname():
        directories.append(str(checkpoint.source.get("db_dir") or inventory.directory))
    target = os.path.realpath(root)
    for directory in directories:
        source = os.path.realpath(directory)
        if target == source or target.startswith(source.rstrip("/") + "/"):
            raise InvalidArgumentError(f"{root}: lies inside {directory}, which is being backed up; name another place")
