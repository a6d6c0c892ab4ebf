"""Wait for a checkpoint from a DAG."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBCheckpointSensor
from airflow_provider_rocksdb.triggers.rocksdb import RocksDBCheckpointTrigger

RunDag = Callable[[DAG], Any]
MODES: list[dict[str, Any]] = [{"mode": "poke"}, {"mode": "reschedule"}, {"deferrable": True}]
HURRY: dict[str, Any] = {"poke_interval": 0.1, "timeout": 30}
IMPATIENT: dict[str, Any] = {"poke_interval": 0, "timeout": 0}

mode = pytest.mark.parametrize("mode", MODES, ids=["poke", "reschedule", "deferrable"])


@pytest.fixture
def checkpoint_dir(live_db: Path, tmp_path: Path) -> Path:
    create_live_checkpoint(DatabasePaths(str(live_db)), str(tmp_path / "ck"))
    return tmp_path / "ck"


@pytest.fixture
def incomplete(checkpoint_dir: Path) -> Path:
    """Have a checkpoint whose only SST file is not there yet; it lies beside it."""
    (sst,) = checkpoint_dir.glob("*.sst")
    sst.rename(checkpoint_dir.parent / sst.name)
    return checkpoint_dir


def corrupt(checkpoint_dir: Path) -> None:
    (manifest,) = checkpoint_dir.glob("MANIFEST-*")
    data = bytearray(manifest.read_bytes())
    data[12] ^= 1
    manifest.write_bytes(data)


@mode
def test_complete(run_dag: RunDag, checkpoint_dir: Path, mode: dict[str, Any]) -> None:
    """A whole checkpoint is a success, and the result says what was found."""
    with DAG("complete", schedule=None) as dag:
        RocksDBCheckpointSensor(task_id="wait", checkpoint_dir=str(checkpoint_dir), level="checksums", **mode)
    run = run_dag(dag)
    assert run.state == "success"
    found = run.xcom("wait")
    assert (found["state"], found["level"], found["wals"]) == ("complete", "checksums", "checkpoint.json")
    assert (found["checkpoint_dir"], found["sequence_number"]) == (str(checkpoint_dir), 1100)


class Waiting(RocksDBCheckpointSensor):
    """A sensor during which something happens: after its first look, and once."""

    meanwhile: ClassVar[list[Callable[[], object]]] = []

    def poke(self, context: Any) -> Any:
        found = super().poke(context)
        while self.meanwhile:
            self.meanwhile.pop()()
        return found


@mode
def test_waits(run_dag: RunDag, incomplete: Path, mode: dict[str, Any]) -> None:
    """A missing file is waited for, and the log says which it is."""
    (sst,) = incomplete.parent.glob("*.sst")
    Waiting.meanwhile.append(lambda: sst.rename(incomplete / sst.name))
    with DAG("waits", schedule=None) as dag:
        Waiting(task_id="wait", checkpoint_dir=str(incomplete), **HURRY, **mode)
    run = run_dag(dag)
    assert run.state == "success"
    assert f"{incomplete} is not whole yet: {sst.name}: is missing" in run.log


@mode
def test_time_out(run_dag: RunDag, incomplete: Path, mode: dict[str, Any]) -> None:
    """When time is up, the error says what was still missing, and no retry is spent."""
    (sst,) = incomplete.parent.glob("*.sst")
    with DAG("time_out", schedule=None) as dag:
        RocksDBCheckpointSensor(task_id="wait", checkpoint_dir=str(incomplete), retries=1, **IMPATIENT, **mode)
    run = run_dag(dag)
    assert run.tries == {"wait": ("failed", 1)}
    assert "Sensor has timed out" in run.log
    assert f"Still missing: {sst.name}: is missing" in run.log


@mode
def test_soft_time_out(run_dag: RunDag, incomplete: Path, mode: dict[str, Any]) -> None:
    """With soft_fail, a time-out is a skip."""
    with DAG("soft", schedule=None) as dag:
        RocksDBCheckpointSensor(task_id="wait", checkpoint_dir=str(incomplete), soft_fail=True, **IMPATIENT, **mode)
    assert run_dag(dag).states == {"wait": "skipped"}


@pytest.mark.parametrize("softness", ["", "soft_fail", "never_fail", "silent_fail"])
@mode
def test_corrupt(run_dag: RunDag, checkpoint_dir: Path, mode: dict[str, Any], softness: str) -> None:
    """A corrupt checkpoint fails the task at once, at its first try, however softly it may fail."""
    corrupt(checkpoint_dir)
    options = {softness: True} if softness else {}
    with DAG("corrupt", schedule=None) as dag:
        RocksDBCheckpointSensor(
            task_id="wait", checkpoint_dir=str(checkpoint_dir), retries=2, **HURRY, **options, **mode
        )
    run = run_dag(dag)
    assert run.tries == {"wait": ("failed", 1)}
    assert f"{checkpoint_dir} is corrupt: " in run.log


@pytest.mark.parametrize("softness", ["soft_fail", "never_fail"])
@mode
def test_corrupt_later(run_dag: RunDag, incomplete: Path, mode: dict[str, Any], softness: str) -> None:
    """A checkpoint that turns out corrupt while it is waited for fails as well, also after a deferral."""
    Waiting.meanwhile.append(lambda: corrupt(incomplete))
    with DAG("corrupt_later", schedule=None) as dag:
        Waiting(task_id="wait", checkpoint_dir=str(incomplete), retries=2, **HURRY, **mode, **{softness: True})
    run = run_dag(dag)
    assert run.tries == {"wait": ("failed", 1)}
    assert f"{incomplete} is corrupt: " in run.log


@mode
def test_could_not_check(run_dag: RunDag, checkpoint_dir: Path, mode: dict[str, Any]) -> None:
    """What could not be checked fails the try, and never passes; the next try may be luckier."""
    with DAG("unchecked", schedule=None) as dag:
        RocksDBCheckpointSensor(
            task_id="wait",
            checkpoint_dir=str(checkpoint_dir),
            level="blocks",
            check_timeout_seconds=0,
            retries=1,
            retry_delay=0.1,
            soft_fail=True,
            **HURRY,
            **mode,
        )
    run = run_dag(dag)
    assert run.tries == {"wait": ("failed", 2)}
    assert f"{checkpoint_dir} could not be checked: " in run.log


@mode
def test_another_host(run_dag: RunDag, tmp_path: Path, mode: dict[str, Any]) -> None:
    """A checkpoint that another host made and that is not visible here is not waited for: the error names both."""
    with DAG("sensor_elsewhere", schedule=None) as dag:
        RocksDBCheckpointSensor(
            task_id="wait",
            checkpoint_dir="{{ {'checkpoint_dir': '/nowhere', 'hostname': 'worker-7'} }}",
            soft_fail=True,
            retries=1,
            **HURRY,
            **mode,
        )
    run = run_dag(dag)
    assert run.tries == {"wait": ("failed", 1)}
    assert f"/nowhere: was made on host worker-7, and is not visible on host {socket.gethostname()}" in run.log


def test_unknown_level(run_dag: RunDag, checkpoint_dir: Path) -> None:
    """An unknown level fails at the first try and says which there are."""
    with DAG("level", schedule=None) as dag:
        RocksDBCheckpointSensor(task_id="wait", checkpoint_dir=str(checkpoint_dir), level="all", retries=1)
    run = run_dag(dag)
    assert run.tries == {"wait": ("failed", 1)}
    assert "expected one of files, checksums, blocks" in run.log


def trigger(place: Path, **changes: Any) -> RocksDBCheckpointTrigger:
    arguments: dict[str, Any] = {
        "checkpoint_dir": str(place),
        "hostname": None,
        "storage_conn_id": None,
        "level": "files",
        "poke_interval": 0.05,
        "check_timeout_seconds": 60.0,
        "end_time": time.time() + 0.2,
    }
    return RocksDBCheckpointTrigger(**{**arguments, **changes})


def test_trigger_serializes(checkpoint_dir: Path) -> None:
    """A trigger made from what another has serialized is the same, and its path leads to its class."""
    first = trigger(checkpoint_dir, hostname="here", storage_conn_id="aws", level="blocks")
    path, arguments = first.serialize()
    module, _, name = path.rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is RocksDBCheckpointTrigger
    assert RocksDBCheckpointTrigger(**arguments).serialize() == (path, arguments)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "complete"),
        ({"checkpoint_dir": "/nowhere"}, "incomplete"),
        ({"checkpoint_dir": "/nowhere", "hostname": "worker-7"}, "refused"),
        ({"level": "all"}, "refused"),
        ({"checkpoint_dir": "nosuchscheme://a/b"}, "refused"),
        ({"checkpoint_dir": "s3://a/b", "storage_conn_id": "missing"}, "could_not_check"),
    ],
)
def test_trigger_has_one_event(checkpoint_dir: Path, changes: dict[str, Any], state: str) -> None:
    """A trigger yields one event, whatever happens, and says why."""

    async def collect() -> list[Any]:
        return [event.payload async for event in trigger(checkpoint_dir, **changes).run()]

    (event,) = asyncio.run(collect())
    assert event["state"] == state
    assert bool(event["reason"]) == (state != "complete")


@pytest.mark.timeout(50)  # less than its own time
def test_trigger_stops(checkpoint_dir: Path) -> None:
    """A trigger that is cancelled ends at once, and its check with it."""

    async def cancel() -> None:
        running = trigger(checkpoint_dir.parent / "not there", end_time=time.time() + 60, poke_interval=60)
        task = asyncio.ensure_future(anext(running.run()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await running.cleanup()

    asyncio.run(cancel())


def test_nothing_is_written(run_dag: RunDag, checkpoint_dir: Path) -> None:
    """A check leaves the directory as it was."""
    before = {name: os.stat(checkpoint_dir / name).st_mtime_ns for name in os.listdir(checkpoint_dir)}
    with DAG("readonly", schedule=None) as dag:
        RocksDBCheckpointSensor(task_id="wait", checkpoint_dir=str(checkpoint_dir), level="blocks")
    assert run_dag(dag).state == "success"
    assert {name: os.stat(checkpoint_dir / name).st_mtime_ns for name in os.listdir(checkpoint_dir)} == before
