"""Numbers and strings in RocksDB's encodings."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.coding import (
    crc32c,
    decode_slice,
    decode_varint32,
    decode_varint64,
    encode_varint,
    extend_crc32c,
    mask_crc32c,
    value_of_varint,
)
from tests.core.format.encoders import s

UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 64).map(lambda bits: (1 << bits) - 1))


def test_crc32c_known_answers() -> None:
    """The CRC is Castagnoli's (RFC 3720, B.4), masked as LevelDB's test does."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert mask_crc32c(crc32c(b"foo")) != crc32c(b"foo")
    assert unmask_crc32c(mask_crc32c(crc32c(b"foo"))) == crc32c(b"foo")


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_extend_crc32c(begun: bytes, behind: bytes) -> None:
    """A CRC goes on where another one ends."""
    assert extend_crc32c(crc32c(begun), behind) == crc32c(begun + behind)


def unmask_crc32c(masked: int) -> int:
    """Undo ``mask_crc32c`` as RocksDB's ``crc32c::Unmask`` does."""
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


@given(UINT32)
def test_mask_round_trip(crc: int) -> None:
    """Unmasking undoes masking, within 32 bits."""
    assert 0 <= mask_crc32c(crc) < 2**32
    assert unmask_crc32c(mask_crc32c(crc)) == crc


@given(UINT64, st.binary(max_size=3), st.binary(max_size=3))
def test_varint64_round_trip(value: int, before: bytes, behind: bytes) -> None:
    """A varint64 reads back wherever it stands, and reading ends right behind it."""
    data = before + encode_varint(value) + behind
    assert decode_varint64(data, len(before)) == (value, len(data) - len(behind))


@given(UINT64, st.integers(0, 3))
def test_value_of_varint(value: int, longer: int) -> None:
    """Bytes that are one varint have its value, also where they are more than it needs."""
    encoded = encode_varint(value)
    assert value_of_varint(encoded) == value
    if len(encoded) + longer < 10:
        padded = encoded[:-1] + bytes([encoded[-1] | 0x80]) + b"\x80" * longer + b"\0"
        assert value_of_varint(padded) == value == decode_varint64(padded, 0)[0]


@given(UINT32, st.binary(max_size=3))
def test_varint32_round_trip(value: int, behind: bytes) -> None:
    """A varint32 reads back, and reading ends right behind it."""
    data = encode_varint(value) + behind
    assert decode_varint32(data, 0) == (value, len(data) - len(behind))


@given(UINT64)
def test_varint_cut_anywhere(value: int) -> None:
    """A varint cut at any byte is damage."""
    data = encode_varint(value)
    for cut in range(len(data)):
        with pytest.raises(CorruptionError, match="runs past the end"):
            decode_varint64(data[:cut], 0)


def test_varints_that_do_not_fit() -> None:
    """A varint is refused when it is longer or larger than its width allows, and read at its largest."""
    assert decode_varint32(b"\xff\xff\xff\xff\x0f", 0) == (2**32 - 1, 5)
    assert decode_varint64(b"\xff" * 9 + b"\x01", 0) == (2**64 - 1, 10)
    for data in (b"\xff\xff\xff\xff\x10", b"\x80" * 5 + b"\0", b"\xff" * 1_000_000):
        with pytest.raises(CorruptionError, match="does not fit 32 bits"):
            decode_varint32(data, 0)
    for data in (b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\0", b"\xff" * 1_000_000):
        with pytest.raises(CorruptionError, match="does not fit 64 bits"):
            decode_varint64(data, 0)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_only_64_bits_are_encoded(value: int) -> None:
    """A number that no varint64 holds is not encoded."""
    with pytest.raises(ValueError, match=str(value)):
        encode_varint(value)


@given(st.binary(max_size=300), st.binary(max_size=3))
def test_slice_round_trip(value: bytes, behind: bytes) -> None:
    """A slice reads back, reading ends right behind it, and cut at any byte it is damage."""
    data = s(value)
    assert decode_slice(data + behind, 0) == (value, len(data))
    for cut in range(len(data)):
        with pytest.raises(CorruptionError):
            decode_slice(data[:cut], 0)


def test_a_length_of_4_gib_allocates_nothing() -> None:
    """A slice that claims 4 GiB is refused before anything of that size is allocated."""
    data = encode_varint(2**32 - 1) + b"x" * 10
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="claims 4294967295 bytes, 10 are there"):
            decode_slice(data, 0)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=40), st.integers(0, 50))
def test_any_bytes_are_answered(data: bytes, position: int) -> None:
    """Reading at any position of any bytes gives a value inside them, or the package's own error."""
    for decode in (decode_varint32, decode_varint64, decode_slice):
        try:
            _, end = decode(data, position)
        except CorruptionError:
            continue
        assert position < end <= len(data)
