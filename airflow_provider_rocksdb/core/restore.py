"""Restore a database from a backup repository, or from a directory that holds one as it is.

In this order, so that a run that dies at any moment leaves the old database as it was:

1. choose the backup: the newest valid one, or the one asked for
2. lock the target, make a place beside it to build in
3. CURRENT, MANIFEST and the other small files; then it is known where each SST and blob file goes
4. with ``delta``: link files of the old database whose CRC32C is the backup's; then everything else is fetched
5. check that the result is a whole database
6. exchange it for the old one, whose LOCK is held meanwhile; remove the old one

Only ``in_place`` removes the old database before step 4's fetching, to make room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.archive_layout import compression_of
from airflow_provider_rocksdb.core.completeness import Completeness, check_completeness
from airflow_provider_rocksdb.core.download import DownloadItem, download_files
from airflow_provider_rocksdb.core.errors import (
    CorruptionError,
    IncompleteError,
    InvalidArgumentError,
    RocksDBError,
)
from airflow_provider_rocksdb.core.format.filename import FileType, parse_file_name
from airflow_provider_rocksdb.core.parallel import run_parallel
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.restore_compare import checksum_file, is_restored
from airflow_provider_rocksdb.core.restore_places import contains
from airflow_provider_rocksdb.core.restore_source import Source, SourceFile, find_source
from airflow_provider_rocksdb.core.restore_target import RestoreTarget, finish_leftovers, open_target
from airflow_provider_rocksdb.core.restore_wal_dir import check_backup_wal_dir, check_checkpoint_wal_dir
from airflow_provider_rocksdb.core.retry import check_stop
from airflow_provider_rocksdb.core.storage import Storage, translating
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions, write_all

logger = logging.getLogger(__name__)

_LARGE_TYPES = (FileType.TABLE, FileType.BLOB, FileType.WAL)
_SHARED_TYPES = (FileType.TABLE, FileType.BLOB)


@dataclass(frozen=True)
class RestoreResult:
    """A restored database. Sizes in bytes.

    ``backup_id``: None for layout ``directory``. ``reused``: taken from the old database (``delta``), or all there
    already, from a run that died when it was done.
    ``options_changes``: old values of what was changed in OPTIONS for the new place. ``skipped_backups``: newer ones
    that were not valid, each with the reason.
    """

    db_dir: str
    backup_dir: str
    backup_id: int | None
    layout: str
    db_id: str
    sequence_number: int
    file_count: int
    total_bytes: int
    downloaded_files: int
    downloaded_bytes: int
    reused_files: int
    reused_bytes: int
    skipped_backups: tuple[str, ...]
    seconds: float
    replaced: bool = False
    options_changes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "skipped_backups": list(self.skipped_backups)}


def restore_backup(
    filesystem: AbstractFileSystem,
    root: str,
    paths: DatabasePaths,
    *,
    backup_id: int | None = None,
    replace: bool = False,
    delta: bool = False,
    in_place: bool = False,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> RestoreResult:
    """Restore a database; it is there whole, or what was there before is untouched.

    :param root: on ``filesystem``: a backup repository, a directory with a database as it is, or an archive, by its
        ending ``.tar.zst``, ``.tar.gz`` or ``.tar``.
    :param paths: where to; ``wal_dir``, ``db_paths`` and ``cf_paths`` as the database's own program gives them to
        RocksDB.
    :param backup_id: which backup; None: the newest valid one.
    :param replace: replace what is there; it is kept until the new database is whole.
    :param delta: take SST and blob files of the database that is there when their CRC32C is the backup's.
    :param in_place: remove the old database first, where there is no room for two: a failure leaves none.
    :param stop: set it to stop; nothing is exchanged then.
    :raises NotFoundError: when there is no such backup.
    :raises ExistsError: when there is something already, and ``replace`` was not given.
    :raises BusyError: when a process has the old database open, or another run restores there.
    :raises CorruptionError, IncompleteError: when the backup is damaged, or names what it must not.
    :raises NoSpaceError: with the bytes needed and available.
    :raises CouldNotCheckError: when what was fetched cannot be told to be a whole database.
    :raises InvalidArgumentError: when directories lie within each other, or hold what is not RocksDB's; when a
        ``wal_dir`` that was not given holds WALs of the database that was there.
    :raises AccessError, TransferError: when the storage fails, or the place may not be written.
    :raises CancelledError: when ``stop`` was set.
    """
    storage = Storage(filesystem, root)
    _check_apart(storage, paths)
    if compression_of(root) is not None:
        if backup_id is not None or delta:
            raise InvalidArgumentError(f"{storage.url}: is one archive: it goes with no backup id and no delta")
        from airflow_provider_rocksdb.core.archive_restore import restore_archive  # it returns this module's result

        return restore_archive(filesystem, root, paths, replace=replace, in_place=in_place, options=options, stop=stop)
    with translating(storage.url):
        source = find_source(storage, backup_id, options, stop)
    check_backup_wal_dir(paths, source.db_dir, source.wal_dir)
    check_checkpoint_wal_dir(paths, source.record)
    restore = _Restore(storage, source, paths, options, stop)
    if not replace and is_restored(source, paths, stop):
        return restore.adopt()
    with open_target(paths, replace=replace, in_place=in_place) as target:
        return restore.run(target, delta=delta)


def _check_apart(storage: Storage, paths: DatabasePaths) -> None:
    """Check that the source is not within what may be replaced, nor the other way round.

    :raises InvalidArgumentError: when it is.
    """
    source = os.path.realpath(storage.path("")) if storage.is_local else None
    for directory in paths.all_dirs():
        target = os.path.realpath(directory)
        if source is not None and (contains(source, target) or contains(target, source)):
            raise InvalidArgumentError(
                f"{directory}: lies within {storage.url}, or the other way round; name another place"
            )


class _Restore:
    """One call of :func:`restore_backup`."""

    target: RestoreTarget  # from run() on

    def __init__(
        self,
        storage: Storage,
        source: Source,
        paths: DatabasePaths,
        options: TransferOptions,
        stop: threading.Event | None,
    ) -> None:
        self.storage = storage
        self.source = source
        self.paths = paths
        self.options = options
        self.stop = stop
        self.began = time.monotonic()
        self.fetched: list[DownloadItem] = []
        self.reused: list[DownloadItem] = []

    def adopt(self) -> RestoreResult:
        """Find that a run before this one has done it all, but for the last clean-up."""
        logger.info("%s: is already what backup %s restores to", self.paths.db_dir, self.source.backup_id)
        finish_leftovers(self.paths)
        found = check_completeness(self.paths.db_dir, paths=self.paths)
        found.raise_for_state()
        self.reused = [DownloadItem(file.path, file.name, file.size) for file in self.source.files]
        return self._result(found, {file.name: file.size for file in self.source.files})

    def run(self, target: RestoreTarget, *, delta: bool) -> RestoreResult:
        """Build the database in the target, and commit it."""
        self.target = target
        replaced = target.replaces
        files = self.source.files
        with self._naming_the_source():
            self._fetch(self._reserve(file for file in files if not _is_large(file)))
            target.read_manifest()
            large = self._reserve(file for file in files if _is_large(file) and self._is_wanted(file))
        if delta:
            self._reuse(large)
        reused = {item.target for item in self.reused}
        missing = [item for item in large if item.target not in reused]
        with self._saying_what_is_gone():
            if target.in_place and replaced:
                target.require_space({item.target: item.size for item in missing}, emptied=True)
                target.empty()
            self._fetch(missing)
            check_stop(self.stop)
            found = target.commit("checksums" if self.source.layout == "directory" else "files")
        return self._result(found, target.files, replaced=replaced, options_changes=target.options_changes)

    def _result(self, found: Completeness, files: Mapping[str, int], **more: Any) -> RestoreResult:
        return RestoreResult(
            db_dir=self.paths.db_dir,
            backup_dir=self.storage.url,
            backup_id=self.source.backup_id,
            layout=self.source.layout,
            db_id=found.db_id,
            sequence_number=max(self.source.sequence_number, found.sequence_number),
            file_count=len(files),
            total_bytes=sum(files.values()),
            downloaded_files=len(self.fetched),
            downloaded_bytes=sum(item.size for item in self.fetched),
            reused_files=len(self.reused),
            reused_bytes=sum(item.size for item in self.reused),
            skipped_backups=self.source.skipped,
            seconds=round(time.monotonic() - self.began, 3),
            **more,
        )

    def _reserve(self, files: Iterable[SourceFile]) -> list[DownloadItem]:
        items = []
        for file in files:
            try:
                path = self.target.reserve(file.name, file.size)
            except CorruptionError as error:
                raise CorruptionError(f"{file.path}: {error}") from None
            items.append(DownloadItem(file.path, path, file.size, file.crc32c))
        return items

    def _is_wanted(self, file: SourceFile) -> bool:
        """Whether a large file belongs to the database: all do that a backup names."""
        is_shared = _type_of(file.name) in _SHARED_TYPES
        return self.source.layout == "backup_engine" or not is_shared or self.target.is_live(file.name)

    def _fetch(self, items: Sequence[DownloadItem]) -> None:
        self.target.require_space({item.target: item.size for item in items})
        create = self.target.create_file
        download_files(items, self.storage, create=create, options=self.options, stop=self.stop)
        self.fetched += items

    def _reuse(self, items: Iterable[DownloadItem]) -> None:
        """Take from the old database what is the same in the backup."""
        workers = self.options.max_workers
        known = [item for item in items if item.crc32c is not None and _type_of(item.target) in _SHARED_TYPES]
        outcome = run_parallel(self._reuse_one, known, max_workers=workers, goes_on=lambda _: False, stop=self.stop)
        for error in outcome.failures.values():
            raise error
        self.reused = [item for item in known if outcome.results[item]]
        logger.info("%s: %d of %d files are those of the old database", self.storage.url, len(self.reused), len(known))

    def _reuse_one(self, item: DownloadItem) -> bool:
        for path in self.target.old_paths(os.path.basename(item.target)):
            if os.path.getsize(path) == item.size:
                self._link_or_copy(path, item.target)
                if checksum_file(item.target, self.stop) == item.crc32c:
                    return True
                os.unlink(item.target)
        return False

    def _link_or_copy(self, path: str, target: str) -> None:
        """Link a file of the old database, which is not touched by that; copy it where no link is possible."""
        try:
            os.link(os.path.realpath(path), target)
        except OSError:
            self.target.require_space({target: os.path.getsize(path)})
            descriptor = self.target.create_file(target)
            with open(path, "rb", buffering=0) as source, os.fdopen(descriptor, "wb", buffering=0) as file:
                while chunk := source.read(durable.COPY_CHUNK_BYTES):
                    check_stop(self.stop)
                    write_all(file, chunk)
                os.fsync(descriptor)

    @contextlib.contextmanager
    def _naming_the_source(self) -> Iterator[None]:
        """Say in errors about the backup's content which backup it is."""
        try:
            yield
        except (CorruptionError, IncompleteError) as error:
            number = f": backup {self.source.backup_id}" if self.source.backup_id else ""
            raise type(error)(f"{self.storage.url}{number}: {error}") from error

    @contextlib.contextmanager
    def _saying_what_is_gone(self) -> Iterator[None]:
        """Say in errors of a restore in place that there is no database any more."""
        try:
            yield
        except RocksDBError as error:
            if not self.target.is_emptied:
                raise
            raise type(error)(f"{error}; the old database was removed to make room: run the restore again") from error


def _type_of(name: str) -> FileType | None:
    parsed = parse_file_name(os.path.basename(name))
    return parsed.type if parsed else None


def _is_large(file: SourceFile) -> bool:
    return _type_of(file.name) in _LARGE_TYPES
