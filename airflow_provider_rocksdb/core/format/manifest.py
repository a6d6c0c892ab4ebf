"""A MANIFEST: VersionEdits in a log, whose sum is a Version.

RocksDB: ``db/version_edit_handler.cc``, ``db/version_builder.cc``.

Edits of an atomic group count only when the group is whole. A blob file leaves the Version without any record: it is
live while it is not older than the oldest blob file that an SST of its column family refers to, and still holds a
blob or is referred to (``VersionBuilder::SaveBlobFilesTo``).

A MANIFEST is one only when it gives a log number, a next file number and a last sequence number
(``VersionEditHandler::CheckIterationResult``); every MANIFEST that CURRENT has ever named does.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.coding import decode_varint64, value_of_varint
from airflow_provider_rocksdb.core.format.log_format import LogReader, Pread, Stop, iter_records
from airflow_provider_rocksdb.core.format.version_edit import (
    BlobFile,
    EncodedFile,
    TableFile,
    VersionEdit,
    decode_version_edit,
)

DEFAULT_COLUMN_FAMILY = b"default"


class ColumnFamily:
    """A column family of a Version: its SST files and blob files by file number."""

    __slots__ = ("_encoded_tables", "_tables", "blobs", "comparator", "id", "log_number", "name")

    def __init__(self, column_family_id: int, name: bytes) -> None:
        self.id = column_family_id
        self.name = name
        self.comparator = ""
        self.log_number = 0
        self.blobs: dict[int, BlobFile] = {}
        self._encoded_tables: dict[bytes, EncodedFile] = {}
        self._tables: dict[int, TableFile] | None = None

    @property
    def tables(self) -> dict[int, TableFile]:
        """The SST files by number, as of the last edit."""
        if self._tables is None:
            self._tables = {table.number: table for table in self.iter_tables()}
        return self._tables

    def iter_tables(self) -> Iterator[TableFile]:
        """Yield the SST files without keeping what is decoded of them, which takes much memory where there are many."""
        return (TableFile(*encoded) for encoded in self._encoded_tables.values())

    def iter_table_sizes(self) -> Iterator[tuple[int, int, int]]:
        """Yield number, path id and size in bytes of each SST file, faster than by :meth:`iter_tables`."""
        for _, number, details, path_id in self._encoded_tables.values():
            yield value_of_varint(number), path_id, decode_varint64(details, 0)[0]

    def apply(self, edit: VersionEdit) -> None:
        """Remove and add the files of one edit.

        :raises CorruptionError: when it contradicts what is there.
        """
        self._apply_blobs(edit)
        if edit.deleted_files or edit.new_files:
            self._tables = None
        tables = self._encoded_tables
        for level, number in edit.deleted_files:
            table = tables.pop(number, None)
            if table is None or table[0] != level:
                where = "nowhere" if table is None else f"on level {value_of_varint(table[0])}"
                raise CorruptionError(
                    f"file {value_of_varint(number)} of {self.name!r} is deleted from level {value_of_varint(level)}, "
                    f"but is {where}"
                )
        for table in edit.new_files:
            if tables.setdefault(table[1], table) is not table:
                raise CorruptionError(f"file {value_of_varint(table[1])} of {self.name!r} is added twice")

    def _apply_blobs(self, edit: VersionEdit) -> None:
        for blob in edit.blob_files:
            if blob.number in self.blobs:
                raise CorruptionError(f"blob file {blob.number} of {self.name!r} is added twice")
            self.blobs[blob.number] = blob
        for number, count in edit.blob_garbage:
            if number not in self.blobs:
                raise CorruptionError(f"blob file {number} of {self.name!r} has garbage, but was never added")
            self.blobs[number].garbage_count += count

    def live_blobs(self) -> list[BlobFile]:
        """Blob files that belong to the Version."""
        if not self.blobs:
            return []
        referred = {table.oldest_blob_file_number for table in self.tables.values()} & self.blobs.keys()
        if not referred:
            return []
        oldest = min(referred)
        return [
            blob
            for number, blob in self.blobs.items()
            if number >= oldest and (number in referred or blob.garbage_count < blob.blob_count)
        ]


class Version:
    """The sum of a MANIFEST's edits: what the database consists of, but for the WALs' content.

    ``wals``: number to synced size in bytes (None: not known), of the WALs that the MANIFEST tracks.
    """

    def __init__(self) -> None:
        self.db_id = ""
        self.last_sequence = 0
        self.next_file_number = 0
        self.prev_log_number = 0
        self.min_log_number_to_keep: int | None = None
        self.wals: dict[int, int | None] = {}
        self.column_families = {0: ColumnFamily(0, DEFAULT_COLUMN_FAMILY)}
        self._deleted_wals_below = 0
        self._missing = {"log number", "next file number", "last sequence number"}

    @property
    def is_whole(self) -> bool:
        """Whether the edits so far say everything that RocksDB needs to open a database."""
        return not self._missing

    @property
    def min_wal_number(self) -> int:
        """Lowest number of a WAL that may hold something that no SST holds.

        The MANIFEST's own bound where it has one; never the larger of the two, since prepared transactions live in
        WALs that every column family has left behind.
        """
        if self.min_log_number_to_keep is not None:
            return self.min_log_number_to_keep
        lowest = min(family.log_number for family in self.column_families.values())
        return min(lowest, self.prev_log_number) if self.prev_log_number else lowest

    def apply(self, edit: VersionEdit) -> None:
        """Add one edit.

        :raises CorruptionError: when it contradicts the Version.
        """
        if edit.added_column_family is not None:
            self._add_column_family(edit.column_family, edit.added_column_family)
        family = self.column_families.get(edit.column_family)
        if family is None:
            raise CorruptionError(f"edit of column family {edit.column_family}, which does not exist")
        if edit.drops_column_family:
            if not edit.column_family:
                raise CorruptionError("the default column family is dropped")
            del self.column_families[edit.column_family]
        family.apply(edit)
        if edit.comparator is not None:
            family.comparator = edit.comparator
        if edit.log_number is not None:
            family.log_number = max(family.log_number, edit.log_number)
            self._missing.discard("log number")
        if edit.db_id is not None:
            self.db_id = edit.db_id
        if edit.last_sequence is not None:
            self.last_sequence = edit.last_sequence
            self._missing.discard("last sequence number")
        if edit.next_file_number is not None:
            self.next_file_number = edit.next_file_number
            self._missing.discard("next file number")
        if edit.prev_log_number is not None:
            self.prev_log_number = edit.prev_log_number
        if edit.min_log_number_to_keep is not None:
            self.min_log_number_to_keep = max(self.min_log_number_to_keep or 0, edit.min_log_number_to_keep)
        self._apply_wals(edit)

    def _add_column_family(self, family_id: int, name: bytes) -> None:
        if family_id in self.column_families:
            raise CorruptionError(f"column family {family_id} ({name!r}) is added twice")
        self.column_families[family_id] = ColumnFamily(family_id, name)

    def _apply_wals(self, edit: VersionEdit) -> None:
        """Follow ``WalSet``: a late record of a WAL that is already deleted does not bring it back."""
        for number, synced_size in edit.added_wals:
            if number < self._deleted_wals_below:
                continue
            known = self.wals.get(number)
            if number in self.wals and synced_size is None:
                raise CorruptionError(f"WAL {number} is created twice")
            self.wals[number] = max(known or 0, synced_size) if synced_size is not None else None
        if edit.deleted_wals_below is not None:
            self._deleted_wals_below = max(self._deleted_wals_below, edit.deleted_wals_below)
            self.wals = {number: size for number, size in self.wals.items() if number >= self._deleted_wals_below}


class ManifestReader:
    """Read a MANIFEST, and read on when it has grown.

    ``version`` is the sum up to ``end``, the end of the last whole record and whole atomic group: a copy cut there is
    a valid MANIFEST. ``end`` is 0 while there is none. A reader that has raised is not to be used again.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = Version()
        self.end = 0
        self._log = LogReader(name)
        self._group: list[VersionEdit] = []

    @property
    def offset(self) -> int:
        """Where the next bytes to be read begin."""
        return self._log.offset

    @property
    def bad_tail(self) -> str | None:
        """Why the bytes behind ``offset`` are no record although none is missing; None where they are just unfinished.

        RocksDB refuses such a MANIFEST. In one that is being written it may be a moment's sight of an append.
        """
        return self._log.reason if self._log.stop is Stop.BAD else None

    @property
    def is_torn(self) -> bool:
        """Whether half a record, or half an atomic group, stands behind ``end``."""
        return self._log.stop is Stop.TRUNCATED or self.end < self._log.offset

    def read(self, pread: Pread, size: int) -> None:
        """Apply what has come since the last call, up to ``size``.

        :raises CorruptionError: when the MANIFEST is damaged, with file and offset.
        :raises NotSupportedError: at an unknown tag, with file and offset.
        """
        for record in iter_records(self._log, pread, size):
            try:
                edits = self._collect(decode_version_edit(record.payload))
                for edit in edits:
                    self.version.apply(edit)
            except (CorruptionError, NotSupportedError) as error:
                raise type(error)(f"{self.name}: record at offset {record.offset}: {error}") from None
            if edits and self.version.is_whole:
                self.end = record.end

    def _collect(self, edit: VersionEdit) -> list[VersionEdit]:
        """Return the edits to apply now: none before an atomic group is whole (``AtomicGroupReadBuffer``)."""
        remaining = edit.atomic_group_remaining
        if remaining is None:
            if self._group:
                raise CorruptionError("an edit that is not of the atomic group stands inside it")
            return [edit]
        if self._group:
            expected = (self._group[-1].atomic_group_remaining or 0) - 1
            if remaining != expected:
                raise CorruptionError(f"atomic group: expected {expected} more edits to follow, got {remaining}")
        self._group.append(edit)
        if remaining:
            return []
        group, self._group = self._group, []
        return group
