"""RocksDB's encodings of numbers and strings (``util/coding.h``, ``util/crc32c.h``).

=====================  =====================================================================================
fixed32, fixed64       4 or 8 bytes, little endian
varint32, varint64     7 bits a byte, lowest first, high bit set on all but the last; at most 5 or 10 bytes
length-prefixed slice  varint32 length, then that many bytes
masked CRC32C          ``rotate_right(crc, 15) + 0xa282ead8`` modulo 2**32, stored as fixed32
=====================  =====================================================================================

Readers take ``(data, position)`` and return ``(value, next position)``. They raise :class:`CorruptionError`, and
allocate no more than what is really there, whatever a length field says.
"""

from __future__ import annotations

import google_crc32c

from airflow_provider_rocksdb.core.errors import CorruptionError

_MASK_DELTA = 0xA282EAD8
_UINT32 = 0xFFFFFFFF
_UINT64 = 0xFFFFFFFFFFFFFFFF
_HIGH_BITS = [sum(0x80 << 7 * place for place in range(size - 1)) for size in range(11)]  # of varints, by their size


def crc32c(data: bytes) -> int:
    """CRC32C (Castagnoli) of ``data``."""
    return int(google_crc32c.value(data))


def extend_crc32c(crc: int, data: bytes) -> int:
    """CRC32C of what has this one, and ``data`` behind it."""
    return int(google_crc32c.extend(crc, data))


def mask_crc32c(crc: int) -> int:
    """Mask a CRC as RocksDB stores it (``crc32c::Mask``)."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _UINT32


def _decode_varint(data: bytes, position: int, bits: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, bits, 7):
        if position >= len(data):
            raise CorruptionError(f"varint{bits} runs past the end of {len(data)} bytes")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> bits:
                break
            return value, position
    raise CorruptionError(f"varint{bits} before byte {position} does not fit {bits} bits")


def decode_varint32(data: bytes, position: int) -> tuple[int, int]:
    """Read a varint32."""
    if position < len(data) and data[position] < 0x80:  # nearly always, so it is written for speed
        return data[position], position + 1
    return _decode_varint(data, position, 32)


def decode_varint64(data: bytes, position: int) -> tuple[int, int]:
    """Read a varint64."""
    try:  # up to four bytes, which is nearly always, unrolled for speed
        first = data[position]
        if first < 0x80:
            return first, position + 1
        second = data[position + 1]
        if second < 0x80:
            return first & 0x7F | second << 7, position + 2
        third = data[position + 2]
        if third < 0x80:
            return first & 0x7F | (second & 0x7F) << 7 | third << 14, position + 3
        fourth = data[position + 3]
        if fourth < 0x80:
            return first & 0x7F | (second & 0x7F) << 7 | (third & 0x7F) << 14 | fourth << 21, position + 4
    except IndexError:
        pass
    return _decode_varint(data, position, 64)


def value_of_varint(encoded: bytes) -> int:
    """Value of what is known to be one whole varint."""
    length = len(encoded)  # mostly up to three, so those are written for speed
    if length == 1:
        return encoded[0]
    if length == 2:
        return encoded[0] + (encoded[1] << 7) - 0x80
    if length == 3:
        return encoded[0] + (encoded[1] << 7) + (encoded[2] << 14) - 0x4080
    value = 0
    for byte in reversed(encoded):
        value = (value << 7) + byte
    return value - _HIGH_BITS[length]


def decode_slice(data: bytes, position: int) -> tuple[bytes, int]:
    """Read a length-prefixed slice."""
    length, position = decode_varint32(data, position)
    end = position + length
    if end > len(data):
        raise CorruptionError(f"slice at byte {position} claims {length} bytes, {len(data) - position} are there")
    return data[position:end], end


def encode_varint(value: int) -> bytes:
    """Write a varint32 or varint64."""
    if not 0 <= value <= _UINT64:
        raise ValueError(f"a varint64 holds 0 to 2**64-1, got {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
