"""The log format: every record type, padding, torn ends, recycled files, damage."""

from __future__ import annotations

import contextlib
import itertools
import random
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.log_format import (
    BLOCK_SIZE,
    CHUNK_BYTES,
    FIRST,
    FULL,
    LAST,
    MIDDLE,
    LogReader,
    Record,
    Stop,
    iter_records,
    rewrite_records,
)
from tests.core.format.encoders import LogWriter, log, physical, pread_of

FRAMINGS = pytest.mark.parametrize("number", [None, 9], ids=["plain", "recyclable"])
SIZES = st.one_of(
    st.integers(0, 300),
    st.integers(BLOCK_SIZE - 24, BLOCK_SIZE + 24),
    st.integers(2 * BLOCK_SIZE - 36, 2 * BLOCK_SIZE + 12),
)


def filler(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 -- any bytes will do


def read(data: bytes, number: int | None = None) -> tuple[LogReader, list[Record]]:
    """Read a whole log."""
    reader = LogReader("the-log", number)
    return reader, list(iter_records(reader, pread_of(data), len(data)))


def payloads(records: list[Record]) -> list[bytes]:
    return [record.payload for record in records]


@given(st.lists(SIZES, max_size=5), st.sampled_from([None, 9]))
@example([BLOCK_SIZE - 7 - 7, 1], None)
@example([BLOCK_SIZE - 11 - 11, 1], 9)
@settings(deadline=None, max_examples=150)
def test_round_trip(sizes: list[int], number: int | None) -> None:
    """Records of any size, in either framing, read back whole, each where the one before and its padding end."""
    written = [filler(size, index) for index, size in enumerate(sizes)]
    writer = LogWriter(number).add(*written)
    reader, records = read(bytes(writer.data), number)
    assert payloads(records) == written
    assert [record.end for record in records] == writer.ends
    assert reader.end == reader.offset == len(writer.data)
    assert reader.stop is Stop.END
    assert all(0 <= b.offset - a.end <= 10 for a, b in itertools.pairwise(records))


@FRAMINGS
@pytest.mark.parametrize("left", range(15))
def test_padding(number: int | None, left: int) -> None:
    """A block's tail of any length, too short for the writer's header or not, is passed or used."""
    writer = LogWriter(number).fill(left)
    assert len(writer.data) % BLOCK_SIZE == (BLOCK_SIZE - left) % BLOCK_SIZE
    writer.add(b"next", b"", filler(100))
    reader, records = read(bytes(writer.data), number)
    assert payloads(records)[1:] == [b"next", b"", filler(100)]
    assert reader.end == len(writer.data)


@FRAMINGS
def test_cut_at_every_byte(number: int | None) -> None:
    """A log cut at any byte gives the records that are whole, and says that it is torn where it is."""
    writer = LogWriter(number).add(b"one", b"", b"three" * 10).control(130 if number is None else 131, b"info")
    writer.add(b"five")
    whole = bytes(writer.data)
    boundaries = {0, *writer.ends, writer.ends[2] + (7 if number is None else 11) + 4}
    for cut in range(len(whole) + 1):
        reader, records = read(whole[:cut], number)
        assert [record.end for record in records] == [end for end in writer.ends if end <= cut]
        assert reader.end == max(boundary for boundary in boundaries if boundary <= cut)
        assert reader.stop is (Stop.END if cut in boundaries else Stop.TRUNCATED)


@FRAMINGS
def test_fragmented_record_cut(number: int | None) -> None:
    """A record of several fragments counts for nothing, and is no damage, while its last is not whole."""
    writer = LogWriter(number).add(b"one", filler(3 * BLOCK_SIZE))
    data = bytes(writer.data)
    for border in (BLOCK_SIZE, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE, len(data)):
        for cut in range(border - 20, min(border + 20, len(data))):
            reader, records = read(data[:cut], number)
            assert payloads(records) == [b"one"]
            assert reader.end == writer.ends[0]


@given(st.lists(SIZES, max_size=4), st.sampled_from([None, 9]), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_reading_on(sizes: list[int], number: int | None, rng: random.Random) -> None:
    """A log that grows by any steps gives the records that it gives at once, each exactly once."""
    writer = LogWriter(number).add(*(filler(size, index) for index, size in enumerate(sizes)))
    data = bytes(writer.data)
    reader, grown = LogReader("the-log", number), []
    sizes_seen = sorted(rng.randrange(len(data) + 1) for _ in range(8))
    for size in [*sizes_seen, len(data)]:
        grown += list(iter_records(reader, pread_of(data[:size]), size))
        assert reader.end == max((end for end in writer.ends if end <= size), default=0)
        assert reader.end <= reader.offset <= size
    assert grown == read(data, number)[1]


def flipped(data: bytes) -> list[tuple[int, bytes]]:
    return [
        (offset, data[:offset] + bytes((data[offset] ^ bits,)) + data[offset + 1 :])
        for offset in range(len(data))
        for bits in (0x01, 0x10, 0x80, 0xFF)
    ]


@FRAMINGS
def test_every_flipped_byte(number: int | None) -> None:
    """A flipped byte is damage with file and offset in the message, or it costs the last record and nothing else."""
    writer = LogWriter(number)
    if number is None:
        writer.control(10, b"\0" * 6)
    else:
        writer.control(11, b"\0" * 6)
    writer.add(b"one" * 5, b"", b"three", b"last" * 5)
    data = bytes(writer.data)
    whole = read(data, number)[1]
    for offset, damaged in flipped(data):
        if offset >= writer.ends[-2]:
            reader, records = read(damaged, number)
            assert records == whole[:-1]
            assert reader.end == writer.ends[-2]
            assert reader.stop in (Stop.BAD, Stop.OLD, Stop.TRUNCATED)
        else:
            with pytest.raises(CorruptionError, match=r"the-log: damaged at offset \d+: .*a valid record follows at"):
                read(damaged, number)


@FRAMINGS
def test_flipped_byte_in_any_block(number: int | None) -> None:
    """Damage is found in whichever block it is, also at a block's first and last bytes."""
    data = log(*(filler(20_000, seed) for seed in range(12)), log_number=number)
    for block in range(len(data) // BLOCK_SIZE):
        for offset in (0, 5, 6, 9, 4000, BLOCK_SIZE - 1):
            position = block * BLOCK_SIZE + offset
            damaged = data[:position] + bytes((data[position] ^ 0x40,)) + data[position + 1 :]
            with pytest.raises(CorruptionError, match="the-log: damaged at offset"):
                read(damaged, number)


@FRAMINGS
def test_damage_over_the_last_block_border(number: int | None) -> None:
    """Bytes lost on both sides of the last block's border are damage when a record stands whole behind them."""
    data = bytearray(LogWriter(number).add(*(filler(1000, seed) for seed in range(40))).data)
    assert BLOCK_SIZE < len(data) < 2 * BLOCK_SIZE
    data[BLOCK_SIZE - 2000 : BLOCK_SIZE + 2000] = b"\xaa" * 4000
    with pytest.raises(CorruptionError, match="but a valid record follows"):
        read(bytes(data), number)


@FRAMINGS
@pytest.mark.parametrize("left", range(11))
def test_damage_behind_padding(number: int | None, left: int) -> None:
    """A damaged record at a block's start is found also when the block before ends in padding."""
    writer = LogWriter(number).fill(left).add(b"first of its block", b"second of its block")
    position = len(writer.data) - 1 - len(b"second of its block") - (7 if number is None else 11)
    damaged = bytearray(writer.data)
    damaged[position] ^= 1
    with pytest.raises(CorruptionError, match="but a valid record follows"):
        read(bytes(damaged), number)


def test_zeros_are_the_end() -> None:
    """Preallocated zeros, less than a header or many blocks of them, end a log without being torn."""
    data = log(b"one", b"two")
    for zeros in (1, 6, 7, 100, BLOCK_SIZE, 3 * BLOCK_SIZE + 5, CHUNK_BYTES + 5):
        reader, records = read(data + bytes(zeros))
        assert payloads(records) == [b"one", b"two"]
        assert (reader.end, reader.stop) == (len(data), Stop.ZEROS)
    assert read(bytes(CHUNK_BYTES + 1))[0].stop is Stop.ZEROS


@pytest.mark.parametrize("blocks", [1, 2, 70, 2000], ids=str)
def test_zeros_are_skipped_to_the_next_block(blocks: int) -> None:
    """Zeros where a header should be fill the block: reading goes on at the first block that has bytes."""
    writer = LogWriter().add(b"one")
    writer.data += bytes(writer.left + (blocks - 1) * BLOCK_SIZE)
    writer.add(b"two")
    reader, records = read(bytes(writer.data))
    assert payloads(records) == [b"one", b"two"]
    assert reader.end == len(writer.data)
    assert LogReader("the-log").feed(bytes(writer.data)) == records


@pytest.mark.parametrize("blocks", [1, 64, 130], ids=str)
def test_zeros_inside_a_record(blocks: int) -> None:
    """A block of zeros where a middle fragment should be is damage, never a record without its middle."""
    data = bytearray(log(b"one", filler(140 * BLOCK_SIZE), b"three"))
    data[BLOCK_SIZE : (1 + blocks) * BLOCK_SIZE] = bytes(blocks * BLOCK_SIZE)
    with pytest.raises(CorruptionError, match=f"damaged at offset {BLOCK_SIZE}: zeros up to offset .* inside a record"):
        read(bytes(data))


def test_zeros_then_other_bytes() -> None:
    """A zero header in front of other bytes of its block is damage when a record follows, else a torn end."""
    data = bytearray(log(b"one", b"two", b"three"))
    data[10:20] = bytes(10)
    with pytest.raises(CorruptionError, match="but a valid record follows at offset 20"):
        read(bytes(data))
    reader, records = read(log(b"one") + bytes(20) + b"garbage")
    assert (payloads(records), reader.stop) == ([b"one"], Stop.BAD)


@pytest.mark.parametrize("tail", [b"\x01", b"\xff" * 100, b"\0" * 20 + b"x", physical(FIRST, b"half")], ids=repr)
def test_trailing_bytes(tail: bytes) -> None:
    """What is no record behind the last one changes nothing in front of it, and is told."""
    data = log(b"one", b"two")
    reader, records = read(data + tail)
    assert payloads(records) == [b"one", b"two"]
    assert reader.end == len(data)
    assert reader.stop in (Stop.BAD, Stop.TRUNCATED) or reader.offset > reader.end


CONTROL = [(9, b"\7\0\0\0"), (10, b"\0" * 6), (130, b"\0" * 20), (132, b"any"), (254, b""), (128, b"x")]
RECYCLABLE_CONTROL = [(9, b"\7\0\0\0"), (11, b"\0" * 6), (131, b"\0" * 20), (133, b"any"), (255, b"")]


@pytest.mark.parametrize(
    ("number", "kind", "payload"),
    [*((None, *control) for control in CONTROL), *((9, *control) for control in RECYCLABLE_CONTROL)],
)
def test_records_about_the_log(number: int | None, kind: int, payload: bytes) -> None:
    """Types 9, 10, 11, 130, 131 and unknown ones with bit 7 are no records of the database, but belong to the log."""
    writer = LogWriter(number).control(kind, payload)
    reader, records = read(bytes(writer.data), number)
    assert (records, reader.end, reader.stop) == ([], len(writer.data), Stop.END)
    writer.add(b"one")
    if kind != 9:  # which opens a log
        writer.control(kind, payload)
    reader, records = read(bytes(writer.data), number)
    assert (payloads(records), reader.end) == ([b"one"], len(writer.data))
    assert reader.recyclable is (number is not None)
    assert reader.compression == (7 if kind == 9 else 0)


@FRAMINGS
def test_compression_is_declared_once_and_first(number: int | None) -> None:
    """A compression record behind another one or behind a record, or cut short, is damage, as to RocksDB's reader."""
    zstd = b"\7\0\0\0"
    for writer in (
        LogWriter(number).control(9, zstd).control(9, zstd),
        LogWriter(number).control(9, zstd).add(b"one").control(9, zstd),
        LogWriter(number).add(b"one").control(9, zstd),
        LogWriter(number).add(b"f" * BLOCK_SIZE).control(9, zstd),
    ):
        with pytest.raises(CorruptionError, match="declared twice, or not before the first record"):
            read(bytes(writer.data), number)
    with pytest.raises(CorruptionError, match="damaged at offset 0: a compression type of 3 bytes, expected 4"):
        read(bytes(LogWriter(number).control(9, zstd[:3]).data), number)


@FRAMINGS
@pytest.mark.parametrize("left", [0, 5, 10, 11, 29, 300])
def test_predecessor_record_at_a_blocks_end(number: int | None, left: int) -> None:
    """A record about the log is never split: where it does not fit, zeros fill the block."""
    writer = LogWriter(number).fill(left).control(130 if number is None else 131, b"p" * 400).add(b"one")
    reader, records = read(bytes(writer.data), number)
    assert (payloads(records)[1:], reader.end) == ([b"one"], len(writer.data))


@pytest.mark.parametrize("kind", [12, 14, 64, 127])
def test_unknown_type(kind: int) -> None:
    """A record of an unknown type without bit 7 is damage when a valid record follows, and ends the log when not."""
    data = log(b"one") + physical(kind, b"x")
    reader, records = read(data)
    assert (payloads(records), reader.stop, reader.reason) == ([b"one"], Stop.BAD, f"unknown record type {kind}")
    with pytest.raises(CorruptionError, match=f"the-log: damaged at offset 10: .*unknown record type {kind}"):
        read(data + physical(FULL, b"two"))


def test_empty_first_at_a_blocks_end() -> None:
    """An empty FIRST at a block's end begins a record, or, as early writers left it, is passed over."""
    writer = LogWriter().fill(7).add(b"record")
    assert payloads(read(bytes(writer.data))[1])[1:] == [b"record"]
    for behind in ([(FULL, b"record")], [(FIRST, b"rec"), (LAST, b"ord")]):
        writer = LogWriter().fill(7).fragment(FIRST, b"")
        offset = len(writer.data)
        for kind, payload in behind:
            writer.fragment(kind, payload)
        assert read(bytes(writer.data))[1][1:] == [Record(offset, len(writer.data), b"record")]


@pytest.mark.parametrize(
    ("fragments", "reason"),
    [
        ([(MIDDLE, b"x")], "goes on that has not begun"),
        ([(LAST, b"x")], "goes on that has not begun"),
        ([(FULL, b"x"), (LAST, b"x")], "goes on that has not begun"),
        ([(FIRST, b"x"), (FULL, b"y")], "begins inside another one"),
        ([(FIRST, b"x"), (FIRST, b"y")], "begins inside another one"),
        ([(FIRST, b"x"), (MIDDLE, b"x"), (FIRST, b"y"), (LAST, b"y")], "begins inside another one"),
        ([(FIRST, b"x"), (10, b"y"), (LAST, b"x")], "type 10 stands inside another one"),
        ([(FIRST, b"x"), (200, b"y"), (LAST, b"x")], "type 200 stands inside another one"),
        ([(FULL, b"x"), (5, b"y")], r"a recyclable record \(type 5\) in a log that is not"),
    ],
    ids=repr,
)
def test_fragments_that_do_not_fit(fragments: list[tuple[int, bytes]], reason: str) -> None:
    """Valid fragments in an order that no writer makes are damage, at the offset of the first that does not fit."""
    data = b"".join(physical(kind, payload) for kind, payload in fragments)
    with pytest.raises(CorruptionError, match=rf"the-log: damaged at offset \d+: .*{reason}"):
        read(data)


@given(st.lists(SIZES, max_size=4), st.lists(SIZES, min_size=1, max_size=6), st.booleans())
@settings(deadline=None, max_examples=150)
def test_recycled_log(new: list[int], old: list[int], zeros: bool) -> None:
    """In a file written over an earlier log, whatever is left of that ends the log and is no damage."""
    stale = log(*((bytes(size) if zeros else filler(size, seed)) for seed, size in enumerate(old)), log_number=7)
    writer = LogWriter(9).add(*(filler(size, 100 + seed) for seed, size in enumerate(new)))
    data = bytes(writer.data) + stale[len(writer.data) :]
    reader, records = read(data, 9)
    assert payloads(records) == [filler(size, 100 + seed) for seed, size in enumerate(new)]
    assert reader.end == len(writer.data)


def test_recycled_log_torn() -> None:
    """A record of which only the beginning was written over an earlier log is the end, too."""
    stale = log(*(filler(30, seed) for seed in range(50)), log_number=7)
    whole = log(b"one", filler(40, 99), log_number=9)
    for cut in range(len(whole)):
        reader, records = read(whole[:cut] + stale[cut:], 9)
        assert payloads(records) == ([b"one"] if cut >= 14 else [])
        assert reader.end == (14 if cut >= 14 else 0)


def test_recycled_log_that_nothing_was_written_to() -> None:
    """A file taken over from an earlier log and not yet written to is an empty log that can be recycled."""
    reader, records = read(log(b"old", b"older", log_number=7), 9)
    assert (records, reader.end, reader.stop, reader.recyclable) == ([], 0, Stop.OLD, True)
    compressed = LogWriter(7).control(9, b"\7\0\0\0").add(b"old", b"older")
    reader, records = read(bytes(compressed.data), 9)
    assert (records, reader.stop, reader.recyclable) == ([], Stop.OLD, True)


def test_recycled_log_damaged() -> None:
    """An earlier log's record, or bytes of no record, are damage when a record of this log is whole behind them."""
    one, two, three = (physical(5, payload, 9) for payload in (b"one", b"two", b"three"))
    for middle in (physical(5, b"old", 7), b"\xaa" * len(two), bytes(3) + two[3:]):
        with pytest.raises(
            CorruptionError, match=f"damaged at offset {len(one)}: .*a valid record follows at offset 28"
        ):
            read(one + middle + three, 9)


def test_log_numbers_have_32_bits() -> None:
    """A recyclable record carries its log number's low 32 bits."""
    number = (5 << 32) + 9
    assert payloads(read(log(b"one", log_number=number), number)[1]) == [b"one"]


def test_a_plain_log_with_a_recyclable_type_byte() -> None:
    """A type byte flipped to a recyclable one hides no record of a plain log."""
    data = bytearray(log(b"payload", b"two"))
    data[6] = 5
    with pytest.raises(CorruptionError, match="but a valid record follows at offset 14"):
        read(bytes(data), 9)


@FRAMINGS
def test_padding_inside_a_compressed_record(number: int | None) -> None:
    """Where a compressing writer's chunk ends just before a block's end, padding stands inside a record."""
    for left in range(12):
        writer = LogWriter(number).add(b"one")
        room = writer.left - left - (7 if number is None else 11)
        writer.add_chunks([b"a" * room, b"b" * 50, b"c" * 70_000])
        reader, records = read(bytes(writer.data), number)
        assert payloads(records) == [b"one", b"a" * room + b"b" * 50 + b"c" * 70_000]
        assert reader.end == len(writer.data)


def test_logs_larger_than_what_is_read_at_a_time() -> None:
    """Records that cross the border of two reads are whole; memory stays bounded."""
    sizes = [100, CHUNK_BYTES - 50, 30, 5, CHUNK_BYTES // 2, CHUNK_BYTES, 17]
    for number in (None, 9):
        written = [bytes((seed,)) * size for seed, size in enumerate(sizes)]
        data = log(*written, log_number=number)
        assert payloads(read(data, number)[1]) == written
    data = log(*([b"x" * 1000] * 16_000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_records(LogReader("the-log"), pread_of(data), len(data))) == 16_000
        assert tracemalloc.get_traced_memory()[1] < 4 * CHUNK_BYTES
    finally:
        tracemalloc.stop()


def test_a_file_that_shrinks_while_it_is_read() -> None:
    """A file shorter than it was said to be is read to its end, and one shorter than what was read is damage."""
    data = log(*([b"x" * 1000] * 5000))
    reader = LogReader("the-log")
    records = list(iter_records(reader, pread_of(data[:2_500_000]), len(data)))
    assert len(records) == len([record for record in read(data)[1] if record.end <= 2_500_000])
    assert reader.end == records[-1].end
    with pytest.raises(CorruptionError, match=r"the-log: .*expected at least the \d+ bytes .*, got 1000"):
        list(iter_records(reader, pread_of(data[:1000]), 1000))


def header_like(size: int) -> bytes:
    """Bytes that look like a header with a long payload at every second position."""
    return (b"\x01\x20" * (size // 2 + 1))[:size]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 1_000_000,
        b"\x01" * 1_000_000,
        b"\x05" * 1_000_000,
        header_like(1_000_000),
        bytes(6) + b"\x01" * 1_000_000,
        bytes(40 * BLOCK_SIZE) + b"\xff",
        bytes(BLOCK_SIZE - 1) + b"\xff" * BLOCK_SIZE + bytes(BLOCK_SIZE),
        filler(1_000_000),
        physical(FIRST, b"x" * (BLOCK_SIZE - 7)) + physical(MIDDLE, b"x" * (BLOCK_SIZE - 7)) * 30,
    ],
    ids=lambda data: f"{data[:8].hex()}-{len(data)}",
)
@pytest.mark.timeout(60)
def test_hostile_bytes(data: bytes) -> None:
    """A megabyte of anything is answered in bounded time, by an end or by the package's own error."""
    for number in (None, 9):
        with contextlib.suppress(CorruptionError):
            reader, records = read(data, number)
            assert (records, reader.end) == ([], 0)


@given(st.binary(max_size=200), st.sampled_from([None, 0, 9]))
@settings(deadline=None)
def test_any_bytes_are_answered(data: bytes, number: int | None) -> None:
    """Whatever a log holds, reading it ends, or raises the package's own error."""
    with contextlib.suppress(CorruptionError):
        assert read(log(b"one", log_number=number) + data, number)[1][0].payload == b"one"


@FRAMINGS
def test_rewrite(number: int | None) -> None:
    """Records are rewritten in place, fragmented or not; the rest stays byte for byte, and every CRC is right."""
    written = [b"aXb", filler(3 * BLOCK_SIZE) + b"X", b"", b"no", b"X" * 70_000]
    data = log(*written, log_number=number)
    rewritten = rewrite_records(
        data, "the-log", lambda payload: payload.replace(b"X", b"Y") if b"X" in payload else None
    )
    assert len(rewritten) == len(data)
    assert payloads(read(rewritten, number)[1]) == [payload.replace(b"X", b"Y") for payload in written]
    assert rewrite_records(data, "the-log", lambda _: None) == data
    assert rewrite_records(data, "the-log", lambda payload: payload) == data


def test_rewrite_refuses() -> None:
    """Bytes that are not whole records to their end are not rewritten, nor is a payload of another length taken."""
    data = log(b"one", filler(BLOCK_SIZE))
    for broken in (data[:-1], data[:BLOCK_SIZE], data + b"\0", data + b"x", data[:12] + b"?" + data[13:]):
        with pytest.raises(CorruptionError, match="the-log: damaged at offset"):
            rewrite_records(broken, "the-log", lambda _: None)
    with pytest.raises(ValueError, match="the-log: record at offset 0"):
        rewrite_records(data, "the-log", lambda _: b"longer")
    assert rewrite_records(b"", "the-log", lambda _: b"x") == b""
