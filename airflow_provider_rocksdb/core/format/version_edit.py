"""One MANIFEST record: a VersionEdit (RocksDB: ``db/version_edit.h`` and ``.cc``, ``wal_edit.cc``, ``blob_file_*.cc``).

A row of fields, each a varint32 tag and what the tag says; v: varint, s: length-prefixed slice:

======  =========================  =================================================================================
1       comparator                 s
2       log number                 v: WALs below hold nothing of this column family
3       next file number           v
4       last sequence              v
5       compaction cursor          v level, s internal key
6       deleted file               v level, v number
7       new file                   v level, v number, v size, s smallest, s largest
9       previous log number        v (LevelDB's)
10      min log number to keep     v
100     new file 2                 v level, v number, v size, s smallest, s largest, v smallest and v largest sequence
102     new file 3                 as 100, with v path id behind the number
103     new file 4                 as 100, then custom fields: v tag, s value; tag 1 alone ends them
200     column family              v id (0 when absent)
201     column family added        s name
202     column family dropped
203     max column family          v
300     in atomic group            v records of the group that follow
400     blob file added            v number, v count, v bytes, s checksum method, s checksum, custom fields, tag 0
401     blob file garbage          v number, v count, v bytes, custom fields, tag 0
8193    db id                      s
8194    blob file added (old)      as 400
8195    blob file garbage (old)    as 401
8196    WAL added (old)            v number, then v tag (2: v synced size, 1: end)
8197    WALs deleted (old)         v number: all below
8198    full history low           s timestamp (skipped)
8199    WAL added                  s holding what 8196 has
8200    WALs deleted               s holding what 8197 has
8201    timestamps persisted       s one byte (skipped)
8202    subcompaction progress     s (skipped; in files COMPACTION_PROGRESS-… only)
8203    last compacted size        s holding v (skipped)
======  =========================  =================================================================================

Any other tag with bit 13 set is ``s`` and skipped; any other is an error. In new file 4, an unknown custom tag with
bit 6 set is an error, in the blob fields too; those that matter here: 3 min log number to keep (fixed64), 4 oldest blob
file number (v), 7 checksum, 8 checksum function name, 12 unique id, 65 path id (one byte). Skipped: 2 need compaction,
5 and 6 times, 9 temperature, 10 and 11 timestamps, 13 epoch number, 14 compensated range deletions, 15 tail size,
16 timestamps persisted, 17 file open metadata. These are all up to RocksDB 11.9.
"""

from __future__ import annotations

import itertools
import re

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.coding import (
    decode_slice,
    decode_varint32,
    decode_varint64,
    encode_varint,
    value_of_varint,
)

_SAFE_TO_IGNORE = 1 << 13
_CUSTOM_NOT_SAFE_TO_IGNORE = 1 << 6
_MAX_PATH_ID = 3


class _Details:
    """What a new file 4 says behind the file's number."""

    path_id = 0
    oldest_blob_file_number = 0
    checksum = b""
    checksum_function = ""
    unique_id = b""

    def __init__(self, smallest: bytes, largest_sequence: int) -> None:
        self.smallest = smallest
        self.largest_sequence = largest_sequence


EncodedFile = tuple[bytes, bytes, bytes, int]
"""An SST file as an edit adds it: level and number (encoded), what a new file 4 says behind the number, and path id.

All is valid; level and number are in their shortest form, which two have in common if and only if they are equal. Most
files of a MANIFEST are deleted again before anything else is asked about them, so nothing else is decoded before.
"""


class TableFile:
    """An SST file, decoded. What lies in its details is decoded when asked for."""

    __slots__ = ("_details", "_encoded", "level", "number", "path_id")

    def __init__(self, level: bytes, number: bytes, details: bytes, path_id: int) -> None:
        self.level = value_of_varint(level)
        self.number = value_of_varint(number)
        self.path_id = path_id
        self._encoded = details
        self._details: _Details | None = None

    def _decode(self) -> _Details:
        if self._details is None:
            self._details, _ = _decode_details(self._encoded, 0, self.number, VersionEdit())
        return self._details

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return decode_varint64(self._encoded, 0)[0]

    @property
    def smallest(self) -> bytes:
        """Its smallest internal key: the user's key and eight bytes."""
        return self._decode().smallest

    @property
    def largest_sequence(self) -> int:
        """Largest sequence number of its keys."""
        return self._decode().largest_sequence

    @property
    def oldest_blob_file_number(self) -> int:
        """Number of the oldest blob file that it refers to; 0: none."""
        return self._decode().oldest_blob_file_number

    @property
    def checksum(self) -> bytes:
        """Checksum of the whole file; empty where the MANIFEST has none."""
        return self._decode().checksum

    @property
    def checksum_function(self) -> str:
        """Name of what made the checksum."""
        return self._decode().checksum_function

    @property
    def unique_id(self) -> bytes:
        """Unique id, empty where the MANIFEST has none."""
        return self._decode().unique_id


