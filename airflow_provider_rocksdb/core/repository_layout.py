"""Names and records of a backup repository: RocksDB's BackupEngine directory, and what we write in its metadata.

::

    meta/<id>                                            one text for each backup, written last
    private/<id>/<name>                                  CURRENT, MANIFEST, OPTIONS, IDENTITY, WALs; ours, unlisted:
                                                         rocksdict-config.json, checkpoint.json
    shared_checksum/<number>_s<session id>_<size>.sst    SST files (BackupEngine: kUseDbSessionId, kFlagIncludeFileSize)
    shared_checksum/<number>_<crc32c>_<size>.<suffix>    blob files, and SST files without a session id
    incoming/<name>.<random>                             ours, only where a file is not whole before it is renamed
    unreferenced/<folder>.<name>                         ours: no backup named <folder>/<name> when a prune looked
    unreferenced/deleting.<random>                       ours: a prune is about to delete
    unreferenced/reserved.<random>                       ours: what a backup is about to name, a path a line

Where a file is written under a temporary name in its own folder, that is ``.<name>.<random>.tmp``. BackupEngine leaves
folders of the root that it does not know alone.

Numbers are decimal; file numbers have at least six digits. Everything here is pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.format.backup_meta import MAX_BACKUP_ID, BackupMeta
from airflow_provider_rocksdb.core.storage import INCOMING

Layout = Literal["backup_engine", "directory", "archive"]
FileKey = tuple[str, int, int]  # name, size in bytes, modification time in nanoseconds

META, PRIVATE, SHARED, OLD_SHARED, MARKS = "meta", "private", "shared_checksum", "shared", "unreferenced"
CLAIM_PREFIX, DELETING_PREFIX, RESERVED_PREFIX = "claim.", "deleting.", "reserved."

_FORMAT = 1
_MAX_METADATA_BYTES = 1024 * 1024  # BackupEngine: kMaxAppMetaSize
_MAX_REMEMBERED = 10_000  # ours: files whose checksum is remembered, so that metadata stays far below that
_ID_IN_NAME = re.compile(r"\.?([1-9][0-9]{0,9})(\..*)?", re.DOTALL)
_SIZED_NAME = re.compile(r"[0-9]{1,20}_(?:s[0-9A-Z]+|([0-9]{1,10}))_([0-9]{1,19})\.[a-z]+")
_SESSION_NAME = re.compile(r"([0-9]{1,20})_s([0-9A-Z]+)_([0-9]{1,19})(\.[a-z]+)")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
_INCOMING = re.compile(r".+\.[0-9a-f]{12}")
_CRC_NAME = re.compile(r"([0-9]{6,20})_([0-9]{1,10})_([0-9]{1,19})\.(blob|sst|ldb)")


def meta_name(backup_id: int) -> str:
    """Path of a backup's meta."""
    return f"{META}/{backup_id}"


def private_folder(backup_id: int) -> str:
    """Path of a backup's own folder."""
    return f"{PRIVATE}/{backup_id}"


def name_by_session(name: str, session_id: str, size: int) -> str:
    """Path of an SST file that knows the session that wrote it."""
    stem, _, suffix = name.rpartition(".")
    return f"{SHARED}/{stem}_s{session_id}_{size}.{suffix}"


def name_by_checksum(name: str, crc32c: int, size: int) -> str:
    """Path of any other shared file."""
    stem, _, suffix = name.rpartition(".")
    return f"{SHARED}/{stem}_{crc32c}_{size}.{suffix}"


def read_shared_name(path: str) -> tuple[int | None, int | None]:
    """CRC32C and size that the name of a file in ``shared_checksum/`` tells; None for what it does not."""
    match = _SIZED_NAME.fullmatch(path.removeprefix(f"{SHARED}/"))
    return (int(match[1]) if match[1] else None, int(match[2])) if match else (None, None)


def read_session_name(path: str) -> tuple[str, int, str] | None:
    """RocksDB's name of a file in ``shared_checksum/``, its size and its session id; None when its name tells none."""
    match = _SESSION_NAME.fullmatch(path.removeprefix(f"{SHARED}/"))
    return (match[1] + match[4], int(match[3]), match[2]) if match else None


def mark_name(path: str) -> str:
    """Path of the mark that says that no backup names ``path``: an object, or a backup's own folder."""
    folder, _, name = path.partition("/")
    return f"{MARKS}/{folder}.{name}"


