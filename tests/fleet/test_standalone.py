"""``airflow standalone``: the LocalExecutor, a scheduler and a triggerer, as a person tries Airflow out."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

from example_dags.rocksdb_demo import count_keys
from tests.fleet.cluster import AIRFLOW, Cluster, wait_for
from tests.fleet.hosts import Host, require_namespaces

ROOT = Path(__file__).parent.parent.parent


def test_standalone(tmp_path: Path) -> None:
    """Sensors, one rescheduled and one deferred, wait for the backup that a scheduled run makes, and return it."""
    require_namespaces()
    db_dir, backup_dir, acknowledged = (tmp_path / name for name in ("disk/db", "repository", "disk/acknowledged"))
    extra = {"db_dir": str(db_dir), "backup_dir": str(backup_dir)}
    connections = {"rocksdb_default": {"conn_type": "rocksdb", "extra": extra}}
    cluster = Cluster(tmp_path / "home", connections, {"CORE__EXECUTOR": "LocalExecutor", "CORE__PARALLELISM": "2"})
    shutil.copy(Path(__file__).parent / "dags" / "waiting.py", cluster.home / "dags")
    host = Host("host", tmp_path / "host", tmp_path / "disk")
    script = ROOT / "example_dags" / "rocksdb_demo.py"
    with contextlib.ExitStack() as stack:
        writer = (sys.executable, script, db_dir, acknowledged)
        stack.enter_context(host.running(*writer, log=tmp_path / "writer.log", env=cluster.env))
        stack.enter_context(host.running(*AIRFLOW, "standalone", log=tmp_path / "airflow.log", env=cluster.env))
        wait_for(lambda: cluster.healthy("scheduler", "dag_processor", "triggerer"), "Airflow")
        for dag_id in ("waiting", "scheduled"):
            cluster.wait_for_dag(dag_id)

        cluster.unpause("waiting")
        waiting = cluster.trigger("waiting")
        away = {"rescheduled": "up_for_reschedule", "deferred": "deferred"}
        wait_for(lambda: waiting.states() == away, "the sensors to have left their slots", pause=0.1)
        written = int.from_bytes((host.disk / "acknowledged").read_bytes(), "little")
        assert not backup_dir.exists()

        cluster.unpause("scheduled")
        assert waiting.wait() == "success"
        first = cluster.runs("scheduled")[0]
        assert first.wait() == "success"
        assert first.run_id.startswith("scheduled__")
        assert first.result("backup")["backup_id"] == 1
        for task_id in away:
            assert waiting.result(task_id)["backup_id"] >= 1  # the newest when it looked
    assert count_keys(backup_dir, 1, tmp_path / "links") >= written > 0
