"""What a checkpoint, or a DB directory at rest, consists of: the files that a backup takes from it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME, Checkpoint, read_own_checkpoint
from airflow_provider_rocksdb.core.errors import CorruptionError, IncompleteError
from airflow_provider_rocksdb.core.format.filename import (
    ROCKSDICT_CONFIG,
    FileType,
    leveldb_table_file_name,
    parse_file_name,
)
from airflow_provider_rocksdb.core.live_database import LiveDatabase, LiveFile, MovedOn, Snapshot, open_live_database
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.wal import read_wal_file

EXTRAS = (ROCKSDICT_CONFIG, RECORD_NAME)


@dataclass(frozen=True)
class DatabaseFile:
    """A file to be backed up under ``name``; ``type`` is None for one that RocksDB does not know.

    ``content`` is what to store where it differs from what lies at ``path`` (OPTIONS without ``wal_dir``); ``size`` in
    bytes is that of what is stored.
    """

    name: str
    path: str
    size: int
    type: FileType | None
    content: bytes | None = None


@dataclass(frozen=True)
class Inventory:
    """A whole database: ``files`` are RocksDB's own, ``extras`` lie beside them. ``checkpoint``: our record, if any."""

    directory: str
    db_id: str
    sequence_number: int
    files: tuple[DatabaseFile, ...]
    extras: tuple[DatabaseFile, ...]
    checkpoint: Checkpoint | None

    @property
    def total_bytes(self) -> int:
        """Size of all files and extras."""
        return sum(file.size for file in (*self.files, *self.extras))


def read_inventory(directory: str) -> Inventory:
    """List what a backup of a checkpoint takes, from its record, or from its MANIFEST when it has none.

    The directory must be at rest and flat, as a checkpoint is: completeness is checked by the caller.

    :raises IncompleteError: when something is missing, or the directory is being written.
    :raises CorruptionError, NotADatabaseError, NotFoundError, NotSupportedError: as when it is checkpointed.
    """
    directory = os.path.abspath(directory)
    checkpoint = read_own_checkpoint(directory)
    if checkpoint is not None:
        files = [_file(directory, file.name) for file in checkpoint.files]
        db_id, sequence_number = checkpoint.db_id, checkpoint.sequence_number
    else:
        with open_live_database(DatabasePaths(directory, wal_dir=directory)) as database:
            try:
                snapshot = database.read_version()
            except MovedOn as moved:
                raise IncompleteError(
                    f"{directory}: {moved}; take a checkpoint of a database that is running"
                ) from None
            files, sequence_number = _read_foreign(directory, database, snapshot)
            db_id = snapshot.db_id or _read_text(os.path.join(directory, "IDENTITY"))
    known = {file.name for file in files}
    extras = [
        _file(directory, name)
        for name in EXTRAS
        if name not in known and (name != RECORD_NAME or checkpoint) and os.path.isfile(os.path.join(directory, name))
    ]
    return Inventory(
        directory=directory,
        db_id=db_id,
        sequence_number=sequence_number,
        files=tuple(file for file in files if file.type is not None),
        extras=(*(file for file in files if file.type is None), *extras),
        checkpoint=checkpoint,
    )


def _file(directory: str, name: str) -> DatabaseFile:
    path = os.path.join(directory, name)
    parsed = parse_file_name(name)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise IncompleteError(f"{path}: is missing") from None
    if not stat.S_ISREG(status.st_mode):  # a link would have a backup hold what lies elsewhere
        raise CorruptionError(
            f"{path}: expected a regular file, got {stat.filemode(status.st_mode)}; of a database with links take a "
            "checkpoint"
        )
    return DatabaseFile(name, path, status.st_size, parsed.type if parsed else None)


def _read_foreign(directory: str, database: LiveDatabase, snapshot: Snapshot) -> tuple[list[DatabaseFile], int]:
    """Files and last sequence number of a directory without our record."""
    files = [_file(directory, name) for name in ("CURRENT", snapshot.manifest)]
    files += [_file(directory, _name_on_disk(file)) for file in snapshot.files.values()]
    if os.path.isfile(os.path.join(directory, "IDENTITY")):
        files.append(_file(directory, "IDENTITY"))
    if database.options is not None:
        path = os.path.join(directory, database.options_name)
        content, changes = database.options.for_copy(snapshot.column_families)
        files.append(
            DatabaseFile(database.options_name, path, len(content), FileType.OPTIONS, content if changes else None)
        )
    sequence_number = snapshot.last_sequence
    for number, path in sorted(database.list_wals().items()):
        if number < snapshot.min_wal_number:
            continue
        wal = read_wal_file(number, path)
        files.append(DatabaseFile(os.path.basename(path), path, wal.size, FileType.WAL))
        sequence_number = max(sequence_number, (wal.next_sequence or 1) - 1)
    return files, sequence_number


def _name_on_disk(file: LiveFile) -> str:
    if file.type is FileType.TABLE and not os.path.lexists(os.path.join(file.directory, file.name)):
        old = leveldb_table_file_name(int(file.name.partition(".")[0]))
        if os.path.lexists(os.path.join(file.directory, old)):
            return old
    return file.name


def _read_text(path: str) -> str:
    try:
        return durable.read_small_file(path).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
