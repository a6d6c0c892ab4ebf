"""RocksDBBackupTrigger as a watcher: it goes on for ever, and tells of each new backup."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from airflow.triggers.base import TriggerEvent

from airflow_provider_rocksdb.triggers import rocksdb
from airflow_provider_rocksdb.triggers.rocksdb import RocksDBBackupTrigger
from tests.core.repositories import StockRepository

LIMIT_SECONDS = 60.0


class Store:
    """What an asset's state store does, with JSON; it can fail."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.fails = False

    async def aget(self, key: str, default: Any = None) -> Any:
        if self.fails:
            raise RuntimeError("no API server")
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        if self.fails:
            raise RuntimeError("no API server")
        self.values[key] = json.dumps(value)


class Watcher:
    """A watcher that runs beside the test."""

    def __init__(self, store: Store | None, **arguments: Any) -> None:
        self.trigger = RocksDBBackupTrigger(**{"poke_interval": 0.05, **arguments})
        self.trigger.asset_state_store = store
        self.events: list[Any] = []
        self.looks = 0
        look = self.trigger._tell

        def counted(new: Any) -> None:
            self.looks += 1
            look(new)

        self.trigger._tell = counted  # type: ignore[method-assign]

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.trigger.cleanup()

    async def _run(self) -> None:
        events: AsyncIterator[TriggerEvent] = self.trigger.run()
        async for event in events:
            self.events.append(event.payload)

    async def until(self, condition: Callable[[], Any]) -> None:
        async def wait() -> None:
            while not condition():
                assert not self.task.done(), "the watcher has ended"
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), LIMIT_SECONDS)

    async def look_again(self) -> None:
        """Wait until a look that began after now is over."""
        looks = self.looks
        await self.until(lambda: self.looks >= looks + 2)

    @property
    def ids(self) -> list[int]:
        return [event["backup_id"] for event in self.events]


@pytest.fixture
def repository(tmp_path: Path) -> StockRepository:
    return StockRepository(tmp_path)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocksdb, "_STORED_AFTER_SECONDS", 0.0)


def test_event_for_each(repository: StockRepository) -> None:
    """One event for each backup of stock RocksDB that comes after the first look; its payload is JSON."""

    async def scenario() -> None:
        repository.back_up()
        async with Watcher(None, backup_dir=str(repository.place)) as watcher:
            await watcher.look_again()
            repository.back_up()
            await watcher.until(lambda: watcher.events)
            repository.back_up()
            repository.back_up()
            await watcher.until(lambda: len(watcher.events) == 3)
            await watcher.look_again()
            assert watcher.ids == [2, 3, 4]
            event = watcher.events[0]
            assert json.loads(json.dumps(event)) == event
            assert (
                event.items()
                >= {
                    "url": f"file://{repository.place}",
                    "layout": "backup_engine",
                    "sequence_number": 2,
                    "rocksdb_conn_id": "rocksdb_default",
                }.items()
            )

    asyncio.run(scenario())


def test_restart(repository: StockRepository) -> None:
    """After a restart what came meanwhile is told, and nothing again; without a state store it is not told."""

    async def scenario(store: Store | None, *expected: list[int]) -> None:
        first = repository.count + 1
        repository.back_up()
        async with Watcher(store, backup_dir=str(repository.place)) as watcher:
            await watcher.look_again()
            repository.back_up()
            await watcher.until(lambda: watcher.events)
            await watcher.look_again()
        repository.back_up()
        async with Watcher(store, backup_dir=str(repository.place)) as watcher_2:
            await watcher_2.look_again()
            repository.back_up()
            await watcher_2.until(lambda: first + 3 in watcher_2.ids)
            await watcher_2.look_again()
        assert [[i - first for i in w.ids] for w in (watcher, watcher_2)] == list(expected)

    asyncio.run(scenario(Store(), [1], [2, 3]))
    asyncio.run(scenario(None, [1], [3]))


def test_stopped_at_an_event(repository: StockRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A triggerer that dies before an event is in Airflow's database tells it again: none is lost."""
    monkeypatch.setattr(rocksdb, "_STORED_AFTER_SECONDS", 3600.0)

    async def scenario() -> None:
        store = Store()
        repository.back_up()
        async with Watcher(store, backup_dir=str(repository.place)) as watcher:
            await watcher.until(lambda: store.values)
            repository.back_up()
            await watcher.until(lambda: watcher.events)
        async with Watcher(store, backup_dir=str(repository.place)) as watcher:
            await watcher.until(lambda: watcher.events)
            assert watcher.ids == [2]

    asyncio.run(scenario())


def test_unreachable(
    repository: StockRepository,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A storage, a connection or a state store that fails for a while is told in the log; the watcher goes on."""
    monkeypatch.setattr(rocksdb, "_LONGEST_PAUSE_SECONDS", 0.1)
    extra = {"extra": {"backup_dir": str(repository.place)}, "conn_type": "rocksdb"}

    def logged(words: str) -> bool:
        printed = capfd.readouterr()  # where Airflow's log goes depends on its version
        return words in printed.out + printed.err + caplog.text

    async def scenario() -> None:
        store = Store()
        repository.back_up()
        async with Watcher(store, rocksdb_conn_id="comes_later") as watcher:
            await watcher.until(lambda: logged("comes_later"))
            monkeypatch.setenv("AIRFLOW_CONN_COMES_LATER", json.dumps(extra))
            await watcher.until(lambda: store.values)
            store.fails = True
            repository.back_up()
            await watcher.until(lambda: logged("no API server"))
            store.fails = False
            repository.back_up()
            await watcher.until(lambda: len(watcher.events) == 2)
            await watcher.until(lambda: '"3"' in next(iter(store.values.values())))
            assert watcher.ids == [2, 3]

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())


def test_serializes() -> None:
    """An equal trigger comes of what one serializes, and of a copy."""
    trigger = RocksDBBackupTrigger(backup_dir="/backups", storage_conn_id=None)
    path, arguments = trigger.serialize()
    assert RocksDBBackupTrigger(**json.loads(json.dumps(arguments))).serialize() == (path, arguments)
    assert copy.deepcopy(trigger).serialize() == (path, arguments)


def test_watches_an_asset() -> None:
    """An AssetWatcher takes it; the hash of what Airflow stores is that of the DAG's own, so that it stays the same."""
    sdk = pytest.importorskip("airflow.sdk", reason="Airflow 2 has no AssetWatcher")
    from airflow.models.trigger import Trigger

    encode_trigger = pytest.importorskip("airflow.serialization.encoders", reason="before 3.2").encode_trigger
    from airflow.triggers.base import BaseEventTrigger

    trigger = RocksDBBackupTrigger(backup_dir="/backups")
    watcher = sdk.AssetWatcher("backups", trigger=trigger)
    encoded = encode_trigger(watcher.trigger)
    stored = Trigger(classpath=encoded["classpath"], kwargs=encoded["kwargs"])
    assert BaseEventTrigger.hash(stored.classpath, stored.kwargs) == BaseEventTrigger.hash(**encoded)
    again = encode_trigger(copy.deepcopy(trigger))
    assert BaseEventTrigger.hash(**again) == BaseEventTrigger.hash(**encoded)
