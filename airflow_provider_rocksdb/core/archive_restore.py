"""Restore a database from an archive, as a stream: nothing but the database itself is written.

Files go to their places while they are read (:mod:`.restore_target`); what they are worth shows at the end, when the
archive's list has been compared and the database was found whole. Only then is it exchanged for what was there.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.archive_reader import (
    Nowhere,
    archive_url,
    check_archive,
    extract_archive,
    open_folder,
    read_checkpoint_record,
)
from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME
from airflow_provider_rocksdb.core.errors import CorruptionError, IncompleteError, RocksDBError
from airflow_provider_rocksdb.core.format.filename import FileType, parse_file_name
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.restore import RestoreResult
from airflow_provider_rocksdb.core.restore_target import RestoreTarget, open_target
from airflow_provider_rocksdb.core.restore_wal_dir import check_checkpoint_wal_dir
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions


def restore_archive(
    filesystem: AbstractFileSystem,
    path: str,
    paths: DatabasePaths,
    *,
    replace: bool = False,
    in_place: bool = False,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> RestoreResult:
    """Restore a database; it is there whole, or what was there before is untouched.

    :param path: of the archive on ``filesystem``.
    :param paths: where to; ``wal_dir``, ``db_paths`` and ``cf_paths`` as the database's own program gives them to
        RocksDB.
    :param replace: replace what is there; it is kept until the new database is whole.
    :param in_place: remove the old database first, where there is no room for two. The archive is read, and must be
        found whole, before that, so it is read twice; a failure after that leaves no database.
    :param stop: set it to stop; nothing is exchanged then.
    :raises ExistsError: when there is something already, and ``replace`` was not given.
    :raises BusyError: when a process has the old database open, or another run restores there.
    :raises CorruptionError, IncompleteError: when the archive is damaged, or holds what it must not.
    :raises NoSpaceError: with the bytes needed and available.
    :raises InvalidArgumentError, AccessError, NotFoundError, TransferError, CouldNotCheckError: …
    :raises CancelledError: when ``stop`` was set.
    """
    began = time.monotonic()
    check_checkpoint_wal_dir(paths, read_checkpoint_record(*open_folder(filesystem, path), options, stop))
    with open_target(paths, replace=replace, in_place=in_place) as target:
        replaced = target.replaces
        if in_place and replaced:
            check_archive(filesystem, path, options=options, stop=stop)
            target.empty()
        with _saying_what_is_gone(target):
            unpacking = _Unpacking(target, archive_url(*open_folder(filesystem, path)))
            read = extract_archive(filesystem, path, unpacking.open_file, options=options, stop=stop)
            with _naming(read.archive):
                target.read_manifest()
                found = target.commit("files")
    total = sum(target.files.values())
    return RestoreResult(
        db_dir=paths.db_dir,
        backup_dir=read.archive,
        backup_id=None,
        layout="archive",
        db_id=found.db_id,
        sequence_number=max(read.sequence_number, found.sequence_number),
        file_count=len(target.files),
        total_bytes=total,
        downloaded_files=len(target.files),
        downloaded_bytes=total,
        reused_files=0,
        reused_bytes=0,
        replaced=replaced,
        options_changes=target.options_changes,
        skipped_backups=(),
        seconds=round(time.monotonic() - began, 3),
    )


class _Unpacking:
    """Where the files of an archive go."""

    def __init__(self, target: RestoreTarget, archive: str) -> None:
        self._target = target
        self._archive = archive
        self._has_manifest = False

    @contextlib.contextmanager
    def open_file(self, name: str, size: int) -> Iterator[Any]:
        """Create a file in its place; it is on disk when the block ends well."""
        if name == RECORD_NAME:  # of a checkpoint that this database no longer is
            yield Nowhere()
            return
        parsed = parse_file_name(name)
        with _naming(self._archive):
            if parsed and parsed.type in (FileType.TABLE, FileType.BLOB) and not self._has_manifest:
                self._read_manifest(name)
            path = self._target.reserve(name, size)
        self._target.require_space({path: size})
        with durable.named_errors():
            descriptor = self._target.create_file(path)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield _NamingFile(file, path)
            with durable.named_errors(), durable.naming(path):
                os.fsync(descriptor)

    def _read_manifest(self, name: str) -> None:
        """Read the MANIFEST, which says where SST and blob files go."""
        parsed = {known: parse_file_name(known) for known in self._target.files}
        found = [known for known, what in parsed.items() if what and what.type is FileType.DESCRIPTOR]
        if len(found) != 1:
            raise CorruptionError(f"{name!r} comes after {len(found)} MANIFEST files, expected one")
        self._target.read_manifest(found[0])
        self._has_manifest = True


class _NamingFile:
    """A file whose errors say which one it is."""

    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._path = path

    def write(self, data: bytes, /) -> int | None:
        with durable.named_errors(), durable.naming(self._path):
            written: int | None = self._file.write(data)
        return written


@contextlib.contextmanager
def _naming(archive: str) -> Iterator[None]:
    """Say in errors about the archive's content which archive it is."""
    try:
        yield
    except (CorruptionError, IncompleteError) as error:
        raise type(error)(f"{archive}: {error}") from error


@contextlib.contextmanager
def _saying_what_is_gone(target: RestoreTarget) -> Iterator[None]:
    """Say in errors of a restore in place that there is no database any more."""
    try:
        yield
    except RocksDBError as error:
        if not target.is_emptied:
            raise
        raise type(error)(f"{error}; the old database was removed to make room: run the restore again") from error
