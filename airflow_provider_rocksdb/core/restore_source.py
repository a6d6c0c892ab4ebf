"""What a restore fetches: which backup of a repository, or which directory, and which files of it.

A backup is *valid* when its meta can be read and every file that it names is listed with its size. The newest valid one
is taken, and why newer ones were not is in the log and the result; a backup asked for by its id must be valid.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME
from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.database_lock import require_closed
from airflow_provider_rocksdb.core.errors import (
    CorruptionError,
    IncompleteError,
    InvalidArgumentError,
    NotFoundError,
    NotSupportedError,
    RocksDBError,
)
from airflow_provider_rocksdb.core.format.filename import ROCKSDICT_CONFIG, FileType, newest_options, parse_file_name
from airflow_provider_rocksdb.core.repository_layout import META, SHARED, private_folder
from airflow_provider_rocksdb.core.repository_listing import ReadMeta, list_metas, read_meta
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions

logger = logging.getLogger(__name__)

Layout = Literal["backup_engine", "directory"]

_CURRENT = "CURRENT"
_REASONS_SHOWN = 10
_SHARED_FOLDERS = (SHARED, "shared")  # the second: BackupEngine without share_files_with_checksum
_RESTORED_TYPES = (FileType.WAL, FileType.TABLE, FileType.BLOB, FileType.IDENTITY)


@dataclass(frozen=True)
class SourceFile:
    """A stored file: its path in the storage, its name in the database, size in bytes, CRC32C where it is known."""

    path: str
    name: str
    size: int
    crc32c: int | None


@dataclass(frozen=True)
class Source:
    """What is to be restored; ``skipped``: why newer backups were passed over.

    ``db_dir``, ``wal_dir``: of the database that was backed up, as far as the backup tells; ``record``: the
    ``checkpoint.json`` of a directory.
    """

    layout: Layout
    files: tuple[SourceFile, ...]
    backup_id: int | None = None
    sequence_number: int = 0
    skipped: tuple[str, ...] = field(default=())
    db_dir: str = ""
    wal_dir: str = ""
    record: bytes | None = None


def find_source(
    storage: Storage,
    backup_id: int | None,
    options: TransferOptions,
    stop: threading.Event | None,
) -> Source:
    """Look at what lies in the storage, and choose.

    :raises NotFoundError: when there is no such backup, or nothing that could be restored at all.
    :raises IncompleteError, CorruptionError, NotSupportedError: when the backup asked for, or every one, is not valid.
    """
    names = options.retry(lambda: storage.list(""), storage, storage.url, stop)
    if META in names and names[META] is None:
        return _Repository(storage, options, stop).choose(backup_id)
    if _CURRENT in names:
        if backup_id is not None:
            raise InvalidArgumentError(f"{storage.url}: is a database as it is, which has no backup {backup_id}")
        return _describe_directory(storage, options, stop)
    what = (
        "is neither a backup repository (no meta/) nor a database (no CURRENT); an archive is named by its own name"
        if names
        else "is empty, or not there"
    )
    raise NotFoundError(f"{storage.url}: {what}")


class _Repository:
    def __init__(self, storage: Storage, options: TransferOptions, stop: threading.Event | None) -> None:
        self.storage = storage
        self.options = options
        self.stop = stop
        self._listings: dict[str, Mapping[str, int | None]] = {}

    def choose(self, backup_id: int | None) -> Source:
        sizes = list_metas(self.storage, self.options, self.stop)
        if not sizes:
            raise NotFoundError(f"{self.storage.url}: holds no backup")
        if backup_id is not None:
            if backup_id not in sizes:
                there = ", ".join(str(number) for number in sorted(sizes)[-10:])
                raise NotFoundError(f"{self.storage.url}: has no backup {backup_id}; the newest it has are {there}")
            return self._describe(read_meta(self.storage, backup_id, sizes[backup_id], self.options, self.stop), ())
        failures: list[RocksDBError] = []
        for number in sorted(sizes, reverse=True):
            try:
                backup = read_meta(self.storage, number, sizes[number], self.options, self.stop)
                return self._describe(backup, tuple(str(failure) for failure in failures[:_REASONS_SHOWN]))
            except (CorruptionError, IncompleteError, NotSupportedError, NotFoundError) as error:
                logger.warning("backup %d is not valid, and is passed over: %s", number, error)
                failures.append(error)
        texts = "; ".join(str(failure) for failure in failures[:_REASONS_SHOWN])
        raise type(failures[0])(f"{self.storage.url}: none of {len(failures)} backups is valid: {texts}")

    def _describe(self, backup: ReadMeta, skipped: tuple[str, ...]) -> Source:
        """Compare a backup's meta with what is listed.

        :raises IncompleteError: when a file is missing.
        :raises CorruptionError: when one has another size.
        """
        files = []
        for file in backup.meta.files:
            folder, _, name = file.path.rpartition("/")
            got = self._list(folder).get(name)
            where = f"{self.storage.url}: backup {backup.backup_id}: {file.path}"
            if got is None:
                raise IncompleteError(f"{where}: is missing, expected {file.size or 'a file of any number of'} bytes")
            if file.size is not None and got != file.size:
                raise CorruptionError(f"{where}: expected {file.size} bytes, got {got}")
            files.append(SourceFile(file.path, file.name, got, file.crc32c))
        folder = private_folder(backup.backup_id)
        config = self._list(folder).get(ROCKSDICT_CONFIG)
        if config is not None:
            files.append(SourceFile(f"{folder}/{ROCKSDICT_CONFIG}", ROCKSDICT_CONFIG, config, None))
        paths = backup.record.paths if backup.record else {}
        return Source(
            "backup_engine",
            tuple(files),
            backup.backup_id,
            backup.meta.sequence_number,
            skipped,
            str(paths.get("db_dir") or ""),
            str(paths.get("wal_dir") or ""),
        )

    def _list(self, folder: str) -> Mapping[str, int | None]:
        if folder not in self._listings:
            storage = self.storage
            what = f"{storage.url}/{folder}"
            self._listings[folder] = self.options.retry(lambda: storage.list(folder), storage, what, self.stop)
        return self._listings[folder]


def _describe_directory(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> Source:
    """List the files of a database as it is; it must be whole, and at rest."""
    if storage.is_local:
        require_closed(storage.path(""))
    found = check_completeness(storage.path(""), filesystem=storage.own_file_system(), stop=stop)
    found.raise_for_state()
    names = options.retry(lambda: storage.list(""), storage, storage.url, stop)
    current = options.retry(lambda: storage.read(_CURRENT, names[_CURRENT]), storage, f"{storage.url}/{_CURRENT}", stop)
    wanted = {_CURRENT, os.fsdecode(current).strip(), newest_options(names), ROCKSDICT_CONFIG}
    files = [
        SourceFile(name, name, size, None)
        for name, size in names.items()
        if size is not None
        and (name in wanted or ((parsed := parse_file_name(name)) and parsed.type in _RESTORED_TYPES))
    ]
    record = None
    if names.get(RECORD_NAME) is not None:
        record = options.retry(lambda: storage.read(RECORD_NAME), storage, f"{storage.url}/{RECORD_NAME}", stop)
    return Source("directory", tuple(files), sequence_number=found.sequence_number, record=record)
