"""Send files and streams to S3 by as few requests as their size allows (:mod:`.s3_requests`).

s3fs's own files send one part of 8 MiB at a time, copied twice. Here the body of a request is the file itself, read
piece by piece: to send it and, where the connection is not encrypted, twice before that for a checksum and the
signature. So memory does not depend on the size of a file's parts. A stream's parts lie in memory, a few at a time.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c

from airflow_provider_rocksdb.core.drivers import MAX_PARTS, SILENCE_SECONDS
from airflow_provider_rocksdb.core.durable import pread
from airflow_provider_rocksdb.core.errors import CorruptionError, IncompleteError
from airflow_provider_rocksdb.core.s3_requests import request

_PART_BYTES = 64 * 1024 * 1024  # what a lost connection costs; a file below two of them is one request
_STREAMED_BYTES = 24 * 1024 * 1024  # in parts of one stream that are on their way


@dataclass(frozen=True)
class LocalFile:
    """An open file as it must be: its size in bytes, and the CRC32C where that is known."""

    path: str
    descriptor: int
    size: int
    crc32c: int | None = None


class Meter(Protocol):
    """What is told of the sending of a file (:class:`.transfer.Meter`); may raise to stop it."""

    chunk_bytes: int

    @property
    def slot(self) -> AbstractContextManager[Any]:
        """One of the files that may be sent at a time."""

    def throttle(self, length: int) -> None:
        """Wait for this chunk's turn."""

    def count(self, length: int) -> None:
        """Count bytes that are sent."""

    def check_stop(self) -> None:
        """Raise when the caller asked to stop."""


