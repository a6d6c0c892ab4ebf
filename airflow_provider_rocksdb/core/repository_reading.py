"""Read objects of a repository to their end for their CRC32C: in parallel, in bounded memory, each once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import google_crc32c

from airflow_provider_rocksdb.core.errors import TransferError
from airflow_provider_rocksdb.core.parallel import Outcome, run_parallel
from airflow_provider_rocksdb.core.storage import Storage, require_all
from airflow_provider_rocksdb.core.transfer import Meter, TransferOptions

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
    meter = Meter(sizes.values(), storage, options, stop, verb="read")
    names = sorted(sizes, key=lambda name: (-sizes[name], name))

    def read(name: str) -> ReadObject:
        what = f"{storage.url}/{name}"
        found = options.retry(lambda: _read_once(storage, name, sizes[name], meter), storage, what, stop)
        meter.count_file()
        return found

    outcome = run_parallel(
        read,
        names,
        max_workers=options.max_workers,
        goes_on=_goes_on,
        on_tick=meter.tell,
        tick_seconds=options.progress_seconds,
        stop=stop,
    )
    if names:
        meter.tell()
    begun = outcome.results.keys() | outcome.failures.keys()
    return ReadObjects(outcome.results, outcome.failures, tuple(name for name in names if name not in begun))


def _goes_on(outcome: Outcome[str, ReadObject]) -> bool:
    failures = list(outcome.failures.values())
    return sum(isinstance(error, TransferError) for error in failures) < _GIVE_UP_AFTER


def _read_once(storage: Storage, name: str, size: int, meter: Meter) -> ReadObject:
    crc = got = 0
    try:
        with storage.open_reader(name, size) as file:
            while chunk := file.read(meter.chunk_bytes):
                meter.throttle(len(chunk))
                crc = google_crc32c.extend(crc, chunk)
                got += len(chunk)
                meter.count(len(chunk))
            require_all(name, got, size)
    except BaseException:
        meter.count(-got)
        raise
    return ReadObject(crc, got)
