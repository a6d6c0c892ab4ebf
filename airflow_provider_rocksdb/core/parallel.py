"""Do the same with many things in a few threads, and know of each that failed."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from airflow_provider_rocksdb.core.errors import CancelledError

T = TypeVar("T")
R = TypeVar("R")

_JOIN_SECONDS = 60.0
_POLL_SECONDS = 0.5
_STOP_SECONDS = 2.0  # for what is under way; a scheduler kills after five
_BRIEF_SECONDS = 1.5


@dataclass
class Outcome(Generic[T, R]):
    """Results by item, failures by item, and the number of items that were not begun."""

    results: dict[T, R] = field(default_factory=dict)
    failures: dict[T, BaseException] = field(default_factory=dict)
    not_begun: int = 0


def run_parallel(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    max_workers: int,
    goes_on: Callable[[Outcome[T, R]], bool] = lambda _: True,
    on_tick: Callable[[], None] = lambda: None,
    tick_seconds: float = 5.0,
    stop: threading.Event | None = None,
) -> Outcome[T, R]:
    """Call ``work`` with each item, in the order given, ``max_workers`` at a time; wait for all.

    :param goes_on: asked after each failure whether to begin further items.
    :param on_tick: called every ``tick_seconds`` in the calling thread.
    :param stop: set it, and nothing more is begun; ``work`` looks at it itself. What does not, because a server does
        not answer, is left behind in its thread, which ends with the process. An exception in the calling thread, such
        as a scheduler's time limit, sets it.
    :raises CancelledError: when ``stop`` was set.
    """
    run = _Run(work, items, goes_on, stop)
    workers = [Worker(run.work_off, f"rocksdb-{number}") for number in range(min(max_workers, len(run.waiting)))]
    try:
        for worker in workers:
            worker.start()
        next_tick = time.monotonic() + tick_seconds
        while not all(worker.has_ended for worker in workers) and not (stop is not None and stop.is_set()):
            _wait(workers, min(_POLL_SECONDS, tick_seconds))
            if time.monotonic() >= next_tick:
                next_tick += tick_seconds
                on_tick()
    except BaseException:
        if stop is not None:
            stop.set()
        raise
    finally:
        run.ended.set()
        _wait(workers, _STOP_SECONDS if stop is not None and stop.is_set() else _JOIN_SECONDS)
    if stop is not None and stop.is_set():
        raise CancelledError(f"stopped with {len(run.waiting)} of {run.total} not begun; nothing was committed")
    run.outcome.not_begun = len(run.waiting)
    return run.outcome


def run_together(*calls: Callable[[], object], at_once: bool, stop: threading.Event | None = None) -> None:
    """Make calls of which none needs another's effect, and wait for all; raise the failure of the first that failed.

    :param at_once: in threads; else one after the other, in this one.
    :raises CancelledError: when ``stop`` was set.
    """
    if not at_once:
        for call in calls:
            call()
        return
    outcome = run_parallel(lambda call: call(), calls, max_workers=len(calls), stop=stop)
    for call in calls:
        if call in outcome.failures:
            raise outcome.failures[call]


def run_briefly(call: Callable[[], object], seconds: float = _BRIEF_SECONDS) -> None:
    """Call something that is only tidy, and leave it behind in its thread when it takes too long.

    Its errors are nobody's.
    """

    def work() -> None:
        with contextlib.suppress(BaseException):
            call()

    worker = Worker(work, "rocksdb-tidy")
    worker.start()
    worker.wait(seconds)


class Worker(threading.Thread):
    """A thread that can be waited for again after an exception has interrupted a wait, and ends with the process.

    CPython before 3.13 takes a thread for dead whose ``join`` was interrupted (its issue 90882).
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.has_ended = False
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self) -> None:
        """Work, and tell of the end."""
        try:
            super().run()
        finally:
            self.has_ended = True
            self._news.put(None)

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until it has ended; not for one that was not started."""
        deadline = time.monotonic() + seconds
        while self.ident is not None and not self.has_ended and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=min(left, _POLL_SECONDS))  # an exception may lose the news, but no more


def _wait(workers: Iterable[Worker], seconds: float) -> None:
    """Wait for all together."""
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.wait(deadline - time.monotonic())


class _Run(Generic[T, R]):
    def __init__(
        self,
        work: Callable[[T], R],
        items: Iterable[T],
        goes_on: Callable[[Outcome[T, R]], bool],
        stop: threading.Event | None,
    ) -> None:
        self.waiting = deque(items)
        self.total = len(self.waiting)
        self.outcome: Outcome[T, R] = Outcome()
        self.ended = threading.Event()
        self._work = work
        self._goes_on = goes_on
        self._stop = stop

    def work_off(self) -> None:
        """Take items and work on them until there are none, or the run has ended."""
        while not self.ended.is_set() and not (self._stop is not None and self._stop.is_set()):
            try:
                item = self.waiting.popleft()
            except IndexError:
                return
            try:
                self.outcome.results[item] = self._work(item)
            except BaseException as error:  # noqa: BLE001 -- kept for the caller, who raises all of them together
                self.outcome.failures[item] = error
                if not self._goes_on(self.outcome):
                    self.ended.set()
