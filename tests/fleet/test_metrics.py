"""Metrics as they leave the tasks of a real Airflow: over UDP to StatsD, and over HTTP to OpenTelemetry."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.cluster import AIRFLOW, Cluster, wait_for
from tests.fleet.hosts import Host, require_namespaces
from tests.metrics_receivers import EXPECTED, check_metrics, opentelemetry, statsd

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("receiver", [statsd, opentelemetry])
def test_metrics(tmp_path: Path, receiver: Any) -> None:
    """Each metric arrives with its tags, from tasks in processes of their own, also of those that fail."""
    if receiver is statsd:
        pytest.importorskip("statsd", reason="needs statsd")
    require_namespaces()
    db_dir, backup_dir, acknowledged = (tmp_path / name for name in ("disk/db", "repository", "disk/acknowledged"))
    extra = {"db_dir": str(db_dir), "backup_dir": str(backup_dir)}
    connections = {"rocksdb_default": {"conn_type": "rocksdb", "extra": extra}}
    local = {"CORE__EXECUTOR": "LocalExecutor", "CORE__PARALLELISM": "2", "WORKERS__EXECUTION_API_TIMEOUT": "120"}
    cluster = Cluster(tmp_path / "home", connections, local)
    shutil.copy(Path(__file__).parent / "dags" / "measured.py", cluster.home / "dags")
    host = Host("host", tmp_path / "host", tmp_path / "disk")
    script = ROOT / "example_dags" / "rocksdb_demo.py"
    with contextlib.ExitStack() as stack:
        settings, metrics = stack.enter_context(receiver())
        env = {**cluster.env, **settings}
        stack.enter_context(
            host.running(sys.executable, script, db_dir, acknowledged, log=tmp_path / "writer.log", env=env)
        )
        stack.enter_context(host.running(*AIRFLOW, "standalone", log=tmp_path / "airflow.log", env=env))
        wait_for(lambda: cluster.healthy("scheduler", "dag_processor"), "Airflow")
        cluster.wait_for_dag("measured")
        cluster.unpause("measured")
        run = cluster.trigger("measured")
        assert run.wait() == "failed"
        assert run.states() == {"backup": "success", "fresh": "success", "too_old": "failed", "verify": "failed"}
        wait_for(lambda: set(metrics) >= EXPECTED, f"metrics; so far {sorted(metrics)}")
        done = run.result("backup")
    check_metrics(metrics, done)
