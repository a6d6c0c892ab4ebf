"""What a command says on stderr while it works: log lines, and on a terminal a bar instead of how far it is."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_rocksdb.core.progress import Progress
    from airflow_provider_rocksdb.core.transfer import TransferOptions

_BAR_WIDTH = 20
_DRAW_SECONDS = 0.2
_CLEAR_LINE = "\r\x1b[K"
_TRANSFER_LOGGER = "airflow_provider_rocksdb.core.transfer"


@contextlib.contextmanager
def show_progress() -> Iterator[None]:
    """Send this package's log to stderr for the length of the block."""
    logger = logging.getLogger("airflow_provider_rocksdb")
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(_OneLine(_CLEAR_LINE))
        handler.addFilter(lambda record: record.name != _TRANSFER_LOGGER or record.levelno > logging.INFO)
    else:
        handler.setFormatter(_OneLine())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def transfer_options(max_bytes_per_second: int | None) -> TransferOptions:
    """Return the options of a transfer that this command shows."""
    from airflow_provider_rocksdb.core.transfer import TransferOptions

    if not sys.stderr.isatty():
        return TransferOptions(max_bytes_per_second=max_bytes_per_second)
    return TransferOptions(max_bytes_per_second=max_bytes_per_second, progress_seconds=_DRAW_SECONDS, on_progress=_draw)


def _draw(progress: Progress) -> None:
    share = progress.bytes / progress.total_bytes if progress.total_bytes else 1.0
    bar = ("#" * round(share * _BAR_WIDTH)).ljust(_BAR_WIDTH, "-")
    line = f"[{bar}] {share:4.0%} {progress}"[: shutil.get_terminal_size().columns - 1]
    is_done = progress.files == progress.total_files
    sys.stderr.write(f"{_CLEAR_LINE}{line}" + ("\n" if is_done else ""))
    sys.stderr.flush()


class _OneLine(logging.Formatter):
    """The message as one line, behind what makes room for it."""

    def __init__(self, before: str = "") -> None:
        super().__init__("%(message)s")
        self._before = before

    def format(self, record: logging.LogRecord) -> str:
        return self._before + one_line(super().format(record))


def one_line(text: str) -> str:
    """Return text as one line without control characters: names of files are other people's."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return text without control characters: names of files are other people's."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