def send_file(filesystem: Any, path: str, file: LocalFile, meter: Meter) -> int:
    """Store a file as an object, which appears when it is whole; return the CRC32C of what was sent.

    :param filesystem: an ``S3FileSystem`` of s3fs.
    :raises IncompleteError: when the file is shorter than it must be.
    :raises CorruptionError: when it has another CRC32C; there is no object then.
    :raises ConnectionError: when the server takes nothing more.
    """
    upload = _Upload(filesystem, path)
    part_bytes = max(_PART_BYTES, -(-file.size // MAX_PARTS))
    if file.size < 2 * part_bytes:
        part_bytes = max(1, file.size)
    crc = sent = 0
    try:
        for start in range(0, max(1, file.size), part_bytes):
            body = _FileBody(file, start, min(part_bytes, file.size - start), crc, meter)
            upload.send(body, number=start // part_bytes + 1, is_all=body.length == file.size)
            crc = body.crc
            sent += body.length
            meter.count(body.length)
        upload.complete()
    except BaseException:
        meter.count(-sent)
        upload.abandon()
        raise
    return crc


@contextlib.contextmanager
def open_writer(
    filesystem: Any, path: str, part_bytes: int, check_stop: Callable[[], None] = lambda: None
) -> Iterator[Writer]:
    """Open an object for writing; it appears when the block ends well, or not at all.

    :param filesystem: an ``S3FileSystem`` of s3fs.
    :param part_bytes: size of a part, which is kept in memory until it is sent.
    :param check_stop: called a few times a second while something is sent; may raise.
    """
    writer = Writer(_Upload(filesystem, path), part_bytes, check_stop)
    try:
        yield writer
        writer.finish()
    except BaseException:
        writer.abandon()
        raise


class Writer:
    """What is written to it is sent by other threads, in parts."""

    def __init__(self, upload: _Upload, part_bytes: int, check_stop: Callable[[], None]) -> None:
        self._upload = upload
        self._part_bytes = part_bytes
        self._check_stop = check_stop
        self._most = max(1, _STREAMED_BYTES // part_bytes)
        self._threads = ThreadPoolExecutor(self._most, thread_name_prefix="rocksdb-part")
        self._parts: deque[Future[None]] = deque()
        self._number = 0
        self._rest = bytearray()

    def write(self, data: bytes) -> int:
        """Take all of it; raise what sending earlier parts has failed by."""
        self._rest += data
        while len(self._rest) >= self._part_bytes:
            part = self._rest[: self._part_bytes]
            del self._rest[: self._part_bytes]
            self._send(part)
        return len(data)

    def _send(self, part: bytearray) -> None:
        if len(self._parts) == self._most:
            self._parts.popleft().result()
        self._number += 1
        body = _MemoryBody(part, self._check_stop)
        self._parts.append(self._threads.submit(self._upload.send, body, number=self._number))

    def finish(self) -> None:
        """Send what is left, and have the object appear."""
        if not self._number:
            self._upload.send(_MemoryBody(self._rest, self._check_stop), number=1, is_all=True)
        elif self._rest:
            self._send(self._rest)
        while self._parts:
            self._parts.popleft().result()
        self._threads.shutdown()
        self._upload.complete()

    def abandon(self) -> None:
        """Forget it."""
        self._threads.shutdown(cancel_futures=True)
        self._upload.abandon()


class _Upload:
    """One object, by one request or in parts."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem = filesystem
        bucket, key, _ = filesystem.split_path(path)
        self._place = {"Bucket": bucket, "Key": key}
        self._lock = threading.Lock()
        self._upload: dict[str, Any] = {}
        self._parts: dict[int, dict[str, Any]] = {}

    def send(self, body: _Body, *, number: int, is_all: bool = False) -> None:
        """Send a part, or all of it; give up at once when the body cannot be read, or the caller asks to stop."""
        if is_all:
            self._call("put_object", body, **self._place)
            return
        with self._lock:
            if not self._upload:
                answer = self._filesystem.call_s3("create_multipart_upload", **self._place)
                self._upload = {**self._place, "UploadId": answer["UploadId"]}
        answer = self._call("upload_part", body, **self._upload, PartNumber=number)
        checksum = {name: answer[name] for name in ("ChecksumSHA256",) if name in answer}  # asked for by the user
        self._parts[number] = {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    def _call(self, method: str, body: _Body, **arguments: Any) -> dict[str, Any]:
        try:
            return request(self._filesystem, method, {"Body": body, **arguments}, check=body.check, slot=body.slot)[0]
        except Exception:
            if body.failure is not None:
                raise body.failure from None
            raise

    def complete(self) -> None:
        """Have the object appear, if it was sent in parts."""
        if self._upload:
            parts = [self._parts[number] for number in sorted(self._parts)]
            self._filesystem.call_s3("complete_multipart_upload", **self._upload, MultipartUpload={"Parts": parts})

    def abandon(self) -> None:
        """Have S3 forget its parts, as far as that is possible."""
        if self._upload:
            with contextlib.suppress(Exception):
                self._filesystem.call_s3("abort_multipart_upload", **self._upload)


class _Body(io.RawIOBase):
    """What is sent by one request: read from its start to its end, perhaps several times."""

    def __init__(self, length: int, check_stop: Callable[[], None]) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.length = length
        self._check_stop = check_stop
        self.slot: AbstractContextManager[Any] = contextlib.nullcontext()
        self._position = 0
        self._read_at = math.inf  # when the last piece was taken from here; while one is made, never

    def _read(self, position: int, length: int) -> bytes:
        raise NotImplementedError

    def check(self) -> None:
        """Raise what reading has failed by, or when somebody has begun to read and does not go on, or shall stop."""
        self._check_stop()
        if self.failure is not None:
            raise self.failure
        if 0 < self._position < self.length and time.monotonic() - self._read_at > SILENCE_SECONDS:
            raise ConnectionError(f"the server has taken nothing for {SILENCE_SECONDS} s")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}[whence]
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        rest = self.length - self._position
        length = rest if size < 0 else min(size, rest)
        if not length and self.length:
            return b""
        self._read_at = math.inf
        try:
            data = self._read(self._position, length)
        except Exception as error:
            self.failure = error
            raise
        self._position += len(data)
        self._read_at = time.monotonic()
        return data


class _MemoryBody(_Body):
    def __init__(self, data: bytearray, check_stop: Callable[[], None]) -> None:
        super().__init__(len(data), check_stop)
        self._data = memoryview(data)

    def _read(self, position: int, length: int) -> bytes:
        return bytes(self._data[position : position + length])


class _FileBody(_Body):
    """A range of a file.

    :param crc: CRC32C of what lies before the range; as an attribute, with what was read of the range the last time.
    """

    def __init__(self, file: LocalFile, start: int, length: int, crc: int, meter: Meter) -> None:
        super().__init__(length, meter.check_stop)
        self.crc = self._crc_before = crc
        self._file = file
        self._start = start
        self._meter = meter
        self.slot = meter.slot
        self._sender = threading.get_ident()
        # what reads first may be the event loop of all requests; it must not wait for a disk
        os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def _read(self, position: int, length: int) -> bytes:
        file, offset = self._file, self._start + position
        if threading.get_ident() == self._sender:  # else only a checksum is made
            length = min(length, self._meter.chunk_bytes)
            self._meter.throttle(length)
        data = pread(file.descriptor, offset, length)
        if len(data) < length:
            raise IncompleteError(
                f"{file.path}: expected {file.size} bytes, got {offset + len(data)}: it was changed meanwhile"
            )
        self.crc = google_crc32c.extend(self.crc if position else self._crc_before, data)
        if offset + length == file.size and file.crc32c is not None and self.crc != file.crc32c:
            raise CorruptionError(
                f"{file.path}: expected CRC32C {file.crc32c}, got {self.crc}: the file has changed meanwhile"
            )
        return data
