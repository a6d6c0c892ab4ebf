"""The commands: arguments in, the core's calls, a small result out."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.cli import storage
from airflow_provider_rocksdb.cli.progress import transfer_options
from airflow_provider_rocksdb.core.errors import InvalidArgumentError, RocksDBError
from airflow_provider_rocksdb.core.paths import DatabasePaths

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    :param state: ``done``, or what a check says: ``complete``, ``incomplete``, ``corrupt``, ``could_not_check``
    :param line: the same for a reader
    :param details: the same for a program
    :param lines: more for a reader: a table, or every problem
    """

    state: str
    line: str
    details: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


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
    """Upload a checkpoint of ours as it is, and anything else through a live checkpoint; then prune by policy."""
    place = storage.open_file_system(arguments.backup_dir, arguments.storage_options)
    if arguments.no_checkpoint or _is_checkpoint(arguments.directory):
        if arguments.wal_dir or arguments.db_path or arguments.cf_path:
            raise InvalidArgumentError(
                f"{arguments.directory}: is a checkpoint, which has all of its files: it goes with no --wal-dir, "
                "--db-path or --cf-path"
            )
        result = _upload(arguments.directory, place, arguments, stop)
    else:
        result = _checkpoint_and_upload(place, arguments, stop)
    done = Outcome("done", f"{arguments.backup_dir}: {_upload_line(result)}", result)
    if arguments.policy is None:
        return done
    try:
        pruned = _prune(arguments, stop, dry_run=False)
    except RocksDBError as error:
        raise type(error)(f"backup {result['backup_id']} was made, the prune after it failed: {error}") from error
    details = {**result, "prune": pruned.details}
    if pruned.state != "done":
        return Outcome(pruned.state, f"{done.line}; {pruned.line}", details, pruned.lines)
    return Outcome("done", done.line, details, (*pruned.lines, pruned.line))


def _checkpoint_and_upload(
    place: tuple[AbstractFileSystem, str], arguments: argparse.Namespace, stop: threading.Event
) -> dict[str, Any]:
    from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
    from airflow_provider_rocksdb.core.temporary_checkpoint import temporary_checkpoint_dir

    with temporary_checkpoint_dir(arguments.directory, inside=arguments.allow_inside) as checkpoint_dir:
        create_live_checkpoint(
            _database_paths(arguments, arguments.directory),
            checkpoint_dir,
            allow_copy=arguments.allow_copy,
            allow_inside=arguments.allow_inside,
            timeout_seconds=arguments.timeout_seconds,
            stop=stop,
        )
        return _upload(checkpoint_dir, place, arguments, stop)


def list_(arguments: argparse.Namespace, stop: threading.Event) -> Outcome:
    """List the backups of a repository."""
    from airflow_provider_rocksdb.cli.table import format_usage
    from airflow_provider_rocksdb.core.repository_usage import list_usage

    filesystem, root = storage.open_file_system(arguments.backup_dir, arguments.storage_options)
    found = list_usage(filesystem, root, stop=stop)
    line = f"{arguments.backup_dir}: {len(found)} backups"
    backups = storage.mask_secrets([usage.to_dict() for usage in found], arguments.storage_options)
    return Outcome("done", line, {"backups": backups}, format_usage(backups))


def verify(arguments: argparse.Namespace, stop: threading.Event) -> Outcome:
    """Verify backups of a repository."""
    from airflow_provider_rocksdb.core.verify import verify_backups

    filesystem, root = storage.open_file_system(arguments.backup_dir, arguments.storage_options)
    report = verify_backups(
        filesystem,
        root,
        backup_id=arguments.backup_id,
        all_backups=arguments.all,
        level=arguments.level,
        sample_percent=arguments.sample,
        scratch_dir=arguments.scratch_dir,
        timeout_seconds=arguments.timeout_seconds,
        options=transfer_options(arguments.max_bytes_per_second),
        stop=stop,
    )
    line = f"{arguments.backup_dir}: {report.reason or report.summary}"
    return Outcome(report.state.value, line, report.to_dict(), tuple(map(str, report.problems)))


def prune(arguments: argparse.Namespace, stop: threading.Event) -> Outcome:
    """Delete backups by policy, and in time what only they needed."""
    return _prune(arguments, stop, dry_run=arguments.dry_run)


