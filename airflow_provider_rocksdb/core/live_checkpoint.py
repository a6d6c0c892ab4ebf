"""Checkpoint of a database that another process is writing.

No lock is taken, nothing is opened, nothing is written in the DB directory. In rounds until one holds:

1. list the WALs: the first round when it looks for OPTIONS, each other one where the round before lists them again;
2. read CURRENT and its MANIFEST up to the last whole record and atomic group: a Version;
3. hard-link (or clone, or pin for a copy) each of its SST and blob files; what an earlier round linked stays linked;
4. list the WALs again, open each that the Version needs, the newest first, and note its size;
5. if the MANIFEST has grown since 2, another round: a WAL may have come and gone unseen, or an edit that is in no WAL
   (an ingested file, a column family) may stand between two writes;
6. copy the WALs up to the noted sizes, newest first; one whose file was recycled meanwhile asks for another round.

Then the MANIFEST is written cut at the Version, with all path ids 0, and OPTIONS without ``wal_dir`` and
``db_log_dir``; an OPTIONS that needs no change is linked, as RocksDB's own checkpoint does, and so is IDENTITY. This
holds because a file enters the MANIFEST after it is synced, and a WAL is deleted after the edit that makes it obsolete.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.capture import FileCapture, WalCapture
from airflow_provider_rocksdb.core.checkpoint import Building, building
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint, CheckpointFile
from airflow_provider_rocksdb.core.errors import CancelledError, CheckpointTimeoutError, CorruptionError
from airflow_provider_rocksdb.core.format.filename import ROCKSDICT_CONFIG, wal_file_name
from airflow_provider_rocksdb.core.format.log_format import rewrite_records
from airflow_provider_rocksdb.core.format.version_edit import clear_path_ids
from airflow_provider_rocksdb.core.live_database import (
    STANDSTILL_SECONDS,
    LiveDatabase,
    MovedOn,
    Snapshot,
    open_live_database,
)
from airflow_provider_rocksdb.core.paths import DatabasePaths

DEFAULT_TIMEOUT_SECONDS = 300.0

_IDENTITY = "IDENTITY"
_PAUSE_SECONDS = 0.01

_log = logging.getLogger(__name__)


def create_live_checkpoint(
    paths: DatabasePaths,
    checkpoint_dir: str,
    *,
    replace: bool = False,
    force: bool = False,
    allow_copy: bool = False,
    allow_inside: bool = False,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    run: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Checkpoint:
    """Create a checkpoint of a database, running or not, without touching it.

    It holds every WAL-written write acknowledged before the call, all column families at one point in time. Not
    covered: writes with ``disableWAL``, and what a program holds back under ``manual_wal_flush``.

    :param paths: the database's directories.
    :param checkpoint_dir: to be created; on the database's file system, so that files can be hard-linked.
    :param replace: replace a checkpoint of that name, when the new one is whole.
    :param force: with ``replace``, also one that this package did not make.
    :param allow_copy: copy what can neither be linked nor cloned, which takes the database's size in space.
    :param allow_inside: accept a ``checkpoint_dir`` inside the database's directories.
    :param timeout_seconds: give up when the database has not been captured by then.
    :param run: the scheduler's names of this run, kept in the record.
    :param stop: set it to stop; nothing is left then.
    :raises NotFoundError, NotADatabaseError, AccessError: when there is no database, or it cannot be read.
    :raises CorruptionError: when the source is damaged; damage inside WALs is copied and reported instead.
    :raises NotSupportedError: when it was written by a RocksDB, or with options, that cannot be backed up from files.
    :raises CrossDeviceError, NoSpaceError: when files cannot be linked, or not copied.
    :raises CheckpointTimeoutError: when the database moved on faster than it could be captured.
    :raises ExistsError, BusyError, InvalidArgumentError: when the place is taken, being built on, or unsafe.
    :raises CancelledError: when ``stop`` was set.
    """
    started = time.monotonic()
    with durable.named_errors(), open_live_database(paths) as database, contextlib.ExitStack() as stack:
        place = DatabasePaths(paths.db_dir, database.wal_dir, paths.db_paths, paths.cf_paths).absolute()
        work = stack.enter_context(
            building(checkpoint_dir, place, replace=replace, force=force, allow_inside=allow_inside)
        )
        capture = stack.enter_context(_Capture(database, work, allow_copy=allow_copy, stop=stop))
        snapshot = capture.run(started + timeout_seconds, timeout_seconds)
        wals, damage = capture.wals.copied, capture.wals.damage
        files = capture.write_files(snapshot)
        work.current = snapshot.manifest.encode() + b"\n"
        current = CheckpointFile("CURRENT", len(work.current), "written")
        last_in_wals = max((wal.next_sequence - 1 for wal in wals if wal.next_sequence is not None), default=0)
        work.checkpoint = Checkpoint(
            checkpoint_dir=os.path.abspath(checkpoint_dir),
            mode="live",
            source=place.to_dict(),
            db_id=snapshot.db_id or _read_identity(paths.db_dir),
            sequence_number=max(snapshot.last_sequence, last_in_wals),
            manifest=snapshot.manifest,
            files=(*files, current),
            wals=tuple(sorted(wal.number for wal in wals)),
            damage=tuple(damage),
            options_changes=capture.options_changes,
            rounds=capture.rounds,
            seconds=round(time.monotonic() - started, 3),
            run=dict(run or {}),
        )
    for item in damage:
        _log.warning("Damaged in the source, copied as it is: %s", item)
    _log.info("Checkpoint %s: %s", checkpoint_dir, work.checkpoint)
    return work.checkpoint


class _Capture(contextlib.AbstractContextManager["_Capture"]):
    """One database being captured into one directory."""

    def __init__(
        self, database: LiveDatabase, work: Building, *, allow_copy: bool, stop: threading.Event | None
    ) -> None:
        self.database = database
        self.work = work
        self.stop = stop
        self.rounds = 0
        self.files = FileCapture(work.directory, work.descriptor, database.db_dir, allow_copy=allow_copy, stop=stop)
        self.wals = WalCapture(work.directory, work.files, stop=stop)
        self.options_changes: dict[str, object] = {}
        self._listed = database.first_wals()

    def __exit__(self, *_: object) -> None:
        self.files.close()
        self.wals.close()

    def run(self, deadline: float, timeout_seconds: float) -> Snapshot:
        """Go on until a round holds; every file of the Version and its WALs are in the directory then."""
        suspicion = ""
        while True:
            self.rounds += 1
            try:
                snapshot = self._round()
                self.files.finish(set(snapshot.files))
                return snapshot
            except _Missing as missing:
                reason = str(missing)
                if reason == suspicion:
                    raise CorruptionError(
                        f"{self.database.db_dir}: {reason}, and the MANIFEST stands still: the database is damaged, or "
                        "its db_paths, cf_paths or wal_dir are not the ones named"
                    ) from None
                suspicion = reason if self.database.stands_still() else ""
            except MovedOn as moved:
                reason, suspicion = str(moved), ""
            if time.monotonic() > deadline:
                raise CheckpointTimeoutError(
                    f"{self.database.db_dir}: moved on {self.rounds} times in {timeout_seconds:g} s, last because "
                    f"{reason}; allow more time, run it when less is written, or give the database larger write buffers"
                )

    def _round(self) -> Snapshot:
        """Capture once.

        :raises MovedOn: when the database changed in a way that may have hidden something.
        :raises _Missing: when something is missing that must be there unless the database has moved on.
        """
        with _moved_on_when_missing():
            self._step("read MANIFEST")
            snapshot = self._read_version()
            self._step("link files")
            self.files.capture(snapshot.files.values())
            self._step("pin WALs")
            self._pin_wals(snapshot)
            self._step("check MANIFEST")
            if self.database.has_grown():
                raise MovedOn("the MANIFEST has grown")
            self._step("copy WALs")
            self.wals.copy()
        self._step("end")
        return snapshot

    def _step(self, name: str) -> None:
        _step(name)
        if self.stop is not None and self.stop.is_set():
            raise CancelledError(f"{self.work.directory}: stopped before the step {name!r}; nothing is left")

    def _read_version(self) -> Snapshot:
        try:
            return self.database.read_version()
        except MovedOn as moved:
            raise _Missing(str(moved)) from None

    def _pin_wals(self, snapshot: Snapshot) -> None:
        before, self._listed = self._listed, self.database.list_wals()
        paths = {**before, **self._listed}
        tracked = set(snapshot.tracked_wals)
        bound = snapshot.min_wal_number
        needed = {number: path for number, path in paths.items() if number >= bound or number in tracked}
        gone = tracked - set(needed)
        if gone:
            raise _Missing(
                f"the WALs {sorted(gone)}, which the MANIFEST tracks, are missing in {self.database.wal_dir}"
            )
        if not needed and os.path.lexists(os.path.join(self.database.db_dir, "LOCK")):
            raise _Missing(
                f"no WAL from {wal_file_name(bound)} on is in {self.database.wal_dir}, and a database that was opened "
                "has one"
            )
        self.wals.pin(needed)

    def write_files(self, snapshot: Snapshot) -> list[CheckpointFile]:
        """Write MANIFEST, OPTIONS and the small files; return all files but CURRENT."""
        files = [*self.files.result(), *self.wals.cut()]
        files.append(self._write_manifest(snapshot))
        files += self._write_options(snapshot)
        for name, bring in ((_IDENTITY, self._link_or_write), (ROCKSDICT_CONFIG, self._write)):
            with contextlib.suppress(FileNotFoundError):
                files.append(bring(name, durable.read_small_file(os.path.join(self.database.db_dir, name))))
        return files

    def _link_or_write(self, name: str, data: bytes) -> CheckpointFile:
        """Link a file that RocksDB replaces and never changes; write what was read of it where that cannot be.

        It was on disk before it had its name (``PersistRocksDBOptions``, ``SetIdentityFile``).
        """
        return self.files.link(self.database.db_dir, name) or self._write(name, data)

    def _write(self, name: str, data: bytes) -> CheckpointFile:
        self.work.files.create(self.work.path(name), data)
        return CheckpointFile(name, len(data), "written")

    def _write_manifest(self, snapshot: Snapshot) -> CheckpointFile:
        if snapshot.has_path_ids:
            data = self.database.pread_manifest(0, snapshot.end)
            return self._write(snapshot.manifest, rewrite_records(data, snapshot.manifest, clear_path_ids))
        self.database.copy_manifest(self.work.files, self.work.path(snapshot.manifest), snapshot.end)
        return CheckpointFile(snapshot.manifest, snapshot.end, "written")

    def _write_options(self, snapshot: Snapshot) -> list[CheckpointFile]:
        """Write OPTIONS for exactly the Version's column families; a new family's are written after its edit."""
        deadline = time.monotonic() + STANDSTILL_SECONDS
        name, options = self.database.read_options(self.database.names)
        while options is not None and not set(snapshot.column_families) <= options.column_families:
            if time.monotonic() > deadline:
                break
            time.sleep(_PAUSE_SECONDS)
            name, options = self.database.read_options()
        if options is None:
            return []
        data, self.options_changes = options.for_copy(snapshot.column_families)
        return [self._write(name, data) if self.options_changes else self._link_or_write(name, data)]


class _Missing(Exception):  # noqa: N818 -- not yet an error: a race, unless the database stands still
    """Something that the Version needs is not there."""


@contextlib.contextmanager
def _moved_on_when_missing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _Missing(f"{error.filename} is missing") from None


def _step(name: str) -> None:
    """Mark the boundary between two steps; tests put pauses here."""


def _read_identity(db_dir: str) -> str:
    try:
        return durable.read_small_file(os.path.join(db_dir, _IDENTITY)).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
