"""Is a directory a whole RocksDB database? Whoever made it, local or on any fsspec file system, nothing written.

Levels, each with what the one before has:

* ``files``: CURRENT, MANIFEST by CRC, every live SST and blob file with its exact size, every WAL it needs;
* ``checksums``: file checksums where the MANIFEST has them, and every WAL record's CRC;
* ``blocks``: a child process opens a scratch directory of links read-only and reads every block, within a time limit.

What is missing or too small is *incomplete*: it may still be on its way. What is too large, or fails a CRC, or cannot
be, is *corrupt*. What cannot be looked at *could not be checked*, which is never a success. WALs are known from
``checkpoint.json``, else as far as the MANIFEST tracks them, else the answer says ``unknown``: their numbers have gaps,
so the files alone cannot tell that one is missing.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import google_crc32c

from airflow_provider_rocksdb.core import scratch
from airflow_provider_rocksdb.core.directory import Directory, LocalDirectory, RemoteDirectory
from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    CorruptionError,
    CouldNotCheckError,
    IncompleteError,
    InvalidArgumentError,
    RocksDBError,
)
from airflow_provider_rocksdb.core.format.filename import blob_file_name, table_file_name, wal_file_name
from airflow_provider_rocksdb.core.format.log_format import Pread
from airflow_provider_rocksdb.core.format.version_edit import BlobFile, TableFile
from airflow_provider_rocksdb.core.inspection import Inspection, State, WalSource
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.wal import WalContent, find_gap, read_wal

Level = Literal["files", "checksums", "blocks"]
DEFAULT_TIMEOUT_SECONDS = 3600.0

_LEVELS = ("files", "checksums", "blocks")
_MOVING_SECONDS = 10.0  # how long a running database that moves on under the check is looked at again
_CRC32C_FUNCTION = "FileChecksumCrc32c"
_CHUNK_BYTES = 4 * 1024 * 1024

STATE_ERRORS: dict[State, type[RocksDBError]] = {
    State.INCOMPLETE: IncompleteError,
    State.CORRUPT: CorruptionError,
    State.COULD_NOT_CHECK: CouldNotCheckError,
}


@dataclass(frozen=True)
class Completeness:
    """Answer of a check. ``problems`` has every one found, the gravest kind first; sizes in bytes.

    ``read_files`` of ``file_count`` were read to their end.
    """

    state: State
    level: str
    directory: str
    problems: tuple[str, ...]
    wals: WalSource
    file_count: int
    total_bytes: int
    db_id: str
    sequence_number: int
    seconds: float
    read_files: int = 0
    read_bytes: int = 0

    @property
    def reason(self) -> str:
        """One line: the gravest problem, and how many more there are; empty when complete."""
        if not self.problems:
            return ""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return self.problems[0] + more

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "state": self.state.value, "problems": list(self.problems)}

    def raise_for_state(self) -> None:
        """Do nothing when complete.

        :raises IncompleteError, CorruptionError, CouldNotCheckError: by the state, with the reason.
        """
        if self.state is not State.COMPLETE:
            raise STATE_ERRORS[self.state](f"{self.directory}: {self.state.value.replace('_', ' ')}: {self.reason}")


def check_completeness(
    directory: str,
    *,
    filesystem: Any = None,
    level: Level = "files",
    paths: DatabasePaths | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    stop: threading.Event | None = None,
) -> Completeness:
    """Check whether a directory is a whole database.

    :param directory: a local path, or a path on ``filesystem``.
    :param filesystem: an fsspec file system; None: this host's.
    :param level: ``files``, ``checksums`` or ``blocks``.
    :param paths: the database's other directories, where it has ``wal_dir``, ``db_paths`` or ``cf_paths``; local only.
    :param timeout_seconds: for reading blocks.
    :param stop: set it to stop.
    :raises InvalidArgumentError: for an unknown level.
    :raises CancelledError: when ``stop`` was set.
    """
    if level not in _LEVELS:
        raise InvalidArgumentError(f"level {level!r}: expected one of {', '.join(_LEVELS)}")
    started = time.monotonic()
    paths = paths or DatabasePaths(directory)
    place: Directory
    if _is_local(filesystem):
        place, paths = LocalDirectory(directory), paths.absolute()
    else:
        place = RemoteDirectory(directory, filesystem)
    while True:
        found = Inspection(place, paths)
        with found.noting():
            if found.inspect_files() and level != "files" and found.state in (State.COMPLETE, State.CORRUPT):
                _check_checksums(found, stop)
            if level == "blocks" and found.state is State.COMPLETE:
                _check_blocks(found, timeout_seconds, stop)
        has_time = time.monotonic() - started < _MOVING_SECONDS
        if found.state is State.COMPLETE or not (has_time and found.has_moved()):
            break
    db_id = found.snapshot.db_id if found.snapshot else ""
    return Completeness(
        state=found.state,
        level=level,
        directory=directory,
        problems=found.texts,
        wals=found.wals,
        file_count=len(found.used),
        total_bytes=sum(found.used.values()),
        db_id=db_id or (found.checkpoint.db_id if found.checkpoint else ""),
        sequence_number=found.sequence_number,
        seconds=round(time.monotonic() - started, 3),
        read_files=len(found.read),
        read_bytes=sum(found.used.get(name, 0) for name in found.read),
    )


def _is_local(filesystem: Any) -> bool:
    if filesystem is None:
        return True
    from fsspec.implementations.local import LocalFileSystem  # a local check starts faster without it

    return isinstance(filesystem, LocalFileSystem)


def _check_checksums(found: Inspection, stop: threading.Event | None) -> None:
    assert found.reader is not None  # noqa: S101 -- the files were inspected
    for family in found.reader.version.column_families.values():
        files: list[TableFile | BlobFile] = [*family.tables.values(), *family.live_blobs()]
        for file in files:
            if file.checksum_function and file.checksum:
                _check_stop(found, stop)
                _compare_checksum(found, file)
    check_wals(found, stop)


def check_wals(found: Inspection, stop: threading.Event | None = None) -> None:
    """Read every WAL that would be replayed, and note what is wrong: RocksDB drops in silence what it cannot read.

    :raises CancelledError: when ``stop`` was set.
    """
    contents: list[WalContent] = []
    for number, (name, size) in sorted(found.needed_wals().items()):
        _check_stop(found, stop)
        contents.append(found.pread(name, functools.partial(read_wal, number, size)))
    _judge_wals(found, contents)


def _compare_checksum(found: Inspection, file: TableFile | BlobFile) -> None:
    name = found.names[blob_file_name(file.number) if isinstance(file, BlobFile) else table_file_name(file.number)]
    if found.used[name] != file.size:
        return  # said already
    if file.checksum_function != _CRC32C_FUNCTION:
        found.add(
            State.COULD_NOT_CHECK,
            f"{name}: its checksum is by {file.checksum_function!r}, only {_CRC32C_FUNCTION} is known here; use level "
            "files or blocks",
        )
        return
    expected = int.from_bytes(file.checksum, "big")  # FileChecksumGenCrc32c::Finalize
    got = found.pread(name, lambda pread: _crc32c_of(pread, file.size))
    if got != expected:
        found.add(State.CORRUPT, f"{name}: expected CRC32C {expected:#010x} (MANIFEST), got {got:#010x}")


def _judge_wals(found: Inspection, contents: list[WalContent]) -> None:
    for content in contents:
        if content.damage is not None:
            found.add(State.CORRUPT, content.damage)
        if content.next_sequence is not None:
            found.sequence_number = max(found.sequence_number, content.next_sequence - 1)
    gap = find_gap(contents)
    if gap is not None:
        found.add(State.CORRUPT, gap)
    filled = [content for content in contents if content.records or content.torn]
    if found.checkpoint is not None and filled and filled[-1].damage is None and filled[-1].end < filled[-1].size:
        last = filled[-1]  # ours are cut at a whole record
        name = wal_file_name(last.number)
        found.add(State.CORRUPT, f"{name}: damaged at offset {last.end}: expected whole records up to {last.size}")


def _check_blocks(found: Inspection, timeout_seconds: float, stop: threading.Event | None) -> None:
    assert found.snapshot is not None and found.reader is not None  # noqa: S101, PT018 -- the check was complete
    directory = found.place.name
    if not isinstance(found.place, LocalDirectory):
        found.add(
            State.COULD_NOT_CHECK, f"{directory}: level blocks needs a local directory; copy it here and check that"
        )
        return
    files = [*found.names.values(), *(name for name, _ in found.needed_wals().values())]
    state, reason = scratch.read_blocks(
        directory,
        found.snapshot,
        found.reader.version,
        [os.path.join(directory, name) for name in files],
        sequence_number=found.sequence_number,
        timeout_seconds=timeout_seconds,
        stop=stop,
    )
    if state == State.COULD_NOT_CHECK and found.has_moved():
        reason = f"{directory}: the database moved on while its blocks were read; check a checkpoint of it: {reason}"
    if state != State.COMPLETE:
        found.add(state, reason)
    else:
        found.read.update(found.used)


def _check_stop(found: Inspection, stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise CancelledError(f"{found.place.name}: the check was stopped")


def _crc32c_of(pread: Pread, size: int) -> int:
    crc, offset = 0, 0
    while offset < size:
        chunk = pread(offset, min(_CHUNK_BYTES, size - offset))
        if not chunk:
            break
        crc = google_crc32c.extend(crc, chunk)
        offset += len(chunk)
    return crc
