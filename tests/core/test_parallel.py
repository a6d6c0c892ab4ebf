"""Tests of doing the same with many things in threads."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import pytest

from airflow_provider_rocksdb.core.errors import CancelledError
from airflow_provider_rocksdb.core.parallel import run_parallel, run_together


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


def test_signal() -> None:
    """No thread works on when the call has ended by what a signal raised while it waited for them."""
    stop, states = threading.Event(), []

    def work(_: int) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        stop.wait(50)
        time.sleep(0.3)
        states.append("ended")

    def interrupt(*_: object) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(TimeLimitError):
            run_parallel(work, [1], max_workers=1, stop=stop)
        assert states == ["ended"]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("at_once", [False, True])
def test_together(at_once: bool) -> None:
    """All calls are made, at once or one after the other; of several failures the first call's is raised."""
    barrier, made = threading.Barrier(2), []

    def call(number: int) -> None:
        if at_once:
            barrier.wait(10)
        made.append(number)

    run_together(partial(call, 1), partial(call, 2), at_once=at_once)
    assert sorted(made) == [1, 2]

    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        run_together(made.clear, partial(fail, 1), partial(fail, 2), at_once=at_once)
    assert made == []


def test_together_stopped() -> None:
    """When the caller asks to stop, what does not answer is left behind."""
    stop = threading.Event()
    with pytest.raises(CancelledError):
        run_together(stop.set, partial(threading.Event().wait, 60), at_once=True, stop=stop)
