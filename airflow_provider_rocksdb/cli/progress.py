"""What a command says on stderr while it works: log lines, and on a terminal a bar."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def show_progress() -> Iterator[None]:
    """Send this package's log to stderr for the length of the block."""
    logger = logging.getLogger("airflow_provider_rocksdb")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
