"""Reading a WAL for what a backup must know: where it ends, whether it is damaged, which sequence numbers it holds.

A WAL's record is a WriteBatch: sequence number of its first entry (fixed64), count of entries (fixed32), entries
(RocksDB: ``db/write_batch.cc``). Where the log declares compression, the record is a zstd frame of that.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.filename import wal_file_name
from airflow_provider_rocksdb.core.format.log_format import LogReader, Pread, Stop, iter_records

_WRITE_BATCH_HEADER = struct.Struct("<QI")
_ZSTD = 7  # CompressionType::kZSTD, the only one that WALs know

_HeaderReader = Callable[[bytes], tuple[int, int] | None]


@dataclass(frozen=True)
class WalContent:
    """What a WAL holds.

    ``end``: offset in bytes behind the last whole record. ``torn``: bytes behind it are a record's beginning, not
    preallocated space or what an earlier log left. ``recyclable``: the file may be reused for another log.
    ``first_sequence`` and ``next_sequence`` (one above the last) are None where there is no record, or none that can
    be read. ``damage`` says what is wrong in the middle.
    """

    number: int
    size: int
    end: int
    records: int
    torn: bool
    recyclable: bool
    first_sequence: int | None
    next_sequence: int | None
    damage: str | None


def read_wal(number: int, size: int, pread: Pread) -> WalContent:
    """Read a whole WAL, every CRC checked. Damage is told, not raised: the caller decides."""
    reader = LogReader(wal_file_name(number), number)
    records = 0
    first: int | None = None
    following: int | None = None
    damage = None
    header_of: _HeaderReader = _plain_header
    try:
        for record in iter_records(reader, pread, size):
            if not records and reader.compression:
                header_of = _decompressor(reader.compression)
            records += 1
            header = header_of(record.payload)
            if header is not None:
                sequence, count = header
                first = sequence if first is None else first
                following = max(following or 0, sequence + count)
    except CorruptionError as error:
        damage = str(error)
    torn = reader.end < reader.offset or reader.stop in (Stop.TRUNCATED, Stop.BAD)
    return WalContent(number, size, reader.end, records, torn, bool(reader.recyclable), first, following, damage)


def read_wal_file(number: int, path: str) -> WalContent:
    """Read a whole local WAL."""
    descriptor = durable.open_regular(path)
    try:
        return read_wal(number, os.fstat(descriptor).st_size, functools.partial(durable.pread, descriptor))
    finally:
        os.close(descriptor)


def find_gap(wals: list[WalContent]) -> str | None:
    """Say where a WAL ends in half a record although a later one goes on behind it; None: nowhere.

    RocksDB accepts a torn end inside the row only where the next WAL's first sequence number follows without a gap
    (``DBImpl::MaybeReviseStopReplayForCorruption``, point-in-time recovery), counted over all WALs before.

    :param wals: in the order of their numbers.
    """
    for wal, following, expected in _iter_neighbours(wals):
        if not wal.torn or wal.damage or wal.recyclable or expected is None or following.first_sequence is None:
            continue
        if following.first_sequence > expected:
            return (
                f"{wal_file_name(wal.number)}: damaged at offset {wal.end}: ends in half a record; expected "
                f"{f'sequence number {expected}' if expected else 'no record'} to follow, but "
                f"{wal_file_name(following.number)} begins at {following.first_sequence}"
            )
    return None


def find_stale_ends(wals: list[WalContent]) -> list[WalContent]:
    """Return the recycled WALs, but the last, with an earlier log's bytes behind their own records.

    RocksDB cuts those off when it closes a WAL, a little after it has begun the next one; until then a strict reader
    takes them for a torn end. That they are no record of this log is proven where the next WAL's first sequence number
    is the one to follow.

    :param wals: in the order of their numbers.
    """
    return [
        wal
        for wal, following, expected in _iter_neighbours(wals)
        if wal.recyclable and wal.damage is None and wal.end < wal.size and following.first_sequence == expected
    ]


def _iter_neighbours(wals: list[WalContent]) -> Iterator[tuple[WalContent, WalContent, int | None]]:
    """Yield each WAL that holds anything, the next such one, and the sequence number it should begin with, if known."""
    filled = [wal for wal in wals if wal.records or wal.torn]
    expected: int | None = 0
    for wal, following in itertools.pairwise(filled):
        if wal.records:
            expected = wal.next_sequence
        yield wal, following, expected


def _plain_header(payload: bytes) -> tuple[int, int] | None:
    if len(payload) < _WRITE_BATCH_HEADER.size:
        return None
    sequence, count = _WRITE_BATCH_HEADER.unpack_from(payload)
    return sequence, count


def _unknown_header(_payload: bytes) -> None:
    return None


def _decompressor(compression: int) -> _HeaderReader:
    """Reader of a compressed record's header; it knows nothing where no zstd module is installed."""
    try:
        zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        return _unknown_header
    if compression != _ZSTD:
        return _unknown_header

    def header(payload: bytes) -> tuple[int, int] | None:
        try:
            return _plain_header(zstd.ZstdDecompressor().decompress(payload, _WRITE_BATCH_HEADER.size))
        except zstd.ZstdError:
            return None

    return header