class BlobFile:
    """A blob file that an edit adds; ``size`` is that of the whole file (``GetBlobFileSize``)."""

    garbage_count = 0
    checksum = b""
    checksum_function = ""

    _HEADER_AND_FOOTER_BYTES = 30 + 32

    def __init__(self, number: int, blob_count: int, blob_bytes: int) -> None:
        self.number = number
        self.blob_count = blob_count
        self.size = blob_bytes + self._HEADER_AND_FOOTER_BYTES


class VersionEdit:
    """What one record changes. None or empty: not said."""

    column_family = 0
    added_column_family: bytes | None = None
    drops_column_family = False
    comparator: str | None = None
    db_id: str | None = None
    log_number: int | None = None
    prev_log_number: int | None = None
    min_log_number_to_keep: int | None = None
    next_file_number: int | None = None
    last_sequence: int | None = None
    atomic_group_remaining: int | None = None
    deleted_wals_below: int | None = None

    def __init__(self) -> None:
        self.new_files: list[EncodedFile] = []
        self.deleted_files: list[tuple[bytes, bytes]] = []  # (level, number), as those of EncodedFile
        self.blob_files: list[BlobFile] = []
        self.blob_garbage: list[tuple[int, int]] = []  # (number, count)
        self.added_wals: list[tuple[int, int | None]] = []  # (number, synced size in bytes)
        self.path_id_positions: list[tuple[int, int]] = []  # (position, width) of path ids other than 0


_NUMBERS = {
    2: "log_number",
    3: "next_file_number",
    4: "last_sequence",
    9: "prev_log_number",
    10: "min_log_number_to_keep",
    200: "column_family",
    300: "atomic_group_remaining",
}
_ENCODED_NUMBERS = {encode_varint(tag): name for tag, name in _NUMBERS.items()}

# Nearly all of a MANIFEST is numbers, deleted files and new files 4 of short keys. One regular expression takes a row
# of such fields apart; where a field is none of them, or is damaged, the last alternative takes the rest. The others
# match only what the decoder of single fields reads in the same way. All lengths are bounded and no two ways lead
# through the same bytes, so no record can make it try for long.
_VARINT = r"[\x80-\xff]{0,8}[\0-\x7f]"  # which always fits 64 bits
_FILE_NUMBER = r"[\x80-\xff]{0,8}[\x01-\x7f]"  # not 0, nor longer than it need be
_BYTES = [("." * length if length < 8 else f".{{{length}}}") for length in range(128)]  # both the same; dots are faster
_SLICE = "(?:" + "|".join(rf"\x{length:02x}{content}" for length, content in enumerate(_BYTES)) + ")"
_VARINT_SLICE = "(?:" + "|".join(rf"\x{more + 1:02x}[\x80-\xff]{{{more}}}[\0-\x7f]" for more in range(9)) + ")"
_CUSTOM = rf"(?:[\0\x02\x05-\x3f]{_SLICE}){{0,20}}"
_DETAILS = rf"{_VARINT}{_SLICE}{_SLICE}{_VARINT}{_VARINT}{_CUSTOM}(?:\x04{_VARINT_SLICE}{_CUSTOM})?\x01"
_TAG = "|".join("".join(rf"\x{byte:02x}" for byte in tag) for tag in _ENCODED_NUMBERS)
_USUAL_FIELDS = re.compile(
    rf"(\x67)([\0-\x7f])({_FILE_NUMBER})({_DETAILS})|(\x06)([\0-\x7f])({_FILE_NUMBER})|({_TAG})({_VARINT})|.+".encode(),
    re.DOTALL,
)
_MOST_BYTES_AT_ONCE = 1 << 16  # which bounds the memory that a row of fields takes; a field cut there is not usual


def decode_version_edit(data: bytes) -> VersionEdit:
    """Decode one record.

    :raises CorruptionError: when the record is not a VersionEdit.
    :raises NotSupportedError: at a tag that a reader must know and this one does not.
    """
    edit = VersionEdit()
    position, size = 0, len(data)
    try:
        while position < size:
            position = _decode_usual_fields(data, position, edit)
            if position < size:
                position = _decode_field(data, position, edit)
    except IndexError:
        raise CorruptionError(f"VersionEdit of {size} bytes ends inside a field") from None
    if position != size:
        raise CorruptionError(f"VersionEdit of {size} bytes ends inside a field that claims {position - size} more")
    return edit


