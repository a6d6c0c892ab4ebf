"""Metrics of a DAG's run, as StatsD and an OpenTelemetry collector receive them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import AIRFLOW_HOME, Run
from tests.metrics_receivers import check_metrics, opentelemetry, statsd

DAG_FILE = Path(__file__).parent.parent / "fleet" / "dags" / "measured.py"
CODE = """
import runpy, sys
try:
    from airflow.sdk.observability.metrics import stats_utils
    from airflow.sdk.observability.stats import Stats
    Stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)  # as a task's process does
except ImportError:
    pass  # before Airflow 3.3 it initializes itself
runpy.run_path(sys.argv[1])["dag"].test()
"""


@pytest.mark.parametrize("receiver", [statsd, opentelemetry])
def test_metrics(live_db: Path, tmp_path: Path, receiver: Any) -> None:
    """Each metric arrives once, with its tags and the numbers of the task's result, also of tasks that fail."""
    pytest.importorskip("statsd", reason="without statsd")
    if receiver is opentelemetry:
        pytest.importorskip("airflow.sdk.observability.metrics.otel_logger", reason="without OpenTelemetry")
    path = AIRFLOW_HOME / "dags" / "measured.py"
    shutil.copy(DAG_FILE, path)
    extra = {"db_dir": str(live_db), "backup_dir": str(tmp_path / "repository")}
    connection = {"AIRFLOW_CONN_ROCKSDB_DEFAULT": json.dumps({"conn_type": "rocksdb", "extra": extra})}
    with receiver() as (settings, metrics):
        env = {**os.environ, **connection, **settings}
        command = [sys.executable, "-c", CODE, path]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    path.unlink()
    run = Run("measured", done.stdout + done.stderr)
    print(run.log)
    assert run.states == {"backup": "success", "fresh": "success", "too_old": "failed", "verify": "failed"}
    check_metrics(metrics, run.xcom("backup"))
