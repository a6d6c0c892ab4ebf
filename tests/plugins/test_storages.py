"""Storages that answer, refuse and hang, asked for a page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from airflow_provider_rocksdb.core import BackupUsage
from airflow_provider_rocksdb.plugins.facts import Answer
from airflow_provider_rocksdb.plugins.storages import Storages

ANSWER = Answer((BackupUsage(1, "complete"),))


class Backend:
    """Answers, refuses or hangs by the connection's name, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def __call__(self, conn_id: str) -> Answer:
        self.asked.append(conn_id)
        if conn_id == "refuses":
            raise PermissionError("403 Forbidden")
        if conn_id.startswith("hangs"):
            assert self.released.wait(60)
        return ANSWER


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.released.set()


def test_answers(backend: Backend) -> None:
    """What answers is told; what is refused is a problem with its reason; both are remembered for a while."""
    storages = Storages(backend, wait_seconds=60)
    expected = {"works": ANSWER, "refuses": Answer(problem="PermissionError: 403 Forbidden")}
    assert storages.ask_all({"works": 0, "refuses": 0}) == expected
    assert storages.ask_all({"works": 0, "refuses": 0}) == expected
    assert sorted(backend.asked) == ["refuses", "works"]


def test_hanging(backend: Backend) -> None:
    """One that hangs keeps no page waiting, and is asked once however often that is opened."""
    storages = Storages(backend, wait_seconds=0.2)
    for _ in range(3):
        answers = storages.ask_all({"hangs": 0})
        assert answers == {"hangs": Answer(problem="it did not answer within 0.2 seconds")}
    assert backend.asked == ["hangs"]
    backend.released.set()
    patient = Storages(backend, wait_seconds=60)
    patient._questions = storages._questions
    assert patient.ask_all({"hangs": 0}) == {"hangs": ANSWER}
    assert backend.asked == ["hangs"]


def test_asked_again(backend: Backend) -> None:
    """An answer that is too old is asked for again."""
    storages = Storages(backend, wait_seconds=60, keep_seconds=0)
    for _ in range(2):
        assert storages.ask_all({"works": 0}) == {"works": ANSWER}
    assert backend.asked == ["works", "works"]


def test_asked_again_after_a_backup(backend: Backend) -> None:
    """An answer from before the last backup is asked for again, so that who follows a link finds the backup."""
    storages = Storages(backend, wait_seconds=60)
    storages.ask_all({"works": 0})
    storages.ask_all({"works": time.time() - 3600})
    assert backend.asked == ["works"]
    storages.ask_all({"works": time.time() + 1})
    assert backend.asked == ["works", "works"]


def test_threads_are_daemons(backend: Backend) -> None:
    """A storage that hangs does not keep the API server from ending."""
    Storages(backend, wait_seconds=0).ask_all({"hangs": 0})
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "storage hangs"]
    assert thread.daemon
