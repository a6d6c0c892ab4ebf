"""Triggerers that end while sensors wait in them, in the fleet's Airflow."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.repository import create_backup
from tests.core.repositories import build_old, take
from tests.fleet.cluster import Run, wait_for
from tests.fleet.conftest import Fleet
from tests.fleet.hosts import kill, send_signal

pytestmark = pytest.mark.xdist_group("celery")  # one fleet for all of them

LIMIT_SECONDS = 45  # of one of the sensors
WAITING = ("has not what is waited for", "is not whole yet")  # said by a trigger that has looked, and has time left


def looking(run: Run, *task_ids: str, known: frozenset[int] = frozenset()) -> frozenset[int]:
    """Wait until triggers of a triggerer that is not known yet have looked; return all triggerers known then."""

    def find() -> frozenset[int]:
        logs = [run.trigger_logs(task_id) for task_id in task_ids]
        waiting = [{job for job, log in each.items() if any(text in log for text in WAITING)} for each in logs]
        return frozenset.intersection(*map(frozenset, waiting)) - known

    return known | wait_for(find, f"a look for {task_ids}", pause=0.1)


def test_restarted(fleet: Fleet, tmp_path: Path) -> None:
    """Sensors outlive two triggerers, one killed and one stopped, succeed once, and time out as if none had ended."""
    database = build_old(str(tmp_path / "db"))
    inventory = take(str(tmp_path / "db"), str(tmp_path / "first"))
    places = {"backup_dir": str(tmp_path / "repository"), "checkpoint_dir": str(tmp_path / "checkpoint")}
    fleet.cluster.wait_for_dag("deferred")
    fleet.cluster.unpause("deferred")
    triggerer = fleet.start("triggerer")
    try:
        wait_for(lambda: fleet.cluster.healthy("triggerer"), "the triggerer")
        run = fleet.cluster.trigger("deferred", **places)
        first = looking(run, "backup", "checkpoint", "late")
        began = datetime.fromisoformat(run.task("late")["trigger"]["created_date"]).timestamp()
        kill(triggerer)
        triggerer = fleet.start("triggerer")
        second = looking(run, "backup", "checkpoint", known=first)
        send_signal(triggerer, signal.SIGTERM)
        triggerer.wait()
        wait_for(lambda: time.time() > began + LIMIT_SECONDS, "the end of the time of one of them")
        triggerer = fleet.start("triggerer")
        looking(run, "backup", "checkpoint", known=second)
        wait_for(lambda: run.task("late")["state"] == "failed", "the end of a sensor whose time is up")
        take(str(tmp_path / "db"), places["checkpoint_dir"])
        create_backup(inventory, LocalFileSystem(), places["backup_dir"])
        assert run.wait() == "failed"  # because of the sensor whose time was up
    finally:
        kill(triggerer)
        database.close()
    assert run.states() == {"backup": "success", "checkpoint": "success", "late": "failed"}
    assert [task["try_number"] for task in run.tasks()] == [1, 1, 1]
    assert run.result("backup")["backup_id"] == 1
    assert run.log("backup").count("has a backup that is complete and new enough") == 1
    assert run.log("checkpoint").count("is a whole database") == 1
    (last,) = run.trigger_logs("late").keys() - second
    assert WAITING[0] not in run.trigger_logs("late")[last]  # its time had run on: it looked once, and gave up
    assert f"Sensor has timed out after {LIMIT_SECONDS} seconds. Still missing: " in run.log("late")
