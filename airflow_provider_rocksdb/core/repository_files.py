"""What the shared files of a backup are called, and their checksums, with as little reading as possible."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import CorruptionError, IncompleteError, NotSupportedError
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.format.table_properties import read_session_id
from airflow_provider_rocksdb.core.inventory import DatabaseFile
from airflow_provider_rocksdb.core.repository_layout import FileKey, name_by_checksum, name_by_session
from airflow_provider_rocksdb.core.repository_listing import ReadMeta
from airflow_provider_rocksdb.core.retry import check_stop
from airflow_provider_rocksdb.core.transfer import TransferOptions, UploadItem, checksum_files


@dataclass(frozen=True)
class SharedFiles:
    """Files with their names in the repository; modification times of those named by their checksum, by number."""

    items: tuple[UploadItem, ...]
    mtimes_ns: dict[int, int]


def is_shared(file: DatabaseFile) -> bool:
    """Whether backups share it: an SST or blob file."""
    return file.type in (FileType.TABLE, FileType.BLOB)


def name_shared_files(
    files: Sequence[DatabaseFile],
    remembered: Mapping[FileKey, int],
    options: TransferOptions,
    stop: threading.Event | None,
) -> SharedFiles:
    """Name SST and blob files: by session id, else by a CRC32C that is remembered, else by one that is computed.

    :raises IncompleteError: when one is missing or has another size than it must have.
    :raises CorruptionError, NotSupportedError: when an SST file is none.
    """
    items: list[UploadItem] = []
    unnamed: dict[str, tuple[DatabaseFile, int]] = {}
    for file in files:
        check_stop(stop)
        session_id, mtime_ns = _look_at(file)
        if session_id is None:
            unnamed[file.name] = file, mtime_ns
        else:
            items.append(UploadItem(file.path, name_by_session(file.name, session_id, file.size), file.size))
    crcs = {
        name: remembered[name, file.size, mtime_ns]
        for name, (file, mtime_ns) in unnamed.items()
        if (name, file.size, mtime_ns) in remembered
    }
    unread = [UploadItem(file.path, name, file.size) for name, (file, _) in unnamed.items() if name not in crcs]
    crcs |= checksum_files(unread, options=options, stop=stop)
    for name, (file, _) in unnamed.items():
        items.append(UploadItem(file.path, name_by_checksum(name, crcs[name], file.size), file.size, crc32c=crcs[name]))
    return SharedFiles(tuple(items), {int(name.partition(".")[0]): mtime for name, (_, mtime) in unnamed.items()})


def find_checksums(
    reused: Iterable[UploadItem], newest: ReadMeta | None, options: TransferOptions, stop: threading.Event | None
) -> dict[str, int]:
    """CRC32C, by name, of files that were there already: their names', the newest backup's, else the local files'."""
    known = {file.path: file.crc32c for file in newest.meta.files} if newest else {}
    found: dict[str, int] = {}
    unread = []
    for item in reused:
        crc = known.get(item.name) if item.crc32c is None else item.crc32c
        if crc is None:
            unread.append(item)
        else:
            found[item.name] = crc
    return found | checksum_files(unread, options=options, stop=stop)


def _look_at(file: DatabaseFile) -> tuple[str | None, int]:
    """Session id, None for blob files, and modification time of a local file."""
    with durable.named_errors():
        try:
            descriptor = durable.open_regular(file.path, follow=False)
        except FileNotFoundError:
            raise IncompleteError(f"{file.path}: is missing, expected {file.size} bytes") from None
    try:
        status = os.fstat(descriptor)
        if status.st_size != file.size:
            raise IncompleteError(f"{file.path}: expected {file.size} bytes, got {status.st_size}")
        if file.type is FileType.BLOB:
            return None, status.st_mtime_ns
        session_id = read_session_id(lambda offset, length: durable.pread(descriptor, offset, length), file.size)
    except (CorruptionError, NotSupportedError) as error:
        raise type(error)(f"{file.path}: {error}") from None
    finally:
        os.close(descriptor)
    return session_id, status.st_mtime_ns
