"""The Airflow that all tests here look at."""

from __future__ import annotations

from tests.ui.site import site

__all__ = ["site"]
