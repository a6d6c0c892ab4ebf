"""The three commands: arguments in, the core's calls, a small result out."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.cli import storage
from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.paths import DatabasePaths

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    :param state: ``done``, or what a check says: ``complete``, ``incomplete``, ``corrupt``, ``could_not_check``
    :param line: the same for a reader
    :param details: the same for a program
    """

    state: str
    line: str
    details: dict[str, Any] = field(default_factory=dict)


def checkpoint(arguments: argparse.Namespace, stop: threading.Event) -> Outcome:
    """Make a checkpoint."""
    paths = _database_paths(arguments, arguments.db_dir)
    if arguments.mode == "exclusive":
        from airflow_provider_rocksdb.core.database import create_exclusive_checkpoint

        made = create_exclusive_checkpoint(
            paths, arguments.checkpoint_dir, replace=arguments.replace, allow_inside=arguments.allow_inside
        )
    else:
        from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint

        made = create_live_checkpoint(
            paths,
            arguments.checkpoint_dir,
            replace=arguments.replace,
            allow_copy=arguments.allow_copy,
            allow_inside=arguments.allow_inside,
            timeout_seconds=arguments.timeout_seconds,
            stop=stop,
        )
    if made.damage:
        return Outcome("corrupt", _damage_line(arguments.db_dir, made.damage), made.summary())
    line = (
        f"{made.checkpoint_dir}: {made.file_count} files, {made.total_bytes} bytes ({made.copied_bytes} written, the "
        f"others linked), up to sequence number {made.sequence_number}, in {made.seconds:.2f} s"
    )
    return Outcome("done", line, made.summary())


def check(arguments: argparse.Namespace, stop: threading.Event) -> Outcome:
    """Check a directory, here or on a file system that fsspec knows."""
    from airflow_provider_rocksdb.core.completeness import check_completeness

    filesystem, directory = None, arguments.directory
    if storage.is_url(directory):
        filesystem, directory = storage.open_file_system(directory, arguments.storage_options)
    result = check_completeness(
        directory,
        filesystem=filesystem,
        level=arguments.level,
        paths=_database_paths(arguments, directory),
        timeout_seconds=arguments.timeout_seconds,
        stop=stop,
    )
    found = f"{arguments.directory}: {result.file_count} files, {result.total_bytes} bytes, WALs: {result.wals}"
    return Outcome(str(result.state), result.reason or found, result.to_dict())


def backup(arguments: argparse.Namespace, stop: threading.Event) -> Outcome:
    """Upload a checkpoint of ours as it is, and anything else through a live checkpoint."""
    from airflow_provider_rocksdb.cli.temporary import temporary_checkpoint

    filesystem, root = storage.open_file_system(arguments.backup_dir, arguments.storage_options)
    if arguments.no_checkpoint or _is_checkpoint(arguments.directory):
        return _upload(arguments.directory, filesystem, root, arguments, stop)
    with temporary_checkpoint(
        _database_paths(arguments, arguments.directory),
        allow_copy=arguments.allow_copy,
        allow_inside=arguments.allow_inside,
        timeout_seconds=arguments.timeout_seconds,
        stop=stop,
    ) as made:
        if made.damage:
            raise CorruptionError(_damage_line(arguments.directory, made.damage) + "; nothing was uploaded")
        return _upload(made.checkpoint_dir, filesystem, root, arguments, stop)


COMMANDS: dict[str, Callable[[argparse.Namespace, threading.Event], Outcome]] = {
    "backup": backup,
    "check": check,
    "checkpoint": checkpoint,
}


def _database_paths(arguments: argparse.Namespace, db_dir: str) -> DatabasePaths:
    cf_paths: dict[str, tuple[str, ...]] = {}
    for name, directory in arguments.cf_path:
        cf_paths[name] = (*cf_paths.get(name, ()), directory)
    return DatabasePaths(db_dir, arguments.wal_dir, tuple(arguments.db_path), cf_paths)


def _damage_line(db_dir: str, damage: tuple[str, ...]) -> str:
    more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
    return f"{db_dir}: the database is damaged: {damage[0]}{more}"


def _is_checkpoint(directory: str) -> bool:
    """Whether a directory is a checkpoint of ours that nobody has used as a database since."""
    from airflow_provider_rocksdb.core.checkpoint import is_unchanged, read_checkpoint

    checkpoint = read_checkpoint(directory)
    return checkpoint is not None and is_unchanged(directory, checkpoint)


def _upload(
    directory: str, filesystem: AbstractFileSystem, root: str, arguments: argparse.Namespace, stop: threading.Event
) -> Outcome:
    from airflow_provider_rocksdb.core.archive import name_archive, upload_archive
    from airflow_provider_rocksdb.core.completeness import check_completeness
    from airflow_provider_rocksdb.core.directory_layout import upload_directory
    from airflow_provider_rocksdb.core.inventory import read_inventory
    from airflow_provider_rocksdb.core.repository import create_backup
    from airflow_provider_rocksdb.core.transfer import TransferOptions

    check_completeness(directory, stop=stop).raise_for_state()
    options = TransferOptions(max_bytes_per_second=arguments.max_bytes_per_second)
    inventory = read_inventory(directory)
    if arguments.layout == "directory":
        result = upload_directory(inventory, filesystem, root, options=options, stop=stop).to_dict()
    elif arguments.layout == "archive":
        result = upload_archive(
            inventory,
            filesystem,
            name_archive(inventory, root, arguments.compression),
            level=arguments.compression_level,
            threads=arguments.compression_threads,
            options=options,
            stop=stop,
        ).to_dict()
    else:
        result = create_backup(
            inventory, filesystem, root, allow_other_source=arguments.allow_other_source, options=options, stop=stop
        ).to_dict()
    return Outcome("done", f"{arguments.backup_dir}: {result}", result)