def _decode_usual_fields(data: bytes, position: int, edit: VersionEdit) -> int:
    """Decode a row of fields as far as they are usual, and return its end."""
    end = min(position + _MOST_BYTES_AT_ONCE, len(data))
    fields = _USUAL_FIELDS.findall(data, position, end)
    for new, level, file_number, details, deleted, deleted_level, deleted_number, tag, number in fields:
        if new:
            edit.new_files.append((level, file_number, details, 0))
        elif deleted:
            edit.deleted_files.append((deleted_level, deleted_number))
        elif tag:
            setattr(edit, _ENCODED_NUMBERS[tag], value_of_varint(number))
        else:  # the rest
            return position + sum(map(len, itertools.chain.from_iterable(fields)))
    return end


def _decode_level(data: bytes, position: int) -> tuple[int, int]:
    """Raise IndexError where ``data`` ends."""
    return decode_varint32(data, position) if data[position] > 127 else (data[position], position + 1)


def _add_file(edit: VersionEdit, level: int, number: int, details: bytes, path_id: int) -> None:
    edit.new_files.append((encode_varint(level), encode_varint(number), details, path_id))


def _decode_new_file_4(data: bytes, position: int, edit: VersionEdit) -> int:
    level, position = _decode_level(data, position)
    number, position = decode_varint64(data, position)
    details, end = _decode_details(data, position, number, edit)
    _add_file(edit, level, number, data[position:end], details.path_id)
    return end


def _decode_details(data: bytes, position: int, number: int, edit: VersionEdit) -> tuple[_Details, int]:
    """Decode what stands behind the file's number; what it says of the database goes to ``edit``.

    Raises IndexError where ``data`` ends.
    """
    _, position = decode_varint64(data, position)
    smallest, position = decode_slice(data, position)
    length = data[position]
    position += 1
    if length > 127:  # the largest key's
        length, position = decode_varint32(data, position - 1)
    position += length
    while data[position] > 127:  # smallest sequence
        position += 1
    largest_sequence, position = decode_varint64(data, position + 1)
    details = _Details(smallest, largest_sequence)
    while (tag := data[position]) != 1:
        length = data[position + 1]
        position += 2
        if tag > 127 or length > 127:
            tag, position = decode_varint32(data, position - 2)
            length, position = decode_varint32(data, position)
        if tag in _CUSTOM_FIELDS or tag > 63:
            _decode_custom_field(tag, data, position, length, number, details, edit)
        position += length
    return details, position + 1


_CUSTOM_FIELDS = frozenset((3, 4, 7, 8, 12))


def _decode_custom_field(
    tag: int, data: bytes, position: int, length: int, number: int, details: _Details, edit: VersionEdit
) -> None:
    if position + length > len(data):
        raise CorruptionError(
            f"file {number}: custom field {tag} claims {length} bytes, {len(data) - position} are there"
        )
    value = data[position : position + length]
    if tag == 3:
        if length < 8:
            raise CorruptionError(f"file {number}: min log number to keep has {length} bytes, expected 8")
        edit.min_log_number_to_keep = int.from_bytes(value[:8], "little")
    elif tag == 4:
        details.oldest_blob_file_number, _ = decode_varint64(value, 0)
    elif tag == 7:
        details.checksum = value
    elif tag == 8:
        details.checksum_function = value.decode("utf-8", "replace")
    elif tag == 12:
        details.unique_id = value
    elif tag == 65:
        if length != 1 or value[0] > _MAX_PATH_ID:
            raise CorruptionError(f"file {number}: path id {value[:8]!r} ({length} bytes), expected one byte, 0 to 3")
        details.path_id = value[0]
        if details.path_id:
            edit.path_id_positions.append((position, 1))
    elif tag & _CUSTOM_NOT_SAFE_TO_IGNORE:
        raise NotSupportedError(
            f"file {number}: custom field {tag} of new file 4 must not be ignored and is not known; "
            "the database was written by a newer RocksDB than this package knows"
        )


