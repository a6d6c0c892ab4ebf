"""Read objects of a repository to their end for their CRC32C: in parallel, in bounded memory, each once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import google_crc32c

from airflow_provider_rocksdb.core.errors import TransferError
from airflow_provider_rocksdb.core.parallel import Outcome, run_parallel
from airflow_provider_rocksdb.core.retry import check_stop, wait
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1024 * 1024
_GIVE_UP_AFTER = 10  # objects that could not be read in spite of every attempt


@dataclass(frozen=True)
class ReadObject:
    """What an object was: CRC32C, size in bytes."""

    crc32c: int
    size: int


@dataclass
class ReadObjects:
    """Objects that were read, errors of those that could not be, and those that were not tried."""

    found: dict[str, ReadObject] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)
    not_begun: tuple[str, ...] = ()


def read_objects(
    sizes: Mapping[str, int], storage: Storage, options: TransferOptions, stop: threading.Event | None
) -> ReadObjects:
    """Read objects, the largest first. Gives up when storage does not answer any more.

    :param sizes: in bytes, as listed, by name.
    :raises CancelledError: when ``stop`` was set.
    """
    reading = _Reading(sizes, storage, options, stop)
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    outcome = run_parallel(
        reading.read,
        names,
        max_workers=options.max_workers,
        goes_on=_goes_on,
        on_tick=reading.tell,
        tick_seconds=options.progress_seconds,
        stop=stop,
    )
    if names:
        reading.tell()
    begun = outcome.results.keys() | outcome.failures.keys()
    return ReadObjects(outcome.results, outcome.failures, tuple(name for name in names if name not in begun))


def _goes_on(outcome: Outcome[str, ReadObject]) -> bool:
    failures = list(outcome.failures.values())
    return sum(isinstance(error, TransferError) for error in failures) < _GIVE_UP_AFTER


class _Reading:
    """One call of :func:`read_objects`: what all of its threads share."""

    def __init__(
        self, sizes: Mapping[str, int], storage: Storage, options: TransferOptions, stop: threading.Event | None
    ) -> None:
        self._sizes = sizes
        self._storage = storage
        self._options = options
        self._stop = stop
        self._lock = threading.Lock()
        self._files = 0
        self._bytes = 0
        self._total_bytes = sum(sizes.values())
        self._free_at = time.monotonic()

    def read(self, name: str) -> ReadObject:
        what = f"{self._storage.url}/{name}"
        found = self._options.retry(lambda: self._read_once(name), self._storage, what, self._stop)
        with self._lock:
            self._files += 1
        return found

    def _read_once(self, name: str) -> ReadObject:
        crc = size = 0
        try:
            with self._storage.open_reader(name, self._sizes[name]) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    check_stop(self._stop)
                    crc = google_crc32c.extend(crc, chunk)
                    size += len(chunk)
                    self._count(len(chunk))
        except BaseException:
            self._count(-size)
            raise
        return ReadObject(crc, size)

    def _count(self, length: int) -> None:
        """Count bytes, and wait as long as the rate that all threads share asks for."""
        limit = self._options.max_bytes_per_second
        with self._lock:
            self._bytes += length
            if limit is None or length < 0:
                return
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + length / limit
            pause = self._free_at - now - _CHUNK_BYTES / limit
        if pause > 0:
            wait(pause, self._stop)

    def tell(self) -> None:
        """Log how far it is."""
        with self._lock:
            files, count = self._files, self._bytes
        logger.info(
            "%s: read %d of %d files, %d of %d bytes",
            self._storage.url,
            files,
            len(self._sizes),
            count,
            self._total_bytes,
        )
