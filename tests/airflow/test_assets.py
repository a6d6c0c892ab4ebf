"""A backup is one event of its repository's asset, which a DAG can be scheduled on."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_rocksdb.assets.rocksdb import (
    BACKUPS_ALIAS,
)
from airflow_provider_rocksdb.operators.rocksdb import (
    RocksDBBackupOperator,
    RocksDBCreateCheckpointOperator,
)
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator
from tests.airflow.conftest import AIRFLOW_HOME, Run

Runner = Callable[[DAG], Run]
AIRFLOW_3 = hasattr(Asset, "ref")
PREFIX = "asset" if AIRFLOW_3 else "dataset"


def events(dag_id: str) -> list[tuple[str, dict[str, Any], list[str]]]:
    """Return what Airflow has stored of a DAG's asset events: URI, extra and aliases of each, the oldest first."""
    statement = f"""
        SELECT asset.uri, event.extra, (
            SELECT group_concat(alias.name) FROM {PREFIX}_alias alias
            JOIN {PREFIX}_alias_{PREFIX}_event link ON link.alias_id = alias.id WHERE link.event_id = event.id
        ) FROM {PREFIX}_event event JOIN {PREFIX} asset ON asset.id = event.{PREFIX}_id
        WHERE event.source_dag_id = ? ORDER BY event.id
    """  # noqa: S608 -- Airflow's own names
    with contextlib.closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as connection:
        rows = connection.execute(statement, (dag_id,)).fetchall()
    return [(uri, json.loads(extra), aliases.split(",") if aliases else []) for uri, extra, aliases in rows]


def test_a_backup_emits_one_event(live_db: Path, tmp_path: Path, run_dag: Runner) -> None:
    """Both operators that make a backup emit one event of the repository, with what a consumer needs to restore it."""
    repository = tmp_path / "repository"
    with DAG("emits", schedule=None) as dag:
        create = RocksDBCreateCheckpointOperator(
            task_id="create", db_dir=str(live_db), checkpoint_dir=str(live_db.parent / "ck-emits")
        )
        upload = RocksDBToFsspecOperator(task_id="upload", backup_dir=str(repository))
        backup = RocksDBBackupOperator(task_id="backup", db_dir=str(live_db), backup_dir=f"file://{repository}/")
        create >> upload >> backup
    run = run_dag(dag)
    assert run.state == "success"

    (uri, extra, aliases), (second_uri, second_extra, _) = events("emits")
    result = run.xcom("upload")
    assert uri == second_uri == f"file://{repository}"
    assert aliases == [BACKUPS_ALIAS]
    created = run.xcom("create")
    assert extra == {
        "backup_id": 1,
        "url": f"file://{repository}",
        "layout": "backup_engine",
        **{
            name: result[name]
            for name in ("db_id", "sequence_number", "total_bytes", "uploaded_bytes", "file_count", "seconds")
        },
        "rocksdb_conn_id": "rocksdb_default",
        "db_dir": str(live_db),
        "hostname": created["hostname"],
    }
    assert extra["sequence_number"] == created["sequence_number"] > 0
    assert second_extra["backup_id"] == 2
    assert second_extra["db_dir"] == str(live_db)
