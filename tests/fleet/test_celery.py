"""The CeleryExecutor, with PostgreSQL and Redis, and two workers on two hosts with databases of their own."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_meta
from example_dags.rocksdb_demo import count_keys
from tests.fleet.cluster import Run, wait_for
from tests.fleet.conftest import HOSTS, Fleet

pytestmark = pytest.mark.xdist_group("celery")  # one fleet for all of them

DAG_ID = "example_rocksdb_fleet_backup"
NAMES = [name for names in HOSTS.values() for name in names]


def check_run(fleet: Fleet, run: Run, acknowledged: dict[str, int], scratch: Path) -> None:
    """Check that each database has one more backup, made on its host, which holds what was acknowledged before."""
    wait_for(lambda: not fleet.cluster.runs(run.dag_id, "queued", "running"), "runs that the schedule has started")
    for host, names in HOSTS.items():
        for index, name in enumerate(names):
            backup_id = run.result(f"{host}.backup", index)["backup_id"]
            verified = run.result(f"{host}.verify", index)
            assert (verified["state"], verified["read_share"]) == ("complete", 1.0)
            meta = (fleet.repository(name) / "meta" / str(backup_id)).read_bytes()
            assert json.loads(decode_backup_meta(meta).metadata)["source"]["hostname"] == host
            assert count_keys(fleet.repository(name), backup_id, scratch / name) >= acknowledged[name] > 0
        assert not list(fleet.hosts[host].disk.glob("*.checkpoints/*"))


def test_fleet(fleet: Fleet, tmp_path: Path) -> None:
    """A run of the example backs up each database on its own host, one at a time by the pool, and verifies."""
    acknowledged = {name: fleet.acknowledged(name) for name in NAMES}
    fleet.cluster.wait_for_dag(DAG_ID)
    fleet.cluster.unpause(DAG_ID)
    run = fleet.cluster.trigger(DAG_ID)
    assert run.wait() == "success"
    check_run(fleet, run, acknowledged, tmp_path)
    backups = [task for task in run.tasks() if task["task_id"].endswith(".backup")]
    assert [task["hostname"] for task in backups] == ["db-host-1", "db-host-1", "db-host-2"]
    assert [task["rendered_map_index"] for task in backups] == [f"rocksdb_{name}" for name in NAMES]
    assert {task["pool"] for task in backups} == {"rocksdb_uploads"}
    times = sorted((task["start_date"], task["end_date"]) for task in backups)
    assert all(before[1] <= after[0] for before, after in pairwise(times))


def test_killed_worker(fleet: Fleet, tmp_path: Path) -> None:
    """A worker killed in the middle of an upload leaves no backup; the retry sends only the rest, and it verifies."""
    repository = fleet.repository("events")
    fleet.cluster.wait_for_dag(DAG_ID)
    wait_for(lambda: not fleet.cluster.runs(DAG_ID, "queued", "running"), "the runs before")
    if repository.exists():
        repository.rename(tmp_path / "old")  # so that everything is to be sent
    acknowledged = {name: fleet.acknowledged(name) for name in NAMES}
    fleet.cluster.unpause(DAG_ID)
    fleet.cluster.trigger(DAG_ID)
    wait_for(lambda: len(list(repository.glob("shared_checksum/*.sst"))) >= 3, "the upload", pause=0.01)
    fleet.kill_worker("db-host-2")
    (run,) = fleet.cluster.runs(DAG_ID, "running")  # that one, or what the scheduler started at once
    sent = [path.stat().st_size for path in repository.glob("shared_checksum/*.sst")]
    assert not list(repository.glob("meta/*"))
    assert list(fleet.hosts["db-host-2"].disk.glob("events.checkpoints/*"))  # litter that the retry must clear
    fleet.start_worker("db-host-2")
    assert run.wait() == "success"
    (backup,) = [task for task in run.tasks() if task["task_id"] == "db-host-2.backup"]
    assert (backup["try_number"], backup["hostname"]) == (2, "db-host-2")
    result = run.result("db-host-2.backup", 0)
    assert result["reused_files"] >= len(sent) >= 3
    assert result["reused_bytes"] >= sum(sent)
    assert result["uploaded_bytes"] < result["total_bytes"]
    check_run(fleet, run, acknowledged, tmp_path)


def test_wrong_host(fleet: Fleet) -> None:
    """A task on a host that does not see the checkpoint fails at once, and names both hosts; the database is safe."""
    fleet.cluster.wait_for_dag("two_hosts")
    fleet.cluster.unpause("two_hosts")
    run = fleet.cluster.trigger("two_hosts")
    assert run.wait() == "failed"
    states = run.states()
    assert (states.pop("create"), states.pop("delete")) == ("success", "success")
    assert set(states.values()) == {"failed"}
    for task in run.tasks():
        assert task["try_number"] == 1
    for task_id in ("upload", "sensor", "delete_elsewhere"):
        message = "was made on host db-host-1, and is not visible on host db-host-2; run both tasks on the same worker"
        assert message in run.log(task_id)
    assert "no such directory on host db-host-2" in run.log("backup")
    assert not list(fleet.hosts["db-host-1"].disk.glob("*.checkpoints/*"))
