"""Writing in a thread of its own: everything in its order, and each failure where the pieces come from."""

from __future__ import annotations

import io
import os
import signal
import threading
import time

import pytest

from airflow_provider_rocksdb.core.write_behind import write_behind

PIECES = [bytes([number]) * 1000 for number in range(100)]


class Slow(io.RawIOBase):
    """A file that takes less than it is given, and waits until it may."""

    def __init__(self, *, fails_at: int = -1) -> None:
        super().__init__()
        self.may_write = threading.Event()
        self.content = b""
        self._fails_at = fails_at

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # what is written here is bytes
        self.may_write.wait()
        if 0 <= self._fails_at <= len(self.content):
            raise OSError("the disk is full")
        self.content += data[:300]
        return len(data[:300])


def write_pieces(file: Slow, count: int, error: Exception | None = None) -> None:
    with write_behind(file) as write:
        for piece in PIECES[:count]:
            write(piece)
        if error is not None:
            threading.Timer(0.2, file.may_write.set).start()
            raise error


def test_order() -> None:
    """All pieces are written when the block ends; some are taken before any is."""
    file = Slow()
    with write_behind(file) as write:
        for piece in PIECES[:5]:
            write(piece)
        assert file.content == b""
        file.may_write.set()
        for piece in PIECES[5:]:
            write(piece)
    assert file.content == b"".join(PIECES)


@pytest.mark.parametrize("pieces", [1, len(PIECES)])
def test_failure(pieces: int) -> None:
    """A failed write ends the block, during it or at its end, and nothing is written after it."""
    file = Slow(fails_at=300)
    file.may_write.set()
    with pytest.raises(OSError, match="the disk is full"):
        write_pieces(file, pieces)
    assert file.content == PIECES[0][:300]


def test_end_interrupted() -> None:
    """When a signal's exception ends the waiting for the last pieces, they are not written after it."""
    file = Slow()

    def interrupt(*_: object) -> None:
        threading.Timer(0.2, file.may_write.set).start()
        raise InterruptedError("the time is up")

    before = signal.signal(signal.SIGUSR1, interrupt)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    try:
        with pytest.raises(InterruptedError, match="the time is up"):
            write_pieces(file, 5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    written = file.content
    time.sleep(0.2)
    assert file.content == written
    assert len(written) <= 1000


def test_block_fails() -> None:
    """When the block fails, what waits is not written, and no thread stays."""
    file = Slow()
    with pytest.raises(ValueError, match="no more"):
        write_pieces(file, 5, ValueError("no more"))
    assert len(file.content) <= 1000  # the piece that was being written
    for thread in threading.enumerate():
        if thread.name == "write-behind":
            thread.join(10)
            assert not thread.is_alive()
