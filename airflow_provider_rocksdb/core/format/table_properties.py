"""The properties of an SST file (RocksDB: ``table/format.cc``, ``table/meta_blocks.cc``).

The footer is the end of the file. Format version 0 (legacy magic numbers) has 48 bytes, all later ones 53:

======================  ======  =========================================================================
part                    bytes   content
======================  ======  =========================================================================
checksum type           0 or 1  absent in version 0, which means CRC32C
part 2, version <= 5    40      metaindex handle, index handle: each varint64 offset, varint64 size; zeros
part 2, version >= 6    40      ``3e 00 7a 00``, footer checksum, base context checksum, metaindex size
                                (fixed32 each), 24 bytes reserved, the last 8 of them zero
format version          0 or 4  fixed32; absent in version 0
magic number            8       fixed64, says which kind of table it is
======================  ======  =========================================================================

From version 6 on the metaindex block ends where the footer begins. The metaindex maps names to handles, among them
``rocksdb.properties``. A block is entries of ``varint32 shared, varint32 unshared, varint32 value length, key's
unshared bytes, value``, then restart offsets (fixed32 each) and their number (fixed32). In block-based tables a trailer
follows: compression type (1 byte) and checksum of block and type (fixed32). Checksums are masked CRC32C; those of
version 6 and later have ``base ^ (low32(offset) + high32(offset))`` added. Checksums of other types (xxHash, XXH3) are
not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.coding import crc32c, decode_varint32, decode_varint64, mask_crc32c
from airflow_provider_rocksdb.core.format.log_format import Pread

SESSION_ID = "rocksdb.creating.session.identity"  # TablePropertiesNames::kDbSessionId
TAIL_BYTES = 64 * 1024  # what the first read asks for; holds footer, metaindex and properties of nearly every file

_BLOCK_BASED = 0x88E241B785F4CFF7
_LEGACY_BLOCK_BASED = 0xDB4775248B80FB57  # LevelDB's, too
_PLAIN = 0x8242229663BF9564
_LEGACY_PLAIN = 0x4F3418EB7A8F13B8
_CUCKOO = 0x926789D0C5F17873
_NEWEST_VERSION = {_BLOCK_BASED: 7, _PLAIN: 1, _CUCKOO: 1}
_LEGACY = (_LEGACY_BLOCK_BASED, _LEGACY_PLAIN)
_WITH_TRAILER = (_BLOCK_BASED, _LEGACY_BLOCK_BASED)

_OLD_FOOTER_BYTES = 48
_FOOTER_BYTES = 53
_TRAILER_BYTES = 5
_EXTENDED_MAGIC = b"\x3e\x00\x7a\x00"
_NO_CHECKSUM, _CRC32C, _LAST_CHECKSUM_TYPE = 0, 1, 4
_RESTARTS_MASK = 0x0FFFFFFF  # the bits above announce other block layouts, which meta blocks do not have

_PROPERTIES_NAMES = (b"rocksdb.properties", b"rocksdb.stats")  # kPropertiesBlockName, kPropertiesBlockOldName
_GLOBAL_SEQUENCE_NUMBER = b"rocksdb.external_sst_file.global_seqno"
_MAX_BLOCK_BYTES = 16 * 1024 * 1024  # ours: far above any real metaindex or properties block
_USABLE_SESSION_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class _Footer(NamedTuple):
    magic: int
    version: int
    checksum_type: int
    base_context: int  # 0: checksums do not depend on the place
    metaindex: tuple[int, int]

    @property
    def trailer_bytes(self) -> int:
        return _TRAILER_BYTES if self.magic in _WITH_TRAILER else 0

    def checksum(self, data: bytes, offset: int) -> int:
        """Checksum as it is stored for ``data`` at ``offset``, by CRC32C."""
        context = self.base_context ^ ((offset & 0xFFFFFFFF) + (offset >> 32)) if self.base_context else 0
        return (mask_crc32c(crc32c(data)) + context) & 0xFFFFFFFF


class _Entry(NamedTuple):
    key: bytes
    value: bytes
    value_position: int


class _Tail:
    """The end of a file, read at once; what lies before it is read when asked for."""

    def __init__(self, pread: Pread, file_size: int) -> None:
        self._pread = pread
        self.file_size = file_size
        self._start = max(0, file_size - TAIL_BYTES)
        self._data = self._exactly(self._start, file_size - self._start)

    def read(self, offset: int, length: int) -> bytes:
        if offset >= self._start:
            return self._data[offset - self._start : offset - self._start + length]
        return self._exactly(offset, length)

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._pread(offset, length)
        if len(data) != length:
            raise CorruptionError(f"SST file: expected {length} bytes at offset {offset}, got {len(data)}")
        return data


def read_session_id(pread: Pread, file_size: int) -> str | None:
    """Return the id of the session that wrote an SST file; None where it has none that could be part of a file name.

    Files of LevelDB and of RocksDB before 6.12 have none.

    :param pread: ``(offset, length)`` to bytes; mostly called once.
    :param file_size: in bytes.
    :raises CorruptionError, NotSupportedError: as :func:`read_table_properties`, as far as that was read.
    """
    wanted = SESSION_ID.encode()
    found = (entry.value for entry in _iter_properties(pread, file_size) if entry.key == wanted)
    session_id = next(found, b"").decode("latin-1")
    return session_id if _USABLE_SESSION_ID.fullmatch(session_id) else None


def read_table_properties(pread: Pread, file_size: int) -> dict[str, bytes]:
    """Return an SST file's properties, RocksDB's and the user's, undecoded; empty where it has none.

    :param pread: ``(offset, length)`` to bytes; fewer bytes than asked for are damage.
    :param file_size: in bytes.
    :raises CorruptionError: when it is not an SST file, is cut, or a CRC32C is wrong.
    :raises NotSupportedError: when it is of a format version that is not known here.
    """
    return {entry.key.decode("latin-1"): entry.value for entry in _iter_properties(pread, file_size)}


def _iter_properties(pread: Pread, file_size: int) -> Iterator[_Entry]:
    tail = _Tail(pread, file_size)
    footer = _read_footer(tail)
    for entry in _iter_entries(_read_block(tail, footer, footer.metaindex, "metaindex")):
        if entry.key in _PROPERTIES_NAMES:
            offset, position = decode_varint64(entry.value, 0)
            size, _ = decode_varint64(entry.value, position)
            yield from _iter_entries(_read_block(tail, footer, (offset, size), "properties"))
            return


def _fixed32(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "little")


def _read_footer(tail: _Tail) -> _Footer:
    if tail.file_size < _OLD_FOOTER_BYTES:
        raise CorruptionError(f"SST file: expected at least {_OLD_FOOTER_BYTES} bytes, got {tail.file_size}")
    magic = int.from_bytes(tail.read(tail.file_size - 8, 8), "little")
    if magic in _LEGACY:
        data = tail.read(tail.file_size - _OLD_FOOTER_BYTES, _OLD_FOOTER_BYTES)
        return _Footer(magic, 0, _CRC32C, 0, _decode_handle(data, 0))
    if magic not in _NEWEST_VERSION:
        raise CorruptionError(f"SST file: expected a table's magic number at its end, got {magic:#018x}")
    if tail.file_size < _FOOTER_BYTES:
        raise CorruptionError(f"SST file: expected at least {_FOOTER_BYTES} bytes, got {tail.file_size}")
    offset = tail.file_size - _FOOTER_BYTES
    data = tail.read(offset, _FOOTER_BYTES)
    version, checksum_type = _fixed32(data, 41), data[0]
    if version > _NEWEST_VERSION[magic]:
        raise NotSupportedError(
            f"SST file: format version {version} of table {magic:#018x}; known here are those up to "
            f"{_NEWEST_VERSION[magic]}"
        )
    if checksum_type > _LAST_CHECKSUM_TYPE:
        raise CorruptionError(f"SST file: unknown checksum type {checksum_type}")
    if version < 6:
        return _Footer(magic, version, checksum_type, 0, _decode_handle(data, 1))
    return _decode_new_footer(data, offset, magic, version)


def _decode_handle(data: bytes, position: int) -> tuple[int, int]:
    offset, position = decode_varint64(data, position)
    size, _ = decode_varint64(data, position)
    return offset, size


def _decode_new_footer(data: bytes, offset: int, magic: int, version: int) -> _Footer:
    """Decode the footer of version 6 and later, which lies at ``offset``."""
    if data[1:5] != _EXTENDED_MAGIC:
        raise CorruptionError(f"SST file: expected {_EXTENDED_MAGIC!r} in the footer, got {data[1:5]!r}")
    if any(data[33:41]):
        raise NotSupportedError(f"SST file: the footer announces an unknown feature ({data[33:41]!r})")
    checksum_type, stored, size = data[0], _fixed32(data, 5), _fixed32(data, 13)
    trailer_bytes = _TRAILER_BYTES if magic in _WITH_TRAILER else 0
    base_context = _fixed32(data, 9)
    if not base_context:
        raise CorruptionError("SST file: the footer's base context checksum is 0, which no writer takes")
    footer = _Footer(magic, version, checksum_type, base_context, (offset - trailer_bytes - size, size))
    if checksum_type == _CRC32C:
        expected = footer.checksum(data[:5] + bytes(4) + data[9:], offset)
        if expected != stored:
            raise CorruptionError(f"SST file: footer: expected checksum {expected:#010x}, got {stored:#010x}")
    return footer


def _read_block(tail: _Tail, footer: _Footer, handle: tuple[int, int], name: str) -> bytes:
    offset, size = handle
    length = size + footer.trailer_bytes
    if offset < 0 or offset + length > tail.file_size:
        raise CorruptionError(
            f"SST file: its {name} block is said to be {length} bytes at {offset}, the file has {tail.file_size}"
        )
    if size > _MAX_BLOCK_BYTES:
        raise NotSupportedError(f"SST file: a {name} block of {size} bytes; at most {_MAX_BLOCK_BYTES} are read")
    data = tail.read(offset, length)
    block = data[:size]
    if footer.trailer_bytes == 0:
        return block
    if data[size] != 0:
        if footer.magic == _LEGACY_BLOCK_BASED:
            return b""  # LevelDB may compress its metaindex, in which it has no properties
        raise CorruptionError(f"SST file: its {name} block is compressed (type {data[size]}), which none is")
    stored = _fixed32(data, size + 1)
    if footer.checksum_type == _CRC32C and stored not in _possible_checksums(footer, data[: size + 1], offset):
        expected = footer.checksum(data[: size + 1], offset)
        raise CorruptionError(
            f"SST file: its {name} block at {offset}: expected checksum {expected:#010x}, got {stored:#010x}"
        )
    return block


def _possible_checksums(footer: _Footer, data: bytes, offset: int) -> Iterator[int]:
    """Checksums that block and type byte may have: an ingestion that wrote its sequence number kept the old one."""
    yield footer.checksum(data, offset)
    for entry in _iter_entries(data[:-1]):
        if entry.key == _GLOBAL_SEQUENCE_NUMBER and len(entry.value) == 8:
            start = entry.value_position
            yield footer.checksum(data[:start] + bytes(8) + data[start + 8 :], offset)


def _iter_entries(block: bytes) -> Iterator[_Entry]:
    """Yield a block's entries; keys must ascend, and together be no longer than a block may be."""
    if not block:
        return
    restarts = _fixed32(block, len(block) - 4) if len(block) >= 4 else 0
    end = len(block) - 4 - 4 * (restarts & _RESTARTS_MASK)
    if restarts & ~_RESTARTS_MASK or end < 0:
        raise CorruptionError(f"SST file: a meta block of {len(block)} bytes claims {restarts:#x} restart points")
    key, position, key_bytes = b"", 0, 0
    while position < end:
        is_first = position == 0
        head = block[position : position + 3]
        if max(head) < 0x80 and len(head) == 3:  # one byte each, which is nearly always, is read at once for speed
            shared, unshared, length = head
            position += 3
        else:
            shared, position = decode_varint32(block, position)
            unshared, position = decode_varint32(block, position)
            length, position = decode_varint32(block, position)
        if shared > len(key) or position + unshared + length > end:
            raise CorruptionError(f"SST file: an entry before byte {position} of a meta block runs past its end")
        key_bytes += shared + unshared
        if key_bytes > _MAX_BLOCK_BYTES:
            raise CorruptionError(f"SST file: the keys of a meta block expand to more than {_MAX_BLOCK_BYTES} bytes")
        previous, key = key, key[:shared] + block[position : position + unshared]
        if previous >= key and not is_first:
            raise CorruptionError(f"SST file: keys of a meta block do not ascend: {previous[:64]!r}, {key[:64]!r}")
        position += unshared
        yield _Entry(key, block[position : position + length], position)
        position += length
