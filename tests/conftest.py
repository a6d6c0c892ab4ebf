"""Fixtures for every test, and the rule that in CI nothing may be missing that a test needs."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

pytest_plugins = ["tests.servers"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true, fail a test that would be skipped because it needs something ("needs …") that is not installed."""
    report = yield
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if os.environ.get("CI") == "true" and reason.startswith("Skipped: needs "):
        report.outcome = "failed"
        report.longrepr = f"CI must not skip this: {reason}"
    return report
