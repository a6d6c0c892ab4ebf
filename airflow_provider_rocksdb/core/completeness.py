"""Is a directory a whole RocksDB database? Whoever made it, local or on any fsspec file system, nothing written.

Levels, each with what the one before has:

* ``files``: CURRENT, MANIFEST by CRC, every live SST and blob file with its exact size, every WAL it needs;
* ``checksums``: file checksums where the MANIFEST has them, and every WAL record's CRC;
* ``blocks``: a child process opens a scratch directory of links read-only and reads every block, within a time limit.

What is missing or too small is *incomplete*: it may still be on its way. What is too large, or fails a CRC, or cannot
be, is *corrupt*. What cannot be looked at *could not be checked*, which is never a success. WALs are known from
``checkpoint.json``, else as far as the MANIFEST tracks them, else the answer says ``unknown``: their numbers have gaps,
so the files alone cannot tell that one is missing.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import google_crc32c

from airflow_provider_rocksdb.core import scratch
from airflow_provider_rocksdb.core.checkpoint import RECORD_NAME, Checkpoint, decode_checkpoint
from airflow_provider_rocksdb.core.directory import Directory, LocalDirectory, RemoteDirectory
from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    CorruptionError,
    CouldNotCheckError,
    IncompleteError,
    InvalidArgumentError,
    NotSupportedError,
    RocksDBError,
)
from airflow_provider_rocksdb.core.format.filename import (
    FileType,
    blob_file_name,
    decode_current,
    leveldb_table_file_name,
    parse_file_name,
    table_file_name,
    wal_file_name,
)
from airflow_provider_rocksdb.core.format.manifest import ManifestReader
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.format.version_edit import BlobFile, TableFile
from airflow_provider_rocksdb.core.live_database import Snapshot, newest_options, take_snapshot
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.wal import WalContent, find_gap, read_wal

Level = Literal["files", "checksums", "blocks"]
DEFAULT_TIMEOUT_SECONDS = 3600.0

_LEVELS = ("files", "checksums", "blocks")
_MOVING_TRIES = 10
_CRC32C_FUNCTION = "FileChecksumCrc32c"
_CHUNK_BYTES = 4 * 1024 * 1024


class State(enum.StrEnum):
    """The answer."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"
    COULD_NOT_CHECK = "could_not_check"


_SEVERITY = (State.COMPLETE, State.INCOMPLETE, State.COULD_NOT_CHECK, State.CORRUPT)
_ERRORS: dict[State, type[RocksDBError]] = {
    State.INCOMPLETE: IncompleteError,
    State.CORRUPT: CorruptionError,
    State.COULD_NOT_CHECK: CouldNotCheckError,
}


@dataclass(frozen=True)
class Completeness:
    """Answer of a check. ``problems`` has every one found, the gravest kind first; sizes in bytes."""

    state: State
    level: str
    directory: str
    problems: tuple[str, ...]
    wals: Literal["checkpoint.json", "manifest", "unknown"]
    file_count: int
    total_bytes: int
    db_id: str
    sequence_number: int
    seconds: float

    @property
    def reason(self) -> str:
        """One line: the gravest problem, and how many more there are; empty when complete."""
        if not self.problems:
            return ""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return self.problems[0] + more

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "state": self.state.value, "problems": list(self.problems)}

    def raise_for_state(self) -> None:
        """Do nothing when complete.

        :raises IncompleteError, CorruptionError, CouldNotCheckError: by the state, with the reason.
        """
        if self.state is not State.COMPLETE:
            raise _ERRORS[self.state](f"{self.directory}: {self.state.value.replace('_', ' ')}: {self.reason}")


def check_completeness(
    directory: str,
    *,
    filesystem: Any = None,
    level: Level = "files",
    paths: DatabasePaths | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    stop: threading.Event | None = None,
) -> Completeness:
    """Check whether a directory is a whole database.

    :param directory: a local path, or a path on ``filesystem``.
    :param filesystem: an fsspec file system; None: this host's.
    :param level: ``files``, ``checksums`` or ``blocks``.
    :param paths: the database's other directories, where it has ``wal_dir``, ``db_paths`` or ``cf_paths``; local only.
    :param timeout_seconds: for reading blocks.
    :param stop: set it to stop.
    :raises InvalidArgumentError: for an unknown level.
    :raises CancelledError: when ``stop`` was set.
    """
    if level not in _LEVELS:
        raise InvalidArgumentError(f"level {level!r}: expected one of {', '.join(_LEVELS)}")
    started = time.monotonic()
    place: Directory = LocalDirectory(directory) if filesystem is None else RemoteDirectory(directory, filesystem)
    paths = paths or DatabasePaths(directory)
    for attempt in range(_MOVING_TRIES):
        check = _Check(place, paths, level, stop)
        check.run()
        if check.state is State.COMPLETE or not check.has_moved() or attempt == _MOVING_TRIES - 1:
            break
    if level == "blocks" and check.state is State.COMPLETE:
        check.read_blocks(timeout_seconds)
    return check.answer(round(time.monotonic() - started, 3))


