"""Upload many local files to an fsspec file system: in parallel, in bounded memory, each whole or not at all.

A file is read once, in chunks. Each goes through the CRC32C, the rate limit and into the storage's writer, all of it in
a thread of its own, so that file systems that are not asynchronous are as parallel as those that are. What a thread
holds is a file system's own buffer: one part of 8 MiB, and the copy that is being sent. S3 gets whole files instead
(:mod:`.s3_upload`).
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import google_crc32c

from airflow_provider_rocksdb.core.durable import named_errors, open_regular
from airflow_provider_rocksdb.core.errors import (
    CorruptionError,
    IncompleteError,
    InvalidArgumentError,
    RocksDBError,
    TransferError,
)
from airflow_provider_rocksdb.core.parallel import run_parallel
from airflow_provider_rocksdb.core.progress import Progress
from airflow_provider_rocksdb.core.retry import check_stop, retry, wait
from airflow_provider_rocksdb.core.s3_upload import LocalFile
from airflow_provider_rocksdb.core.storage import Storage, translate_error

R = TypeVar("R")
logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1024 * 1024
_MIN_CHUNK_BYTES = 16 * 1024
_PREPARED = 2  # files for which requests are made while others are sent, where that takes time
_GIVE_UP_AFTER = 10  # files that failed in spite of every attempt
_FAILURES_SHOWN = 20


@dataclass(frozen=True)
class TransferOptions:
    """How to upload, or to download.

    :param max_workers: files sent or fetched at a time.
    :param max_bytes_per_second: limit of the mean rate of all files together. It is kept where files are read; a file
        system that collects parts of 8 MiB sends each of them as fast as it can.
    :param attempts: tries for each file and each request, with growing pauses from ``backoff_seconds`` on.
    :param on_progress: called every ``progress_seconds``, which is also how often the log tells.
    :raises InvalidArgumentError: for numbers that make no sense.
    """

    max_workers: int = 4
    max_bytes_per_second: int | None = None
    attempts: int = 5
    backoff_seconds: float = 1.0
    progress_seconds: float = 5.0
    on_progress: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        limit = self.max_bytes_per_second
        for name, value in (("max_workers", self.max_workers), ("attempts", self.attempts)):
            if value < 1:
                raise InvalidArgumentError(f"{name}: expected at least 1, got {value}")
        if limit is not None and limit < 1:
            raise InvalidArgumentError(f"max_bytes_per_second: expected at least 1, or None for no limit, got {limit}")

    def retry(self, call: Callable[[], R], storage: Storage, what: str, stop: threading.Event | None = None) -> R:
        """Call something that talks to a storage, as often as these options say.

        :raises TransferError, CancelledError: as :func:`.retry.retry`.
        """
        return retry(call, storage, what, attempts=self.attempts, backoff_seconds=self.backoff_seconds, stop=stop)


DEFAULT_OPTIONS = TransferOptions()


@dataclass(frozen=True)
class UploadItem:
    """A local file to be stored as ``name``, relative to the storage's root.

    ``content``, where given, is stored instead of what lies at ``source``. ``size`` in bytes, and ``crc32c`` where it
    is known, are what must come out.
    """

    source: str
    name: str
    size: int
    content: bytes | None = None
    crc32c: int | None = None


@dataclass(frozen=True)
class TransferResult:
    """What was sent: CRC32C by name, bytes, seconds."""

    crc32c: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0


def upload_files(
    items: Sequence[UploadItem],
    storage: Storage,
    *,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> TransferResult:
    """Upload files into folders that are there, in place of what has their names; the largest first.

    :param stop: set it to stop: within a chunk, as far as the file system lets go.
    :raises TransferError: when files failed in spite of every attempt; all of them are named.
    :raises AccessError, NotFoundError, InvalidArgumentError, NoSpaceError, …: when no attempt could mend it.
    :raises CancelledError: when ``stop`` was set.
    """
    upload = _Upload(items, storage, options, stop)
    outcome = run_parallel(
        upload.send,
        sorted(items, key=lambda item: -item.size),
        max_workers=options.max_workers + (_PREPARED if storage.sends_files else 0),
        goes_on=lambda outcome: goes_on(outcome.failures.values()),
        on_tick=upload.meter.tell,
        tick_seconds=options.progress_seconds,
        stop=stop,
    )
    if outcome.failures:
        raise_failures(storage, {item.name: error for item, error in outcome.failures.items()}, outcome.not_begun)
    if items:
        upload.meter.tell()
    crcs = {item.name: crc for item, crc in outcome.results.items()}
    return TransferResult(crcs, sum(item.size for item in items), upload.meter.seconds)


def checksum_files(
    items: Sequence[UploadItem], *, options: TransferOptions = DEFAULT_OPTIONS, stop: threading.Event | None = None
) -> dict[str, int]:
    """CRC32C of local files by ``name``.

    :raises IncompleteError: when one has not the size it must have.
    :raises CancelledError: when ``stop`` was set.
    """

    def checksum(item: UploadItem) -> int:
        crc = 0
        for chunk in read_chunks(item, _CHUNK_BYTES):
            check_stop(stop)
            crc = google_crc32c.extend(crc, chunk)
        return crc

    outcome = run_parallel(checksum, items, max_workers=options.max_workers, goes_on=lambda _: False, stop=stop)
    for error in outcome.failures.values():
        raise error
    return {item.name: crc for item, crc in outcome.results.items()}


class Meter:
    """What all threads of one transfer share: what was done so far, and the rate that they may have together.

    :param verb: what is done to files, in the past tense.
    """

    def __init__(
        self,
        sizes: Iterable[int],
        storage: Storage,
        options: TransferOptions,
        stop: threading.Event | None,
        *,
        verb: str = "uploaded",
    ) -> None:
        totals = list(sizes)
        self._storage = storage
        self._options = options
        self._stop = stop
        self._verb = verb
        self._total_files = len(totals)
        self._total_bytes = sum(totals)
        self._lock = threading.Lock()
        self._files = 0
        self._bytes = 0
        self._began = time.monotonic()
        self._free_at = self._told_at = self._began
        limit = options.max_bytes_per_second
        self.slot = threading.BoundedSemaphore(options.max_workers)
        self.chunk_bytes = min(_CHUNK_BYTES, max(_MIN_CHUNK_BYTES, limit // 4)) if limit else _CHUNK_BYTES

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._began

    def check_stop(self) -> None:
        """Raise when the caller asked to stop.

        :raises CancelledError: then.
        """
        check_stop(self._stop)

    def count_file(self) -> None:
        """Count a file that is done."""
        with self._lock:
            self._files += 1

    def count(self, length: int) -> None:
        """Count bytes; negative ones for what must be done again."""
        with self._lock:
            self._bytes += length

    def throttle(self, length: int) -> None:
        """Wait for this chunk's turn within the rate that all threads share.

        :raises CancelledError: when the caller asked to stop.
        """
        check_stop(self._stop)
        if self._options.max_bytes_per_second is None:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._free_at)
            self._free_at = turn + length / self._options.max_bytes_per_second
        if turn > now:
            wait(turn - now, self._stop)

    def tell(self) -> None:
        """Log how far it is, and tell the caller."""
        with self._lock:
            files, done = self._files, self._bytes
        progress = Progress(files, self._total_files, done, self._total_bytes, self.seconds, self._verb)
        logger.info("%s: %s", self._storage.url, progress)
        if self._options.on_progress is not None:
            self._options.on_progress(progress)

    def tell_when_due(self) -> None:
        """Do that every ``progress_seconds``, for work that has one thread alone."""
        if time.monotonic() - self._told_at >= self._options.progress_seconds:
            self._told_at = time.monotonic()
            self.tell()


class _Upload:
    """One call of :func:`upload_files`."""

    def __init__(
        self, items: Sequence[UploadItem], storage: Storage, options: TransferOptions, stop: threading.Event | None
    ) -> None:
        self._storage = storage
        self._options = options
        self._stop = stop
        self.meter = Meter((item.size for item in items), storage, options, stop)

    def send(self, item: UploadItem) -> int:
        """Store one file; return its CRC32C."""
        what = f"{self._storage.url}/{item.name}"
        crc = self._options.retry(lambda: self._send_once(item), self._storage, what, self._stop)
        self.meter.count_file()
        return crc

    def _send_once(self, item: UploadItem) -> int:
        if self._storage.sends_files and item.content is None:
            return self._send_whole(item)
        temporary = self._storage.temporary_name(item.name)
        sent = crc = 0
        try:
            opened = self._storage.open_writer(temporary, item.size, check_stop=self.meter.check_stop)
            with self.meter.slot, opened as file:
                for chunk in read_chunks(item, self.meter.chunk_bytes):
                    self.meter.throttle(len(chunk))
                    crc = google_crc32c.extend(crc, chunk)
                    write_all(file, chunk)
                    sent += len(chunk)
                    self.meter.count(len(chunk))
                if item.crc32c is not None and crc != item.crc32c:
                    raise CorruptionError(
                        f"{item.source}: expected CRC32C {item.crc32c}, got {crc}: the file has changed meanwhile"
                    )
            if temporary != item.name:
                self._storage.rename(temporary, item.name)
        except BaseException:
            self.meter.count(-sent)
            raise
        return crc

    def _send_whole(self, item: UploadItem) -> int:
        with _open_source(item) as file:
            size = os.fstat(file.fileno()).st_size
            if size != item.size:
                raise IncompleteError(_changed(item, size))
            source = LocalFile(item.source, file.fileno(), item.size, item.crc32c)
            return self._storage.send_file(item.name, source, self.meter)


def read_chunks(item: UploadItem, chunk_bytes: int) -> Iterator[bytes]:
    """Yield what is to be stored.

    :raises IncompleteError: when it is more or less than ``item.size``.
    """
    got = 0
    if item.content is not None:
        got = len(item.content)
        for start in range(0, got, chunk_bytes):
            yield item.content[start : start + chunk_bytes]
    else:
        with _open_source(item) as file:
            while chunk := file.read(chunk_bytes):
                got += len(chunk)
                if got > item.size:
                    break
                yield chunk
    if got != item.size:
        raise IncompleteError(_changed(item, got))


def _open_source(item: UploadItem) -> io.FileIO:
    try:
        with named_errors():
            descriptor = open_regular(item.source, follow=False)
    except FileNotFoundError:
        raise IncompleteError(f"{item.source}: is missing, expected {item.size} bytes") from None
    return io.FileIO(descriptor)


def _changed(item: UploadItem, got: int) -> str:
    return f"{item.source}: expected {item.size} bytes, got {got}: it was changed meanwhile"


def write_all(file: Any, chunk: bytes) -> None:
    """Write a chunk to a file that may take less at a time."""
    written = file.write(chunk)
    while written is not None and written < len(chunk):
        chunk = chunk[written:]
        written = file.write(chunk)


def goes_on(failures: Iterable[BaseException]) -> bool:
    """Whether to begin further files after some have failed: a few, and none for good."""
    errors = list(failures)
    return len(errors) < _GIVE_UP_AFTER and all(isinstance(error, TransferError) for error in errors)


def raise_failures(storage: Storage, failures: dict[str, BaseException], not_begun: int) -> NoReturn:
    """Raise one error for all failures: a permanent one's class where all are of that class.

    :raises RocksDBError: always.
    """
    named = [translate_error(error, name) or TransferError(f"{name}: {error!r}") for name, error in failures.items()]
    texts = [str(error) for error in named[:_FAILURES_SHOWN]]
    if len(named) > _FAILURES_SHOWN:
        texts.append(f"and {len(named) - _FAILURES_SHOWN} more")
    begun = f", {not_begun} were not begun" if not_begun else ""
    kinds = {type(error) for error in named}
    kind: type[RocksDBError] = kinds.pop() if len(kinds) == 1 else TransferError
    permanent = [error for error in named if not error.transient]
    if kind is TransferError and permanent:
        kind = type(permanent[0])
    raise kind(f"{storage.url}: {len(named)} files failed{begun}; nothing was committed: {'; '.join(texts)}") from next(
        iter(failures.values())
    )
