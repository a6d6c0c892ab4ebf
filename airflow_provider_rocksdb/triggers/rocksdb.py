"""Wait in the triggerer until a checkpoint is whole, or until there is a backup."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_rocksdb.core.errors import CancelledError, RocksDBError
from airflow_provider_rocksdb.utils.backup import look_for_backup
from airflow_provider_rocksdb.utils.checkpoint import CheckpointReference, check_checkpoint

if TYPE_CHECKING:
    from airflow_provider_rocksdb.core.completeness import Level

Found = tuple[str, str, dict[str, Any] | None]  # state, reason, result


class _WaitingTrigger(BaseTrigger):
    """Look again and again, until the answer is another than incomplete or the time is up.

    The one event has the ``place``, ``state`` (``complete``, ``corrupt``, ``could_not_check``; ``incomplete``: the time
    is up; ``refused``: what is asked for is impossible), ``reason`` (one line) and ``result`` (what was found; None
    when something is wrong).

    Subclasses keep each argument under its own name, and say in ``arguments`` which there are.
    """

    arguments: ClassVar[tuple[str, ...]]
    waiting: ClassVar[str]

    def __init__(self, *, poke_interval: float, end_time: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves it without types
        self.poke_interval = poke_interval
        self.end_time = end_time
        self._stop = threading.Event()

    @property
    def place(self) -> str:
        """What is looked at."""
        raise NotImplementedError

    def look(self) -> Found:
        """Look once; called in a thread."""
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments of an equal trigger."""
        names = (*self.arguments, "poke_interval", "end_time")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event."""
        try:
            state, reason, result = await self._wait()
        except RocksDBError as error:
            lasting = not error.transient and not isinstance(error, CancelledError)
            state, reason, result = "refused" if lasting else "could_not_check", str(error), None
        except Exception as error:  # noqa: BLE001 -- a path that ends without an event would hang the task
            state, reason, result = "could_not_check", f"{type(error).__name__}: {error}", None
        event = {"place": self.place, "state": state, "reason": reason, "result": result}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow leaves it without types

    async def cleanup(self) -> None:
        """Stop the look that is going on in a thread."""
        self._stop.set()

    async def _wait(self) -> Found:
        said = ""
        while True:
            found = await asyncio.to_thread(self.look)
            state, reason, _ = found
            left = self.end_time - time.time()
            if state != "incomplete" or left <= 0:
                return found
            if reason != said:
                said = reason
                self.log.info("%s %s: %s", self.place, self.waiting, said)
            await asyncio.sleep(min(self.poke_interval, left))


class RocksDBCheckpointTrigger(_WaitingTrigger):
    """Check a checkpoint again and again.

    :param checkpoint_dir: a path on the triggerer's host, or a URL.
    :param hostname: the host that made it, when known.
    :param storage_conn_id: Airflow connection of the storage, for a URL.
    :param level: ``files``, ``checksums`` or ``blocks``.
    :param poke_interval: seconds between two checks.
    :param check_timeout_seconds: limit of one check at level ``blocks``.
    :param end_time: when to give up, in seconds since the epoch, so that it outlives a restart of the triggerer.
    """

    arguments = ("checkpoint_dir", "hostname", "storage_conn_id", "level", "check_timeout_seconds")
    waiting = "is not whole yet"

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
        super().__init__(poke_interval=poke_interval, end_time=end_time)
        self.checkpoint_dir = checkpoint_dir
        self.hostname = hostname
        self.storage_conn_id = storage_conn_id
        self.level = level
        self.check_timeout_seconds = check_timeout_seconds

    @property
    def place(self) -> str:
        """The checkpoint directory."""
        return self.checkpoint_dir

    def look(self) -> Found:
        """Check it once."""
        result = check_checkpoint(
            CheckpointReference(self.checkpoint_dir, self.hostname),
            self.storage_conn_id,
            level=self.level,
            timeout_seconds=self.check_timeout_seconds,
            stop=self._stop,
        )
        # thousands of files may be missing
        return result.state.value, result.reason, None if result.reason else result.to_dict()


class RocksDBBackupTrigger(_WaitingTrigger):
    """Look for a backup again and again. The storage is resolved by the connections' names; no secret is kept here.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param backup_dir: path on the triggerer's host, or URL, of the backup repository.
    :param storage_conn_id: Airflow connection of the storage; default: that of the RocksDB connection.
    :param newer_than: a time as ISO 8601.
    :param max_age_seconds: age that a backup may have when it is looked at.
    :param db_id: the database's id.
    :param poke_interval: seconds between two looks.
    :param end_time: when to give up, in seconds since the epoch, so that it outlives a restart of the triggerer.
    """

    arguments = ("rocksdb_conn_id", "backup_dir", "storage_conn_id", "newer_than", "max_age_seconds", "db_id")
    waiting = "has not what is waited for"

    def __init__(
        self,
        *,
        rocksdb_conn_id: str,
        backup_dir: str,
        storage_conn_id: str | None,
        newer_than: str | None,
        max_age_seconds: float | None,
        db_id: str | None,
        poke_interval: float,
        end_time: float,
    ) -> None:
        super().__init__(poke_interval=poke_interval, end_time=end_time)
        self.rocksdb_conn_id = rocksdb_conn_id
        self.backup_dir = backup_dir
        self.storage_conn_id = storage_conn_id
        self.newer_than = newer_than
        self.max_age_seconds = max_age_seconds
        self.db_id = db_id

    @property
    def place(self) -> str:
        """The backup repository."""
        return self.backup_dir

    def look(self) -> Found:
        """Look once."""
        found = look_for_backup(**{name: getattr(self, name) for name in self.arguments}, stop=self._stop)
        return found.state.value, found.reason, None if found.reason else found.to_dict()
