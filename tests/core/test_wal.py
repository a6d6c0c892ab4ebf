"""WALs: where they end, whether they are damaged, which sequence numbers they hold."""

from __future__ import annotations

import dataclasses
import importlib
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import DBRecoveryMode, Options, Rdict, WriteBatch

from airflow_provider_rocksdb.core.format.log_format import BLOCK_SIZE, CHUNK_BYTES, FIRST
from airflow_provider_rocksdb.core.wal import WalContent, find_gap, read_wal, read_wal_file
from tests.core.format.encoders import LogWriter, batch, log, physical, pread_of

ZSTD_MODULE = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
FRAMINGS = pytest.mark.parametrize("number", [None, 9], ids=["plain", "recyclable"])
COMPRESSION = b"\7\0\0\0"


def filler(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 -- any bytes will do


def read(data: bytes, number: int = 9) -> WalContent:
    return read_wal(number, len(data), pread_of(data))


def told(content: WalContent) -> tuple[Any, ...]:
    return (content.records, content.first_sequence, content.next_sequence, content.torn, content.damage)


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.sampled_from([0, 50, BLOCK_SIZE, 70_000])), max_size=5), st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_whole(batches: list[tuple[int, int]], recyclable: bool) -> None:
    """A whole WAL tells its records, its first sequence number and the one to follow, in either framing."""
    sequence, records = 100, []
    for count, size in batches:
        records.append(batch(sequence, count, filler(size)))
        sequence += count
    data = log(*records, log_number=9 if recyclable else None)
    content = read(data)
    assert told(content) == (len(batches), 100 if batches else None, sequence if batches else None, False, None)
    assert (content.number, content.size, content.end) == (9, len(data), len(data))
    assert content.recyclable is (recyclable and bool(batches))


def test_batches_without_entries() -> None:
    """A batch of no entries, as a transaction's marker is, moves no sequence number; too short a record has none."""
    assert told(read(log(batch(7, 0)))) == (1, 7, 7, False, None)
    assert told(read(log(batch(7, 3), batch(10, 0), batch(10, 1)))) == (3, 7, 11, False, None)
    assert told(read(log(b"", b"short"))) == (2, None, None, False, None)
    assert told(read(log(b"short", batch(7, 2)))) == (2, 7, 9, False, None)
    assert told(read(log(batch(2**64 - 1, 2**32 - 1)))) == (1, 2**64 - 1, 2**64 + 2**32 - 2, False, None)


@FRAMINGS
def test_cut_at_every_byte(number: int | None) -> None:
    """A WAL cut at any byte tells what is whole of it, is torn inside a record only, and is not damaged."""
    writer = LogWriter(number).add(*(batch(10 * index, 10) for index in range(1, 6)))
    for cut in range(len(writer.data) + 1):
        content = read(bytes(writer.data[:cut]))
        whole = [end for end in writer.ends if end <= cut]
        assert content.end == max(whole, default=0)
        assert told(content) == (
            len(whole),
            10 if whole else None,
            10 * len(whole) + 10 if whole else None,
            cut not in (0, *writer.ends),
            None,
        )


@FRAMINGS
def test_every_flipped_byte(number: int | None) -> None:
    """A flipped byte is damage, told with file and offset, or it costs the last record; nothing is raised."""
    writer = LogWriter(number).control(9, COMPRESSION[:0] + b"\0\0\0\0")
    writer.control(10 if number is None else 11, b"\0" * 6).add(*(batch(10 * index, 10) for index in range(1, 5)))
    data = bytes(writer.data)
    for offset in range(len(data)):
        for bits in (0x01, 0x08, 0x80, 0xFF):
            content = read(data[:offset] + bytes((data[offset] ^ bits,)) + data[offset + 1 :])
            if offset < writer.ends[-2]:
                assert content.damage is not None
                assert content.damage.startswith("000009.log: damaged at offset ")
                assert content.end <= offset
            else:
                assert (content.damage, content.end, content.next_sequence) == (None, writer.ends[-2], 40)


@FRAMINGS
@pytest.mark.parametrize("offset", [100, BLOCK_SIZE + 7, CHUNK_BYTES - 1, CHUNK_BYTES + 100])
def test_damaged_in_the_middle(number: int | None, offset: int) -> None:
    """Damage in the middle is told wherever it is; what stands before it is read."""
    data = bytearray(log(*(batch(index, 1, filler(20_000)) for index in range(1, 160)), log_number=number))
    data[offset] ^= 4
    content = read(bytes(data))
    assert content.damage is not None
    assert content.end <= offset
    assert (content.next_sequence or 1) == content.records + 1


def test_preallocated_zeros() -> None:
    """Zeros behind the last record are preallocated space, not a torn record."""
    data = log(batch(1))
    for zeros in (1, 6, 10, 100_000, CHUNK_BYTES + 7):
        content = read(data + bytes(zeros))
        assert told(content) == (1, 1, 2, False, None)
        assert (content.end, content.size) == (len(data), len(data) + zeros)
    assert told(read(bytes(1000))) == (0, None, None, False, None)
    assert told(read(b"")) == (0, None, None, False, None)


