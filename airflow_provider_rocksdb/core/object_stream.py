"""Reading an object of an asynchronous file system by one request, as far as its driver can.

fsspec's own files ask for a range at a time. That is a request for each 8 MiB, none of which is on its way while the
last one is being written; and some servers open the object anew for each.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_reader(filesystem: AbstractFileSystem, path: str, part_bytes: int) -> Iterator[Any]:
    """Open an object for reading it once, from its start; when the request breaks off, its rest is read in ranges.

    :param part_bytes: of a range, where the driver knows nothing else.
    """
    stream = _open_stream(filesystem, path)
    if stream is None:
        with filesystem.open(path, "rb", block_size=part_bytes) as file:
            yield file
        return
    reader = _Reader(filesystem, path, part_bytes, stream)
    try:
        yield reader
    finally:
        reader.close()


def _open_stream(filesystem: AbstractFileSystem, path: str) -> Any:
    if filesystem.async_impl and not filesystem.asynchronous:
        with contextlib.suppress(NotImplementedError, AttributeError):  # the latter where it passes on to another
            return sync(filesystem.loop, filesystem.open_async, path)
    return None


class _Reader:
    """Bytes of one object, in order."""

    def __init__(self, filesystem: AbstractFileSystem, path: str, part_bytes: int, stream: Any) -> None:
        self._filesystem = filesystem
        self._path = path
        self._part_bytes = part_bytes
        self._stream = stream
        self._file: Any = None
        self._position = 0

    def read(self, length: int) -> bytes:
        """Return so many bytes, or as many as there are."""
        if self._file is None:
            try:
                data: bytes = sync(self._filesystem.loop, self._read, length)
            except Exception as error:
                if not self._position:
                    raise
                _log.info("%s: broke off at byte %d, going on from there: %r", self._path, self._position, error)
                self._file = self._filesystem.open(self._path, "rb", block_size=self._part_bytes)
                self._file.seek(self._position)
                return self.read(length)
        else:
            data = self._file.read(length)
        self._position += len(data)
        return data

    async def _read(self, length: int) -> bytes:
        parts = []
        while length > 0 and (part := await self._stream.read(length)):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection, also when the object was not read to its end."""
        if self._file is not None:
            self._file.close()
        body = getattr(self._stream, "r", None)
        if body is not None:
            self._filesystem.loop.call_soon_threadsafe(body.close)
        self._stream.closed = True  # else its deletion would close it, as if that were not asynchronous
