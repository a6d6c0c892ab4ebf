"""Records of a column family as a stream of frames: the child process that reads them, and the decoding of frames.

Run as a program with a scratch directory, it reads one request from stdin, a JSON object (:class:`Request`, keys in
hexadecimal), and writes frames to stdout. Integers are little-endian.

::

    frame     kind (1) records (4) parts (4) bytes (8), then
    "B"       batch: number of parts of each record (8 each), length of each part (8 each), all parts
    "E"       the end: records and parts are 0; a JSON object {"state": …, "reason": …}

A record has two parts, key and value; that of a wide-column entity has the key, and a name and a value of each column.
Nothing is pickled: what RocksDB makes of an untrusted database stays data.
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any, BinaryIO

from airflow_provider_rocksdb.core.database import judge, open_iterator
from airflow_provider_rocksdb.core.errors import NotSupportedError

Record = tuple[bytes, Any]

_HEADER = Struct("<cIIQ")
_INTEGER = "Q"


@dataclass(frozen=True)
class Request:
    """A range of a column family: from a key on, up to before another; and the most that a batch may hold.

    ``sequence_number``: of the last write that must be there.
    """

    column_family: str
    sequence_number: int
    from_key: bytes | None
    to_key: bytes | None
    batch_records: int
    batch_bytes: int

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), default=bytes.hex).encode()


def decode_request(data: bytes) -> Request:
    """Read a request."""
    values = json.loads(data)
    for name in ("from_key", "to_key"):
        values[name] = None if values[name] is None else bytes.fromhex(values[name])
    return Request(**values)


def iter_frames(read: Callable[[int], bytes]) -> Iterator[list[Record]]:
    """Yield batches; return when the child says that all is read.

    :param read: gives exactly so many bytes.
    :raises StreamEndError: when the child says that it could not read everything.
    """
    while True:
        kind, records, parts, size = _HEADER.unpack(read(_HEADER.size))
        if kind == b"E":
            answer = json.loads(read(size))
            if answer["state"] != "complete":
                raise StreamEndError(answer["state"], answer["reason"])
            return
        counts = _integers(read(8 * records))
        lengths = _integers(read(8 * parts))
        yield _cut(counts, lengths, read(size))


class StreamEndError(Exception):
    """The child could not read everything: a state by its value, and the reason."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


def _integers(data: bytes) -> array[int]:
    numbers = array(_INTEGER)
    numbers.frombytes(data)
    return numbers


def _cut(counts: Sequence[int], lengths: Sequence[int], data: bytes) -> list[Record]:
    parts = []
    offset = 0
    for length in lengths:
        parts.append(data[offset : offset + length])
        offset += length
    if len(parts) == 2 * len(counts):  # no entity: one has an odd number of parts
        return list(zip(parts[::2], parts[1::2], strict=True))
    cut: list[Record] = []
    offset = 0
    for count in counts:
        key, *rest = parts[offset : offset + count]
        cut.append((key, rest[0] if count == 2 else dict(zip(rest[::2], rest[1::2], strict=True))))
        offset += count
    return cut


class _Batch:
    """Records on their way out."""

    def __init__(self) -> None:
        self.counts = array(_INTEGER)
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, key: bytes, columns: list[tuple[bytes, bytes]]) -> None:
        if len(columns) == 1 and not columns[0][0]:  # a plain value is a column without a name
            new = [key, columns[0][1]]
        else:
            new = [key, *(part for column in columns for part in column)]
        self.counts.append(len(new))
        self.parts += new
        self.size += sum(map(len, new))

    def write(self, file: BinaryIO) -> None:
        if not self.counts:
            return
        file.write(_HEADER.pack(b"B", len(self.counts), len(self.parts), self.size))
        file.write(self.counts.tobytes())
        file.write(array(_INTEGER, map(len, self.parts)).tobytes())
        file.writelines(self.parts)
        file.flush()


def _write_records(directory: str, request: Request, file: BinaryIO) -> None:
    iterator = open_iterator(
        directory, request.column_family, request.sequence_number, request.from_key, request.to_key
    )
    batch = _Batch()
    while iterator.valid():
        batch.add(iterator.key(), iterator.columns())
        if len(batch.counts) >= request.batch_records or batch.size >= request.batch_bytes:
            batch.write(file)
            batch = _Batch()
        iterator.next()
    iterator.status()  # an iterator ends at a damaged block as it does at the last key
    batch.write(file)


def _main() -> None:
    with os.fdopen(os.dup(1), "wb") as file:
        os.dup2(2, 1)  # whatever RocksDB prints is not a frame
        state, reason = "complete", ""
        try:
            _write_records(sys.argv[1], decode_request(sys.stdin.buffer.read()), file)
        except BrokenPipeError:
            os._exit(1)  # nobody reads any more
        except Exception as error:
            if type(error) not in (Exception, NotSupportedError):  # the first is what rocksdict raises
                raise
            state, reason = judge(error)
        answer = json.dumps({"state": state, "reason": reason}).encode()
        file.write(_HEADER.pack(b"E", 0, 0, len(answer)) + answer)
        file.flush()
    os._exit(0)  # nothing that RocksDB does on its way out may change the answer


if __name__ == "__main__":
    _main()
