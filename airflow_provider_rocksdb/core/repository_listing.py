"""What backups a repository holds; nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.archive_layout import compression_of
from airflow_provider_rocksdb.core.errors import CorruptionError, RocksDBError
from airflow_provider_rocksdb.core.format.backup_meta import (
    MAX_META_BYTES,
    BackupFile,
    BackupMeta,
    decode_backup_id,
    decode_backup_meta,
)
from airflow_provider_rocksdb.core.parallel import run_parallel
from airflow_provider_rocksdb.core.repository_layout import (
    META,
    PRIVATE,
    BackupRecord,
    Layout,
    Source,
    decode_record,
    meta_name,
    private_folder,
)
from airflow_provider_rocksdb.core.storage import Storage, translating
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions

_READERS = 8
_MAX_IDENTITY_BYTES = 4096
_LAST_TIMESTAMP = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class BackupInfo:
    """A backup as its meta tells; of one that cannot be read, only ``backup_id`` and ``reason``.

    ``timestamp`` in seconds since 1970. ``total_bytes``: None when the meta has no sizes (schema 1). ``metadata``:
    ours, decoded; of other programs, ``{"raw": <text>}`` if they wrote any.
    """

    backup_id: int
    state: Literal["readable", "unreadable"]
    reason: str = ""
    timestamp: int = 0
    sequence_number: int = 0
    file_count: int = 0
    total_bytes: int | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def time(self) -> datetime:
        """When its data was captured: the time of its checkpoint where that is known, but never after the backup's."""
        made = datetime.fromtimestamp(min(self.timestamp, _LAST_TIMESTAMP), UTC)
        try:
            captured = datetime.fromisoformat(str((self.metadata or {}).get("checkpoint_time")))
        except ValueError:
            return made
        return min(made, captured) if captured.tzinfo is not None else made

    @property
    def source(self) -> Source:
        """The database that it is of, as far as its maker told."""
        return Source(**(self.metadata or {}).get("source", {"db_id": "", "hostname": "", "db_dir": ""}))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class ReadMeta:
    """A meta that could be read, with our record in it if we wrote it."""

    backup_id: int
    meta: BackupMeta
    record: BackupRecord | None


def list_backups(
    filesystem: AbstractFileSystem,
    root: str,
    *,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> tuple[BackupInfo, ...]:
    """List the backups of a repository, the oldest first; none when there is no repository.

    Whether the files that they name are there is not checked.

    :raises AccessError, NotFoundError, InvalidArgumentError, TransferError: when the storage cannot be listed.
    :raises CancelledError: when ``stop`` was set.
    """
    storage = Storage(filesystem, root)
    with translating(storage.url):
        sizes = list_metas(storage, options, stop)

    def read(backup_id: int) -> BackupInfo:
        try:
            return describe_meta(read_meta(storage, backup_id, sizes[backup_id], options, stop))
        except RocksDBError as error:
            return BackupInfo(backup_id, "unreadable", str(error))

    outcome = run_parallel(read, sorted(sizes), max_workers=_READERS, stop=stop)
    for error in outcome.failures.values():
        raise error
    return tuple(outcome.results[backup_id] for backup_id in sorted(sizes))


def read_layout(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> Layout:
    """Tell how backups lie there: as a repository, as long as nothing says otherwise.

    Without a ``meta/``, a CURRENT makes it one database as it is, and else an archive's name a folder of archives.
    """
    if compression_of(storage.root) is not None:
        return "archive"
    names = options.retry(lambda: storage.list(""), storage, storage.url, stop)
    if META in names:
        return "backup_engine"
    if names.get("CURRENT") is not None:
        return "directory"
    is_archive = any(size is not None and compression_of(name) is not None for name, size in names.items())
    return "archive" if is_archive else "backup_engine"


def list_metas(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> dict[int, int]:
    """Sizes of the metas in bytes, by backup id."""
    return find_metas(options.retry(lambda: storage.list(META), storage, f"{storage.url}/{META}", stop))


def find_metas(names: Mapping[str, int | None]) -> dict[int, int]:
    """Sizes of the metas in bytes, by backup id, in a listing of ``meta/``."""
    found = {decode_backup_id(name): size for name, size in names.items() if size is not None}
    return {backup_id: size for backup_id, size in found.items() if backup_id is not None}


def read_meta(
    storage: Storage, backup_id: int, size: int, options: TransferOptions, stop: threading.Event | None
) -> ReadMeta:
    """Read a meta whose size is known from a listing.

    :raises CorruptionError, NotSupportedError: when it is not one.
    :raises AccessError, NotFoundError, InvalidArgumentError, TransferError: when it cannot be read.
    """
    name = meta_name(backup_id)
    what = f"{storage.url}/{name}"
    if size > MAX_META_BYTES:
        raise CorruptionError(f"{what}: {size} bytes; at most {MAX_META_BYTES} are read")
    with translating(what):
        data = options.retry(lambda: storage.read(name, size), storage, what, stop)
    try:
        meta = decode_backup_meta(data)
    except RocksDBError as error:
        raise type(error)(f"{what}: {error}") from None
    for file in meta.files:
        if file.path.startswith(f"{PRIVATE}/") and not file.path.startswith(f"{private_folder(backup_id)}/"):
            raise CorruptionError(f"{what}: names {file.path}, which belongs to another backup")
    return ReadMeta(backup_id, meta, decode_record(meta.metadata))


def read_source(storage: Storage, backup: ReadMeta, options: TransferOptions, stop: threading.Event | None) -> Source:
    """Tell what database a backup is of; of another program's backup, only its id, if that."""
    if backup.record is not None:
        return backup.record.source
    name = f"{private_folder(backup.backup_id)}/IDENTITY"
    file = next((file for file in backup.meta.files if file.path == name), None)
    return Source(read_identity(storage, file, options, stop) if file else "", "", "")


def read_identity(storage: Storage, file: BackupFile, options: TransferOptions, stop: threading.Event | None) -> str:
    """Read a database's id from its IDENTITY; empty when that is too large for one."""
    if (file.size or 0) > _MAX_IDENTITY_BYTES:
        return ""
    what = f"{storage.url}/{file.path}"
    with translating(what):
        data = options.retry(lambda: storage.read(file.path, file.size), storage, what, stop)
    return data[:_MAX_IDENTITY_BYTES].decode("ascii", "replace").strip()


def describe_meta(backup: ReadMeta) -> BackupInfo:
    """Tell what a meta says."""
    meta, record = backup.meta, backup.record
    sizes = [file.size for file in meta.files]
    metadata: Mapping[str, Any] | None = None
    if record is not None:
        metadata = {name: value for name, value in asdict(record).items() if name not in ("mtimes_ns", "claim")}
    elif meta.metadata:
        metadata = {"raw": meta.metadata.decode("utf-8", "backslashreplace")}
    return BackupInfo(
        backup_id=backup.backup_id,
        state="readable",
        timestamp=meta.timestamp,
        sequence_number=meta.sequence_number,
        file_count=len(sizes),
        total_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
        metadata=metadata,
    )
