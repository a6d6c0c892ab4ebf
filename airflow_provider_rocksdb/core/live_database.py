"""A DB directory that another process is writing, read without a lock and without opening the database.

What is read here may change between two system calls. :class:`MovedOn` says that it did; the caller looks again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import (
    AccessError,
    CorruptionError,
    InvalidArgumentError,
    NotADatabaseError,
    NotFoundError,
    NotSupportedError,
)
from airflow_provider_rocksdb.core.format.filename import (
    FileType,
    blob_file_name,
    decode_current,
    find_wals,
    newest_options,
    table_file_name,
)
from airflow_provider_rocksdb.core.format.manifest import ManifestReader, Version
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.paths import DatabasePaths

ARCHIVE_DIR = "archive"
STANDSTILL_SECONDS = 1.0
_POLL_SECONDS = 0.01


class MovedOn(Exception):  # noqa: N818 -- not an error: the database changed under a step, which is tried again
    """The database changed while it was being looked at."""


class LiveFile(NamedTuple):
    """An SST or blob file of a Version; ``name`` as RocksDB writes it (an SST may be called ``.ldb`` on disk)."""

    name: str
    directory: str
    type: FileType
    size: int


@dataclass(frozen=True)
class Snapshot:
    """A MANIFEST up to one point: where that is, and what the Version there needs.

    ``column_families``: name to comparator. ``tracked_wals``: number to synced size in bytes, None where not known.
    """

    manifest: str
    end: int
    db_id: str
    last_sequence: int
    min_wal_number: int
    files: dict[str, LiveFile]
    column_families: dict[bytes, str]
    tracked_wals: dict[int, int | None]
    has_path_ids: bool


def take_snapshot(manifest: str, end: int, version: Version, paths: DatabasePaths) -> Snapshot:
    """Freeze a Version.

    :raises InvalidArgumentError: when a file's path id has no directory.
    """
    files: dict[str, LiveFile] = {}
    has_path_ids = False
    table_type = FileType.TABLE  # looking it up would take a tenth of the time
    for family in version.column_families.values():
        directories: dict[int, str] = {}
        for number, path_id, size in family.iter_table_sizes():
            if path_id not in directories:
                directories[path_id] = paths.table_dir(family.name, path_id)
                has_path_ids = has_path_ids or path_id != 0
            name = table_file_name(number)
            files[name] = LiveFile(name, directories[path_id], table_type, size)
        for blob in family.live_blobs():
            name = blob_file_name(blob.number)
            files[name] = LiveFile(name, paths.blob_dir(family.name), FileType.BLOB, blob.size)
    return Snapshot(
        manifest=manifest,
        end=end,
        db_id=version.db_id,
        last_sequence=version.last_sequence,
        min_wal_number=version.min_wal_number,
        files=files,
        column_families={family.name: family.comparator for family in version.column_families.values()},
        tracked_wals=dict(version.wals),
        has_path_ids=has_path_ids,
    )


def options_wal_dir(db_dir: str, options: OptionsFile | None) -> str:
    """Where a database that some program has opened keeps its WALs, by its OPTIONS.

    :raises InvalidArgumentError: when OPTIONS says it relative to a working directory that nobody knows.
    """
    wal_dir = options.db_option("wal_dir") if options else ""
    if not wal_dir:
        return db_dir
    if not os.path.isabs(wal_dir):
        raise InvalidArgumentError(
            f"{db_dir}: its OPTIONS file names the relative wal_dir {wal_dir!r}; name it in full"
        )
    if os.path.lexists(os.path.join(wal_dir, "CURRENT")):
        # this directory by another name, or, before RocksDB 6.23, the one that it was copied from: no database's WALs
        # lie in the directory of another
        return db_dir
    if not os.path.isdir(wal_dir) and _has_wals(db_dir):  # before RocksDB 6.23, this directory where it was then
        return db_dir
    return wal_dir


def _list_names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _has_wals(directory: str) -> bool:
    return bool(find_wals(_list_names(directory)))


def _join_wals(directory: str, names: Iterable[str]) -> dict[int, str]:
    return {number: os.path.join(directory, name) for number, name in find_wals(names).items()}


class LiveDatabase:
    """The DB directory of a running database.

    :raises NotFoundError: when the directory, or its ``wal_dir``, is not there.
    :raises NotADatabaseError: when it holds no RocksDB database.
    :raises NotSupportedError: when its options say that its files alone do not make a whole database.

    ``names``: those in the DB directory, where :meth:`list_wals` has just seen them.
    """

    def __init__(self, paths: DatabasePaths) -> None:
        self.paths = paths
        self.db_dir = paths.db_dir
        self.names: list[str] | None = None
        self._first_names = names = _list_database(self.db_dir)
        self.options_name, self.options = "", None
        self.options_name, self.options = self.read_options(names)
        self.wal_dir = self._find_wal_dir()
        self._descriptor: int | None = None
        self._reader: ManifestReader | None = None
        self._seen = (0, b"")  # size and unread tail of the MANIFEST when it was last read
        self._before: tuple[str, int | None] = ("", None)  # fingerprint when it was last about to be read

    def close(self) -> None:
        """Let go of the MANIFEST."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read_options(self, names: Iterable[str] | None = None) -> tuple[str, OptionsFile | None]:
        """Newest OPTIONS file: name and content; ``("", None)`` where there is none.

        :param names: a listing of the DB directory just made.
        :raises CorruptionError: when it is not an OPTIONS file.
        """
        while True:
            name = newest_options(os.listdir(self.db_dir) if names is None else names)
            names = None
            if name is None:
                return "", None
            if name == self.options_name:  # it got its name when it was whole, and no other gets the number
                return name, self.options
            with contextlib.suppress(FileNotFoundError):  # replaced by a newer one meanwhile
                options = OptionsFile(durable.read_small_file(os.path.join(self.db_dir, name)), f"{self.db_dir}/{name}")
                if "true" in options.family_options("enable_blob_direct_write"):
                    raise NotSupportedError(
                        f"{self.db_dir}/{name}: enable_blob_direct_write is on; WAL records then point into blob files "
                        "that no MANIFEST names, so no copy of the files is whole. Use RocksDB's own checkpoint"
                    )
                return name, options

    def _find_wal_dir(self) -> str:
        if self.paths.wal_dir:
            wal_dir, source = self.paths.wal_dir, "the argument"
        else:
            wal_dir, source = options_wal_dir(self.db_dir, self.options), self.options_name
        if not os.path.isdir(wal_dir):
            raise NotFoundError(
                f"{self.db_dir}: its wal_dir {wal_dir} (from {source}) is not there; name the directory where the WALs "
                "are on this host"
            )
        if wal_dir in (self.db_dir, self.paths.wal_dir) or os.path.lexists(os.path.join(self.db_dir, "LOCK")):
            return wal_dir
        if _has_wals(self.db_dir):  # no program has opened it: RocksDB's own checkpoint of a database with a wal_dir
            return self.db_dir
        raise InvalidArgumentError(
            f"{self.db_dir}: was never opened, and {source} names the wal_dir {wal_dir}: if it is a checkpoint, these "
            "WALs are the running database's; if it was restored, they are its own. Name the wal_dir"
        )

    def list_wals(self) -> dict[int, str]:
        """WALs that exist: number to path. The archive is listed last, so one that moves there is seen in either."""
        names = _list_names(self.wal_dir)
        self.names = names if self.wal_dir == self.db_dir else None
        return self._find_wals(names)

    def first_wals(self) -> dict[int, str]:
        """As :meth:`list_wals`; where the WALs lie in the DB directory, those that were there when this was made."""
        return self._find_wals(self._first_names if self.wal_dir == self.db_dir else _list_names(self.wal_dir))

    def _find_wals(self, names: Iterable[str]) -> dict[int, str]:
        archive = os.path.join(self.wal_dir, ARCHIVE_DIR)
        return {**_join_wals(archive, _list_names(archive)), **_join_wals(self.wal_dir, names)}

    def read_current(self) -> str:
        """Name of the MANIFEST in use.

        :raises CorruptionError: when CURRENT names none.
        """
        try:
            data = durable.read_small_file(os.path.join(self.db_dir, "CURRENT"))
        except FileNotFoundError:
            raise MovedOn("CURRENT is not there") from None
        try:
            return decode_current(data)
        except CorruptionError as error:
            raise CorruptionError(f"{self.db_dir}/{error}") from None

    def read_version(self) -> Snapshot:
        """Read the MANIFEST on, or from its start when it is a new one, up to its last whole record and group.

        :raises MovedOn: when it is gone before it could be opened, or ends in what may be an append half seen.
        :raises CorruptionError: when it is damaged.
        """
        self._before = ("", None)  # until more is seen
        name = self.read_current()
        self._before = (name, None)
        if self._reader is None or self._reader.name != name:
            path = os.path.join(self.db_dir, name)
            try:
                descriptor = durable.open_regular(path)
            except FileNotFoundError:
                raise MovedOn(f"CURRENT names {name}, which is not there") from None
            except PermissionError as error:
                raise AccessError(f"{path}: {error.strerror} (as uid {os.geteuid()})") from error
            self.close()
            self._descriptor, self._reader = descriptor, ManifestReader(name)
        assert self._descriptor is not None and self._reader is not None  # noqa: S101, PT018 -- set above
        reader, size = self._reader, os.fstat(self._descriptor).st_size
        self._before = (name, size)
        try:
            reader.read(self.pread_manifest, size)
        except (CorruptionError, NotSupportedError) as error:
            raise type(error)(f"{self.db_dir}/{error}") from None
        self._seen = (size, self.pread_manifest(reader.offset, size - reader.offset))
        if reader.bad_tail is not None:
            raise MovedOn(f"{name}: damaged at offset {reader.offset}: {reader.bad_tail}")
        if not reader.end:
            raise MovedOn(f"{name} holds no whole record")
        return take_snapshot(name, reader.end, reader.version, self.paths)

    def copy_manifest(self, files: durable.NewFiles, target: str, length: int) -> None:
        """Copy the first bytes of the MANIFEST last read into a new file."""
        assert self._descriptor is not None  # noqa: S101 -- read_version came first
        files.copy(self._descriptor, target, length)

    def pread_manifest(self, offset: int, length: int) -> bytes:
        """Bytes of the MANIFEST last read, also when it has been replaced since."""
        assert self._descriptor is not None  # noqa: S101 -- read_version came first
        return durable.pread(self._descriptor, offset, length)

    def has_grown(self) -> bool:
        """Whether the MANIFEST is not as :meth:`read_version` left it: longer, changed at its end, or another one."""
        reader, descriptor = self._reader, self._descriptor
        assert reader is not None and descriptor is not None  # noqa: S101, PT018 -- read_version came first
        size, tail = self._seen
        return (
            self.read_current() != reader.name
            or os.fstat(descriptor).st_size != size
            or self.pread_manifest(reader.offset, len(tail)) != tail
        )

    def stands_still(self) -> bool:
        """Wait a second for the database to move on; True when it has not: what is missing now is not a race.

        False at once when it has moved on since :meth:`read_version` began.
        """
        before = self._before
        deadline = time.monotonic() + STANDSTILL_SECONDS
        while time.monotonic() < deadline:
            if self._fingerprint() != before:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _fingerprint(self) -> tuple[str, int | None]:
        """Return the name of the MANIFEST in use, and its size; neither where there is none."""
        name = ""
        with contextlib.suppress(MovedOn, CorruptionError, FileNotFoundError):
            name = self.read_current()
            return name, os.stat(os.path.join(self.db_dir, name)).st_size
        return name, None


def _list_database(db_dir: str) -> list[str]:
    try:
        names = os.listdir(db_dir)
    except FileNotFoundError:
        raise NotFoundError(f"{db_dir}: no such directory on host {socket.gethostname()}") from None
    except NotADirectoryError:
        raise NotADatabaseError(f"{db_dir}: is a file; expected the directory of a RocksDB database") from None
    except PermissionError as error:
        raise AccessError(f"{db_dir}: {error.strerror} (as uid {os.geteuid()}); give this user read access") from error
    if not names:
        raise NotADatabaseError(f"{db_dir}: is empty; expected a RocksDB database (a CURRENT and a MANIFEST)")
    if "CURRENT" not in names:
        raise NotADatabaseError(f"{db_dir}: is not a RocksDB database: {len(names)} entries, but no CURRENT")
    return names


@contextlib.contextmanager
def open_live_database(paths: DatabasePaths) -> Iterator[LiveDatabase]:
    """Look at a running database for the length of a block."""
    database = LiveDatabase(paths)
    try:
        yield database
    finally:
        database.close()