def _prune(arguments: argparse.Namespace, stop: threading.Event, *, dry_run: bool) -> Outcome:
    from airflow_provider_rocksdb.core.prune import prune_backups

    filesystem, root = storage.open_file_system(arguments.backup_dir, arguments.storage_options)
    result = prune_backups(
        filesystem,
        root,
        arguments.policy,
        dry_run=dry_run,
        grace_seconds=arguments.grace_period,
        stop=stop,
    )
    *table, line = result.lines()
    state = "could_not_check" if result.unreadable else "done"
    details = storage.mask_secrets(result.to_dict(), arguments.storage_options)  # failures quote the storage
    return Outcome(state, f"{arguments.backup_dir}: {line}", details, tuple(table))


def restore(arguments: argparse.Namespace, stop: threading.Event) -> Outcome:
    """Restore a database."""
    from airflow_provider_rocksdb.core.restore import restore_backup

    filesystem, root = storage.open_file_system(arguments.backup_dir, arguments.storage_options)
    result = restore_backup(
        filesystem,
        root,
        _database_paths(arguments, arguments.db_dir),
        backup_id=arguments.backup_id,
        replace=arguments.replace,
        delta=arguments.delta,
        in_place=arguments.in_place,
        options=transfer_options(arguments.max_bytes_per_second),
        stop=stop,
    )
    what = f"backup {result.backup_id}" if result.backup_id else "database"
    line = (
        f"{result.db_dir}: {what} of {result.backup_dir}, {result.file_count} files, {result.total_bytes} bytes "
        f"({result.downloaded_bytes} fetched, {result.reused_bytes} taken over), up to sequence number "
        f"{result.sequence_number}, in {result.seconds:.2f} s"
    )
    return Outcome("done", line, result.to_dict())


COMMANDS: dict[str, Callable[[argparse.Namespace, threading.Event], Outcome]] = {
    "backup": backup,
    "check": check,
    "checkpoint": checkpoint,
    "list": list_,
    "prune": prune,
    "restore": restore,
    "verify": verify,
}


def _database_paths(arguments: argparse.Namespace, db_dir: str) -> DatabasePaths:
    cf_paths: dict[str, tuple[str, ...]] = {}
    for name, directory in arguments.cf_path:
        cf_paths[name] = (*cf_paths.get(name, ()), directory)
    return DatabasePaths(db_dir, arguments.wal_dir, tuple(arguments.db_path), cf_paths)


def _damage_line(db_dir: str, damage: tuple[str, ...]) -> str:
    more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
    return f"{db_dir}: the database is damaged: {damage[0]}{more}"


def _upload_line(result: dict[str, Any]) -> str:
    what = {"backup_id": "backup {}", "archive": "archive {}", "directory": "database"}
    name = next(text.format(result[key]) for key, text in what.items() if key in result)
    if "archive" in result:
        sent = "there already" if result["reused"] else "compressed"
        details = f"{result['archive_bytes']} {sent}"
    else:
        details = f"{result['uploaded_bytes']} uploaded, {result['reused_bytes']} there already"
    return (
        f"{name}, {result['file_count']} files, {result['total_bytes']} bytes ({details}), up to sequence number "
        f"{result['sequence_number']}, in {result['seconds']:.2f} s"
    )


def _is_checkpoint(directory: str) -> bool:
    """Whether a directory is a checkpoint of ours that nobody has used as a database since."""
    from airflow_provider_rocksdb.core.checkpoint_record import read_own_checkpoint

    return read_own_checkpoint(directory) is not None


def _upload(
    directory: str, place: tuple[AbstractFileSystem, str], arguments: argparse.Namespace, stop: threading.Event
) -> dict[str, Any]:
    from airflow_provider_rocksdb.core.upload import upload_checkpoint

    return upload_checkpoint(
        directory,
        *place,
        layout=arguments.layout,
        allow_other_source=arguments.allow_other_source,
        compression=arguments.compression,
        compression_level=arguments.compression_level,
        compression_threads=arguments.compression_threads,
        options=transfer_options(arguments.max_bytes_per_second),
        stop=stop,
    )
