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

import re

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.coding import decode_slice, decode_varint32, decode_varint64

_SAFE_TO_IGNORE = 1 << 13
_CUSTOM_NOT_SAFE_TO_IGNORE = 1 << 6
_MAX_PATH_ID = 3


class TableFile:
    """An SST file that an edit adds. Sizes in bytes; ``checksum`` is empty where the MANIFEST has none.

    ``smallest`` is the smallest internal key: the user's key and eight bytes. ``size`` and ``largest_sequence`` are
    given as valid varint64s and decoded when asked for: most files of a MANIFEST are deleted again before.
    """

    oldest_blob_file_number = 0
    checksum = b""
    checksum_function = ""
    unique_id = b""

    def __init__(
        self, level: int, number: int, size: bytes, smallest: bytes, largest_sequence: bytes = b"\0", path_id: int = 0
    ) -> None:
        self.level = level
        self.number = number
        self._size = size
        self.smallest = smallest
        self._largest_sequence = largest_sequence
        self.path_id = path_id

    @property
    def size(self) -> int:
        """The file's size."""
        return decode_varint64(self._size, 0)[0]

    @property
    def largest_sequence(self) -> int:
        """Largest sequence number of its keys."""
        return decode_varint64(self._largest_sequence, 0)[0]


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
        self.new_files: list[TableFile] = []
        self.deleted_files: list[tuple[int, int]] = []  # (level, number)
        self.blob_files: list[BlobFile] = []
        self.blob_garbage: list[tuple[int, int]] = []  # (number, count)
        self.added_wals: list[tuple[int, int | None]] = []  # (number, synced size in bytes)
        self.path_id_positions: list[tuple[int, int]] = []  # (position, width) of path ids other than 0


_SLICE = "(?:" + "|".join(rf"\x{length:02x}.{{{length}}}" for length in range(128)) + ")"
_VARINT = r"[\x80-\xff]{0,8}[\0-\x7f]"  # which always fits 64 bits
_SKIPPED = rf"(?:[\0\2\5\6\x09-\x0b\x0d-\x3f]{_SLICE}){{0,16}}"
_USUAL_NEW_FILE_4 = re.compile(  # nearly all of a MANIFEST, so it is written for speed; groups: see its use
    rf"([\0-\x7f])({_VARINT})({_VARINT})({_SLICE}){_SLICE}{_VARINT}({_VARINT})"
    rf"{_SKIPPED}(?:\x07({_SLICE})\x08({_SLICE}){_SKIPPED})?(?:\x0c({_SLICE}){_SKIPPED})?\x01".encode(),
    re.DOTALL,
)


def decode_version_edit(data: bytes) -> VersionEdit:
    """Decode one record.

    :raises CorruptionError: when the record is not a VersionEdit.
    :raises NotSupportedError: at a tag that a reader must know and this one does not.
    """
    edit = VersionEdit()
    position, size = 0, len(data)
    try:
        while position < size:
            tag = data[position]
            position += 1
            if tag > 127:
                tag, position = decode_varint32(data, position - 1)
            if tag == 103 and (usual := _USUAL_NEW_FILE_4.match(data, position)):
                level_byte, number_bytes, file_size, smallest, sequence, checksum, function, unique_id = usual.groups()
                number, _ = decode_varint64(number_bytes, 0)
                file = TableFile(level_byte[0], number, file_size, smallest[1:], sequence)
                if function:
                    file.checksum = checksum[1:]
                    file.checksum_function = function[1:].decode("utf-8", "replace")
                if unique_id:
                    file.unique_id = unique_id[1:]
                edit.new_files.append(file)
                position = usual.end()
            elif tag == 103:
                position = _decode_new_file_4(data, position, edit)
            elif tag == 6:
                level = data[position]
                position += 1
                if level > 127:
                    level, position = decode_varint32(data, position - 1)
                number, position = decode_varint64(data, position)
                edit.deleted_files.append((level, number))
            else:
                position = _decode_field(tag, data, position, edit)
    except IndexError:
        raise CorruptionError(f"VersionEdit of {size} bytes ends inside a field") from None
    if position != size:
        raise CorruptionError(f"VersionEdit of {size} bytes ends inside a field that claims {position - size} more")
    return edit