def marked_path(name: str) -> str | None:
    """Return the path that a name in ``unreferenced/`` marks, or None when it marks none."""
    folder, dot, rest = name.partition(".")
    return (
        f"{folder}/{rest}" if dot and rest and folder in (META, PRIVATE, SHARED, OLD_SHARED, MARKS, INCOMING) else None
    )


def is_temporary(folder: str, name: str) -> bool:
    """Whether a file is one of ours that has not got its final name."""
    return bool((_INCOMING if folder == INCOMING else _TEMPORARY).fullmatch(name))


def highest_backup_id(names: Iterable[str]) -> int:
    """Return the highest id that names in ``meta/`` and ``private/`` stand for, temporary ones among them; else 0."""
    seen = [int(match[1]) for name in names if (match := _ID_IN_NAME.fullmatch(name))]
    return max((backup_id for backup_id in seen if backup_id <= MAX_BACKUP_ID), default=0)


def next_backup_id(names: Iterable[str]) -> int:
    """Return the id above all that names in ``meta/`` and ``private/`` stand for, temporary ones among them.

    :raises InvalidArgumentError: when there is none left.
    """
    found = highest_backup_id(names) + 1
    if found > MAX_BACKUP_ID:
        raise InvalidArgumentError(
            f"backup id {MAX_BACKUP_ID} is the last that BackupEngine knows; use a new repository"
        )
    return found


@dataclass(frozen=True)
class Source:
    """The database that a backup is of: its id, and the host and directory it was taken from."""

    db_id: str
    hostname: str
    db_dir: str

    def __str__(self) -> str:
        return f"database {self.db_id or '(no id)'} in {self.hostname}:{self.db_dir}"


@dataclass(frozen=True)
class BackupRecord:
    """What we write into a backup's ``metadata``, as JSON.

    ``checkpoint_time``: ISO 8601, UTC. ``run``: a scheduler's names of the run. ``claim`` is random, so that no two
    metas are equal. ``mtimes_ns``: modification times of the files that are named by their checksum, by file number.
    """

    provider_version: str
    source: Source
    paths: dict[str, Any]
    checkpoint_time: str
    checkpoint_mode: str
    run: dict[str, Any]
    claim: str
    mtimes_ns: dict[int, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As ``metadata``.

        :raises InvalidArgumentError: when ``run`` cannot be JSON, or is larger than BackupEngine allows.
        """
        newest = dict(sorted(self.mtimes_ns.items(), reverse=True)[:_MAX_REMEMBERED])
        values = {"airflow_provider_rocksdb": _FORMAT, **asdict(self), "mtimes_ns": newest}
        try:
            data = json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"app_metadata: expected values that JSON knows: {error}") from None
        if len(data) > _MAX_METADATA_BYTES:
            raise InvalidArgumentError(f"app_metadata: {len(data)} bytes; BackupEngine takes {_MAX_METADATA_BYTES}")
        return data


def decode_record(metadata: bytes) -> BackupRecord | None:
    """Read a backup's ``metadata``; None when it is not ours. Untrusted input."""
    try:
        values = json.loads(metadata)
        if values.pop("airflow_provider_rocksdb") != _FORMAT:
            return None
        source = Source(**{name: str(value) for name, value in values.pop("source").items()})
        mtimes = {int(number): int(mtime) for number, mtime in values.pop("mtimes_ns").items()}
        record = BackupRecord(source=source, mtimes_ns=mtimes, **values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = (record.provider_version, record.checkpoint_time, record.checkpoint_mode, record.claim)
    is_ours = all(isinstance(text, str) for text in texts)
    return record if is_ours and isinstance(record.run, dict) and isinstance(record.paths, dict) else None


def remembered_checksums(meta: BackupMeta, record: BackupRecord) -> Mapping[FileKey, int]:
    """CRC32C of files by name, size and modification time: those that an earlier backup named by their checksum."""
    found = {}
    for file in meta.files:
        match = _CRC_NAME.fullmatch(file.path.removeprefix(f"{SHARED}/"))
        if match and int(match[1]) in record.mtimes_ns and file.crc32c == int(match[2]):
            found[file.name, int(match[3]), record.mtimes_ns[int(match[1])]] = int(match[2])
    return found