@FRAMINGS
def test_padding_at_the_end(number: int | None) -> None:
    """Padding up to a block's end, with no record behind it, is not a torn record."""
    for left in range(11):
        writer = LogWriter(number).add(batch(1)).fill(left)
        content = read(bytes(writer.data) + bytes(left))
        assert (content.torn, content.damage, content.records) == (False, None, 2)


@pytest.mark.parametrize("tail", [bytes(40_000), b"", b"\xff" * 50, log(b"x" * 500, log_number=7)], ids=range(4))
@FRAMINGS
def test_half_a_fragmented_record(number: int | None, tail: bytes) -> None:
    """A record whose last fragment is missing is torn, also where zeros or an earlier log's records follow."""
    if number is None and tail[:1] not in (b"", b"\0", b"\xff"):
        return
    writer = LogWriter(number).add(batch(1)).fragment(FIRST, b"x" * 100)
    content = read(bytes(writer.data) + tail)
    assert told(content) == (1, 1, 2, True, None)
    assert content.end == writer.ends[0]


def test_recycled() -> None:
    """What an earlier log has left in a recycled file is no torn record of this one, and no damage."""
    old = log(*(batch(index, 1, filler(30)) for index in range(50)), log_number=7)
    new = log(batch(100, 1, filler(30)), log_number=9)
    content = read(new + old[len(new) :])
    assert (told(content), content.recyclable, content.end) == ((1, 100, 101, False, None), True, len(new))
    content = read(old)
    assert (told(content), content.recyclable, content.end) == ((0, None, None, False, None), True, 0)
    damaged = read(new + physical(5, batch(1), 7) + log(batch(101), log_number=9))
    assert damaged.damage is not None
    assert "a record of an earlier log" in damaged.damage


def content(
    number: int, first: int | None, following: int | None, *, torn: bool = False, **changes: object
) -> WalContent:
    """Content of a WAL that holds records unless ``following`` is None."""
    made = WalContent(number, 1000, 900, 0 if following is None else 5, torn, False, first, following, None)
    return dataclasses.replace(made, **changes)


EMPTY = content(2, None, None)
TORN_EMPTY = content(2, None, None, torn=True)
UNREADABLE = content(2, None, None, torn=True, records=5)


@pytest.mark.parametrize(
    "wals",
    [
        [],
        [content(1, 1, 10, torn=True)],
        [content(1, 1, 10), content(2, 10, 20, torn=True)],
        [content(1, 1, 10), content(2, 15, 20)],  # writes without WAL
        [content(1, 1, 10, torn=True), content(2, 10, 20)],
        [content(1, 1, 10, torn=True), content(2, 9, 20)],
        [content(1, 1, 10, torn=True), EMPTY, content(3, 10, 20)],
        [content(1, 1, 10, torn=True), EMPTY],
        [content(1, 1, 10), TORN_EMPTY, content(3, 10, 20)],
        [content(1, 1, 10, torn=True), TORN_EMPTY, content(3, 10, 20)],
        [content(1, 1, 10, torn=True, recyclable=True), content(2, 15, 20)],
        [content(1, 1, 10, torn=True, damage="told already"), content(2, 15, 20)],
        [content(1, 1, 10), UNREADABLE, content(3, 15, 20)],
        [content(1, 1, 10, torn=True), UNREADABLE],
        [TORN_EMPTY],
    ],
    ids=range(15),
)
def test_no_gap(wals: list[WalContent]) -> None:
    """A torn end is no gap where the next records follow it in number, or where nothing can be said."""
    assert find_gap(wals) is None


@pytest.mark.parametrize(
    ("wals", "message"),
    [
        (
            [content(1, 1, 10, torn=True), content(2, 11, 20)],
            "000001.log: .* number 10 to follow, but 000002.log begins at 11",
        ),
        (
            [content(1, 1, 10, torn=True), EMPTY, content(3, 11, 20)],
            "000001.log: .* 10 to follow, but 000003.log begins",
        ),
        ([content(1, 1, 10), TORN_EMPTY, content(3, 11, 20)], "000002.log: .* number 10 to follow, but 000003.log"),
        ([TORN_EMPTY, content(3, 11, 20)], "000002.log: .*expected no record to follow, but 000003.log begins at 11"),
        (
            [content(1, 1, 10, torn=True), content(2, 10, 20, torn=True), content(3, 21, 30)],
            "000002.log: .* number 20 to follow, but 000003.log begins at 21",
        ),
    ],
    ids=range(5),
)
def test_gap(wals: list[WalContent], message: str) -> None:
    """A torn end with a hole in the sequence numbers behind it is a gap, with both files in the message."""
    found = find_gap(wals)
    assert found is not None
    assert "damaged at offset 900: ends in half a record" in found

    assert re.match(message, found)


