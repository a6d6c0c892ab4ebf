"""The examples are DAG files that every supported Airflow reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow.conftest import AIRFLOW_HOME

EXAMPLES = Path(__file__).parent.parent.parent / "example_dags"


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("example_*.py")), ids=lambda path: path.stem)
def test_is_a_dag_file(path: Path) -> None:
    """A fresh process imports it, and finds at least one DAG with tasks in it."""
    if "kubernetes" in path.parts:
        pytest.importorskip("kubernetes", reason="without the Kubernetes client")
    if path.stem == "example_rocksdb_backup_watch":
        pytest.importorskip("airflow.sdk", reason="Airflow 2 has no AssetWatcher")
    code = """
import runpy, sys
from airflow.providers.common.compat.sdk import DAG
dags = [value for value in runpy.run_path(sys.argv[1]).values() if isinstance(value, DAG)]
print(sum(len(dag.tasks) for dag in dags))
"""
    env = {**os.environ, "AIRFLOW_HOME": str(AIRFLOW_HOME)}
    done = subprocess.run([sys.executable, "-c", code, path], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 0