@dataclass
class _Check:
    """One look at a directory."""

    place: Directory
    paths: DatabasePaths
    level: Level
    stop: threading.Event | None
    problems: list[tuple[State, str]] = field(default_factory=list)
    wals: Literal["checkpoint.json", "manifest", "unknown"] = "unknown"
    sizes: dict[str, int] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    current: bytes = b""
    reader: ManifestReader | None = None
    snapshot: Snapshot | None = None
    used: dict[str, int] = field(default_factory=dict)  # files of the database: name, or path elsewhere -> size
    names: dict[str, str] = field(default_factory=dict)  # RocksDB's name of an SST or blob file -> its key in used
    sequence_number: int = 0

    @property
    def state(self) -> State:
        return max((state for state, _ in self.problems), key=_SEVERITY.index, default=State.COMPLETE)

    def answer(self, seconds: float) -> Completeness:
        ordered = sorted(self.problems, key=lambda problem: -_SEVERITY.index(problem[0]))
        return Completeness(
            state=self.state,
            level=self.level,
            directory=self.place.name,
            problems=tuple(text for _, text in ordered),
            wals=self.wals,
            file_count=len(self.used),
            total_bytes=sum(self.used.values()),
            db_id=(self.snapshot.db_id if self.snapshot else "") or (self.checkpoint.db_id if self.checkpoint else ""),
            sequence_number=self.sequence_number,
            seconds=seconds,
        )

    def _add(self, state: State, text: str) -> None:
        self.problems.append((state, text))

    def run(self) -> None:
        """Check up to the level's reading of files; every refusal to look becomes "could not check"."""
        try:
            self.sizes = self.place.list()
            self._check_record()
            if self._read_manifest():
                self._check_files()
                self._check_wals()
                if self.level != "files" and self.state in (State.COMPLETE, State.CORRUPT):
                    self._check_checksums()
        except CancelledError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            self._add(State.INCOMPLETE, f"{error.filename or self.place.name}: is missing")
        except (NotSupportedError, InvalidArgumentError) as error:
            self._add(State.COULD_NOT_CHECK, str(error))
        except CorruptionError as error:
            self._add(State.CORRUPT, str(error))
        except Exception as error:  # noqa: BLE001 -- whatever a storage driver raises, it was not checked
            self._add(State.COULD_NOT_CHECK, f"{self.place.name}: {type(error).__name__}: {error}")

    def has_moved(self) -> bool:
        """Whether CURRENT or MANIFEST have changed since: a running database, to be looked at again."""
        if not isinstance(self.place, LocalDirectory) or self.reader is None:
            return False
        try:
            sizes, current = self.place.list(), self.place.read("CURRENT")
        except OSError:
            return True
        return current != self.current or sizes.get(self.reader.name) != self.sizes.get(self.reader.name)

    def _expect(self, name: str, size: int, where: dict[str, int], directory: str = "") -> None:
        """Compare a file with the size it must have."""
        path = os.path.join(directory, name) if directory else name
        got = where.get(name)
        if got is None:
            self._add(State.INCOMPLETE, f"{path}: is missing, expected {size} bytes")
        elif got != size:
            state = State.INCOMPLETE if got < size else State.CORRUPT
            self._add(state, f"{path}: expected {size} bytes, got {got}")
        self.used[path] = got or 0

    def _check_record(self) -> None:
        """Compare with ``checkpoint.json``, unless the checkpoint has become a database of its own since."""
        if RECORD_NAME not in self.sizes:
            return
        data = self.place.read(RECORD_NAME)
        if not data:
            self._add(State.INCOMPLETE, f"{RECORD_NAME}: is empty: the checkpoint is still being built")
            return
        checkpoint = decode_checkpoint(data, f"{self.place.name}/{RECORD_NAME}")
        if "LOCK" in self.sizes:
            return
        self.checkpoint, self.wals = checkpoint, "checkpoint.json"
        for item in checkpoint.damage:
            self._add(State.CORRUPT, f"already damaged in the source: {item}")
        for file in checkpoint.files:
            self._expect(file.name, file.size, self.sizes)
        self.sequence_number = checkpoint.sequence_number

    def _read_manifest(self) -> bool:
        if "CURRENT" not in self.sizes:
            self._add(State.INCOMPLETE, "CURRENT: is missing: no RocksDB database, or not all of it is here yet")
            return False
        self.current = self.place.read("CURRENT")
        name = decode_current(self.current)
        if name not in self.sizes:
            self._add(State.INCOMPLETE, f"{name}: is missing, CURRENT names it")
            return False
        if self.checkpoint and name != self.checkpoint.manifest:
            raise CorruptionError(f"CURRENT: expected {self.checkpoint.manifest} ({RECORD_NAME}), got {name}")
        self.reader = reader = ManifestReader(name)
        size = self.sizes[name]
        self.place.pread(name, lambda pread: reader.read(pread, size))
        self.used.update({"CURRENT": len(self.current), name: size})
        if reader.bad_tail is not None:
            raise CorruptionError(f"{name}: damaged at offset {reader.offset}: {reader.bad_tail}")
        if not reader.end or (reader.is_torn and "LOCK" not in self.sizes):
            where = f"of {size} bytes, {reader.end} are whole records"
            self._add(State.INCOMPLETE, f"{name}: ends in the middle: {where}")
            return False
        self.snapshot = take_snapshot(name, reader.end, reader.version, self.paths)
        self.sequence_number = max(self.sequence_number, self.snapshot.last_sequence)
        return True

    def _listing(self, directory: str) -> dict[str, int]:
        return self.sizes if directory == self.paths.db_dir else LocalDirectory(directory).list()

    def _check_files(self) -> None:
        assert self.snapshot is not None  # noqa: S101 -- _read_manifest said so
        listings: dict[str, dict[str, int]] = {}
        for file in self.snapshot.files.values():
            if file.directory not in listings:
                listings[file.directory] = self._listing(file.directory)
            where, name = listings[file.directory], file.name
            if name not in where and file.type is FileType.TABLE:
                old = leveldb_table_file_name(int(name.partition(".")[0]))
                name = old if old in where else name
            directory = "" if file.directory == self.paths.db_dir else file.directory
            self.names[file.name] = os.path.join(directory, name)
            if self.names[file.name] not in self.used:
                self._expect(name, file.size, where, directory)

    def _wal_directory(self) -> str:
        """Where the WALs are: a checkpoint's beside its files, a database's where it or the caller says."""
        if self.paths.wal_dir:
            return self.paths.wal_dir
        if "LOCK" in self.sizes and isinstance(self.place, LocalDirectory):
            name = newest_options(self.sizes)
            wal_dir = OptionsFile(self.place.read(name), name).db_option("wal_dir") if name else ""
            return wal_dir or self.paths.db_dir
        return self.paths.db_dir

    def _needed_wals(self) -> dict[int, tuple[str, int]]:
        assert self.snapshot is not None  # noqa: S101 -- _read_manifest said so
        directory = self._wal_directory()
        listing = self._listing(directory)
        wals = {}
        for name, size in listing.items():
            parsed = parse_file_name(name)
            if parsed and parsed.type is FileType.WAL and parsed.number >= self.snapshot.min_wal_number:
                wals[parsed.number] = (os.path.join(directory, name) if directory != self.paths.db_dir else name, size)
        return wals

    def _check_wals(self) -> None:
        assert self.snapshot is not None  # noqa: S101 -- _read_manifest said so
        wals = self._needed_wals()
        self.used.update(wals.values())
        if self.checkpoint is not None:
            for number in sorted(set(wals) - set(self.checkpoint.wals)):
                name = wals[number][0]
                self._add(State.CORRUPT, f"{name}: is not of this checkpoint ({RECORD_NAME}), but would be replayed")
            return
        tracked = {n: size for n, size in self.snapshot.tracked_wals.items() if n >= self.snapshot.min_wal_number}
        if tracked:
            self.wals = "manifest"
        for number, synced in sorted(tracked.items()):
            got = wals.get(number)
            if got is None:
                self._add(State.INCOMPLETE, f"{wal_file_name(number)}: is missing, the MANIFEST tracks it")
            elif synced is not None and got[1] < synced:
                self._add(State.INCOMPLETE, f"{got[0]}: expected at least {synced} bytes (MANIFEST), got {got[1]}")
        if "LOCK" in self.sizes and not wals:
            self._add(
                State.INCOMPLETE,
                f"no WAL from {wal_file_name(self.snapshot.min_wal_number)} on in {self._wal_directory()}: a database "
                "that was opened has one; is its wal_dir elsewhere?",
            )

    def _check_checksums(self) -> None:
        self._check_table_checksums()
        contents: list[WalContent] = []
        for number, (name, size) in sorted(self._needed_wals().items()):
            self._check_stop()
            contents.append(self._pread(name, lambda pread, n=number, s=size: read_wal(n, pread, s)))
        for content in contents:
            if content.damage is not None:
                self._add(State.CORRUPT, content.damage)
            if content.next_sequence is not None:
                self.sequence_number = max(self.sequence_number, content.next_sequence - 1)
        gap = find_gap(contents)
        if gap is not None:
            self._add(State.CORRUPT, gap)
        filled = [content for content in contents if content.records or content.torn]
        if self.checkpoint is not None and filled and filled[-1].end < filled[-1].size and not filled[-1].damage:
            last = filled[-1]
            self._add(
                State.CORRUPT,
                f"{wal_file_name(last.number)}: damaged at offset {last.end}: expected whole records up to {last.size}",
            )

    def _pread(self, name: str, use: Any) -> Any:
        if os.path.isabs(name):
            return LocalDirectory(os.path.dirname(name)).pread(os.path.basename(name), use)
        return self.place.pread(name, use)

    def _check_table_checksums(self) -> None:
        assert self.reader is not None  # noqa: S101 -- _read_manifest said so
        for family in self.reader.version.column_families.values():
            tables: list[TableFile | BlobFile] = [*family.tables.values(), *family.live_blobs()]
            for file in tables:
                if file.checksum_function and file.checksum:
                    self._check_stop()
                    self._compare_checksum(file)

    def _compare_checksum(self, file: TableFile | BlobFile) -> None:
        rocksdb_name = blob_file_name(file.number) if isinstance(file, BlobFile) else table_file_name(file.number)
        name = self.names[rocksdb_name]
        if self.used[name] != file.size:
            return  # said already
        if file.checksum_function != _CRC32C_FUNCTION:
            self._add(
                State.COULD_NOT_CHECK,
                f"{name}: its checksum is by {file.checksum_function!r}, only {_CRC32C_FUNCTION} is known here; use "
                "level files or blocks",
            )
            return
        expected = int.from_bytes(file.checksum, "big")  # FileChecksumGenCrc32c::Finalize
        got = self._pread(name, lambda pread: _crc32c_of(pread, file.size))
        if got != expected:
            self._add(State.CORRUPT, f"{name}: expected CRC32C {expected:#010x} (MANIFEST), got {got:#010x}")

    def _check_stop(self) -> None:
        if self.stop is not None and self.stop.is_set():
            raise CancelledError(f"{self.place.name}: the check was stopped")

    def read_blocks(self, timeout_seconds: float) -> None:
        """Let a child process read everything."""
        if not isinstance(self.place, LocalDirectory):
            self._add(State.COULD_NOT_CHECK, "level blocks needs a local directory; restore it and check that")
            return
        assert self.snapshot is not None  # noqa: S101 -- the check was complete
        wals = [os.path.join(self.place.name, name) for name, _ in self._needed_wals().values()]
        tables = [os.path.join(self.place.name, name) for name in self.names.values()]
        state, reason = scratch.read_blocks(
            self.place.name, self.snapshot, [*tables, *wals], timeout_seconds=timeout_seconds, stop=self.stop
        )
        if state != State.COMPLETE:
            self._add(State(state), reason)


def _crc32c_of(pread: Any, size: int) -> int:
    crc, offset = 0, 0
    while offset < size:
        chunk = pread(offset, min(_CHUNK_BYTES, size - offset))
        if not chunk:
            break
        crc = google_crc32c.extend(crc, chunk)
        offset += len(chunk)
    return crc
