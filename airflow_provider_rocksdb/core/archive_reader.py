"""Read an archive as a stream: every member's content, checked by the list that comes last. The input is hostile.

Nothing of it is kept but names, sizes and checksums. What is written is what the headers declare, no more than the
caller allows. A connection that breaks is taken up again where it broke.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Protocol

import google_crc32c
from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core import archive_layout as layout
from airflow_provider_rocksdb.core.archive_layout import ArchiveFile, ArchiveRecord
from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME
from airflow_provider_rocksdb.core.compression import decompress
from airflow_provider_rocksdb.core.errors import CorruptionError, NoSpaceError, NotFoundError
from airflow_provider_rocksdb.core.storage import Storage, require_all, translating
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, Meter, TransferOptions, write_all

_MAX_CHECKPOINT_RECORD_BYTES = 64 * 1024 * 1024  # ours
_PROBLEMS_SHOWN = 20


class Target(Protocol):
    """Where a member's content goes: a file, or anything that takes bytes."""

    def write(self, data: bytes, /) -> int | None:
        """Take bytes; an unbuffered file may take less than it is given."""


OpenTarget = Callable[[str, int], AbstractContextManager[Target | BinaryIO]]


@dataclass(frozen=True)
class ExtractResult:
    """What an archive held. Sizes in bytes; its own list is not counted."""

    archive: str
    db_id: str
    sequence_number: int
    file_count: int
    total_bytes: int
    archive_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


