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
    handler.setFormatter(_OneLine("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _OneLine(logging.Formatter):
    """The message as one line."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def one_line(text: str) -> str:
    """Return text as one line without control characters: names of files are other people's."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return text without control characters: names of files are other people's."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
