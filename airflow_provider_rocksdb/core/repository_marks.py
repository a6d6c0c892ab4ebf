"""How a backup and a prune that run at the same time keep out of each other's way, without locks.

A **prune** marks an object that no backup names (``unreferenced/<folder>.<name>``), and deletes it when the mark is
older than the grace period, in this order:

1. write ``unreferenced/deleting.<random>``, which tells its process; its time is the store's own "now", against which
   marks are measured
2. list ``unreferenced/``, read the reservations in it; then read the metas; then list the objects
3. within ``DELETE_WITHIN_SECONDS`` of step 1, delete what is marked long enough, was not rewritten since, and is named
   by no meta and no reservation; what is left over then starts anew with step 1
4. delete ``deleting.<random>``

A **backup** (:class:`LastLook`), step 1 at any time, the others when all its files are there:

1. list ``unreferenced/``; steps 2 and 3 are not needed when nothing of its own is marked and no prune is deleting
2. write ``unreferenced/reserved.<random>``: the paths that the meta is going to name
3. wait until each prune that was deleting at that time has ended, or must have; one whose process ran on this host and
   is gone has: at once where files are local, elsewhere after ``LAST_REQUEST_SECONDS``
4. list the objects, send again what is missing (and then begin anew)
5. within ``COMMIT_WITHIN_SECONDS`` of step 1, write the meta; then delete the reservation

So a prune that begins to delete after the backup's step 2 sees the reservation, or the meta, or only marks that are
younger than the backup's step 1; and what one that began before has deleted, the backup notices in its step 4.

Whose clock: ages are differences of the store's own times. Durations are measured by each host's clock of elapsed time,
which nobody sets. What is assumed is that one request, once a process has looked at its clock, is done or dead within
``WAIT_SECONDS - DELETE_WITHIN_SECONDS``, and a grace period above ``COMMIT_WITHIN_SECONDS`` and that: an hour will do.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from airflow_provider_rocksdb.core.errors import CancelledError
from airflow_provider_rocksdb.core.process_record import ProcessRecord, decode_process
from airflow_provider_rocksdb.core.repository_layout import DELETING_PREFIX, MARKS, RESERVED_PREFIX, marked_path
from airflow_provider_rocksdb.core.retry import wait
from airflow_provider_rocksdb.core.storage import Entry, Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions

logger = logging.getLogger(__name__)

DELETE_WITHIN_SECONDS = 300.0  # enough to list some million objects first
WAIT_SECONDS = 900.0
LAST_REQUEST_SECONDS = 60.0  # in which a store has done what a process that is gone had asked for, or never does
COMMIT_WITHIN_SECONDS = 1800.0
RESERVED_SECONDS = COMMIT_WITHIN_SECONDS + WAIT_SECONDS  # then a reservation counts no more, and is litter

_LOOK_AGAIN_SECONDS = 60.0  # so that nearly all of the time to commit is left
_POLL_SECONDS = 2.0
_END = "end"


def elapsed() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Marks:
    """What lies in ``unreferenced/``, each with its time: marks by path; deletions and reservations by name."""

    marked: Mapping[str, float | None]
    deleting: Mapping[str, float | None]
    reserved: Mapping[str, float | None]


def list_marks(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> Marks:
    """List ``unreferenced/``; nothing where there is no such folder."""
    entries: dict[str, Entry] = options.retry(
        lambda: storage.list_entries(MARKS), storage, f"{storage.url}/{MARKS}", stop
    )
    times = {name: entry.modified for name, entry in entries.items() if entry.size is not None}
    paths = {name: path for name in times if (path := marked_path(name)) is not None}
    return Marks(
        {path: times[name] for name, path in paths.items()},
        {name: at for name, at in times.items() if name.startswith(DELETING_PREFIX)},
        {name: at for name, at in times.items() if name.startswith(RESERVED_PREFIX)},
    )


def encode_reservation(paths: Iterable[str]) -> bytes:
    """Write a reservation: one path a line, and a last line by which a whole one is told."""
    return "".join(f"{path}\n" for path in (*sorted(paths), _END)).encode()


def decode_reservation(data: bytes, where: str) -> frozenset[str]:
    """Read a reservation; whatever it holds, it can only keep objects from being deleted.

    :raises OSError: when it is cut, so that it is read again: what is missing would be deleted.
    """
    if not data.endswith(f"{_END}\n".encode()):
        raise OSError(f"{where}: a reservation that ends after {len(data)} bytes, without its last line {_END!r}")
    return frozenset(data.decode("utf-8", "replace").splitlines()[:-1])


def read_reservation(storage: Storage, name: str) -> frozenset[str]:
    """Read a reservation in ``unreferenced/``.

    :raises OSError: when it cannot be read whole.
    """
    return decode_reservation(storage.read(f"{MARKS}/{name}"), f"{storage.url}/{MARKS}/{name}")


class LastLook:
    """What a backup does before it writes its meta, so that no prune deletes what the meta names."""

    def __init__(self, storage: Storage, token: str, options: TransferOptions, stop: threading.Event | None) -> None:
        self.reservation = f"{MARKS}/{RESERVED_PREFIX}{token}"
        self._storage = storage
        self._options = options
        self._stop = stop
        self._began = elapsed()
        self._marks: Marks | None = None
        self._has_reserved = False

    def look(self) -> None:
        """List the marks for the next :meth:`begin`, which lists them itself when that is some time ago.

        :raises TransferError, AccessError, …: when the storage fails.
        """
        self._began = elapsed()
        self._marks = list_marks(self._storage, self._options, self._stop)

    def begin(self, paths: Collection[str]) -> None:
        """Reserve objects and folders if need be; return when what no prune has deleted by now stays.

        :raises TransferError, AccessError, …: when the storage fails, or does not take the reservation.
        """
        if self._marks is None or elapsed() - self._began > _LOOK_AGAIN_SECONDS:
            self.look()
        marks, self._marks = self._marks, None
        assert marks is not None  # noqa: S101 -- for the type checker
        if marks.deleting or not marks.marked.keys().isdisjoint(paths):
            self._reserve(paths)
            self._wait_for_deletions()

    @property
    def is_fresh(self) -> bool:
        """Whether the meta may still be written on the strength of the last :meth:`begin`."""
        return elapsed() - self._began < COMMIT_WITHIN_SECONDS

    def end(self) -> None:
        """Delete the reservation, as far as that is allowed; a prune deletes it later."""
        if self._has_reserved:
            with contextlib.suppress(Exception):
                self._storage.delete(self.reservation)

    def _reserve(self, paths: Iterable[str]) -> None:
        data = encode_reservation(paths)
        self._has_reserved = True
        what = f"{self._storage.url}/{self.reservation}"

        def write() -> None:
            self._storage.make_folders((MARKS,))
            self._storage.write(self.reservation, data)

        self._options.retry(write, self._storage, what, self._stop)

    def _wait_for_deletions(self) -> None:
        """Wait for each prune that may have read ``unreferenced/`` before the reservation was there."""
        prunes: dict[str, _Prune] = {}
        while True:
            marks = list_marks(self._storage, self._options, self._stop)
            now = marks.reserved.get(self.reservation.partition("/")[2])
            waits = False
            for name, began in marks.deleting.items():
                if not _may_run(began, now):
                    continue
                if name not in prunes:
                    prunes[name] = self._meet(name, began, now)
                waits |= prunes[name].may_delete(self._storage.is_local)
            if not waits:
                return
            wait(_POLL_SECONDS, self._stop)

    def _meet(self, name: str, began: float | None, now: float | None) -> _Prune:
        """Read who a prune is, and say that it is waited for."""
        path = f"{MARKS}/{name}"
        try:
            data = self._options.retry(
                lambda: self._storage.read(path), self._storage, f"{self._storage.url}/{path}", self._stop
            )
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 -- it has ended by now, or is waited for as one that cannot be told
            data = b""
        prune = _Prune(decode_process(data), elapsed())
        age = 0.0 if began is None or now is None else now - began
        logger.info(
            "%s/%s: waiting for a prune that may be deleting (%s), at most %.0f s",
            self._storage.url,
            path,
            f"process {prune.process.pid} on {prune.process.hostname}" if prune.process else "its process is not known",
            WAIT_SECONDS - age,
        )
        return prune


@dataclass
class _Prune:
    """A prune that has said that it is deleting. ``met``, ``gone_since``: by :func:`elapsed`."""

    process: ProcessRecord | None
    met: float
    gone_since: float | None = None

    def may_delete(self, is_local: bool) -> bool:
        """Whether something that it has asked for may still happen."""
        now = elapsed()
        if self.gone_since is None and self.process is not None and self.process.is_gone():
            self.gone_since = now
        if self.gone_since is not None and (is_local or now - self.gone_since >= LAST_REQUEST_SECONDS):
            return False
        return now - self.met < WAIT_SECONDS


def _may_run(began: float | None, now: float | None) -> bool:
    """Whether a prune that began to delete then may go on deleting without having seen what was written now."""
    return began is None or now is None or 0 <= now - began < WAIT_SECONDS