def extract_archive(
    filesystem: AbstractFileSystem,
    path: str,
    open_target: OpenTarget,
    *,
    max_total_bytes: int | None = None,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> ExtractResult:
    """Read a whole archive and hand out its files; none of them is to be trusted before this returns.

    :param path: of the archive on ``filesystem``; its ending says how it is compressed.
    :param open_target: called for each file, one at a time, with its name (a plain one that a checkpoint may have, and
        never the same twice) and size. The block of what it returns ends with the error where there was one; its own
        errors go through as they are.
    :param max_total_bytes: what all files together may have: the free space, say. None: no limit.
    :param stop: set it to stop within a chunk.
    :raises CorruptionError: when it is damaged, cut, or no archive of ours; or when it holds what no checkpoint has.
    :raises NoSpaceError: when its files are larger than ``max_total_bytes``; nothing of the first that is too large was
        handed out.
    :raises AccessError, NotFoundError, InvalidArgumentError, TransferError: when the storage fails, or zstd is missing.
    :raises CancelledError: when ``stop`` was set.
    """
    began = time.monotonic()
    layout.require_compression(path)
    storage, name = open_folder(filesystem, path)
    reader = _Reader(storage, name, options, stop)
    record = reader.extract(open_target, max_total_bytes)
    return ExtractResult(
        archive=reader.url,
        db_id=record.db_id,
        sequence_number=record.sequence_number,
        file_count=len(record.files),
        total_bytes=sum(file.size for file in record.files),
        archive_bytes=reader.source.offset,
        seconds=round(time.monotonic() - began, 3),
    )


def check_archive(
    filesystem: AbstractFileSystem,
    path: str,
    *,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> ExtractResult:
    """Read a whole archive and compare every file with its size and checksum; nothing is written.

    :raises RocksDBError: as :func:`extract_archive`.
    """
    return extract_archive(filesystem, path, lambda _name, _size: Nowhere(), options=options, stop=stop)


def open_folder(filesystem: AbstractFileSystem, path: str) -> tuple[Storage, str]:
    """Return the folder that an archive lies in, and its name there."""
    folder, _, name = filesystem._strip_protocol(path).rpartition("/")
    return Storage(filesystem, folder or "/"), name


def archive_url(storage: Storage, name: str) -> str:
    """Where an archive is, for messages and results."""
    return f"{storage.url}{'' if storage.url.endswith('/') else '/'}{name}"


def read_checkpoint_record(
    storage: Storage, name: str, options: TransferOptions, stop: threading.Event | None
) -> bytes | None:
    """Return the ``checkpoint.json`` that an archive begins with; None when it does not.

    :raises CorruptionError: when it is not an archive.
    """
    reader = _Reader(storage, name, options, stop)
    with reader.opened():
        first = reader.next_member()
        if first is None or first[0] != RECORD_NAME or first[1] > _MAX_CHECKPOINT_RECORD_BYTES:
            return None
        return reader.read(first[1])


class Nowhere(contextlib.AbstractContextManager["Nowhere"]):
    """A target that keeps nothing."""

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, data: bytes, /) -> int:
        """Take bytes."""
        return len(data)


class _Source:
    """The archive's bytes, in chunks; reading goes on where it broke."""

    def __init__(self, storage: Storage, name: str, options: TransferOptions, stop: threading.Event | None) -> None:
        self.offset = 0
        self._storage = storage
        self._name = name
        self._options = options
        self._stop = stop
        self._open = contextlib.ExitStack()
        self._file: Any = None
        self._url = archive_url(storage, name)
        with translating(self._url):
            size = options.retry(lambda: storage.size(name), storage, self._url, stop)
        if size is None:
            raise NotFoundError(f"{self._url}: no such archive")
        self._size = size
        self._meter = Meter([size], storage, options, stop, verb="read")

    def iter_chunks(self) -> Iterator[bytes]:
        """Yield all there is."""
        while True:
            with translating(self._url):
                chunk = self._options.retry(self._read, self._storage, self._url, self._stop)
            if not chunk:
                self._meter.count_file()
                self._meter.tell()
                return
            self.offset += len(chunk)
            self._meter.throttle(len(chunk))
            self._meter.count(len(chunk))
            self._meter.tell_when_due()
            yield chunk

    def _read(self) -> bytes:
        try:
            if self._file is None:
                reader = self._storage.open_reader(self._name, self._size, self.offset)
                self._file = self._open.enter_context(reader)
            chunk: bytes = self._file.read(self._meter.chunk_bytes)
            if not chunk:
                require_all(self._url, self.offset, self._size)
        except BaseException:
            self.close()
            raise
        return chunk

    def close(self) -> None:
        """Let go of the file."""
        self._file = None
        with contextlib.suppress(Exception):
            self._open.close()


class _Reader:
    """One reading of an archive."""

    def __init__(self, storage: Storage, name: str, options: TransferOptions, stop: threading.Event | None) -> None:
        self.url = archive_url(storage, name)
        self.source = _Source(storage, name, options, stop)
        self._pieces = decompress(self.source.iter_chunks(), layout.require_compression(name), self.url)
        self._rest = memoryview(b"")
        self._offset = 0  # in the tar stream

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.source.close()

    def extract(self, open_target: OpenTarget, max_total_bytes: int | None) -> ArchiveRecord:
        seen: dict[str, ArchiveFile] = {}
        total = 0
        with self.opened():
            while (member := self.next_member()) is not None:
                name, size = member
                if name == layout.LIST_NAME:
                    return self._finish(size, seen)
                if name in seen:
                    raise CorruptionError(f"{self._where}: {name!r} is there twice")
                if len(seen) == layout.MAX_MEMBERS:
                    raise CorruptionError(f"{self._where}: more than {layout.MAX_MEMBERS} files")
                total += size
                if max_total_bytes is not None and total > max_total_bytes:
                    raise NoSpaceError(
                        f"{self.url}: its files up to {name!r} have {total} bytes, {max_total_bytes} are allowed; free "
                        "space, or allow more if you trust it"
                    )
                seen[name] = self._copy(name, size, open_target)
        raise CorruptionError(f"{self.url}: has no {layout.LIST_NAME}: it is cut, or was not made by this package")

    def next_member(self) -> tuple[str, int] | None:
        """Read a header."""
        where = self._where
        return layout.decode_header(self.read(layout.BLOCK_BYTES), where)

    def read(self, size: int) -> bytes:
        """Read so many bytes, which the caller knows to be few."""
        return b"".join(self._iter_content(size))

    @property
    def _where(self) -> str:
        return f"{self.url}: offset {self._offset} of the tar stream"

    def _copy(self, name: str, size: int, open_target: OpenTarget) -> ArchiveFile:
        crc = 0
        with open_target(name, size) as target:
            for piece in self._iter_content(size):
                crc = google_crc32c.extend(crc, piece)
                write_all(target, piece)
        self._skip_padding(size)
        return ArchiveFile(name, size, crc)

    def _finish(self, size: int, seen: dict[str, ArchiveFile]) -> ArchiveRecord:
        """Read the list, compare it with what came before, and see the stream to its end."""
        if size > layout.max_record_bytes(len(seen)):
            raise CorruptionError(f"{self._where}: {layout.LIST_NAME} has {size} bytes, for {len(seen)} files")
        record = layout.decode_record(self.read(size), f"{self.url}: {layout.LIST_NAME}")
        self._skip_padding(size)
        self._read_end()
        problems = _compare({file.name: file for file in record.files}, seen)
        if len(record.files) != len(seen):
            problems.append(f"{len(record.files)} files are listed, {len(seen)} are there")
        if problems:
            more = f" and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
            raise CorruptionError(f"{self.url}: {'; '.join(problems[:_PROBLEMS_SHOWN])}{more}")
        return record

    def _skip_padding(self, size: int) -> None:
        where = self._where
        if any(self.read(layout.padding(size))):
            raise CorruptionError(f"{where}: expected zeros up to the next block, got something else")

    def _read_end(self) -> None:
        where = self._where
        end = self.read(2 * layout.BLOCK_BYTES)
        length = len(end)
        clean = not any(end)
        for piece in itertools.chain([bytes(self._rest)], self._pieces):
            clean = clean and not any(piece)
            length += len(piece)
            if not clean or length > layout.MAX_END_BYTES:
                raise CorruptionError(f"{where}: something follows {layout.LIST_NAME}, which must be the last")
        if not clean or length % layout.BLOCK_BYTES:
            raise CorruptionError(f"{where}: expected the end of the archive in whole blocks of zeros, got another")

    def _iter_content(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._rest:
                try:
                    self._rest = memoryview(next(self._pieces))
                except StopIteration:
                    raise CorruptionError(f"{self._where}: the archive is cut: {size} bytes are missing") from None
            piece, self._rest = bytes(self._rest[:size]), self._rest[size:]
            size -= len(piece)
            self._offset += len(piece)
            yield piece


def _compare(listed: dict[str, ArchiveFile], seen: dict[str, ArchiveFile]) -> list[str]:
    problems = []
    for name in sorted(listed.keys() | seen.keys()):
        expected, got = listed.get(name), seen.get(name)
        if got is None:
            problems.append(f"{name!r} is listed, and is not there")
        elif expected is None:
            problems.append(f"{name} is there, and is not listed")
        elif expected != got:
            problems.append(
                f"{name}: expected {expected.size} bytes with CRC32C {expected.crc32c:#010x}, got {got.size} with "
                f"{got.crc32c:#010x}"
            )
    return problems
