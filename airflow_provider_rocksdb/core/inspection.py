"""One look at a directory that should be a whole database: what is there, and what is wrong with it."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from airflow_provider_rocksdb.core.checkpoint_record import (
    RECORD_END,
    RECORD_NAME,
    Checkpoint,
    decode_checkpoint,
)
from airflow_provider_rocksdb.core.directory import Directory, LocalDirectory
from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    CorruptionError,
    CouldNotCheckError,
    InvalidArgumentError,
    NotSupportedError,
)
from airflow_provider_rocksdb.core.format.filename import (
    FileType,
    decode_current,
    find_wals,
    leveldb_table_file_name,
    newest_options,
    wal_file_name,
)
from airflow_provider_rocksdb.core.format.log_format import Pread
from airflow_provider_rocksdb.core.format.manifest import ManifestReader
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.live_database import Snapshot, options_wal_dir, take_snapshot
from airflow_provider_rocksdb.core.paths import DatabasePaths

_T = TypeVar("_T")

WalSource = Literal["checkpoint.json", "manifest", "unknown"]


class State(enum.StrEnum):
    """The answer."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"
    COULD_NOT_CHECK = "could_not_check"


SEVERITY = (State.COMPLETE, State.INCOMPLETE, State.COULD_NOT_CHECK, State.CORRUPT)  # the gravest last


def gravest(states: Iterable[State]) -> State:
    """Return the gravest of them; complete when there is none."""
    return max(states, key=SEVERITY.index, default=State.COMPLETE)


