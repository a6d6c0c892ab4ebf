"""Try again what a storage may do the next time, and stop when the caller asks to."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_rocksdb.core.errors import CancelledError, TransferError
from airflow_provider_rocksdb.core.storage import Storage, translate_error

R = TypeVar("R")
logger = logging.getLogger(__name__)

_MAX_BACKOFF_SECONDS = 30.0


def retry(
    call: Callable[[], R],
    storage: Storage,
    what: str,
    *,
    attempts: int,
    backoff_seconds: float,
    stop: threading.Event | None = None,
) -> R:
    """Call something that talks to a storage until it works, with growing random pauses in between.

    :raises TransferError: after so many attempts; what cannot be mended is raised at once, as it is.
    """
    for attempt in range(1, attempts + 1):
        check_stop(stop)
        try:
            return call()
        except Exception as error:
            if isinstance(error, FileExistsError) or translate_error(error, what) is not None:
                raise
            if attempt == attempts:
                raise TransferError(
                    f"{what}: failed {attempt} times, at last: {type(error).__name__}: {error}"
                ) from error
            pause = min(_MAX_BACKOFF_SECONDS, backoff_seconds * 2 ** (attempt - 1))
            pause *= random.uniform(0.5, 1.5)  # noqa: S311 -- no secret, only apart from other runs
            logger.warning("%s: attempt %d failed, next in %.1f s: %r", what, attempt, pause, error)
            storage.drop_file_system()
            wait(pause, stop)
    raise AssertionError("unreachable")


def check_stop(stop: threading.Event | None) -> None:
    """Raise when the caller asked to stop.

    :raises CancelledError: when ``stop`` is set.
    """
    if stop is not None and stop.is_set():
        raise CancelledError("stopped; nothing was committed")


def wait(seconds: float, stop: threading.Event | None) -> None:
    """Sleep, but not when the caller asks to stop.

    :raises CancelledError: when ``stop`` is set meanwhile.
    """
    if stop is None:
        time.sleep(seconds)
    elif stop.wait(seconds):
        check_stop(stop)
