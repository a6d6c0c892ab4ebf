"""A short form of ``python -m tests.fuzz``."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.fuzzer import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz(name: str) -> None:
    """Mutated files, half of them with good checksums, are read or refused by our own errors; nothing else happens."""
    seen = fuzz(TARGETS[name], Random(1), lambda seen: seen.inputs < 1000)  # noqa: S311 -- no secret
    assert not seen.wrong, list(seen.wrong)
    assert seen.accepted
