"""Properties of real SST files of every footer, and of damaged ones."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rocksdict import (
    BlockBasedOptions,
    ChecksumType,
    Options,
    PlainTableFactoryOptions,
    Rdict,
    SliceTransform,
    SstFileWriter,
)

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.coding import crc32c, encode_varint, mask_crc32c
from airflow_provider_rocksdb.core.format.table_properties import (
    SESSION_ID,
    read_session_id,
    read_table_properties,
)
from tests.core.databases import only, options

REFUSALS = (CorruptionError, NotSupportedError)
LEGACY_MAGIC = 0xDB4775248B80FB57


def table_options(version: int, checksum: ChecksumType | None = None) -> BlockBasedOptions:
    made = BlockBasedOptions()
    made.set_format_version(version)
    made.set_checksum_type(checksum or ChecksumType.crc32c())
    return made


def write_sst(path: Path, **settings: object) -> tuple[bytes, str]:
    """Make a database with one small SST file; return its bytes and the session id by RocksDB's own log."""
    database = Rdict(str(path), options(**settings))
    database[b"key"] = b"value"
    database.flush()
    database.close()
    (session_id,) = re.findall(r"DB Session ID:\s+(\S+)", (path / "LOG").read_text())
    return only(str(path), ".sst").read_bytes(), session_id


class Reader:
    """A pread over bytes that counts calls and bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.calls = 0
        self.bytes = 0

    def __call__(self, offset: int, length: int) -> bytes:
        self.calls += 1
        assert 0 <= offset <= len(self.data)
        part = self.data[offset : offset + length]
        self.bytes += len(part)
        return part


def properties(data: bytes) -> dict[str, bytes]:
    return read_table_properties(Reader(data), len(data))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """SST files with CRC32C checksums, by format version."""
    place = tmp_path_factory.mktemp("sst")
    return {
        version: write_sst(place / str(version), block_based_table_factory=table_options(version))[0]
        for version in (2, 5, 6)
    }


def as_version_7(data: bytes) -> bytes:
    """Give a file of version 6 the footer of version 7, which RocksDB 11 writes in the same layout."""
    footer = bytearray(data[-53:])
    footer[41:45] = struct.pack("<I", 7)
    footer[5:9] = bytes(4)
    offset = len(data) - 53
    base = int.from_bytes(footer[9:13], "little")
    checksum = mask_crc32c(crc32c(bytes(footer))) + (base ^ ((offset & 0xFFFFFFFF) + (offset >> 32)))
    footer[5:9] = struct.pack("<I", checksum & 0xFFFFFFFF)
    return data[:-53] + bytes(footer)


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("checksum", ["crc32c", "no_checksum", "xxhash", "xxhash64", "xxh3"])
def test_session_id_is_rocksdbs(tmp_path: Path, version: int, checksum: str) -> None:
    """The session id is the one RocksDB wrote into its log, for every footer and checksum type, in one read."""
    table = table_options(version, getattr(ChecksumType, checksum)())
    data, session_id = write_sst(tmp_path / "db", block_based_table_factory=table)
    reader = Reader(data)
    assert read_session_id(reader, len(data)) == session_id
    assert reader.calls == 1
    assert properties(data)["rocksdb.comparator"] == b"leveldb.BytewiseComparator"


def test_version_7(small: dict[int, bytes]) -> None:
    """RocksDB 11's format version 7 is read like 6; version 8 is refused as not known."""
    data = as_version_7(small[6])
    assert properties(data) == properties(small[6])
    with pytest.raises(NotSupportedError, match="format version 8"):
        properties(data[:-12] + struct.pack("<I", 8) + data[-8:])


def test_no_base_context(small: dict[int, bytes]) -> None:
    """A footer of version 6 without a base context checksum is refused, as RocksDB does: 0 is no writer's."""
    footer = len(small[6]) - 53
    with pytest.raises(CorruptionError, match="base context checksum is 0"):
        properties(small[6][: footer + 9] + bytes(4) + small[6][footer + 13 :])


def test_plain_table(tmp_path: Path) -> None:
    """A plain table, whose blocks have no trailer, has its properties read, too."""
    made = options()
    made.set_plain_table_factory(PlainTableFactoryOptions())
    made.set_allow_mmap_reads(True)
    made.set_prefix_extractor(SliceTransform.create_fixed_prefix(2))
    database = Rdict(str(tmp_path / "db"), made)
    database[b"key"] = b"value"
    database.flush()
    database.close()
    data = only(str(tmp_path / "db"), ".sst").read_bytes()
    (session_id,) = re.findall(r"DB Session ID:\s+(\S+)", (tmp_path / "db" / "LOG").read_text())
    assert read_session_id(Reader(data), len(data)) == session_id


