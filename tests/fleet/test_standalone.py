"""``airflow standalone``: the LocalExecutor, a scheduler and a triggerer, as a person tries Airflow out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from example_dags.rocksdb_demo import count_keys
from tests.fleet.cluster import AIRFLOW, Cluster, Run, wait_for
from tests.fleet.hosts import Host, require_namespaces
from tests.programs import run_ldb

pytestmark = pytest.mark.xdist_group("standalone")  # one Airflow for all of them

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "example_dags"
WATCH = "example_rocksdb_backup_watch"


@dataclass
class Standalone:
    """An Airflow on one host, and what lies beside it."""

    directory: Path
    cluster: Cluster
    host: Host

    def running(self, *command: str | Path, log: str) -> contextlib.AbstractContextManager[Any]:
        """Run a program on the host."""
        return self.host.running(*command, log=self.directory / log, env=self.cluster.env)

    def kill_triggerer(self) -> None:
        """Kill the triggerer with the process that runs the triggers, as when a machine dies."""
        mine = f"AIRFLOW_HOME={self.cluster.home}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"triggerer" in (process / "cmdline").read_bytes() and mine in (process / "environ").read_bytes():
                    found.append(int(process.name))
        assert found
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Start it, and a database that is being written."""
    require_namespaces()
    directory = tmp_path_factory.mktemp("standalone")
    extras = {
        "rocksdb_default": {"db_dir": str(directory / "disk" / "db"), "backup_dir": str(directory / "repository")},
        "rocksdb_stock": {"backup_dir": str(directory / "stock-repository")},
    }
    settings = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "2",
        "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",  # until another takes over from one that is dead
    }
    connections = {name: {"conn_type": "rocksdb", "extra": extra} for name, extra in extras.items()}
    cluster = Cluster(directory / "home", connections, settings)
    shutil.copy(Path(__file__).parent / "dags" / "waiting.py", cluster.home / "dags")
    example = (EXAMPLES / f"{WATCH}.py").read_text()
    (cluster.home / "dags" / f"{WATCH}.py").write_text(example.replace('"rocksdb_default"', '"rocksdb_stock"'))
    running = Standalone(directory, cluster, Host("host", directory / "host", directory / "disk"))
    writer = (sys.executable, EXAMPLES / "rocksdb_demo.py", directory / "disk" / "db", directory / "disk/acknowledged")
    with running.running(*writer, log="writer.log"), running.running(*AIRFLOW, "standalone", log="airflow.log"):
        wait_for(lambda: cluster.healthy("scheduler", "dag_processor", "triggerer"), "Airflow")
        for dag_id in ("waiting", "scheduled", WATCH):
            cluster.wait_for_dag(dag_id)
        yield running


def test_sensors(standalone: Standalone, tmp_path: Path) -> None:
    """Sensors, one rescheduled and one deferred, wait for the backup that a scheduled run makes, and return it."""
    cluster, backup_dir = standalone.cluster, standalone.directory / "repository"
    cluster.unpause("waiting")
    waiting = cluster.trigger("waiting")
    away = {"rescheduled": "up_for_reschedule", "deferred": "deferred"}
    wait_for(lambda: waiting.states() == away, "the sensors to have left their slots", pause=0.1)
    written = int.from_bytes((standalone.host.disk / "acknowledged").read_bytes(), "little")
    assert not backup_dir.exists()

    cluster.unpause("scheduled")
    assert waiting.wait() == "success"
    first = cluster.runs("scheduled")[0]
    assert first.wait() == "success"
    assert first.run_id.startswith("scheduled__")
    assert first.result("backup")["backup_id"] == 1
    for task_id in away:
        assert waiting.result(task_id)["backup_id"] >= 1  # the newest when it looked
    cluster.pause("scheduled")
    assert count_keys(backup_dir, 1, tmp_path / "links") >= written > 0


def test_watcher(standalone: Standalone) -> None:
    """Each backup of stock RocksDB starts one run, which verifies it; also one made while the triggerer was dead."""
    cluster, directory = standalone.cluster, standalone.directory

    def back_up() -> None:
        run_ldb(f"--db={directory / 'stock'}", "--create_if_missing", "put", os.urandom(4).hex(), "value")
        run_ldb(f"--db={directory / 'stock'}", f"--backup_dir={directory / 'stock-repository'}", "backup")

    def seen() -> list[str]:
        assets = cluster.call("GET", "/assets?name_pattern=rocksdb_new_backup")["assets"]
        states = cluster.call("GET", f"/assets/{assets[0]['id']}/state-store")["asset_state_store"] if assets else []
        return [backup_id for state in states for backup_id in state["value"]["metas"]]

    def started(count: int) -> Run:
        wait_for(lambda: len(cluster.runs(WATCH)) >= count, f"run {count}")
        wait_for(lambda: len(seen()) == count + 1, f"the watcher's memory of backup {count + 1}")
        return cluster.runs(WATCH)[count - 1]

    back_up()
    cluster.unpause(WATCH)
    wait_for(lambda: seen() == ["1"], "the watcher's first look")
    back_up()
    assert started(1).wait() == "success"
    back_up()
    assert started(2).wait() == "success"

    standalone.kill_triggerer()
    back_up()
    with standalone.running(*AIRFLOW, "triggerer", log="triggerer.log"):
        assert started(3).wait() == "success"
        runs = cluster.runs(WATCH)
        assert [run.result("verify", 0)["backup_ids"] for run in runs] == [[2], [3], [4]]
        names = [[task["rendered_map_index"] for task in run.tasks() if task["task_id"] == "verify"] for run in runs]
        assert names == [["backup 2"], ["backup 3"], ["backup 4"]]
