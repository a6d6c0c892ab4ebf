"""The log file format of MANIFEST and WAL (RocksDB: ``db/log_format.h``, ``db/log_reader.cc``).

A file is a row of 32 KiB blocks; a physical record never crosses a block's end::

    masked CRC32C (4)  length (2)  type (1)                    payload      types 1-4, 9, 10, 130
    masked CRC32C (4)  length (2)  type (1)  log number (4)    payload      types 5-8, 11, 131 ("recyclable")

The CRC covers everything behind the length. A block's tail that is shorter than the writer's header (up to 6 bytes in
plain framing, 10 in recyclable) is zero padding; zeros where a header should be fill the block (preallocated space).
A logical record is one FULL fragment, or FIRST, MIDDLE…, LAST. Types 9 (compression), 10/11 (sizes of user-defined
timestamps) and 130/131 (predecessor WAL) describe the log; any other type with bit 7 set may be skipped.

In a recycled log the bytes behind the newest record are what an earlier log left there: a record with another log
number, or half of one, is the end. So where records stop, a reader has to tell three things apart: the end, a record
torn by a crash or still being written, and damage. It is damage when a valid record of this log stands behind.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.coding import crc32c, mask_crc32c

BLOCK_SIZE = 32768
HEADER_SIZE = 7
RECYCLABLE_HEADER_SIZE = 11
CHUNK_BYTES = 64 * BLOCK_SIZE  # what is read at a time

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SET_COMPRESSION = 9
_RECYCLABLE_DELTA = 4  # recyclable fragment types are the plain ones plus this
_RECYCLABLE_TYPES = frozenset((5, 6, 7, 8, 11, 131))
_KNOWN_TYPES = frozenset((*range(1, 12), 130, 131))
_SAFE_TO_IGNORE = 0x80

_HEADER = struct.Struct("<IHB")
_FIXED32 = struct.Struct("<I")

Pread = Callable[[int, int], bytes]
"""``pread(offset, length)`` returns the bytes that are there, fewer at the end of the file."""


class Stop(enum.Enum):
    """Why a reader has not gone on."""

    END = "the end of the data"
    ZEROS = "preallocated zeros"
    OLD = "a record of an earlier log"
    TRUNCATED = "a record that runs past the end"
    BAD = "a record that is not valid"


class Record(NamedTuple):
    """A logical record: file offsets of its first header and of its end, and its payload."""

    offset: int
    end: int
    payload: bytes


class _Fragment(NamedTuple):
    position: int
    payload_position: int
    end: int
    type: int


class _Stopped(Exception):  # noqa: N818 -- not an error: how the physical reader tells its caller why it stopped
    def __init__(self, stop: Stop, reason: str = "") -> None:
        self.stop = stop
        self.reason = reason


def _read_fragment(data: bytes, position: int, base: int, log_number: int | None) -> _Fragment:
    """Return the physical record at ``position``; ``base`` is the file offset of ``data[0]``.

    :raises _Stopped: when there is none.
    """
    left = BLOCK_SIZE - (base + position) % BLOCK_SIZE
    size = len(data)
    if left < HEADER_SIZE:
        position, left = position + left, BLOCK_SIZE
    if size - position < HEADER_SIZE:
        if size <= position:
            raise _Stopped(Stop.END)
        raise _Stopped(Stop.TRUNCATED if any(data[position:]) else Stop.ZEROS, "half a header")
    crc, length, record_type = _HEADER.unpack_from(data, position)
    payload_position = position + (RECYCLABLE_HEADER_SIZE if record_type in _RECYCLABLE_TYPES else HEADER_SIZE)
    end = payload_position + length
    if end - position > left:
        raise _Stopped(Stop.BAD, f"its length {length} crosses the block's end")
    if end > size:
        raise _Stopped(Stop.TRUNCATED, f"{end - position} bytes, of which {size - position} are there")
    if not (length or record_type):
        if data.count(0, position) == size - position:
            raise _Stopped(Stop.ZEROS)
        if data.count(0, position, position + left) != left:
            raise _Stopped(Stop.BAD, "zeros, then other bytes")
        return _read_fragment(data, position + left, base, log_number)
    if payload_position - position == RECYCLABLE_HEADER_SIZE and log_number is not None:
        (number,) = _FIXED32.unpack_from(data, position + HEADER_SIZE)
        if number != log_number:
            raise _Stopped(Stop.OLD, f"log number {number}")
    actual = mask_crc32c(crc32c(data[position + 6 : end]))
    if actual != crc:
        raise _Stopped(
            Stop.BAD, f"masked CRC32C expected {crc:#010x}, got {actual:#010x} over {end - position - 6} bytes"
        )
    if record_type not in _KNOWN_TYPES and not record_type & _SAFE_TO_IGNORE:
        raise _Stopped(Stop.BAD, f"unknown record type {record_type}")
    return _Fragment(position, payload_position, end, record_type)


class LogReader:
    """Split a log into records, as far as its bytes go; more may be fed when the file has grown.

    :param name: of the file, for messages.
    :param log_number: of a WAL: a recyclable record with another one ends the log. None accepts any.

    ``offset`` is where the next bytes must begin (the end of a physical record), ``end`` where the last whole logical
    record ends (where a copy may be cut), ``stop`` and ``reason`` why reading ended there, ``recyclable`` whether the
    log's file may be reused for another log (None before the first record), ``compression`` the compression type that
    the log declares (0: none).
    """

    def __init__(self, name: str, log_number: int | None = None) -> None:
        self.name = name
        self.log_number = None if log_number is None else log_number & 0xFFFFFFFF
        self.offset = 0
        self.end = 0
        self.stop = Stop.END
        self.reason = ""
        self.recyclable: bool | None = None
        self.compression = 0
        self._first_offset = 0
        self._fragments: list[bytes] | None = None

    def feed(self, data: bytes) -> list[Record]:
        """Return the records in ``data``, the file's bytes from ``offset`` on.

        Feed either all bytes up to the visible end, or up to a block's end.

        :raises CorruptionError: where fragments of valid records do not fit together.
        """
        records: list[Record] = []
        base, position = self.offset, 0
        try:
            while True:
                fragment = _read_fragment(data, position, base, self.log_number)
                self._add(fragment, base, data[fragment.payload_position : fragment.end], records)
                position = fragment.end
                self.offset = base + position
        except _Stopped as stopped:
            self.stop, self.reason = stopped.stop, stopped.reason
        return records

    def _add(self, fragment: _Fragment, base: int, payload: bytes, records: list[Record]) -> None:
        if self.recyclable is None:
            self.recyclable = fragment.type in _RECYCLABLE_TYPES
        kind = fragment.type - _RECYCLABLE_DELTA if LAST < fragment.type < SET_COMPRESSION else fragment.type
        offset, end = base + fragment.position, base + fragment.end
        if kind > LAST:
            if kind == SET_COMPRESSION and len(payload) >= _FIXED32.size:
                (self.compression,) = _FIXED32.unpack_from(payload)
            if self._fragments is None:
                self.end = end
        elif kind in (FULL, FIRST):
            # an empty FIRST at a block's end, then a new beginning, is what early writers left (log_reader.cc)
            if self._fragments and any(self._fragments):
                raise self.corruption(offset, "a record begins inside another one")
            if kind == FULL:
                self._fragments = None
                self.end = end
                records.append(Record(offset, end, payload))
            else:
                self._first_offset, self._fragments = offset, [payload]
        elif self._fragments is None:
            raise self.corruption(offset, "a record goes on that has not begun")
        else:
            self._fragments.append(payload)
            if kind == LAST:
                records.append(Record(self._first_offset, end, b"".join(self._fragments)))
                self._fragments = None
                self.end = end

    def skip_to(self, offset: int) -> None:
        """Go on at a block's start behind preallocated zeros.

        :raises CorruptionError: inside a record.
        """
        if self._fragments:
            raise self.corruption(self.offset, f"zeros up to {offset} inside a record")
        self.offset = offset

    def corruption(self, offset: int, reason: str) -> CorruptionError:
        """Error for this file at this offset."""
        return CorruptionError(f"{self.name}: damaged at offset {offset}: {reason}")


def iter_records(reader: LogReader, pread: Pread, size: int) -> Iterator[Record]:
    """Yield the records of a log from ``reader.offset`` up to ``size``, in bounded memory.

    Afterwards ``reader.stop`` tells how the log ends; what stands behind ``reader.end`` is torn, old or empty.

    :raises CorruptionError: where a record is not valid and valid ones of this log stand behind it.
    """
    while True:
        limit = min(size, reader.offset // BLOCK_SIZE * BLOCK_SIZE + CHUNK_BYTES)
        yield from reader.feed(pread(reader.offset, limit - reader.offset))
        if limit == size or reader.stop in (Stop.BAD, Stop.OLD, Stop.TRUNCATED):
            _check_tail(reader, pread, size)
            return
        if reader.stop is Stop.ZEROS:
            data_offset = _find_data(pread, limit, size)
            if data_offset is None:
                return
            reader.skip_to(data_offset // BLOCK_SIZE * BLOCK_SIZE)


def _find_data(pread: Pread, start: int, size: int) -> int | None:
    """Offset of the first byte from ``start`` on that is not zero."""
    for offset in range(start, size, CHUNK_BYTES):
        data = pread(offset, min(CHUNK_BYTES, size - offset))
        rest = data.lstrip(b"\0")
        if rest:
            return offset + len(data) - len(rest)
    return None


def _check_tail(reader: LogReader, pread: Pread, size: int) -> None:
    """Raise when a valid record stands behind the place where the reader stopped."""
    if reader.stop in (Stop.END, Stop.ZEROS):
        return
    found = _find_record(reader, pread, size)
    if found is not None:
        raise reader.corruption(
            reader.offset, f"{reader.stop.value} ({reader.reason}), but a valid record follows at offset {found}"
        )


def _find_record(reader: LogReader, pread: Pread, size: int) -> int | None:
    """Offset of a valid record behind the bad one: anywhere in its block, else at the start of a later block."""
    number = reader.log_number if reader.recyclable else None
    block = reader.offset // BLOCK_SIZE * BLOCK_SIZE
    data = pread(block, min(BLOCK_SIZE, size - block))
    for position in range(reader.offset - block + 1, len(data) - HEADER_SIZE):
        if _is_record(data, position, block, number, recyclable=reader.recyclable):
            return block + position
    for offset in range(block + BLOCK_SIZE, size, CHUNK_BYTES):
        data = pread(offset, min(CHUNK_BYTES, size - offset))
        for position in range(0, len(data), BLOCK_SIZE):
            if _is_record(data, position, offset, number, recyclable=reader.recyclable):
                return offset + position
    return None


def _is_record(data: bytes, position: int, base: int, number: int | None, *, recyclable: bool | None) -> bool:
    if len(data) - position < HEADER_SIZE or data[position + 6] not in _KNOWN_TYPES:
        return False
    if recyclable and data[position + 6] not in _RECYCLABLE_TYPES:
        return False
    try:
        fragment = _read_fragment(data, position, base, number)
    except _Stopped:
        return False
    return fragment.position == position


def rewrite_records(data: bytes, name: str, rewrite: Callable[[bytes], bytes | None]) -> bytes:
    """Return whole log bytes with record payloads replaced by others of the same length.

    :param rewrite: gets a record's payload, returns the new one, or None to leave it.
    :raises CorruptionError: when ``data`` is not a log up to its end.
    """
    reader = LogReader(name)
    out = bytearray(data)
    for record in reader.feed(data):
        payload = rewrite(record.payload)
        if payload is None:
            continue
        position, taken = record.offset, 0
        while position < record.end:
            fragment = _read_fragment(data, position, 0, None)
            length = fragment.end - fragment.payload_position
            out[fragment.payload_position : fragment.end] = payload[taken : taken + length]
            crc = crc32c(bytes(out[fragment.position + 6 : fragment.end]))
            _FIXED32.pack_into(out, fragment.position, mask_crc32c(crc))
            position, taken = fragment.end, taken + length
    if reader.offset != len(data):
        raise reader.corruption(reader.offset, f"{reader.stop.value} ({reader.reason})")
    return bytes(out)


def encode_records(payloads: list[bytes], offset: int = 0) -> bytes:
    """Write payloads as plain records of a log whose next byte is at ``offset`` (``log::Writer::AddRecord``)."""
    out = bytearray()
    for payload in payloads:
        taken, begin = 0, True
        while begin or taken < len(payload):
            left = BLOCK_SIZE - (offset + len(out)) % BLOCK_SIZE
            if left < HEADER_SIZE:
                out += bytes(left)
                left = BLOCK_SIZE
            part = payload[taken : taken + left - HEADER_SIZE]
            taken += len(part)
            end = taken == len(payload)
            kind = (FULL if end else FIRST) if begin else (LAST if end else MIDDLE)
            body = bytes((kind,)) + part
            out += _FIXED32.pack(mask_crc32c(crc32c(body))) + len(part).to_bytes(2, "little") + body
            begin = False
    return bytes(out)