def test_large_file_is_read_at_its_end(tmp_path: Path) -> None:
    """Of an SST file of megabytes only 64 KiB are read, at once."""
    database = Rdict(str(tmp_path / "db"), options())
    for number in range(4000):
        database[b"%06d" % number] = os.urandom(1000)
    database.flush()
    database.close()
    data = only(str(tmp_path / "db"), ".sst").read_bytes()
    reader = Reader(data)
    assert read_session_id(reader, len(data)) is not None
    assert (reader.calls, reader.bytes) == (1, 65536)


def test_properties_before_the_tail(tmp_path: Path) -> None:
    """Properties that lie before the last 64 KiB are read with one more call."""
    data, session_id = write_sst(tmp_path / "db", block_based_table_factory=table_options(5))
    metaindex_offset = decode_handle(data, len(data) - 52)[0]
    blocks, footer = data[:metaindex_offset], data[-53:]
    pad = bytes(100_000)
    metaindex = data[metaindex_offset:-53]
    moved = blocks + pad + metaindex + handles(footer, metaindex_offset + len(pad), len(metaindex) - 5)
    reader = Reader(moved)
    assert read_session_id(reader, len(moved)) == session_id
    assert reader.calls == 2


def decode_handle(data: bytes, position: int) -> tuple[int, int]:
    values = []
    for _ in range(2):
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        values.append(value)
    return values[0], values[1]


def handles(footer: bytes, offset: int, size: int) -> bytes:
    """Return a footer of version 5 or less with another metaindex handle."""
    both = encode_varint(offset) + encode_varint(size) + encode_varint(0) + encode_varint(0)
    return footer[:1] + both.ljust(40, b"\0") + footer[41:]


def test_legacy_footer(small: dict[int, bytes]) -> None:
    """A file with the old magic number (format version 0, 48 bytes of footer, CRC32C) is read."""
    data = small[2][:-53] + small[2][-52:-12] + struct.pack("<Q", LEGACY_MAGIC)
    assert properties(data) == properties(small[2])


def block(*entries: tuple[bytes, bytes]) -> bytes:
    out = b""
    for key, value in entries:
        out += encode_varint(0) + encode_varint(len(key)) + encode_varint(len(value)) + key + value
    return out + struct.pack("<II", 0, 1)


def sealed(content: bytes) -> bytes:
    return content + b"\0" + struct.pack("<I", mask_crc32c(crc32c(content + b"\0")))


def legacy_table(metaindex: bytes, before: bytes = b"", compression: bytes = b"\0") -> bytes:
    """Make a table as LevelDB writes it, with this metaindex."""
    trailer = compression + struct.pack("<I", mask_crc32c(crc32c(metaindex + compression)))
    handle = encode_varint(len(before)) + encode_varint(len(metaindex)) + encode_varint(0) + encode_varint(0)
    return before + metaindex + trailer + handle.ljust(40, b"\0") + struct.pack("<Q", LEGACY_MAGIC)


@pytest.mark.parametrize("compression", [b"\0", b"\1"])
def test_leveldb_has_no_session(compression: bytes) -> None:
    """LevelDB's tables have no properties, thus no session id; its metaindex may even be compressed."""
    data = legacy_table(block((b"filter.leveldb.BuiltinBloomFilter2", b"\0\0")), compression=compression)
    assert read_session_id(Reader(data), len(data)) is None
    assert properties(data) == {}


def table_with(**values: bytes) -> bytes:
    content = block(*sorted((name.encode(), value) for name, value in values.items()))
    metaindex = block((b"rocksdb.properties", encode_varint(0) + encode_varint(len(content))))
    return legacy_table(metaindex, sealed(content))


@pytest.mark.parametrize("value", [b"", b"../../x", b"a/b", b"a b", b"A" * 65, b"\xff\x00"])
def test_unusable_session_ids(value: bytes) -> None:
    """A session id that must not become part of a path is none."""
    data = table_with(**{SESSION_ID: value})
    assert properties(data)[SESSION_ID] == value
    assert read_session_id(Reader(data), len(data)) is None


