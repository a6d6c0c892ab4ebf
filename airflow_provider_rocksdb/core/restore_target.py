"""Where a restore's files go, wherever their bytes come from, and how they become a database, all of them at once.

1. ``open_target``: directories are checked and locked, and places to build in are made (``restore_places``)
2. ``reserve``: a name and a size in, a path to create it at out; the name is untrusted
3. ``read_manifest``: which column family an SST or blob file belongs to, so before those are reserved
4. ``commit``: OPTIONS and MANIFEST are fitted to the new place, the result is checked, and exchanged for what was there

========================  =============================================================================
file                      directory
========================  =============================================================================
WAL                       ``wal_dir``, else the DB directory
SST, blob                 the first of the column family's ``cf_paths``, else of ``db_paths``, else the DB directory
all others                the DB directory
========================  =============================================================================

There the database's own program looks for files of path id 0 (``TableFileName``, ``BlobFileName``); other path ids in
the MANIFEST are set to 0. In OPTIONS ``wal_dir`` becomes what the caller named, and is emptied otherwise, as is
``db_log_dir``: opening the copy would else recover, and delete, another database's WALs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.completeness import Completeness, Level, check_completeness
from airflow_provider_rocksdb.core.database_lock import locked_database, require_closed
from airflow_provider_rocksdb.core.errors import (
    CorruptionError,
    ExistsError,
    InvalidArgumentError,
)
from airflow_provider_rocksdb.core.format.filename import (
    ROCKSDICT_CONFIG,
    FileName,
    FileType,
    decode_current,
    parse_file_name,
)
from airflow_provider_rocksdb.core.format.log_format import rewrite_records
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.format.version_edit import clear_path_ids
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.restore_manifest import RestoredManifest, read_restored_manifest
from airflow_provider_rocksdb.core.restore_names import parse_restored_name
from airflow_provider_rocksdb.core.restore_places import (
    BLOCKED,
    OLD_NAME,
    OURS,
    REAL_CURRENT_NAME,
    STAGING_NAME,
    InsidePlace,
    Place,
    contains,
    plan_places,
    undo_unfinished,
)
from airflow_provider_rocksdb.core.restore_record import RECORD_NAME
from airflow_provider_rocksdb.core.restore_wal_dir import check_old_wal_dir

_CURRENT = "CURRENT"
_MAX_CURRENT_BYTES = 4096
_MAX_OPTIONS_BYTES = 64 * 1024 * 1024
_BESIDE_ROCKSDBS = frozenset([ROCKSDICT_CONFIG, "checkpoint.json", "archive"])
_SHARED_TYPES = (FileType.TABLE, FileType.BLOB)


class RestoreTarget:
    """The directories of a database to be restored. Made by :func:`open_target`."""

    def __init__(self, paths: DatabasePaths, *, replace: bool, in_place: bool) -> None:
        self.paths = _real_paths(paths)
        self.replace = replace
        self.in_place = in_place
        self.options_changes: dict[str, Any] = {}
        self.files: dict[str, int] = {}  # names reserved, with their sizes in bytes
        self._directories = self.paths.all_dirs()
        self._keys: dict[tuple[FileType | None, int], str] = {}
        self._manifest: RestoredManifest | None = None  # from read_manifest() on
        self._database_lock = contextlib.ExitStack()
        self._held = False
        self.is_emptied = False  # the old database was removed
        _check_directories(self.paths)
        undo_unfinished(self.paths.db_dir)
        self._places = plan_places(self.paths.db_dir, self._directories, inside=in_place)
        main = self._places[0]
        for place in self._places:
            place.ownership = dataclasses.replace(place.ownership, file_mode=main.ownership.file_mode)

    @property
    def replaces(self) -> bool:
        """Whether there is something to be replaced."""
        return any(self._obstacles(directory) for directory in self._directories)

    def lock(self) -> None:
        """Lock every directory and make the places to build in."""
        self.check_replaceable()
        self.lock_places()
        self.check_replaceable()
        for directory in sorted(self._directories, key=len):
            self._places[0].ownership.make_directory(self.staged(directory))

    def lock_places(self) -> None:
        """Lock what there is, and clear what dead runs have left."""
        for place in self._places:
            place.lock()

    def check_replaceable(self) -> None:
        """Check that what is there may go: nothing, or with ``replace`` a database that nobody has open.

        :raises ExistsError: when something is there, and may not be replaced.
        :raises InvalidArgumentError: when something is there that is not RocksDB's, or is another database; or when its
            WALs are in a ``wal_dir`` that was not given.
        :raises BusyError: when a process has the database open.
        """
        require_closed(self.paths.db_dir)
        self._check_content()
        if self.replace:
            check_old_wal_dir(self.paths)

    def _check_content(self) -> None:
        for directory in self._directories:
            names = self._obstacles(directory)
            if names and not self.replace:
                raise ExistsError(
                    f"{directory}: is already there, with {len(names)} entries ({names[0]}, …); name another place, or "
                    "allow replace, which keeps it until the restored database is whole"
                )
            if directory != self.paths.db_dir and _CURRENT in names:
                raise InvalidArgumentError(f"{directory}: is a database of its own (CURRENT); name another place")
            for name in names:
                path = os.path.join(directory, name)
                is_ours = any(contains(path, other) for other in self._directories) or _is_rocksdbs(name)
                if not is_ours:
                    raise InvalidArgumentError(
                        f"{path}: is not RocksDB's, and would be gone with what is replaced; move it away"
                    )

    def _obstacles(self, directory: str) -> list[str]:
        """Names in a directory that stand in the way of a restore.

        None when it is not there, or holds only what a program leaves that did not find its database: LOCK and LOG.
        """
        place = self._place_of(directory)
        passed_over = OURS | (place.kept - {"LOCK"} if isinstance(place, InsidePlace) else set())
        try:
            names = sorted(set(os.listdir(directory)) - passed_over)
        except FileNotFoundError:
            return []
        parsed = [parse_file_name(name) for name in names]
        return [] if all(name and name.type in (FileType.LOCK, FileType.INFO_LOG) for name in parsed) else names

    def _place_of(self, directory: str) -> Place:
        return max((place for place in self._places if contains(place.root, directory)), key=lambda p: len(p.root))

    def staged(self, directory: str) -> str:
        """Place where a directory's new content is built."""
        place = self._place_of(directory)
        return os.path.normpath(os.path.join(place.staging, os.path.relpath(directory, place.root)))

    def reserve(self, name: str, size: int) -> str:
        """Return the path at which the caller must create a file, with :meth:`create_file` or as a link.

        :param name: its name in the database; untrusted.
        :raises CorruptionError: when it is no such name, or stands for a file that was reserved before.
        """
        parsed = parse_restored_name(name)
        key = (parsed.type, parsed.number) if parsed else (None, 0)
        if parsed and parsed.type in _SHARED_TYPES:
            key = (FileType.TABLE, parsed.number)  # RocksDB numbers all files together
        if key in self._keys:
            raise CorruptionError(f"{name!r} and {self._keys[key]!r} would be the same file of the database")
        self._keys[key] = name
        self.files[name] = size
        return os.path.join(self.staged(self._directory(parsed)), name)

    def _directory(self, parsed: FileName | None) -> str:
        if parsed and parsed.type is FileType.WAL:
            return self.paths.wal_dir or self.paths.db_dir
        if parsed and parsed.type in _SHARED_TYPES:
            return self.paths.table_dir(self.manifest.families.get(parsed.number, b"default"), 0)
        return self.paths.db_dir

    def create_file(self, path: str) -> int:
        """Create a reserved file with the right owner and mode; return its descriptor, for writing."""
        return self._places[0].ownership.create_file(path)

    def old_paths(self, name: str) -> list[str]:
        """Where a file of that name lies in what is to be replaced."""
        paths = [os.path.join(directory, name) for directory in self._directories]
        return [path for path in paths if os.path.isfile(path)]

    def is_live(self, name: str) -> bool:
        """Whether the MANIFEST that was read has an SST or blob file."""
        parsed = parse_file_name(name)
        return parsed is not None and parsed.number in self.manifest.families

    @property
    def manifest(self) -> RestoredManifest:
        """What :meth:`read_manifest` has found."""
        if self._manifest is None:
            raise AssertionError("read_manifest comes before SST and blob files")
        return self._manifest

    def read_manifest(self, name: str | None = None) -> None:
        """Read the MANIFEST that was created.

        :param name: of the MANIFEST, while CURRENT is not there yet; None: what CURRENT says.
        :raises CorruptionError: when CURRENT names none that was reserved, or it is damaged.
        :raises InvalidArgumentError: when ``cf_paths`` names a column family that is not there.
        """
        name = name or self._read_current()
        manifest = read_restored_manifest(name, self._staged_file(name), self.files[name])
        known = sorted(os.fsdecode(family) for family in manifest.comparators)
        for family in sorted(set(self.paths.cf_paths) - set(known)):
            raise InvalidArgumentError(
                f"cf_paths: the backup has no column family {family!r}; it has {', '.join(map(repr, known))}"
            )
        self._manifest = manifest

    def _read_current(self) -> str:
        if _CURRENT not in self.files or self.files[_CURRENT] > _MAX_CURRENT_BYTES:
            raise CorruptionError(
                f"CURRENT: expected at most {_MAX_CURRENT_BYTES} bytes, got {self.files.get(_CURRENT)}"
            )
        manifest = decode_current(self._read(_CURRENT))
        if manifest not in self.files:
            raise CorruptionError(f"CURRENT names {manifest}, which is not among the files")
        return manifest

    def require_space(self, sizes: Mapping[str, int], *, emptied: bool = False) -> None:
        """Check the free space for files to be created, by their paths, on every file system that gets some.

        :param emptied: count as free what :meth:`empty` will free.
        :raises NoSpaceError: with the bytes needed and available.
        """
        freed: dict[int, int] = {}
        for place in self._places if emptied else ():
            if isinstance(place, InsidePlace):
                device = os.stat(place.root).st_dev
                freed[device] = freed.get(device, 0) + place.reclaimable_bytes()
        durable.require_space_for(
            sizes, freed, "" if self.in_place else ", or restore in place, which removes the old database first"
        )

    def empty(self) -> None:
        """Remove what is to be replaced now, to make room: only in place."""
        self.hold_database()
        self.is_emptied = True
        for place in self._places:
            assert isinstance(place, InsidePlace)  # noqa: S101 -- in place, all are
            place.empty()

    def hold_database(self) -> None:
        """Keep programs from opening the old database until :meth:`unlock`.

        :raises BusyError: when one has it open.
        """
        if not self._held:
            self._database_lock.enter_context(locked_database(self.paths.db_dir))
            self._held = True

    def commit(self, level: Level) -> Completeness:
        """Check the restored database, and exchange it for what was there.

        :raises IncompleteError, CorruptionError, CouldNotCheckError: when it is not whole; nothing was exchanged.
        """
        self._fit_options()
        self._fit_manifest()
        found = check_completeness(self.staged(self.paths.db_dir), level=level, paths=self._staged_paths())
        found.raise_for_state()
        for place in self._places:
            place.lock_root()
        self.hold_database()
        self._check_content()  # something may have appeared meanwhile
        self._exchange()
        return found

    def _exchange(self) -> None:
        main = self._places[0]
        roots = [(place.root, place.kind) for place in self._places]
        run_id = secrets.token_hex(8)
        is_atomic = len(roots) == 1 and not isinstance(main, InsidePlace)
        current = self._staged_file(_CURRENT)
        if not is_atomic:
            os.rename(current, os.path.join(main.staging, REAL_CURRENT_NAME))
            main.ownership.write_file(current, BLOCKED)
        for place in self._places:
            for directory, _, _ in os.walk(place.staging):
                durable.fsync_directory(directory)
        try:
            for place in self._places:
                place.exchange(run_id, roots)
            if not is_atomic:
                os.replace(os.path.join(main.root, REAL_CURRENT_NAME), os.path.join(main.root, _CURRENT))
                durable.fsync_directory(main.root)
        except BaseException:
            for place in reversed(self._places):
                place.undo(run_id)
            raise

    def finish(self) -> None:
        """Remove what was replaced."""
        for place in reversed(self._places):
            place.finish()

    def abandon(self) -> None:
        """Remove what was built, as far as possible."""
        for place in self._places:
            place.abandon()

    def unlock(self) -> None:
        """Let go of all locks."""
        self._database_lock.close()
        for place in self._places:
            place.unlock()

    def _staged_file(self, name: str) -> str:
        return os.path.join(self.staged(self._directory(parse_restored_name(name))), name)

    def _read(self, name: str) -> bytes:
        with open(self._staged_file(name), "rb") as file:
            return file.read()

    def _rewrite(self, name: str, data: bytes) -> None:
        path = self._staged_file(name)
        os.unlink(path)
        self._places[0].ownership.write_file(path, data)

    def _fit_options(self) -> None:
        for name, size in self.files.items():
            parsed = parse_restored_name(name)
            if parsed is None or parsed.type is not FileType.OPTIONS:
                continue
            if size > _MAX_OPTIONS_BYTES:
                raise CorruptionError(f"{name}: {size} bytes; at most {_MAX_OPTIONS_BYTES} are read")
            options = OptionsFile(self._read(name), name)
            elsewhere = self.paths.wal_dir if self.paths.wal_dir != self.paths.db_dir else None
            fitted, changes = options.for_copy(self.manifest.comparators, wal_dir=elsewhere or "")
            if changes:
                self._rewrite(name, fitted)
                self.options_changes |= changes

    def _fit_manifest(self) -> None:
        name = self.manifest.name
        if self.manifest.has_path_ids:
            self._rewrite(name, rewrite_records(self._read(name), name, clear_path_ids))

    def _staged_paths(self) -> DatabasePaths:
        paths = self.paths
        return DatabasePaths(
            self.staged(paths.db_dir),
            self.staged(paths.wal_dir or paths.db_dir),
            tuple(self.staged(path) for path in paths.db_paths),
            {name: tuple(self.staged(path) for path in directories) for name, directories in paths.cf_paths.items()},
        )


