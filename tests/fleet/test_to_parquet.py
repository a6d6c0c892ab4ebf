"""The Parquet example in an Airflow of several processes: a new backup starts it, without anybody's doing."""

from __future__ import annotations

import contextlib
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.fleet.cluster import AIRFLOW, Cluster, Run, wait_for
from tests.fleet.hosts import Host, require_namespaces

parquet = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parent.parent.parent
DAG_ID = "example_rocksdb_to_parquet"


def test_each_new_backup(tmp_path: Path) -> None:
    """Of a database that is being written, each backup's event starts a run; every acknowledged key is a row."""
    require_namespaces()
    disk = tmp_path / "disk"
    db_dir, backup_dir, acknowledged = disk / "db", tmp_path / "repository", disk / "acknowledged"
    extra = {"db_dir": str(db_dir), "backup_dir": str(backup_dir)}
    connections = {"rocksdb_default": {"conn_type": "rocksdb", "extra": extra}}
    cluster = Cluster(tmp_path / "home", connections, {"CORE__EXECUTOR": "LocalExecutor", "CORE__PARALLELISM": "2"})
    cluster.env |= {
        "EXAMPLE_REPOSITORY": f"file://{backup_dir}",
        "EXAMPLE_PARQUET": f"file://{tmp_path}/parquet",
        "TMPDIR": str(tmp_path / "scratch"),
    }
    (tmp_path / "scratch").mkdir()
    shutil.copy(Path(__file__).parent / "dags" / "backing_up.py", cluster.home / "dags")
    shutil.copy(ROOT / "example_dags" / f"{DAG_ID}.py", cluster.home / "dags")
    host = Host("host", tmp_path / "host", disk)
    writer = (sys.executable, ROOT / "example_dags" / "rocksdb_demo.py", db_dir, acknowledged)

    def written() -> int:
        with contextlib.suppress(FileNotFoundError):
            return int.from_bytes((host.disk / "acknowledged").read_bytes(), "little")
        return 0

    def started_by(event: int) -> list[Run]:
        return [run for run in cluster.runs(DAG_ID) if run.run_id.startswith("asset_triggered__")][event - 1 :]

    with contextlib.ExitStack() as stack:
        stack.enter_context(host.running(*writer, log=tmp_path / "writer.log", env=cluster.env))
        stack.enter_context(host.running(*AIRFLOW, "standalone", log=tmp_path / "airflow.log", env=cluster.env))
        wait_for(lambda: cluster.healthy("scheduler", "dag_processor"), "Airflow")
        for dag_id in (DAG_ID, "backing_up"):
            cluster.wait_for_dag(dag_id)
            cluster.unpause(dag_id)
        for number in (1, 2):
            before = wait_for(written, "the writer")
            assert cluster.trigger("backing_up").wait() == "success"
            run = wait_for(partial(started_by, number), "the run that the event starts")[0]
            assert run.wait() == "success"
            result = run.result("to_parquet")
            rows = parquet.read_table(result["url"].removeprefix("file://"))["number"].to_pylist()
            assert (result["backup_id"], result["rows"]) == (number, len(rows))
            assert rows == list(range(len(rows)))
            assert len(rows) >= before
    assert not list((tmp_path / "scratch").glob("rocksdb-*"))