def test_ingested_file(tmp_path: Path) -> None:
    """A properties block into which an ingestion wrote its sequence number keeps the checksum of the zeros before."""
    made = options(block_based_table_factory=table_options(5))
    writer = SstFileWriter(made)
    writer.open(str(tmp_path / "file.sst"))
    writer[b"key"] = b"value"
    writer.finish()
    data = (tmp_path / "file.sst").read_bytes()
    name = b"external_sst_file.global_seqno"
    assert data.count(name) == 1
    start = data.index(name) + len(name)
    written = data[:start] + struct.pack("<Q", 77) + data[start + 8 :]
    assert data[start : start + 8] == bytes(8)
    assert properties(written)["rocksdb.external_sst_file.global_seqno"] == struct.pack("<Q", 77)
    with pytest.raises(CorruptionError, match="checksum"):
        properties(data.replace(b"leveldb.Bytewise", b"leveldb.Bitewise"))


@pytest.mark.parametrize("version", [2, 5, 6])
def test_cut_at_every_byte(small: dict[int, bytes], version: int) -> None:
    """A file cut anywhere is refused, and never read as if it were whole."""
    data = small[version]
    for end in range(len(data)):
        with pytest.raises(REFUSALS):
            properties(data[:end])


@pytest.mark.parametrize("version", [2, 5, 6])
def test_trailing_bytes(small: dict[int, bytes], version: int) -> None:
    """A file with anything behind its footer is refused."""
    for tail in (b"\0", b"x" * 8, small[version][-53:-1]):
        with pytest.raises(REFUSALS):
            properties(small[version] + tail)


def test_grown_file_shows(small: dict[int, bytes]) -> None:
    """A file that is shorter than it was said to be is refused."""
    with pytest.raises(CorruptionError, match="expected"):
        read_table_properties(Reader(small[5]), len(small[5]) + 1)


@pytest.mark.parametrize("version", [5, 6])
def test_flipped_bits_show(small: dict[int, bytes], version: int) -> None:
    """A flipped bit in what is read (CRC32C) is refused, or changes nothing that was asked for."""
    data, expected = small[version], properties(small[version])
    start = data.index(b"rocksdb.") - 64
    for position in range(max(0, start), len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        try:
            assert properties(bytes(changed)) == expected
        except REFUSALS:
            continue


@given(st.binary(max_size=300), st.sampled_from([LEGACY_MAGIC, 0x88E241B785F4CFF7, 0x8242229663BF9564]))
def test_noise(data: bytes, magic: int) -> None:
    """Noise with a table's magic number raises this package's errors, and nothing else."""
    content = data + struct.pack("<Q", magic)
    with contextlib.suppress(*REFUSALS):
        properties(content)


@given(st.data())
def test_damaged_blocks(data: st.DataObject) -> None:
    """Blocks that contradict themselves raise this package's errors, and nothing else."""
    noise = data.draw(st.binary(max_size=100)) + struct.pack("<II", 0, 1)
    metaindex = block((b"rocksdb.properties", encode_varint(0) + encode_varint(len(noise))))
    with contextlib.suppress(*REFUSALS):
        properties(legacy_table(metaindex, sealed(noise)))


@pytest.mark.timeout(60)
def test_expanding_keys_are_bounded() -> None:
    """Keys that each repeat the one before and grow by a byte are refused before they fill the memory."""
    long = b"k" * 100_000
    entries = encode_varint(0) + encode_varint(len(long)) + encode_varint(0) + long
    for number in range(20_000):
        entries += encode_varint(len(long) + number) + b"\1\0k"
    content = entries + struct.pack("<II", 0, 1)
    metaindex = block((b"rocksdb.properties", encode_varint(0) + encode_varint(len(content))))
    with pytest.raises(CorruptionError, match="expand"):
        properties(legacy_table(metaindex, sealed(content)))


def test_huge_claims_allocate_nothing() -> None:
    """A handle that claims gigabytes is compared with the file's size before anything is read."""
    for size in (2**32, 2**62):
        handle = encode_varint(0) + encode_varint(size) + encode_varint(0) + encode_varint(0)
        data = bytes(200) + handle.ljust(40, b"\0") + struct.pack("<Q", LEGACY_MAGIC)
        with pytest.raises(CorruptionError, match="said to be"):
            properties(data)


def test_random_cuts_of_a_large_file(tmp_path: Path) -> None:
    """A large file cut at random places is refused."""
    database = Rdict(str(tmp_path / "db"), Options(raw_mode=True))
    for number in range(2000):
        database[b"%06d" % number] = b"v" * 200
    database.flush()
    database.close()
    data = only(str(tmp_path / "db"), ".sst").read_bytes()
    for end in random.Random(1).sample(range(len(data)), 200):  # noqa: S311 -- no secret
        with pytest.raises(REFUSALS):
            properties(data[:end])
