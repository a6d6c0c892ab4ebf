"""Write to a file in a thread of its own, so that what is written next is made meanwhile."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_rocksdb.core.parallel import Worker
from airflow_provider_rocksdb.core.transfer import write_all

_PIECES_BEHIND = 8  # of about a MiB each


@contextlib.contextmanager
def write_behind(file: Any) -> Iterator[Callable[[bytes], None]]:
    """Yield what takes the pieces to be written; when the block ends well, all of them are.

    A failed write is raised by one of the next calls, or by the end of the block.
    """
    pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES_BEHIND)
    failures: list[BaseException] = []

    def work() -> None:
        while (piece := pieces.get()) is not None:
            if not failures:  # else only make room for who waits to put more
                try:
                    write_all(file, piece)
                except BaseException as error:  # noqa: BLE001 -- raised where the pieces come from
                    failures.append(error)

    def write(piece: bytes) -> None:
        if failures:
            raise failures[0]
        if piece:
            pieces.put(piece)

    writer = Worker(work, "write-behind")
    writer.start()
    try:
        yield write
        pieces.put(None)
        writer.wait()
    except BaseException as error:
        failures.append(error)
        pieces.put(None)
        writer.wait()
        raise
    if failures:
        raise failures[0]
