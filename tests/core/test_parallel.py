"""Tests of doing the same with many things in threads."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_rocksdb.core.parallel import run_parallel


class TimeLimitError(BaseException):
    """What a scheduler raises in the calling thread."""


def test_interrupted() -> None:
    """A scheduler's time limit, raised in the calling thread, stops what the other threads are doing, and is raised."""
    stop, stopped = threading.Event(), threading.Event()

    def work(_: int) -> None:
        if stop.wait(50):
            stopped.set()

    def limit() -> None:
        raise TimeLimitError

    with pytest.raises(TimeLimitError):
        run_parallel(work, [1, 2, 3], max_workers=1, on_tick=limit, tick_seconds=0.01, stop=stop)
    assert stopped.is_set()