@contextlib.contextmanager
def open_target(paths: DatabasePaths, *, replace: bool, in_place: bool) -> Iterator[RestoreTarget]:
    """Give a place to restore into for the length of a block, which ends with :meth:`RestoreTarget.commit`.

    Whatever goes wrong before that leaves what was there as it was.

    :raises ExistsError, InvalidArgumentError, BusyError: as :meth:`RestoreTarget.check_replaceable`.
    :raises BusyError: when another run is restoring there.
    """
    with durable.named_errors():
        target = RestoreTarget(paths, replace=replace, in_place=in_place)
        try:
            target.lock()
            yield target
        except BaseException:
            target.abandon()
            raise
        else:
            target.finish()
        finally:
            target.unlock()


def finish_leftovers(paths: DatabasePaths) -> None:
    """Remove what a run has left that died when its database was exchanged, and only that.

    :raises BusyError: when that run is not dead.
    """
    directories = _real_paths(paths).all_dirs()
    leftovers = [os.path.join(d, name) for d in directories for name in (RECORD_NAME, STAGING_NAME, OLD_NAME)]
    if not any(os.path.lexists(path) for path in leftovers):
        return
    with durable.named_errors():
        target = RestoreTarget(paths, replace=False, in_place=False)
        try:
            target.lock_places()
            target.finish()
        finally:
            target.unlock()


def _real_paths(paths: DatabasePaths) -> DatabasePaths:
    real = os.path.realpath
    return DatabasePaths(
        real(paths.db_dir),
        real(paths.wal_dir) if paths.wal_dir else None,
        tuple(real(path) for path in paths.db_paths),
        {name: tuple(real(path) for path in directories) for name, directories in paths.cf_paths.items()},
    )


def _check_directories(paths: DatabasePaths) -> None:
    for directory in paths.all_dirs():
        if os.path.lexists(directory) and not os.path.isdir(directory):
            raise ExistsError(f"{directory}: is there, and is not a directory; name another place")
        if directory != paths.db_dir and contains(directory, paths.db_dir):
            raise InvalidArgumentError(
                f"{paths.db_dir}: lies inside {directory}, another of its directories; a restore would replace both "
                "together: name a place outside"
            )


def _is_rocksdbs(name: str) -> bool:
    return name in _BESIDE_ROCKSDBS or parse_file_name(name.removesuffix(".trash")) is not None
