"""What the shared files of a backup are called, and their checksums, with as little reading as possible."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import CorruptionError, IncompleteError, NotSupportedError
from airflow_provider_rocksdb.core.format.filename import FileType, table_file_name
from airflow_provider_rocksdb.core.format.manifest import ManifestReader
from airflow_provider_rocksdb.core.format.table_properties import read_session_id
from airflow_provider_rocksdb.core.format.unique_id import lower_session_of_text, lower_session_of_unique_id
from airflow_provider_rocksdb.core.inventory import DatabaseFile
from airflow_provider_rocksdb.core.repository_layout import (
    FileKey,
    name_by_checksum,
    name_by_session,
    read_session_name,
)
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


def find_session_ids(files: Iterable[DatabaseFile], present: Iterable[str]) -> dict[str, str]:
    """Session ids of SST files, by name, that the repository has already; no file but the MANIFEST is opened.

    For each SST file, the MANIFEST tells the lower half of its writer's session id: 64 bits that differ from process to
    process. An object with that half in its name, and the file's number and size, is this file.

    :param files: of the database, its MANIFEST among them.
    :param present: paths of the repository's shared files.
    :raises CorruptionError, NotSupportedError: when the MANIFEST cannot be read.
    """
    candidates: dict[tuple[str, int], list[str]] = defaultdict(list)
    for path in present:
        if (named := read_session_name(path)) is not None:
            candidates[named[:2]].append(named[2])
    writers = _read_writers(files) if candidates else {}
    found = {}
    for file in files:
        writer = writers.get(file.name)
        if writer is not None:
            matching = [each for each in candidates[file.name, file.size] if lower_session_of_text(each) == writer]
            if len(matching) == 1:
                found[file.name] = matching[0]
    return found


def name_shared_files(
    files: Sequence[DatabaseFile],
    session_ids: Mapping[str, str],
    remembered: Mapping[FileKey, int],
    options: TransferOptions,
    stop: threading.Event | None,
) -> SharedFiles:
    """Name SST and blob files: by session id, else by a CRC32C that is remembered, else by one that is computed.

    :param session_ids: by name, those that are known; others are read from the files' ends.
    :param remembered: CRC32C of files that an earlier backup named by it.
    :raises IncompleteError: when one is missing or has another size than it must have.
    :raises CorruptionError, NotSupportedError: when an SST file is none.
    """
    items: list[UploadItem] = []
    unnamed: dict[str, tuple[DatabaseFile, int]] = {}
    for file in files:
        check_stop(stop)
        known = session_ids.get(file.name)
        session_id, mtime_ns = (known, 0) if known is not None else _look_at(file)
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


def _read_writers(files: Iterable[DatabaseFile]) -> dict[str, int]:
    """Lower half of the session id of each SST file's writer, by the file's name, as far as the MANIFEST tells."""
    manifest = next((file for file in files if file.type is FileType.DESCRIPTOR), None)
    if manifest is None:
        return {}
    reader = ManifestReader(manifest.name)
    descriptor = durable.open_regular(manifest.path, follow=False)
    try:
        reader.read(lambda offset, length: durable.pread(descriptor, offset, length), manifest.size)
    finally:
        os.close(descriptor)
    tables = (table for family in reader.version.column_families.values() for table in family.iter_tables())
    writers = {table_file_name(table.number): lower_session_of_unique_id(table.unique_id) for table in tables}
    return {name: writer for name, writer in writers.items() if writer is not None}


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