@dataclass
class Inspection:
    """What a look at a directory has found so far. Sizes in bytes."""

    place: Directory
    paths: DatabasePaths
    problems: list[tuple[State, str]] = field(default_factory=list)
    wals: WalSource = "unknown"
    sizes: dict[str, int] = field(default_factory=dict)  # the directory's listing
    identity: object = None  # of the local directory that was listed
    checkpoint: Checkpoint | None = None
    current: bytes = b""
    reader: ManifestReader | None = None
    snapshot: Snapshot | None = None
    used: dict[str, int] = field(default_factory=dict)  # files of the database: name, or path elsewhere -> size
    read: set[str] = field(default_factory=set)  # those of them that were read to their end
    names: dict[str, str] = field(default_factory=dict)  # RocksDB's name of an SST or blob file -> its key in used
    sequence_number: int = 0

    @property
    def state(self) -> State:
        """The gravest thing found."""
        return gravest(state for state, _ in self.problems)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every problem, the gravest kind first."""
        return tuple(text for _, text in sorted(self.problems, key=lambda problem: -SEVERITY.index(problem[0])))

    def add(self, state: State, text: str) -> None:
        """Note a problem."""
        self.problems.append((state, text))

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Turn every refusal to look into a problem: what could not be looked at is never complete."""
        try:
            yield
        except CancelledError:
            raise
        except FileNotFoundError as error:
            self.add(State.INCOMPLETE, f"{error.filename or self.place.name}: is missing")
        except NotADirectoryError as error:
            self.add(State.INCOMPLETE, f"{error.filename or self.place.name}: is not a directory")
        except (NotSupportedError, InvalidArgumentError, CouldNotCheckError) as error:
            self.add(State.COULD_NOT_CHECK, str(error))
        except CorruptionError as error:
            self.add(State.CORRUPT, str(error))
        except Exception as error:  # noqa: BLE001 -- whatever a storage driver raises, it was not checked
            self.add(State.COULD_NOT_CHECK, f"{self.place.name}: {type(error).__name__}: {error}")

    def inspect_files(self) -> bool:
        """Check everything that names and sizes tell; False when there is no MANIFEST to go by."""
        if isinstance(self.place, LocalDirectory):
            self.identity = self.place.identity()
        self.sizes = self.place.list()
        self._check_record()
        if not self._read_manifest():
            return False
        if self.reader and isinstance(self.place, LocalDirectory):
            # listed after the MANIFEST was read, a running database shows every file of that Version, or has moved on
            self.sizes = {**self.place.list(), self.reader.name: self.sizes[self.reader.name]}
        self._check_files()
        self._check_wals()
        return True

    def has_moved(self) -> bool:
        """Whether CURRENT, MANIFEST or the directory itself are others now: to be looked at again.

        A running database moves on, and a checkpoint may be replaced.
        """
        if not isinstance(self.place, LocalDirectory):
            return False
        if self.place.identity() != self.identity:
            return True
        try:
            sizes, current = self.place.list(), self.place.read("CURRENT")
        except (OSError, CorruptionError):
            return self.reader is not None
        if self.reader is None:
            return sizes != self.sizes
        return current != self.current or sizes.get(self.reader.name) != self.sizes.get(self.reader.name)

    def pread(self, name: str, use: Callable[[Pread], _T]) -> _T:
        """Call ``use``, which reads all of it, with a reader of a file, given as in ``used``."""
        self.read.add(name)
        if os.path.isabs(name):
            return LocalDirectory(os.path.dirname(name)).pread(os.path.basename(name), use)
        return self.place.pread(name, use)

    def _expect(self, name: str, size: int, where: dict[str, int], directory: str = "") -> None:
        """Compare a file with the size it must have."""
        path = os.path.join(directory, name) if directory else name
        got = where.get(name)
        if got is None:
            self.add(State.INCOMPLETE, f"{path}: is missing, expected {size} bytes")
        elif got != size:
            state = State.INCOMPLETE if got < size else State.CORRUPT
            self.add(state, f"{path}: expected {size} bytes, got {got}")
        self.used[path] = got or 0

    def _check_record(self) -> None:
        """Compare with ``checkpoint.json``, unless the checkpoint has become a database of its own since."""
        if RECORD_NAME not in self.sizes or "LOCK" in self.sizes:
            return
        data = self.place.read(RECORD_NAME)
        if not data.endswith(RECORD_END):
            what = "ends in the middle" if data else "is empty: the checkpoint is still being built"
            self.add(State.INCOMPLETE, f"{RECORD_NAME}: {what}")
            return
        checkpoint = decode_checkpoint(data, f"{self.place.name}/{RECORD_NAME}")
        self.checkpoint, self.wals = checkpoint, "checkpoint.json"
        for item in checkpoint.damage:
            self.add(State.CORRUPT, f"already damaged in the source: {item}")
        for file in checkpoint.files:
            self._expect(file.name, file.size, self.sizes)
        self.sequence_number = checkpoint.sequence_number

    def _read_manifest(self) -> bool:
        if "CURRENT" not in self.sizes:
            self.add(State.INCOMPLETE, "CURRENT: is missing: no RocksDB database, or not all of it is here yet")
            return False
        self.current = self.place.read("CURRENT")
        expected = f"{self.checkpoint.manifest}\n".encode() if self.checkpoint else b""
        if not self.current or (self.current != expected and expected.startswith(self.current)):
            self.add(State.INCOMPLETE, f"CURRENT: ends in the middle: {self.current!r}")
            return False
        name = decode_current(self.current)
        if name not in self.sizes:
            self.add(State.INCOMPLETE, f"{name}: is missing, CURRENT names it")
            return False
        if self.checkpoint and name != self.checkpoint.manifest:
            raise CorruptionError(f"CURRENT: expected {self.checkpoint.manifest} ({RECORD_NAME}), got {name}")
        self.reader = reader = ManifestReader(name)
        size = self.sizes[name]
        self.place.pread(name, lambda pread: reader.read(pread, size))
        self.used.update({"CURRENT": len(self.current), name: size})
        self.read.update(("CURRENT", name))
        if reader.bad_tail is not None:
            raise CorruptionError(f"{name}: damaged at offset {reader.offset}: {reader.bad_tail}")
        if not reader.end or (reader.is_torn and "LOCK" not in self.sizes):
            where = f"of {size} bytes, {reader.end} are whole records"
            self.add(State.INCOMPLETE, f"{name}: ends in the middle: {where}")
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
            return options_wal_dir(self.paths.db_dir, OptionsFile(self.place.read(name), name) if name else None)
        return self.paths.db_dir

    def needed_wals(self) -> dict[int, tuple[str, int]]:
        """WALs that are here and would be replayed: number to name (path, elsewhere) and size."""
        assert self.snapshot is not None  # noqa: S101 -- _read_manifest said so
        directory = self._wal_directory()
        listing = self._listing(directory)
        return {
            number: (os.path.join(directory, name) if directory != self.paths.db_dir else name, listing[name])
            for number, name in find_wals(listing).items()
            if number >= self.snapshot.min_wal_number
        }

    def _check_wals(self) -> None:
        assert self.snapshot is not None  # noqa: S101 -- _read_manifest said so
        wals = self.needed_wals()
        self.used.update(wals.values())
        if self.checkpoint is not None:
            for number in sorted(set(wals) - set(self.checkpoint.wals)):
                name = wals[number][0]
                self.add(State.CORRUPT, f"{name}: is not of this checkpoint ({RECORD_NAME}), but would be replayed")
            return
        tracked = {n: size for n, size in self.snapshot.tracked_wals.items() if n >= self.snapshot.min_wal_number}
        if tracked:
            self.wals = "manifest"
        for number, synced in sorted(tracked.items()):
            got = wals.get(number)
            if got is None:
                self.add(State.INCOMPLETE, f"{wal_file_name(number)}: is missing, the MANIFEST tracks it")
            elif synced is not None and got[1] < synced:
                self.add(State.INCOMPLETE, f"{got[0]}: expected at least {synced} bytes (MANIFEST), got {got[1]}")
        if "LOCK" in self.sizes and not wals:
            self.add(
                State.INCOMPLETE,
                f"no WAL from {wal_file_name(self.snapshot.min_wal_number)} on in {self._wal_directory()}: a database "
                "that was opened has one; is its wal_dir elsewhere?",
            )
