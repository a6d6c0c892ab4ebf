"""Prune a repository from a DAG."""

from __future__ import annotations

import json
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator, RocksDBPruneBackupsOperator
from tests.airflow.conftest import Run

RunDag = Callable[[DAG], Run]


@pytest.fixture
def repository(run_dag: RunDag, live_db: Path, tmp_path: Path) -> Path:
    """Back up the live database three times."""
    with DAG("before_prune", schedule=None) as dag:
        previous: Any = None
        for number in range(3):
            backup = RocksDBBackupOperator(
                task_id=f"backup_{number}", db_dir=str(live_db), backup_dir=str(tmp_path / "repository")
            )
            if previous is not None:
                previous >> backup
            previous = backup
    assert run_dag(dag).state == "success"
    return tmp_path / "repository"


def prune_dag(name: str, **arguments: Any) -> DAG:
    with DAG(name, schedule=None) as dag:
        RocksDBPruneBackupsOperator(task_id="prune", **arguments)
    return dag


def test_prune(run_dag: RunDag, repository: Path) -> None:
    """The plan is logged with a reason for each backup, and returned with what was done; a later run deletes files."""
    dag = prune_dag("prune", backup_dir=str(repository), keep_last=1, keep_within="{{ '1h' }}")
    planned = run_dag(prune_dag("plan", backup_dir=str(repository), keep_last=1, plan_only=True))
    assert planned.xcom("prune")["removed_backups"] == [1, 2]
    assert sorted(os.listdir(repository / "meta")) == ["1", "2", "3"]
    assert run_dag(dag).xcom("prune")["removed_backups"] == []
    run = run_dag(prune_dag("last", backup_dir=str(repository), keep_last=1))
    result = run.xcom("prune")
    assert (result["removed_backups"], result["removed"]["objects"]) == ([1, 2], 0)
    assert [(item["backup_id"], item["action"]) for item in result["plan"]] == [
        (3, "keep"),
        (2, "remove"),
        (1, "remove"),
    ]
    assert "no rule keeps it" in run.log
    assert "Policy: keep_last 1" in run.log
    for path in repository.rglob("*"):
        os.utime(path, (path.stat().st_atime - 90000, path.stat().st_mtime - 90000))
    again = run_dag(prune_dag("again", backup_dir=str(repository), keep_last=1)).xcom("prune")
    assert again["removed"] == result["marked"]
    assert os.listdir(repository / "private") == ["3"]


def test_s3_by_connection(
    run_dag: RunDag, repository: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch, stored: Callable[[], str]
) -> None:
    """On an S3 server, through Airflow's connections; the password is nowhere to be read."""
    shutil.copytree(repository, s3_server.behind, dirs_exist_ok=True)
    extra = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    store = {"conn_type": "aws", "login": s3_server.key, "password": s3_server.secret, "extra": extra}
    rocksdb = {"conn_type": "rocksdb", "extra": {"backup_dir": s3_server.url, "storage_conn_id": "store"}}
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(store))
    monkeypatch.setenv("AIRFLOW_CONN_ROCKSDB_DEFAULT", json.dumps(rocksdb))
    run = run_dag(prune_dag("prune_s3", keep_last=2))
    assert run.xcom("prune")["removed_backups"] == [1]
    assert sorted(os.listdir(s3_server.behind / "meta")) == ["2", "3"]
    assert s3_server.secret not in run.log + stored()


def test_unreadable_meta(run_dag: RunDag, repository: Path) -> None:
    """A meta that cannot be read fails the task, retries included, after the rest is done, and the XCom tells of it."""
    (repository / "meta" / "2").write_bytes(b"damaged")
    run = run_dag(prune_dag("unreadable", backup_dir=str(repository), keep_last=1, retries=1, retry_delay=0.1))
    assert run.tries == {"prune": ("failed", 2)}
    assert "CouldNotCheckError" in run.log
    assert sorted(os.listdir(repository / "meta")) == ["2", "3"]
    assert [item["backup_id"] for item in run.xcom("prune")["unreadable"]] == [2]


@pytest.mark.parametrize("policy", [{}, {"keep_last": 0}, {"keep_last": "3"}, {"keep_within": "1w"}])
def test_refused_policy(run_dag: RunDag, repository: Path, policy: dict[str, Any]) -> None:
    """A policy that keeps nothing, or makes no sense, fails the task at its first try, and nothing is deleted."""
    name = f"refused_{len(str(policy))}"
    run = run_dag(prune_dag(name, backup_dir=str(repository), retries=2, **policy))
    assert run.tries == {"prune": ("failed", 1)}
    assert sorted(os.listdir(repository / "meta")) == ["1", "2", "3"]


def test_long_lists_are_cut(monkeypatch: pytest.MonkeyPatch, run_dag: RunDag, repository: Path) -> None:
    """An XCom holds the newest decisions, and says how many it left out."""
    from airflow_provider_rocksdb.operators import rocksdb

    monkeypatch.setattr(rocksdb, "_MAX_LISTED", 2)
    result = run_dag(prune_dag("cut", backup_dir=str(repository), keep_last=1)).xcom("prune")
    assert [item["backup_id"] for item in result["plan"]] == [3, 2]
    assert result["left_out"] == {"plan": 1}


def test_maintenance(run_dag: RunDag, repository: Path, connect: Callable[..., None]) -> None:
    """The example's DAGs verify a part of the repository, restore its newest backup, and prune it."""
    connect("rocksdb_default", "rocksdb", extra={"backup_dir": str(repository)})
    example = Path(__file__).parent.parent.parent / "example_dags" / "example_rocksdb_maintenance.py"
    dags = runpy.run_path(str(example))
    runs = {name: run_dag(dags[name]) for name in ("verify", "drill", "prune")}
    assert {run.state for run in runs.values()} == {"success"}
    assert runs["verify"].xcom("verify")["level"] == "checksums"
    assert runs["drill"].xcom("restore")["backup_ids"] == [3]
    assert runs["prune"].xcom("prune")["removed_backups"] == []