def _decode_field(data: bytes, position: int, edit: VersionEdit) -> int:
    tag, position = decode_varint32(data, position)
    if tag == 103:
        position = _decode_new_file_4(data, position, edit)
    elif tag == 6:
        level, position = _decode_level(data, position)
        number, position = decode_varint64(data, position)
        edit.deleted_files.append((encode_varint(level), encode_varint(number)))
    elif tag in _NUMBERS:
        value, position = decode_varint64(data, position)
        setattr(edit, _NUMBERS[tag], value)
    elif tag in (7, 100, 102):
        position = _decode_new_file(tag, data, position, edit)
    elif tag == 5:
        _, position = decode_varint32(data, position)
        _, position = decode_slice(data, position)
    elif tag == 1:
        value_bytes, position = decode_slice(data, position)
        edit.comparator = value_bytes.decode("utf-8", "surrogateescape")
    elif tag == 201:
        edit.added_column_family, position = decode_slice(data, position)
    elif tag == 202:
        edit.drops_column_family = True
    elif tag == 203:
        _, position = decode_varint32(data, position)
    elif tag in (400, 8194):
        position = _decode_blob_file(data, position, edit)
    elif tag in (401, 8195):
        number, position = decode_varint64(data, position)
        count, position = decode_varint64(data, position)
        _, position = decode_varint64(data, position)
        position = _skip_blob_custom_fields(data, position)
        edit.blob_garbage.append((number, count))
    elif tag in (8196, 8197):
        position = _decode_wal_field(tag, data, position, edit)
    elif tag & _SAFE_TO_IGNORE:
        value_bytes, position = decode_slice(data, position)
        if tag == 8193:
            edit.db_id = value_bytes.decode("utf-8", "replace")
        elif tag in (8199, 8200):
            _decode_wal_field(tag - 3, value_bytes, 0, edit)
    else:
        raise NotSupportedError(
            f"VersionEdit: unknown tag {tag} before byte {position}; either the MANIFEST is damaged, or a newer "
            "RocksDB than this package knows wrote it"
        )
    return position


def _decode_new_file(tag: int, data: bytes, position: int, edit: VersionEdit) -> int:
    level, position = decode_varint32(data, position)
    number, position = decode_varint64(data, position)
    path_id, path_position = 0, position
    if tag == 102:
        path_id, position = decode_varint32(data, position)
        if path_id:
            edit.path_id_positions.append((path_position, position - path_position))
    start = position
    _, position = decode_varint64(data, position)  # size
    _, position = decode_slice(data, position)
    _, position = decode_slice(data, position)
    if tag != 7:
        _, position = decode_varint64(data, position)
        _, position = decode_varint64(data, position)
    rest = b"\1" if tag != 7 else b"\0\0\1"  # which makes of it a new file 4
    _add_file(edit, level, number, data[start:position] + rest, path_id)
    return position


def _decode_blob_file(data: bytes, position: int, edit: VersionEdit) -> int:
    number, position = decode_varint64(data, position)
    count, position = decode_varint64(data, position)
    blob_bytes, position = decode_varint64(data, position)
    blob = BlobFile(number, count, blob_bytes)
    function, position = decode_slice(data, position)
    blob.checksum_function = function.decode("utf-8", "replace")
    blob.checksum, position = decode_slice(data, position)
    edit.blob_files.append(blob)
    return _skip_blob_custom_fields(data, position)


def _skip_blob_custom_fields(data: bytes, position: int) -> int:
    while True:
        tag, position = decode_varint32(data, position)
        if tag == 0:
            return position
        if tag & _CUSTOM_NOT_SAFE_TO_IGNORE:
            raise NotSupportedError(f"blob file: custom field {tag} must not be ignored and is not known")
        _, position = decode_slice(data, position)


def _decode_wal_field(tag: int, data: bytes, position: int, edit: VersionEdit) -> int:
    number, position = decode_varint64(data, position)
    if tag == 8197:
        edit.deleted_wals_below = number
        return position
    synced_size = None
    while True:
        field, position = decode_varint32(data, position)
        if field == 1:
            edit.added_wals.append((number, synced_size))
            return position
        if field != 2:
            raise NotSupportedError(f"WAL {number}: unknown field {field} of a WAL addition")
        synced_size, position = decode_varint64(data, position)


def clear_path_ids(data: bytes) -> bytes | None:
    """Return the record with every path id 0, same length; None when that changes nothing.

    A checkpoint is flat: its files lie in the DB directory, whatever ``db_paths`` the database had.

    :raises CorruptionError: as :func:`decode_version_edit`.
    """
    positions = decode_version_edit(data).path_id_positions
    if not positions:
        return None
    out = bytearray(data)
    for position, width in positions:
        out[position : position + width] = b"\x80" * (width - 1) + b"\0"
    return bytes(out)
