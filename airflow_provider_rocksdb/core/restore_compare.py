"""Is a place already what a restore would make of it? Then the retry of one that died when it was done does nothing.

It is when it holds exactly the backup's files, each with its CRC32C, and no LOCK: nobody has opened it since. OPTIONS
and rocksdict's own file count by their names: the first is fitted to the place, the second has no checksum.
"""

from __future__ import annotations

import contextlib
import os
import threading

import google_crc32c

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.format.filename import ROCKSDICT_CONFIG, FileType, parse_file_name
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.restore_places import KEPT, OURS
from airflow_provider_rocksdb.core.restore_source import Source, SourceFile
from airflow_provider_rocksdb.core.retry import check_stop

_PASSED_OVER = (KEPT - {"LOCK"}) | OURS


def is_restored(source: Source, paths: DatabasePaths, stop: threading.Event | None) -> bool:
    """Compare the place with the backup; files are read only when all names and sizes are right.

    :raises CancelledError: when ``stop`` was set.
    """
    found: dict[str, str] = {}
    directories = {os.path.realpath(directory) for directory in paths.all_dirs()}
    for directory in directories:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(directory):
                path = os.path.join(directory, name)
                if path not in directories and name not in _PASSED_OVER:
                    found[name] = path
    wanted = {file.name: file for file in source.files}
    if set(found) != set(wanted):
        return False
    exact = [file for file in wanted.values() if not _is_fitted(file)]
    if not all(file.crc32c is not None and os.path.getsize(found[file.name]) == file.size for file in exact):
        return False
    return all(checksum_file(found[file.name], stop) == file.crc32c for file in exact)


def _is_fitted(file: SourceFile) -> bool:
    parsed = parse_file_name(file.name)
    return file.name == ROCKSDICT_CONFIG or (parsed is not None and parsed.type is FileType.OPTIONS)


def checksum_file(path: str, stop: threading.Event | None) -> int:
    """CRC32C of a local file.

    :raises CancelledError: when ``stop`` was set.
    """
    crc = 0
    with os.fdopen(durable.open_regular(path), "rb", buffering=0) as file:
        while chunk := file.read(durable.COPY_CHUNK_BYTES):
            check_stop(stop)
            crc = google_crc32c.extend(crc, chunk)
    return int(crc)
