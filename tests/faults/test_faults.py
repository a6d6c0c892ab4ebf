"""A short form of ``python -m tests.faults``, and what each protection is worth."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_rocksdb.core.errors import CancelledError
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.repository_listing import list_backups
from airflow_provider_rocksdb.core.repository_marks import decode_reservation, encode_reservation
from tests.faults.filesystem import FaultyFileSystem, Objects, Schedule
from tests.faults.harness import SCENARIOS, Seen, World, build_world, run_schedule

_MOST_REQUESTS = 6.0  # as a multiple of what is usual: five attempts, and looking whether one was done after all


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("faults"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep thousands of warnings about attempts that failed out of the output."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", SCENARIOS)
def test_schedules(world: World, name: str) -> None:
    """Whatever fails when: a whole result or none, an error that says try again, and a bounded number of requests."""
    seen = Seen()
    for seed in range({"archive": 150, "directory": 150, "restore": 12, "restore archive": 12}.get(name, 40)):
        run_schedule(world, name, seed, seen, Schedule.draw)
    assert seen.wrong == []
    assert seen.faults > 0
    assert seen.succeeded >= seen.schedules // 2
    assert seen.most_requests <= _MOST_REQUESTS


class StallingFileSystem(FaultyFileSystem):
    """A store that answers nothing more, once it is asked to stop."""

    stop = threading.Event()
    released = threading.Event()

    def _put(self, path: str, *arguments: Any) -> None:
        if "shared_checksum" in path:
            self.stop.set()
            self.released.wait()
        super()._put(path, *arguments)

    def rm_file(self, path: str) -> None:
        if self.stop.is_set():
            self.released.wait()
        super().rm_file(path)


def test_stop_while_a_server_stalls(world: World) -> None:
    """Who asks to stop does not wait for a server that never answers: neither for an upload nor for clearing away."""
    objects = Objects()
    store = StallingFileSystem(objects, Schedule(0), "object store")
    with pytest.raises(CancelledError):
        create_backup(world.checkpoints[0], store, "r", stop=store.stop)
    assert not list_backups(FaultyFileSystem(objects, Schedule(0), "object store"), "r")
    store.released.set()


def test_a_reservation_that_ends_early(world: World) -> None:
    """What is missing of a backup's reservation would be deleted: one that is cut anywhere is read again, not taken."""
    whole = encode_reservation(["shared_checksum/000009_1_2.sst", "private/1"])
    assert decode_reservation(whole, "r") == {"shared_checksum/000009_1_2.sst", "private/1"}
    for cut in range(len(whole)):
        with pytest.raises(OSError, match="without its last line"):
            decode_reservation(whole[:cut], "r")
