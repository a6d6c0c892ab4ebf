"""Names of the files in a RocksDB directory (RocksDB: ``file/filename.cc``, ``ParseFileName``).

==========================  =======================  ======
name                        type                     number
==========================  =======================  ======
``000012.log``              WAL                      12
``000012.sst`` ``.ldb``     SST file                 12
``000012.blob``             blob file                12
``MANIFEST-000012``         MANIFEST ("descriptor")  12
``OPTIONS-000012``          OPTIONS                  12
``CURRENT IDENTITY LOCK``   themselves               0
``LOG LOG.old.1700000000``  info log                 0
``METADB-12``               meta database            12
``….dbtmp``                 temporary file           12
==========================  =======================  ======

Numbers are unsigned 64-bit decimals, written with at least six digits. One difference: to RocksDB a name that goes on
behind an OPTIONS file's number (``OPTIONS-000012.bak``) is one, too; here it is none, and cannot pass for the newest.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import NamedTuple

from airflow_provider_rocksdb.core.errors import CorruptionError

MAX_UINT64 = 2**64 - 1

ROCKSDICT_CONFIG = "rocksdict-config.json"
"""Where rocksdict keeps how it encodes keys and values: not RocksDB's, but a part of the database."""


class FileType(enum.Enum):
    """What a file in a RocksDB directory is."""

    WAL = "wal"
    TABLE = "table"
    BLOB = "blob"
    DESCRIPTOR = "descriptor"
    OPTIONS = "options"
    CURRENT = "current"
    IDENTITY = "identity"
    LOCK = "lock"
    INFO_LOG = "info_log"
    META_DATABASE = "meta_database"
    COMPACTION_PROGRESS = "compaction_progress"
    TEMP = "temp"


class FileName(NamedTuple):
    """A parsed file name; ``number`` is 0 for files that have none."""

    type: FileType
    number: int


_FIXED = {
    "CURRENT": FileType.CURRENT,
    "IDENTITY": FileType.IDENTITY,
    "LOCK": FileType.LOCK,
}
_SUFFIXES = {
    "log": FileType.WAL,
    "sst": FileType.TABLE,
    "ldb": FileType.TABLE,
    "blob": FileType.BLOB,
    "dbtmp": FileType.TEMP,
}
_PREFIXES = {
    "MANIFEST": FileType.DESCRIPTOR,
    "METADB": FileType.META_DATABASE,
    "OPTIONS": FileType.OPTIONS,
    "COMPACTION_PROGRESS": FileType.COMPACTION_PROGRESS,
}
_NUMBERED = re.compile(r"([0-9]{1,20})\.([a-z]+)")
_PREFIXED = re.compile(r"([A-Z_]+)-([0-9]{1,20})(\.dbtmp)?")
_INFO_LOG = re.compile(r"LOG(\.old(\.[0-9]{1,20})?)?")


def parse_file_name(name: str) -> FileName | None:
    """Tell what ``name`` (no directory part) is, or None when RocksDB would not know it either."""
    if name in _FIXED:
        return FileName(_FIXED[name], 0)
    if match := _NUMBERED.fullmatch(name):
        number, suffix = int(match[1]), match[2]
        if suffix in _SUFFIXES and number <= MAX_UINT64:
            return FileName(_SUFFIXES[suffix], number)
        return None
    if match := _PREFIXED.fullmatch(name):
        file_type, number = _PREFIXES.get(match[1]), int(match[2])
        if file_type is None or number > MAX_UINT64:
            return None
        if match[3]:
            has_temp_form = file_type in (FileType.OPTIONS, FileType.COMPACTION_PROGRESS)
            return FileName(FileType.TEMP, number) if has_temp_form else None
        return FileName(file_type, number)
    return FileName(FileType.INFO_LOG, 0) if _INFO_LOG.fullmatch(name) else None


def find_wals(names: Iterable[str]) -> dict[int, str]:
    """WALs among names, of which there may be very many: file number to name."""
    parsed = [(parse_file_name(name), name) for name in names if name.endswith(".log")]
    return {file.number: name for file, name in parsed if file}


def newest_options(names: Iterable[str]) -> str | None:
    """Name of the OPTIONS file with the highest number, among names as many; None where there is none."""
    parsed = [(parse_file_name(name), name) for name in names if name.startswith("OPTIONS-")]
    found = [(file.number, name) for file, name in parsed if file and file.type is FileType.OPTIONS]
    return max(found)[1] if found else None


def wal_file_name(number: int) -> str:
    """Name of the WAL with this file number."""
    return f"{number:06d}.log"


def table_file_name(number: int) -> str:
    """Name of the SST file with this file number."""
    return f"{number:06d}.sst"


def leveldb_table_file_name(number: int) -> str:
    """Name that LevelDB gave the SST file with this number (``Rocks2LevelTableFileName``)."""
    return f"{number:06d}.ldb"


def blob_file_name(number: int) -> str:
    """Name of the blob file with this file number."""
    return f"{number:06d}.blob"


def descriptor_file_name(number: int) -> str:
    """Name of the MANIFEST with this file number."""
    return f"MANIFEST-{number:06d}"


def decode_current(data: bytes) -> str:
    """Return the MANIFEST's name from the content of CURRENT.

    RocksDB refuses a CURRENT without its newline or with a carriage return (``VersionSet::GetCurrentManifestPath``), so
    this does too: a copy that mended it would hide the damage.

    :raises CorruptionError: when it is not exactly the name of a MANIFEST and a newline.
    """
    text = data.decode("latin-1")
    name = text.removesuffix("\n")
    parsed = parse_file_name(name)
    if text == name or parsed is None or parsed.type is not FileType.DESCRIPTOR:
        raise CorruptionError(
            f"CURRENT: expected 'MANIFEST-<number>' and a newline, got {data[:64]!r} ({len(data)} bytes)"
        )
    return name