def _decode_new_file_4(data: bytes, position: int, edit: VersionEdit) -> int:
    """Decode what is not usual: long keys, blob files, path ids, damage.

    Raises IndexError where ``data`` ends.
    """
    level = data[position]
    position += 1
    if level > 127:
        level, position = decode_varint32(data, position - 1)
    number, position = decode_varint64(data, position)
    size, position = _skip_varint64(data, position)
    smallest, position = decode_slice(data, position)
    length = data[position]
    position += 1
    if length > 127:  # the largest key's
        length, position = decode_varint32(data, position - 1)
    position += length
    while data[position] > 127:  # smallest sequence
        position += 1
    largest_sequence, position = _skip_varint64(data, position + 1)
    file = TableFile(level, number, size, smallest, largest_sequence)
    edit.new_files.append(file)
    while (tag := data[position]) != 1:
        length = data[position + 1]
        position += 2
        if tag > 127 or length > 127:
            tag, position = decode_varint32(data, position - 2)
            length, position = decode_varint32(data, position)
        if tag in _CUSTOM_FIELDS or tag > 63:
            _decode_custom_field(tag, data, position, length, file, edit)
        position += length
    return position + 1


def _skip_varint64(data: bytes, position: int) -> tuple[bytes, int]:
    """Check a varint64 and return it as it stands."""
    _, end = decode_varint64(data, position)
    return data[position:end], end


_CUSTOM_FIELDS = frozenset((3, 4, 7, 8, 12))


def _decode_custom_field(tag: int, data: bytes, position: int, length: int, file: TableFile, edit: VersionEdit) -> None:
    if position + length > len(data):
        raise CorruptionError(
            f"file {file.number}: custom field {tag} claims {length} bytes, {len(data) - position} are there"
        )
    value = data[position : position + length]
    if tag == 3:
        if length < 8:
            raise CorruptionError(f"file {file.number}: min log number to keep has {length} bytes, expected 8")
        edit.min_log_number_to_keep = int.from_bytes(value[:8], "little")
    elif tag == 4:
        file.oldest_blob_file_number, _ = decode_varint64(value, 0)
    elif tag == 7:
        file.checksum = value
    elif tag == 8:
        file.checksum_function = value.decode("utf-8", "replace")
    elif tag == 12:
        file.unique_id = value
    elif tag == 65:
        if length != 1 or value[0] > _MAX_PATH_ID:
            raise CorruptionError(
                f"file {file.number}: path id {value[:8]!r} ({length} bytes), expected one byte, 0 to 3"
            )
        file.path_id = value[0]
        if file.path_id:
            edit.path_id_positions.append((position, 1))
    elif tag & _CUSTOM_NOT_SAFE_TO_IGNORE:
        raise NotSupportedError(
            f"file {file.number}: custom field {tag} of new file 4 must not be ignored and is not known; "
            "the database was written by a newer RocksDB than this package knows"
        )


def _decode_field(tag: int, data: bytes, position: int, edit: VersionEdit) -> int:
    if tag in _VARINT_FIELDS:
        value, position = decode_varint64(data, position)
        setattr(edit, _VARINT_FIELDS[tag], value)
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


_VARINT_FIELDS = {
    2: "log_number",
    3: "next_file_number",
    4: "last_sequence",
    9: "prev_log_number",
    10: "min_log_number_to_keep",
    200: "column_family",
    300: "atomic_group_remaining",
}


def _decode_new_file(tag: int, data: bytes, position: int, edit: VersionEdit) -> int:
    level, position = decode_varint32(data, position)
    number, position = decode_varint64(data, position)
    path_id, path_position = 0, position
    if tag == 102:
        path_id, position = decode_varint32(data, position)
        if path_id:
            edit.path_id_positions.append((path_position, position - path_position))
    size, position = _skip_varint64(data, position)
    smallest, position = decode_slice(data, position)
    _, position = decode_slice(data, position)
    largest = b"\0"
    if tag != 7:
        _, position = decode_varint64(data, position)
        largest, position = _skip_varint64(data, position)
    edit.new_files.append(TableFile(level, number, size, smallest, largest, path_id))
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
