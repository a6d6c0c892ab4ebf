"""Read an object of S3 by one request, in the thread that wants it (:mod:`.s3_requests`)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from airflow_provider_rocksdb.core.s3_requests import request

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_reader(filesystem: Any, path: str, offset: int) -> Iterator[Reader]:
    """Open an object for reading it once, from ``offset`` on.

    :raises OSError: as s3fs translates what S3 answers.
    """
    reader = Reader(filesystem, path, offset)
    try:
        yield reader
    finally:
        reader.close()


class Reader:
    """Bytes of one object, in order. When a request breaks off after some of them, another one goes on from there."""

    def __init__(self, filesystem: Any, path: str, offset: int) -> None:
        self._filesystem = filesystem
        self._path = path
        self._position = offset
        self._condition: dict[str, str] = {}
        self._open()

    def _open(self) -> None:
        bucket, key, version = self._filesystem.split_path(self._path)
        place = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
        part = {"Range": f"bytes={self._position}-"} if self._position else {}
        answer, self._response = request(self._filesystem, "get_object", {**place, **part, **self._condition})
        self._began_at = self._position
        length = answer.get("ContentLength")
        self._end = None if length is None else self._position + length
        if answer.get("ETag", "").strip('"'):
            self._condition = {"IfMatch": answer["ETag"]}

    def read(self, length: int) -> bytes:
        """Return so many bytes, or as many as there are."""
        try:
            data: bytes = self._response.read(length)
            if not data and length and self._end is not None and self._position < self._end:
                raise ConnectionError(f"{self._path}: ended after {self._position} of {self._end} bytes")
        except Exception as error:
            if self._position == self._began_at:
                raise
            _log.info("%s: broke off at byte %d, going on from there: %r", self._path, self._position, error)
            self.close()
            self._open()
            return self.read(length)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Let go of the connection, which another request may use when the object was read to its end."""
        self._response.close()
        self._response.release_conn()
