"""Airflow stops a task in the middle of an upload: each way that it has, on the fleet's Airflow."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from rocksdict import Rdict

from tests.core.databases import options
from tests.core.repositories import restore_with_aimrocks
from tests.fleet.cluster import Run, wait_for
from tests.fleet.conftest import Fleet
from tests.fleet.hosts import send_signal

pytestmark = pytest.mark.xdist_group("celery")  # one fleet for all of them

PROMISED_SECONDS = 5.0
FILES = 20  # of 0.2 MB; and one of 8 MB, which takes longer than any limit here


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Open a database of many small SST files and a large one; give its place, and one for its backups."""
    path = str(tmp_path / "db")
    database = Rdict(path, options(disable_auto_compactions=True))
    for number in range(FILES + 1):
        size = 200_000 if number else 8_000_000
        database[b"%06d" % number] = os.urandom(size)
        database.flush()
    yield {"db_dir": path, "backup_dir": str(tmp_path / "repository")}
    database.close()


def begin(fleet: Fleet, dag_id: str, places: dict[str, str]) -> Run:
    """Start a slow backup; wait until some files are there, and the large one is on its way."""
    fleet.cluster.wait_for_dag(dag_id)
    fleet.cluster.unpause(dag_id)
    run = fleet.cluster.trigger(dag_id, **places)
    repository = Path(places["backup_dir"])

    def uploads() -> bool:
        assert run.states()["backup"] != "failed", run.log("backup")
        return len(list(repository.glob("shared_checksum/*.sst"))) >= 2

    wait_for(uploads, "the upload", pause=0.1)
    return run


def told(run: Run, text: str) -> float:
    """When the task's log has said something, in seconds since the epoch."""
    lines = [json.loads(line) for line in run.log("backup").splitlines() if text in line]
    assert lines, run.log("backup")
    return datetime.fromisoformat(lines[-1]["timestamp"]).timestamp()


def check_stopped(fleet: Fleet, run: Run, places: dict[str, str], scratch: Path) -> None:
    """Check that nothing is committed, that no checkpoint is left, and that the next run sends only the rest."""
    repository = Path(places["backup_dir"])
    sent = [path.stat().st_size for path in repository.glob("shared_checksum/*.sst")]
    assert len(sent) >= 2
    assert not list(repository.glob("meta/*"))
    assert not list(Path(places["db_dir"] + ".checkpoints").glob("*"))
    fleet.cluster.wait_for_dag("unlimited")
    fleet.cluster.unpause("unlimited")
    again = fleet.cluster.trigger("unlimited", **places)
    assert again.wait() == "success"
    result = again.result("backup")
    assert (result["reused_files"], result["reused_bytes"]) == (len(sent), sum(sent))
    assert result["uploaded_files"] >= FILES + 1 - len(sent)
    assert restore_with_aimrocks(repository, 1, scratch) == FILES + 1


def test_marked_as_failed(fleet: Fleet, places: dict[str, str], tmp_path: Path) -> None:
    """A task that somebody marks as failed stops its upload by itself, before Airflow would kill it."""
    run = begin(fleet, "limited", places)
    fleet.cluster.call("PATCH", f"{run.path}/taskInstances/backup", {"new_state": "failed"})
    wait_for(lambda: "Task killed!" in run.log("backup"), "the end of the task's process")
    assert run.wait() == "failed"
    assert "CancelledError" in run.log("backup")
    # "Task killed!" may come up to 5 s after the process has ended: Airflow looks for that only so often
    assert told(run, "Task failed with exception") - told(run, "Terminating process") < PROMISED_SECONDS
    check_stopped(fleet, run, places, tmp_path / "restored")


def test_time_limit(fleet: Fleet, places: dict[str, str], tmp_path: Path) -> None:
    """A task whose ``execution_timeout`` is over stops its upload, and fails."""
    run = begin(fleet, "limited_in_time", places)
    assert run.wait() == "failed"
    assert told(run, "Task failed with exception") - told(run, "Process timed out") < PROMISED_SECONDS
    assert "AirflowTaskTimeout" in run.log("backup")
    check_stopped(fleet, run, places, tmp_path / "restored")


def test_worker_shuts_down(fleet: Fleet, places: dict[str, str], tmp_path: Path) -> None:
    """A Celery worker that is told to stop at once (SIGQUIT) stops its upload, which fails."""
    run = begin(fleet, "limited", places)
    began = time.time()
    send_signal(fleet.workers["db-host-2"], signal.SIGQUIT)
    fleet.workers["db-host-2"].wait()
    fleet.start_worker("db-host-2")
    assert run.wait() == "failed"
    assert told(run, "Task failed with exception") - began < PROMISED_SECONDS
    check_stopped(fleet, run, places, tmp_path / "restored")
