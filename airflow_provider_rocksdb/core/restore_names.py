"""Which names a backup may hold, exactly as RocksDB writes them; names in a backup are untrusted."""

from __future__ import annotations

from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.filename import (
    ROCKSDICT_CONFIG,
    FileName,
    FileType,
    blob_file_name,
    descriptor_file_name,
    leveldb_table_file_name,
    parse_file_name,
    table_file_name,
    wal_file_name,
)

_WRITTEN_NAMES = {
    FileType.WAL: (wal_file_name,),
    FileType.TABLE: (table_file_name, leveldb_table_file_name),
    FileType.BLOB: (blob_file_name,),
    FileType.DESCRIPTOR: (descriptor_file_name,),
    FileType.OPTIONS: (lambda number: f"OPTIONS-{number:06d}",),
    FileType.CURRENT: (lambda _: "CURRENT",),
    FileType.IDENTITY: (lambda _: "IDENTITY",),
}


def parse_restored_name(name: str) -> FileName | None:
    """Tell what a name to be restored is; None for rocksdict's own file. Untrusted input.

    :raises CorruptionError: when it is not a name, exactly as RocksDB writes it, of a file that a backup may hold.
    """
    if name == ROCKSDICT_CONFIG:
        return None
    parsed = parse_file_name(name)
    if parsed is None or not any(write(parsed.number) == name for write in _WRITTEN_NAMES.get(parsed.type, ())):
        raise CorruptionError(f"{name[:300]!r} is not the name of a file that a database is restored from")
    return parsed
