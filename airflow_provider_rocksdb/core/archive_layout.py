"""Names, headers and records of an archive: one tar stream of a checkpoint, which ``tar`` can read. Everything is pure.

==========================  ===========================================================================
member                      content
==========================  ===========================================================================
``checkpoint.json``         the checkpoint's own record, where it has one
MANIFEST, OPTIONS, …        by name; the MANIFEST says to which column family the next ones belong
SST and blob files, WALs    by name
``CURRENT``                 the database's last: what was unpacked in part does not open
``checkpoint-files.json``   every member before it with its size and CRC32C, as JSON; no file of RocksDB's
==========================  ===========================================================================

The name's ending says how the stream is compressed: ``.tar.zst``, ``.tar.gz`` or ``.tar``.

A member is a header of 512 bytes and its content, filled up with zeros to whole blocks of 512. Headers are GNU tar's
(sizes from 8 GiB on in base 256), of plain files only: mode 0600, owner 0, the checkpoint's time. At the end stand two
or more blocks of zeros, up to a multiple of 10,240 bytes. An archive is read by what this says, and by nothing else
that tar knows: a header of any other kind (a link, a device, a directory, a long name, a pax header, a sparse file) is
refused.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict, dataclass
from typing import Literal

from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME
from airflow_provider_rocksdb.core.errors import CorruptionError, InvalidArgumentError
from airflow_provider_rocksdb.core.format.filename import FileType, parse_file_name
from airflow_provider_rocksdb.core.inventory import EXTRAS

Compression = Literal["zstd", "gzip", "none"]

ENDINGS: dict[Compression, str] = {"zstd": ".tar.zst", "gzip": ".tar.gz", "none": ".tar"}
LIST_NAME = "checkpoint-files.json"
BLOCK_BYTES = tarfile.BLOCKSIZE
MAX_MEMBERS = 250_000  # ours
MAX_END_BYTES = 1024 * 1024  # ours: of the zeros at the end

_FORMAT = 1
_MODE = 0o600
_NAME_BYTES = 100  # of a header
_ROW_BYTES = 256  # at most, of a member in the list
_DATABASE_TYPES = {
    FileType.WAL,
    FileType.TABLE,
    FileType.BLOB,
    FileType.DESCRIPTOR,
    FileType.OPTIONS,
    FileType.CURRENT,
    FileType.IDENTITY,
}
_LARGE_TYPES = {FileType.WAL, FileType.TABLE, FileType.BLOB}


def compression_of(path: str) -> Compression | None:
    """Say how an archive of this name is compressed; None when it is not an archive's name."""
    name = path.rpartition("/")[2]
    return next((kind for kind, ending in ENDINGS.items() if name.endswith(ending) and name != ending), None)


def require_compression(path: str) -> Compression:
    """Say how an archive of this name is compressed.

    :raises InvalidArgumentError: when it is not an archive's name.
    """
    compression = compression_of(path)
    if compression is None:
        raise InvalidArgumentError(
            f"{path}: expected the name of an archive, which ends in {', '.join(ENDINGS.values())}"
        )
    return compression


def is_member_name(name: str) -> bool:
    """Whether an archive may have a file of that name: a database's, or one of our own beside it."""
    parsed = parse_file_name(name)
    known = name in EXTRAS if parsed is None else parsed.type in _DATABASE_TYPES
    return known and len(name) <= _NAME_BYTES


def member_order(name: str) -> tuple[int, str]:
    """Key that sorts names as they stand in an archive."""
    parsed = parse_file_name(name)
    is_large = parsed is not None and parsed.type in _LARGE_TYPES
    return ({RECORD_NAME: 0, "CURRENT": 3}.get(name, 2 if is_large else 1), name)


def padding(size: int, block: int = BLOCK_BYTES) -> int:
    """Zeros that fill ``size`` up to whole blocks."""
    return -size % block


def stream_bytes(sizes: list[int], list_bytes: int) -> int:
    """Length of an archive's tar stream with members of these sizes and a list of that size."""
    members = sum(BLOCK_BYTES + size + padding(size) for size in (*sizes, list_bytes))
    return members + 2 * BLOCK_BYTES + padding(members + 2 * BLOCK_BYTES, tarfile.RECORDSIZE)


def encode_header(name: str, size: int, mtime: int) -> bytes:
    """Header of a member. ``mtime`` in seconds since 1970."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, _MODE
    return info.tobuf(tarfile.GNU_FORMAT)


def encode_end(written: int) -> bytes:
    """Zeros that end a stream of which so many bytes are written."""
    length = 2 * BLOCK_BYTES
    return bytes(length + padding(written + length, tarfile.RECORDSIZE))


def decode_header(block: bytes, where: str) -> tuple[str, int] | None:
    """Read a header: name and size of a member; None for a block of zeros, which begins the end. Untrusted input.

    :raises CorruptionError: when it is not the header of a plain file with a name that an archive may have.
    """
    if not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise CorruptionError(f"{where}: not a tar header: {error}: {block[:32]!r}…") from None
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise CorruptionError(
            f"{where}: {info.name!r} has type {info.type!r}, expected a plain file ({tarfile.REGTYPE!r})"
        )
    if info.name != LIST_NAME and not is_member_name(info.name):
        raise CorruptionError(f"{where}: {info.name!r} is no file of a checkpoint")
    if info.size < 0:
        raise CorruptionError(f"{where}: {info.name!r} has {info.size} bytes")
    return info.name, info.size


@dataclass(frozen=True)
class ArchiveFile:
    """A member; size in bytes."""

    name: str
    size: int
    crc32c: int


@dataclass(frozen=True)
class ArchiveRecord:
    """What ``checkpoint-files.json`` says. ``files``: every other member, in its order."""

    provider_version: str
    db_id: str
    sequence_number: int
    files: tuple[ArchiveFile, ...]

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode() + b"\n"


def max_record_bytes(members: int) -> int:
    """Size that the record of so many members cannot exceed."""
    return 64 * 1024 + _ROW_BYTES * members


def decode_record(data: bytes, where: str) -> ArchiveRecord:
    """Read ``checkpoint-files.json``; untrusted input.

    :raises CorruptionError: when it is not such a record.
    """
    try:
        values = json.loads(data)
        if values.pop("format") != _FORMAT:
            raise ValueError("unknown format")
        files = tuple(ArchiveFile(**row) for row in values.pop("files"))
        record = ArchiveRecord(files=files, **values)
        numbers = [record.sequence_number, *(number for file in files for number in (file.size, file.crc32c))]
        texts = [record.provider_version, record.db_id, *(file.name for file in files)]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise TypeError("a number is none")
        if not all(type(text) is str for text in texts):
            raise TypeError("a text is none")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptionError(f"{where}: not a list of an archive's files: {type(error).__name__}: {error}") from None
    return record
