"""Send a local file to S3 by as few requests as its size allows, each streamed from the file.

s3fs's own files collect parts in memory: two copies, and a request for each 8 MiB. Here the body of a request is the
file itself. botocore reads it piece by piece: to send it and, where the connection is not encrypted, twice before that
for a checksum and the signature. So memory does not depend on the size of a part.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
from fsspec.asyn import sync

from airflow_provider_rocksdb.core.drivers import SILENCE_SECONDS
from airflow_provider_rocksdb.core.durable import pread
from airflow_provider_rocksdb.core.errors import CorruptionError, IncompleteError

_PART_BYTES = 64 * 1024 * 1024  # what a lost connection costs; a file below two of them is one request
_MAX_PARTS = 9000  # S3 allows 10,000
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class LocalFile:
    """An open file as it must be: its size in bytes, and the CRC32C where that is known."""

    path: str
    descriptor: int
    size: int
    crc32c: int | None = None


def send_file(
    filesystem: Any,
    path: str,
    file: LocalFile,
    *,
    on_sent: Callable[[int], None],
    check_stop: Callable[[], None],
) -> int:
    """Store a file as an object, which appears when it is whole; return the CRC32C of what was sent.

    :param filesystem: an ``S3FileSystem`` of s3fs.
    :param on_sent: called with the bytes of each request that is done.
    :param check_stop: called a few times a second; may raise.
    :raises IncompleteError: when the file is shorter than it must be.
    :raises CorruptionError: when it has another CRC32C; there is no object then.
    :raises ConnectionError: when the server takes nothing more.
    """
    bucket, key, _ = filesystem.split_path(path)
    place = {"Bucket": bucket, "Key": key}
    part_bytes = max(_PART_BYTES, -(-file.size // _MAX_PARTS))
    crc = 0

    def send(method: str, start: int, length: int, **arguments: Any) -> Any:
        nonlocal crc
        body = _Body(file, start, length, crc)
        answer = _call(filesystem, method, body, check_stop, **place, **arguments)
        crc = body.crc
        on_sent(length)
        return answer

    if file.size < 2 * part_bytes:
        send("put_object", 0, file.size)
        return crc
    upload = {**place, "UploadId": filesystem.call_s3("create_multipart_upload", **place)["UploadId"]}
    try:
        parts = []
        for number, start in enumerate(range(0, file.size, part_bytes), 1):
            length = min(part_bytes, file.size - start)
            answer = send("upload_part", start, length, UploadId=upload["UploadId"], PartNumber=number)
            checksum = {name: answer[name] for name in ("ChecksumSHA256",) if name in answer}  # asked for by the user
            parts.append({"PartNumber": number, "ETag": answer["ETag"], **checksum})
        filesystem.call_s3("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
    except BaseException:
        with contextlib.suppress(Exception):
            filesystem.call_s3("abort_multipart_upload", **upload)
        raise
    return crc


def _call(filesystem: Any, method: str, body: _Body, check_stop: Callable[[], None], **arguments: Any) -> Any:
    """Call S3; give up at once when the file cannot be sent, or the caller asks to stop.

    Nobody reads the file any more when this has returned: the caller may close it.
    """

    async def call() -> Any:
        await filesystem.set_session()
        client = await filesystem.get_s3(arguments["Bucket"])
        client.meta.events.register_last("before-call.s3", _send_at_once, unique_id=__name__)
        request = asyncio.ensure_future(filesystem._call_s3(method, **arguments, Body=body))
        try:
            while not (await asyncio.wait({request}, timeout=_LOOK_SECONDS))[0]:
                check_stop()
                body.check()
        finally:
            request.cancel()
            await asyncio.wait({request})
        if body.failure is not None:
            raise body.failure
        return request.result()

    return sync(filesystem.loop, call)


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Do not ask whether the body of a request is welcome: it costs a round trip, and a server may never answer."""
    params["headers"].pop("Expect", None)


class _Body(io.RawIOBase):
    """A range of a file, read from its start to its end, perhaps several times.

    :param crc: CRC32C of what lies before the range; as an attribute, with what was read of the range the last time.
    """

    def __init__(self, file: LocalFile, start: int, length: int, crc: int) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.crc = self._crc_before = crc
        self._file = file
        self._start = start
        self._length = length
        self._position = 0
        self._moved_at = time.monotonic()
        # what reads is the loop of all requests; it must not wait for a disk
        os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def check(self) -> None:
        """Raise what reading has failed by, or when somebody has begun to read and does not go on."""
        if self.failure is not None:
            raise self.failure
        if 0 < self._position < self._length and time.monotonic() - self._moved_at > SILENCE_SECONDS:
            raise ConnectionError(f"{self._file.path}: the server has taken nothing for {SILENCE_SECONDS} s")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        rest = self._length - self._position
        try:
            return self._read(rest if size < 0 else min(size, rest))
        except Exception as error:
            self.failure = error
            raise

    def _read(self, length: int) -> bytes:
        file, offset = self._file, self._start + self._position
        data = pread(file.descriptor, offset, length)
        if len(data) < length:
            raise IncompleteError(
                f"{file.path}: expected {file.size} bytes, got {offset + len(data)}: it was changed meanwhile"
            )
        self.crc = google_crc32c.extend(self.crc if self._position else self._crc_before, data)
        self._position += length
        self._moved_at = time.monotonic()
        is_end = offset + length == file.size
        if is_end and file.crc32c is not None and self.crc != file.crc32c:
            raise CorruptionError(
                f"{file.path}: expected CRC32C {file.crc32c}, got {self.crc}: the file has changed meanwhile"
            )
        return data
