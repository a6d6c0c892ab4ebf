"""Wait in the triggerer until a checkpoint is whole."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_rocksdb.core.errors import CancelledError, RocksDBError
from airflow_provider_rocksdb.utils.checkpoint import CheckpointReference, check_checkpoint

if TYPE_CHECKING:
    from airflow_provider_rocksdb.core.completeness import Level


class RocksDBCheckpointTrigger(BaseTrigger):
    """Check a checkpoint again and again, until the answer is another than incomplete or the time is up.

    The one event has ``checkpoint_dir``, ``state`` (``complete``, ``corrupt``, ``could_not_check``; ``incomplete``: the
    time is up; ``refused``: what is asked for is impossible), ``reason`` (one line) and ``result`` (what the check
    found; None when something is wrong).

    :param checkpoint_dir: a path on the triggerer's host, or a URL.
    :param hostname: the host that made it, when known.
    :param storage_conn_id: Airflow connection of the storage, for a URL.
    :param level: ``files``, ``checksums`` or ``blocks``.
    :param poke_interval: seconds between two checks.
    :param check_timeout_seconds: limit of one check at level ``blocks``.
    :param end_time: when to give up, in seconds since the epoch, so that it outlives a restart of the triggerer.
    """

    def __init__(
        self,
        *,
        checkpoint_dir: str,
        hostname: str | None,
        storage_conn_id: str | None,
        level: Level,
        poke_interval: float,
        check_timeout_seconds: float,
        end_time: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves it without types
        self.checkpoint_dir = checkpoint_dir
        self.hostname = hostname
        self.storage_conn_id = storage_conn_id
        self.level = level
        self.poke_interval = poke_interval
        self.check_timeout_seconds = check_timeout_seconds
        self.end_time = end_time
        self._stop = threading.Event()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments of an equal trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "checkpoint_dir": self.checkpoint_dir,
                "hostname": self.hostname,
                "storage_conn_id": self.storage_conn_id,
                "level": self.level,
                "poke_interval": self.poke_interval,
                "check_timeout_seconds": self.check_timeout_seconds,
                "end_time": self.end_time,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event."""
        try:
            state, reason, result = await self._wait()
        except RocksDBError as error:
            lasting = not error.transient and not isinstance(error, CancelledError)
            state, reason, result = "refused" if lasting else "could_not_check", str(error), None
        except Exception as error:  # noqa: BLE001 -- a path that ends without an event would hang the task
            state, reason, result = "could_not_check", f"{type(error).__name__}: {error}", None
        event = {"checkpoint_dir": self.checkpoint_dir, "state": state, "reason": reason, "result": result}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow leaves it without types

    async def cleanup(self) -> None:
        """Stop the check that is running in a thread."""
        self._stop.set()

    async def _wait(self) -> tuple[str, str, dict[str, Any] | None]:
        said = ""
        while True:
            result = await asyncio.to_thread(
                check_checkpoint,
                CheckpointReference(self.checkpoint_dir, self.hostname),
                self.storage_conn_id,
                level=self.level,
                timeout_seconds=self.check_timeout_seconds,
                stop=self._stop,
            )
            left = self.end_time - time.time()
            if result.state.value != "incomplete" or left <= 0:
                found = None if result.reason else result.to_dict()  # thousands of files may be missing
                return result.state.value, result.reason, found
            if result.reason != said:
                said = result.reason
                self.log.info("%s is not whole yet: %s", self.checkpoint_dir, said)
            await asyncio.sleep(min(self.poke_interval, left))
