"""A short form of ``python -m tests.crash``."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.harness import SCENARIOS, run_scenario


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_random_moments(name: str, tmp_path: Path) -> None:
    """After each kill what was committed is whole, and the same command, run again, succeeds and leaves no litter."""
    seen = run_scenario(name, tmp_path, 6, random.Random())  # noqa: S311 -- other moments in each run
    assert seen.wrong == []
    assert seen.killed == 6
