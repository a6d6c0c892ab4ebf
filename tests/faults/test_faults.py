"""A short form of ``python -m tests.faults``, and what each protection is worth."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.faults.filesystem import Schedule
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
    for seed in range(12 if "restore" in name else 40):
        run_schedule(world, name, seed, seen, Schedule.draw)
    assert seen.wrong == []
    assert seen.faults > 0
    assert seen.succeeded >= seen.schedules // 2
    assert seen.most_requests <= _MOST_REQUESTS
