"""The log file format of MANIFEST and WAL (RocksDB: ``db/log_format.h``, ``db/log_reader.cc``).

A file is a row of 32 KiB blocks; a physical record never crosses a block's end::

    masked CRC32C (4)  length (2)  type (1)                    payload      types 1-4, 9, 10, 130
    masked CRC32C (4)  length (2)  type (1)  log number (4)    payload      types 5-8, 11, 131 ("recyclable")

The CRC covers everything behind the length. A block's tail that is shorter than the writer's header (up to 6 bytes in
plain framing, 10 in recyclable) is zero padding; zeros where a header should be fill the block (preallocated space, or
the padding before a record of type 10, 11, 130 or 131, which is never split).
A logical record is one FULL fragment, or FIRST, MIDDLE…, LAST. Types 9 (compression), 10/11 (sizes of user-defined
timestamps) and 130/131 (predecessor WAL) describe the log; any other type with bit 7 set may be skipped. From 10 on,
odd types are recyclable; 9 opens logs of either framing, once and before any logical record.

In a recycled log the bytes behind the newest record are what an earlier log left there: a record with another log
number, or half of one, is the end. So where records stop, a reader has to tell three things apart: the end, a record
torn by a crash or still being written, and damage. It is damage when a valid record of this log stands behind.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.coding import crc32c, extend_crc32c, mask_crc32c

BLOCK_SIZE = 32768
HEADER_SIZE = 7
RECYCLABLE_HEADER_SIZE = 11
CHUNK_BYTES = 64 * BLOCK_SIZE  # what is read at a time

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SET_COMPRESSION = 9
_RECYCLABLE_DELTA = 4  # recyclable fragment types are the plain ones plus this
_RECYCLABLE_TYPES = frozenset((5, 6, 7, 8, *range(11, 256, 2)))
_KNOWN_TYPES = frozenset((*range(1, 12), 130, 131))
_FRAMED_TYPES = _KNOWN_TYPES - {SET_COMPRESSION}  # those that tell a log's framing
_SAFE_TO_IGNORE = 0x80
_CRC_OF_FULL = crc32c(bytes((FULL,)))

_HEADER = struct.Struct("<IHB")
_FIXED32 = struct.Struct("<I")
_NOT_ZERO = re.compile(rb"[^\0]")
_TYPE = re.compile(b"[" + b"".join(rb"\x%02x" % known for known in sorted(_KNOWN_TYPES)) + b"]")

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
    def __init__(self, stop: Stop, position: int, reason: str = "") -> None:
        self.stop = stop
        self.position = position
        self.reason = reason


def _read_header(data: bytes, position: int, base: int) -> tuple[int, int, int, int]:
    """Return position, masked CRC, length and type of the next physical record, behind padding and zeros."""
    size = len(data)
    while True:
        left = BLOCK_SIZE - (base + position) % BLOCK_SIZE
        if left < HEADER_SIZE:
            position, left = position + left, BLOCK_SIZE
        if size - position < HEADER_SIZE:
            if size <= position:
                raise _Stopped(Stop.END, position)
            raise _Stopped(Stop.TRUNCATED if any(data[position:]) else Stop.ZEROS, position, "half a header")
        crc, length, record_type = _HEADER.unpack_from(data, position)
        if length or record_type:
            return position, crc, length, record_type
        found = _NOT_ZERO.search(data, position)
        if found is None:
            raise _Stopped(Stop.ZEROS, position)
        if found.start() - position < left:
            raise _Stopped(Stop.BAD, position, "zeros, then other bytes")
        position = found.start() - (base + found.start()) % BLOCK_SIZE


def _read_fragment(data: bytes, position: int, base: int, log_number: int | None) -> _Fragment:
    """Return the physical record at ``position``; ``base`` is the file offset of ``data[0]``.

    :raises _Stopped: when there is none.
    """
    position, crc, length, record_type = _read_header(data, position, base)
    payload_position = position + (RECYCLABLE_HEADER_SIZE if record_type in _RECYCLABLE_TYPES else HEADER_SIZE)
    end = payload_position + length
    if end - position > BLOCK_SIZE - (base + position) % BLOCK_SIZE:
        raise _Stopped(Stop.BAD, position, f"its length {length} crosses the block's end")
    if end > len(data):
        raise _Stopped(Stop.TRUNCATED, position, f"{end - position} bytes, of which {len(data) - position} are there")
    actual = mask_crc32c(crc32c(data[position + 6 : end]))
    if actual != crc:
        raise _Stopped(
            Stop.BAD,
            position,
            f"masked CRC32C expected {crc:#010x}, got {actual:#010x} over {end - position - 6} bytes",
        )
    if payload_position - position == RECYCLABLE_HEADER_SIZE and log_number is not None:
        (number,) = _FIXED32.unpack_from(data, position + HEADER_SIZE)
        if number != log_number:
            raise _Stopped(Stop.OLD, position, f"log number {number}")
    if record_type not in _KNOWN_TYPES and not record_type & _SAFE_TO_IGNORE:
        raise _Stopped(Stop.BAD, position, f"unknown record type {record_type}")
    return _Fragment(position, payload_position, end, record_type)


class LogReader:
    """Split a log into records, as far as its bytes go; more may be fed when the file has grown.

    :param name: of the file, for messages.
    :param log_number: of a WAL: a recyclable record with another one ends the log. None accepts any.

    ``offset`` is where the next bytes must begin (the end of a physical record), ``end`` where the last whole logical
    record ends (where a copy may be cut), ``stop`` and ``reason`` why reading stopped, ``stop_offset`` where: behind
    padding. ``recyclable``: whether the log's file may be reused for another log (None while no record has told);
    ``compression``: the compression type that the log declares (0: none). A reader that has raised is not to be fed
    again.
    """

    def __init__(self, name: str, log_number: int | None = None) -> None:
        self.name = name
        self.log_number = None if log_number is None else log_number & 0xFFFFFFFF
        self.offset = 0
        self.end = 0
        self.stop = Stop.END
        self.reason = ""
        self.stop_offset = 0
        self.recyclable: bool | None = None
        self.compression = 0
        self._first_offset = 0
        self._fragments: list[bytes] | None = None
        self._has_record = False

    def feed(self, data: bytes) -> list[Record]:
        """Return the records in ``data``, the file's bytes from ``offset`` on.

        Feed either all bytes up to the visible end, or up to a block's end.

        :raises CorruptionError: where fragments of valid records do not fit together.
        """
        records: list[Record] = []
        base, position = self.offset, 0
        try:
            while True:
                if self._has_record and self.recyclable is False and self._fragments is None:
                    position = self._read_usual_records(data, base, position, records)
                fragment = _read_fragment(data, position, base, self.log_number)
                if fragment.position - position >= RECYCLABLE_HEADER_SIZE:
                    self._check_zeros(base + fragment.position)
                self._add(fragment, base, data[fragment.payload_position : fragment.end], records)
                position = fragment.end
                self.offset = base + position
        except _Stopped as stopped:
            self.stop, self.reason, self.stop_offset = stopped.stop, stopped.reason, base + stopped.position
        return records

    def _read_usual_records(self, data: bytes, base: int, position: int, records: list[Record]) -> int:
        """Read on while whole plain records follow each other in a block, as nearly all of a MANIFEST does."""
        limit = min(len(data), position + BLOCK_SIZE - (base + position) % BLOCK_SIZE)
        while limit - position >= HEADER_SIZE:
            crc, length, record_type = _HEADER.unpack_from(data, position)
            end = position + HEADER_SIZE + length
            if record_type != FULL or end > limit:
                break
            payload = data[position + HEADER_SIZE : end]
            if mask_crc32c(extend_crc32c(_CRC_OF_FULL, payload)) != crc:
                break
            records.append(Record(base + position, base + end, payload))
            self.offset = self.end = base + end
            position = end
        return position

    def _add(self, fragment: _Fragment, base: int, payload: bytes, records: list[Record]) -> None:
        is_recyclable = fragment.type in _RECYCLABLE_TYPES
        kind = fragment.type - _RECYCLABLE_DELTA if LAST < fragment.type < SET_COMPRESSION else fragment.type
        offset, end = base + fragment.position, base + fragment.end
        if self.recyclable is None and kind in _FRAMED_TYPES:
            self.recyclable = is_recyclable
        if is_recyclable and self.recyclable is False:
            raise self.corruption(offset, f"a recyclable record (type {fragment.type}) in a log that is not")
        if kind > LAST:
            if self._fragments and any(self._fragments):
                raise self.corruption(offset, f"a record of type {kind} stands inside another one")
            if kind == SET_COMPRESSION:
                self._set_compression(offset, payload)
            self.end = end
        elif kind in (FULL, FIRST):
            # an empty FIRST at a block's end, then a new beginning, is what early writers left (log_reader.cc)
            if self._fragments and any(self._fragments):
                raise self.corruption(offset, "a record begins inside another one")
            if kind == FULL:
                self._finish(Record(offset, end, payload), records)
            else:
                self._first_offset, self._fragments = offset, [payload]
        elif self._fragments is None:
            raise self.corruption(offset, "a record goes on that has not begun")
        else:
            self._fragments.append(payload)
            if kind == LAST:
                self._finish(Record(self._first_offset, end, b"".join(self._fragments)), records)

    def _finish(self, record: Record, records: list[Record]) -> None:
        self._fragments = None
        self._has_record = True
        self.end = record.end
        records.append(record)

    def _set_compression(self, offset: int, payload: bytes) -> None:
        if self._has_record or self.compression:
            raise self.corruption(offset, "the compression is declared twice, or not before the first record")
        if len(payload) < _FIXED32.size:
            raise self.corruption(offset, f"a compression type of {len(payload)} bytes, expected {_FIXED32.size}")
        (self.compression,) = _FIXED32.unpack_from(payload)

    def skip_to(self, offset: int) -> None:
        """Go on at a block's start behind preallocated zeros.

        :raises CorruptionError: inside a record.
        """
        if offset - self.offset >= RECYCLABLE_HEADER_SIZE:
            self._check_zeros(offset)
        self.offset = offset

    def _check_zeros(self, offset: int) -> None:
        """Refuse zeros, more than padding, before ``offset`` and inside a record: a part of it is lost."""
        if self._fragments and any(self._fragments):
            raise self.corruption(self.offset, f"zeros up to offset {offset} inside a record")

    def corruption(self, offset: int, reason: str) -> CorruptionError:
        """Error for this file at this offset."""
        return CorruptionError(f"{self.name}: damaged at offset {offset}: {reason}")


def iter_records(reader: LogReader, pread: Pread, size: int) -> Iterator[Record]:
    """Yield the records of a log from ``reader.offset`` up to ``size``, in bounded memory.

    Afterwards ``reader.stop`` tells how the log ends; what stands behind ``reader.end`` is torn, old or empty.

    :raises CorruptionError: where a record is not valid and valid ones of this log stand behind it.
    """
    if size < reader.offset:
        raise reader.corruption(size, f"expected at least the {reader.offset} bytes that were read before, got {size}")
    while True:
        limit = min(size, reader.offset // BLOCK_SIZE * BLOCK_SIZE + CHUNK_BYTES)
        data = pread(reader.offset, limit - reader.offset)
        if len(data) < limit - reader.offset:  # the file has shrunk
            size = limit = reader.offset + len(data)
        yield from reader.feed(data)
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
            reader.stop_offset, f"{reader.stop.value} ({reader.reason}), but a valid record follows at offset {found}"
        )
    if reader.stop is Stop.OLD:
        reader.recyclable = True  # which is all that a log without a record of its own can tell


def _find_record(reader: LogReader, pread: Pread, size: int) -> int | None:
    """Offset of a valid record behind the bad one.

    Looks everywhere in the bad one's block and in the last block, and at the start of those between, where a record
    always begins.
    """
    block = reader.stop_offset // BLOCK_SIZE * BLOCK_SIZE
    last_block = max(block, (size - 1) // BLOCK_SIZE * BLOCK_SIZE)
    found = _find_record_in_block(reader, pread(block, min(BLOCK_SIZE, size - block)), block, reader.stop_offset + 1)
    if found is not None:
        return found
    for offset in range(block + BLOCK_SIZE, last_block, CHUNK_BYTES):
        data = pread(offset, min(CHUNK_BYTES, last_block - offset))
        for position in range(0, len(data), BLOCK_SIZE):
            if _is_record(reader, data, position, offset):
                return offset + position
    if last_block == block:
        return None
    return _find_record_in_block(reader, pread(last_block, size - last_block), last_block, last_block)


def _find_record_in_block(reader: LogReader, data: bytes, block: int, start: int) -> int | None:
    for found in _TYPE.finditer(data, start - block + HEADER_SIZE - 1):
        position = found.start() - HEADER_SIZE + 1
        if _is_record(reader, data, position, block):
            return block + position
    return None


def _is_record(reader: LogReader, data: bytes, position: int, base: int) -> bool:
    """Whether a valid record of the reader's log stands here; in a recyclable log only such ones are its own."""
    if len(data) - position < HEADER_SIZE or data[position + 6] not in _KNOWN_TYPES:
        return False
    if reader.recyclable and data[position + 6] not in _RECYCLABLE_TYPES:
        return False
    limit = min(len(data), position + BLOCK_SIZE - (base + position) % BLOCK_SIZE)
    if position + HEADER_SIZE + int.from_bytes(data[position + 4 : position + 6], "little") > limit:
        return False  # as for most of what looks like a type
    try:
        fragment = _read_fragment(data, position, base, reader.log_number)
    except _Stopped:
        return False
    return fragment.position == position


