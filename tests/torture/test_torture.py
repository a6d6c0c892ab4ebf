"""A short torture of the live checkpoint; the long one is ``python -m tests.torture``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.ablations import ABLATIONS
from tests.torture.c_api import find_library
from tests.torture.kinds import KINDS
from tests.torture.torture import Tally, Turn

CHECKPOINTS = 3
ABLATION_CHECKPOINTS = 30


@pytest.mark.parametrize(
    "name",
    [
        "recycled WALs",
        "two paths",
        "ingesting",
        "churning families",
        "MANIFEST rolls",
        "restarting",
        "7.8 two-phase commit",
        "6.29",
    ],
)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    """With pauses between all steps, each checkpoint has all that was acknowledged, no hole, and only live files."""
    kind = KINDS[name]
    if kind.engine != "9.8" and find_library(kind.engine) is None:
        pytest.skip(f"needs RocksDB {kind.engine}")
    tally = Tally()
    Turn(kind, CHECKPOINTS, seed=1, directory=str(tmp_path)).run(tally)
    assert tally.problems == []
    assert (tally.checkpoints, tally.lost) == (CHECKPOINTS, 0)
    assert tally.keys > 3000 * CHECKPOINTS


@pytest.mark.parametrize(
    "name",
    [
        "another round when the MANIFEST has grown",
        "another round when the MANIFEST has grown (ingested files)",
    ],
)
def test_a_protection_is_missed(name: str) -> None:
    """Without the protection, and with the pauses that make the race likely, keys are lost."""
    tally = ABLATIONS[name].run(ABLATION_CHECKPOINTS, seed=1)
    assert tally.lost
    assert "keys missing, in the middle" in tally.problems[0]
