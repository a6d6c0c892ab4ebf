"""Wait in the triggerer until a checkpoint is whole, or until there is a backup; watch for new backups."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_rocksdb.core.errors import CancelledError, RocksDBError
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
from airflow_provider_rocksdb.hooks.storage import public_url
from airflow_provider_rocksdb.utils.backup import look_for_backup, look_for_new_backups
from airflow_provider_rocksdb.utils.checkpoint import CheckpointReference, check_checkpoint
from airflow_provider_rocksdb.utils.watch_memory import Memory

if TYPE_CHECKING:
    from airflow.triggers.base import BaseEventTrigger

    from airflow_provider_rocksdb.core.completeness import Level
    from airflow_provider_rocksdb.core.new_backups import NewBackups
else:
    try:
        from airflow.triggers.base import BaseEventTrigger
    except ImportError:  # Airflow 2, which has no AssetWatcher
        BaseEventTrigger = BaseTrigger

_STORED_AFTER_SECONDS = 5.0  # an event that was yielded is in Airflow's database by then
_LONGEST_PAUSE_SECONDS = 900.0  # between two tries to reach a storage

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

    def __init__(self, *, poke_interval: float, end_time: float | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves it without types
        self.poke_interval = poke_interval
        self.end_time = end_time

    @functools.cached_property
    def _stop(self) -> threading.Event:  # made when it is needed: a DAG is copied with its watchers' triggers
        return threading.Event()

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
            left = (self.end_time or 0.0) - time.time()
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


class RocksDBBackupTrigger(_WaitingTrigger, BaseEventTrigger):
    """Look for a backup until there is one, for a sensor; or watch for new ones for ever, for an ``AssetWatcher``.

    As a watcher (``end_time`` None) it yields one event for each backup that has become complete since the look before,
    whoever made it, RocksDB itself too; what is there at the very first look is not new. The payload has
    ``backup_id``, ``url``, ``layout``, ``db_id``, ``sequence_number``, ``total_bytes``, ``file_count``, ``time``,
    ``hostname``, ``db_dir`` (both empty for other programs' backups) and ``rocksdb_conn_id``. Several events at a time
    may start one run: its ``triggering_asset_events`` has them all.

    What it has seen is kept in the asset's state store (Airflow 3.3): after a restart of the triggerer it tells what
    came meanwhile. A triggerer that is killed within seconds of an event may tell it again. Without a state store, what
    comes while no triggerer runs is not told. A storage that cannot be reached is tried again, at growing intervals.

    The storage is resolved by the connections' names; no secret is kept here. Give the watched asset a name of its own,
    not the repository's URI: that asset gets the events of this provider's backup tasks.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param backup_dir: path on the triggerer's host, or URL, of the backup repository; default: that of the connection.
    :param storage_conn_id: Airflow connection of the storage; default: that of the RocksDB connection.
    :param newer_than: a time as ISO 8601.
    :param max_age_seconds: age that a backup may have when it is looked at.
    :param db_id: the database's id.
    :param poke_interval: seconds between two looks.
    :param end_time: when to give up, in seconds since the epoch, so that it outlives a restart of the triggerer; None:
        watch for ever.
    """

    arguments = ("rocksdb_conn_id", "backup_dir", "storage_conn_id", "newer_than", "max_age_seconds", "db_id")
    waiting = "has not what is waited for"
    supports_triggerer_queue = True  # as every trigger of a task

    def __init__(
        self,
        *,
        rocksdb_conn_id: str = RocksDBHook.default_conn_name,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        newer_than: str | None = None,
        max_age_seconds: float | None = None,
        db_id: str | None = None,
        poke_interval: float = 60.0,
        end_time: float | None = None,
    ) -> None:
        super().__init__(poke_interval=poke_interval, end_time=end_time)
        self.rocksdb_conn_id = rocksdb_conn_id
        self.backup_dir = backup_dir
        self.storage_conn_id = storage_conn_id
        self.newer_than = newer_than
        self.max_age_seconds = max_age_seconds
        self.db_id = db_id
        self._said: dict[int, str] = {}

    @property
    def place(self) -> str:
        """The backup repository."""
        return self.backup_dir or f"repository of connection {self.rocksdb_conn_id}"

    def look(self) -> Found:
        """Look once."""
        found = look_for_backup(**self._look_arguments)
        return found.state.value, found.reason, None if found.reason else found.to_dict()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event; or, as a watcher, one for each new backup."""
        async for event in super().run() if self.end_time is not None else self._watch():
            yield event

    @property
    def _look_arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.arguments} | {"stop": self._stop}

    async def _watch(self) -> AsyncIterator[TriggerEvent]:
        memory, failures = Memory(getattr(self, "asset_state_store", None)), 0
        while True:
            try:
                url = await asyncio.to_thread(self._find_url)
                await memory.recall(f"{url} {self.db_id or ''}")
                new = await asyncio.to_thread(look_for_new_backups, memory.seen, **self._look_arguments)
                self._tell(new)
                for backup in new.backups:
                    about = {"url": url, "layout": "backup_engine", "rocksdb_conn_id": self.rocksdb_conn_id}
                    yield TriggerEvent({**about, **backup.to_dict()})  # type: ignore[no-untyped-call]  # as above
                memory.seen = new.seen
                if new.backups:
                    await asyncio.sleep(_STORED_AFTER_SECONDS)
                await memory.keep()
                failures = 0
            except Exception as error:  # noqa: BLE001 -- a watcher that ends is not started again
                failures += 1
                self.log.warning("%s: could not be looked at, time %d: %s", self.place, failures, error)
            pause = self.poke_interval * 2 ** min(failures, 10)
            await asyncio.sleep(min(pause, max(self.poke_interval, _LONGEST_PAUSE_SECONDS)))

    def _find_url(self) -> str:
        return public_url(self.backup_dir or RocksDBHook(self.rocksdb_conn_id).get_backup_dir())

    def _tell(self, new: NewBackups) -> None:
        """Log why backups are no events, each once."""
        said = {**new.waiting, **new.passed_over}
        for backup_id, reason in said.items():
            if self._said.get(backup_id) != reason:
                how = "waits" if backup_id in new.waiting else "is passed over"
                self.log.warning("%s: backup %d %s: %s", self.place, backup_id, how, reason)
        self._said = said
