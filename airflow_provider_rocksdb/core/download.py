"""Download many files from an fsspec file system: in parallel, in bounded memory, CRC32C while streaming.

A file is written once, in chunks that go through the CRC32C and the rate limit, and is on disk before it counts. What
comes is compared with what was announced: never more than ``size`` bytes are written, and a file that is not what it
should be does not stay.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import google_crc32c

from airflow_provider_rocksdb.core.durable import named_errors
from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.parallel import run_parallel
from airflow_provider_rocksdb.core.storage import Storage, require_all
from airflow_provider_rocksdb.core.transfer import (
    DEFAULT_OPTIONS,
    Meter,
    TransferOptions,
    TransferResult,
    goes_on,
    raise_failures,
    write_all,
)


@dataclass(frozen=True)
class DownloadItem:
    """A stored file, its name relative to the storage's root, and the local path that it is to have.

    ``size`` in bytes, and ``crc32c`` where it is known, are what must come out.
    """

    name: str
    target: str
    size: int
    crc32c: int | None = None


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def download_files(
    items: Sequence[DownloadItem],
    storage: Storage,
    *,
    create: Callable[[str], int] = _create,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> TransferResult:
    """Download files under names that are free, into directories that are there; the largest first.

    :param create: makes a new file and returns its descriptor.
    :param stop: set it to stop: within a chunk, as far as the file system lets go.
    :raises CorruptionError: when what is stored is not what was announced; the message names the objects.
    :raises TransferError: when files failed in spite of every attempt; all of them are named.
    :raises AccessError, NotFoundError, InvalidArgumentError, NoSpaceError, …: when no attempt could mend it.
    :raises CancelledError: when ``stop`` was set.
    """
    download = _Download(items, storage, create, options, stop)
    outcome = run_parallel(
        download.fetch,
        sorted(items, key=lambda item: -item.size),
        max_workers=options.max_workers,
        goes_on=lambda outcome: goes_on(outcome.failures.values()),
        on_tick=download.meter.tell,
        tick_seconds=options.progress_seconds,
        stop=stop,
    )
    if outcome.failures:
        raise_failures(storage, {item.name: error for item, error in outcome.failures.items()}, outcome.not_begun)
    if items:
        download.meter.tell()
    crcs = {item.name: crc for item, crc in outcome.results.items()}
    return TransferResult(crcs, sum(item.size for item in items), download.meter.seconds)


class _Download:
    """One call of :func:`download_files`."""

    def __init__(
        self,
        items: Sequence[DownloadItem],
        storage: Storage,
        create: Callable[[str], int],
        options: TransferOptions,
        stop: threading.Event | None,
    ) -> None:
        self._storage = storage
        self._create = create
        self._options = options
        self._stop = stop
        self.meter = Meter((item.size for item in items), storage, options, stop, verb="downloaded")

    def fetch(self, item: DownloadItem) -> int:
        """Write one file; return its CRC32C."""
        what = f"{self._storage.url}/{item.name}"
        crc = self._options.retry(lambda: self._fetch_once(item, what), self._storage, what, self._stop)
        self.meter.count_file()
        return crc

    def _fetch_once(self, item: DownloadItem, what: str) -> int:
        with named_errors():
            descriptor = self._create(item.target)
        got = crc = 0
        try:
            with (
                os.fdopen(descriptor, "wb", buffering=0) as file,
                self._storage.open_reader(item.name, item.size) as source,
            ):
                while chunk := source.read(self.meter.chunk_bytes):
                    self.meter.throttle(len(chunk))
                    if got + len(chunk) > item.size:
                        raise CorruptionError(f"{what}: expected {item.size} bytes, got more")
                    crc = google_crc32c.extend(crc, chunk)
                    self._write(file, chunk, item.target)
                    got += len(chunk)
                    self.meter.count(len(chunk))
                self._compare(item, what, got, crc)
                os.fsync(descriptor)
        except BaseException:
            self.meter.count(-got)
            with contextlib.suppress(OSError):
                os.unlink(item.target)
            raise
        return crc

    @staticmethod
    def _write(file: object, chunk: bytes, path: str) -> None:
        try:
            write_all(file, chunk)
        except OSError as error:
            error.filename = error.filename or path
            with named_errors():
                raise

    @staticmethod
    def _compare(item: DownloadItem, what: str, got: int, crc: int) -> None:
        """Compare what came with what was announced.

        :raises OSError: when it ended early: the connection may have, so it is tried again.
        :raises CorruptionError: when it is something else.
        """
        require_all(what, got, item.size)
        if item.crc32c is not None and crc != item.crc32c:
            raise CorruptionError(f"{what}: damaged: expected CRC32C {item.crc32c}, got {crc} ({got} bytes)")