def rewrite_records(data: bytes, name: str, rewrite: Callable[[bytes], bytes | None]) -> bytes:
    """Return whole log bytes with record payloads replaced by others of the same length.

    :param rewrite: gets a record's payload, returns the new one, or None to leave it.
    :raises CorruptionError: when ``data`` is not a log of whole records up to its end.
    :raises ValueError: when a new payload is not as long as the old one.
    """
    reader = LogReader(name)
    out = bytearray(data)
    for record in reader.feed(data):
        payload = rewrite(record.payload)
        if payload is None:
            continue
        if len(payload) != len(record.payload):
            raise ValueError(
                f"{name}: record at offset {record.offset}: {len(payload)} bytes for {len(record.payload)}"
            )
        position, taken = record.offset, 0
        while position < record.end:
            fragment = _read_fragment(data, position, 0, None)
            length = fragment.end - fragment.payload_position
            out[fragment.payload_position : fragment.end] = payload[taken : taken + length]
            crc = crc32c(bytes(out[fragment.position + 6 : fragment.end]))
            _FIXED32.pack_into(out, fragment.position, mask_crc32c(crc))
            position, taken = fragment.end, taken + length
    if reader.end != len(data):
        raise reader.corruption(reader.end, f"{reader.stop.value} ({reader.reason}), expected whole records")
    return bytes(out)