def compressed(*records: bytes, number: int | None = None) -> bytes:
    zstd = importlib.import_module(ZSTD_MODULE)
    writer = LogWriter(number).control(9, COMPRESSION)
    for record in records:
        writer.add(zstd.compress(record))
    return bytes(writer.data)


@FRAMINGS
def test_compressed(number: int | None) -> None:
    """A compressed WAL's sequence numbers are read, whatever its framing and the records' sizes."""
    pytest.importorskip(ZSTD_MODULE)
    data = compressed(batch(7, 3), batch(10, 5, filler(100_000)), batch(15, 1, bytes(1_000_000)), number=number)
    content = read(data)
    assert told(content) == (3, 7, 16, False, None)
    assert content.recyclable is (number is not None)
    for cut in (len(data) - 1, len(data) - 30, 40_000, 20):
        assert read(data[:cut]).torn


def test_compressed_records_that_are_not() -> None:
    """Records that do not decompress, or hold too little, have no sequence number and raise nothing."""
    pytest.importorskip(ZSTD_MODULE)
    zstd = importlib.import_module(ZSTD_MODULE)
    whole = zstd.compress(batch(7, 3, filler(1000)))
    for record in (b"", b"no frame at all", whole[:3], zstd.compress(b"short"), b"\xff" * 1000):
        data = bytes(LogWriter().control(9, COMPRESSION).add(record).data)
        assert told(read(data)) == (1, None, None, False, None)
    other = LogWriter().control(9, b"\1\0\0\0").add(batch(7))
    assert told(read(bytes(other.data))) == (1, None, None, False, None)


def test_compressed_without_a_zstd_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no zstd module is installed, a compressed WAL is read for its end and damage alone."""
    pytest.importorskip(ZSTD_MODULE)
    data = compressed(batch(7, 3), batch(10, 5))
    monkeypatch.setitem(sys.modules, ZSTD_MODULE, None)
    assert told(read(data)) == (2, None, None, False, None)
    assert told(read(data[:-1])) == (1, None, None, True, None)


# Real WALs.


def open_with(path: Path, **settings: str) -> Rdict:
    """Open a new database with options that only the OPTIONS file can tell rocksdict."""
    Rdict(str(path), Options(raw_mode=True)).close()
    options_file = max(path.glob("OPTIONS-*"))
    text = options_file.read_text()
    for name, value in settings.items():
        old = next(line for line in text.splitlines() if line.strip().startswith(f"{name}="))
        text = text.replace(old, f"  {name}={value}")
    options_file.write_text(text)
    options, _ = Options.load_latest(str(path))
    return Rdict(str(path), options)


@pytest.mark.parametrize(
    "settings",
    [{}, {"wal_compression": "kZSTD"}, {"manual_wal_flush": "false", "wal_bytes_per_sync": "4096"}],
    ids=["plain", "compressed", "synced"],
)
def test_real_wal(tmp_path: Path, settings: dict[str, str]) -> None:
    """A real WAL's sequence numbers are the database's own, batches of several entries and of large ones included."""
    if "wal_compression" in settings:
        pytest.importorskip(ZSTD_MODULE)
    database = open_with(tmp_path / "db", **settings)
    before = database.latest_sequence_number()
    for number in range(200):
        database[b"%d" % number] = filler(random.Random(number).choice([10, 1000, 40_000]), number)  # noqa: S311
    entries = WriteBatch(raw_mode=True)
    for number in range(50):
        entries.put(b"%d" % number, b"again")
    database.write(entries)
    wal = max((tmp_path / "db").glob("*.log"))
    found = read_wal_file(int(wal.stem), str(wal))
    last = database.latest_sequence_number()
    database.close()
    assert told(found) == (201, before + 1, last + 1, False, None)
    assert found.recyclable is False


def test_real_recycled_wals(tmp_path: Path) -> None:
    """Real recycled WALs, with whatever earlier logs have left in them, are neither torn nor damaged, without a gap."""
    options = Options(raw_mode=True)
    options.set_recycle_log_file_num(2)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())  # others switch recycling off
    options.set_write_buffer_size(64 * 1024)
    database = Rdict(str(tmp_path / "db"), options)
    seen = stale = 0
    for number in range(8):
        for key in range(300):
            database[b"%d" % key] = filler(random.Random(number * key).choice([10, 300, 2000]), key)  # noqa: S311
        wal = max((tmp_path / "db").glob("*.log"), key=lambda file: int(file.stem))
        found = read_wal_file(int(wal.stem), str(wal))
        assert found.damage is None
        assert found.next_sequence in (None, database.latest_sequence_number() + 1)
        seen += found.recyclable
        stale += found.end < found.size
        database.flush()
        wal = max((tmp_path / "db").glob("*.log"), key=lambda file: int(file.stem))
        found = read_wal_file(int(wal.stem), str(wal))  # taken over, and nothing written to it yet
        assert (found.damage, found.records) == (None, 0)
    database.close()
    assert seen
    assert stale
