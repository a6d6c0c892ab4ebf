"""The backup in one task: what it makes, and that no checkpoint stays, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator
from airflow_provider_rocksdb.utils.asset_events import EMITS_THROUGH_ALIAS
from tests.airflow.conftest import Run, asset_events
from tests.core.repositories import list_with_aimrocks, restore_with_aimrocks

RunDag = Callable[[DAG], Run]


def backup_dag(name: str, **arguments: Any) -> DAG:
    with DAG(name, schedule=None) as dag:
        RocksDBBackupOperator(task_id="backup", **arguments)
    return dag


def temporary_checkpoints(db_dir: Path) -> list[str]:
    parent = Path(f"{db_dir}.checkpoints")
    return [name for name in os.listdir(parent) if name.startswith("backup-")] if parent.is_dir() else []


def test_two_runs(run_dag: RunDag, live_db: Path, tmp_path: Path) -> None:
    """Each run makes a backup of the live database that stock RocksDB restores; the second sends no SST file again."""
    repository = tmp_path / "repository"
    dag = backup_dag("one_task", db_dir=str(live_db), backup_dir=str(repository), level="checksums")
    first, second = (run_dag(dag).xcom("backup") for _ in range(2))
    assert (first["backup_id"], second["backup_id"], second["reused_files"]) == (1, 2, 1)
    assert first["checkpoint"]["sequence_number"] == first["sequence_number"] == 1100
    assert list_with_aimrocks(repository) == [1, 2]
    assert restore_with_aimrocks(repository, 2, tmp_path / "restored") == 1100
    assert temporary_checkpoints(live_db) == []


def test_retention(run_dag: RunDag, live_db: Path, tmp_path: Path) -> None:
    """After the upload the backups that the policy does not keep are gone; the newest is restored by stock RocksDB."""
    repository = tmp_path / "repository"
    dag = backup_dag(
        "kept", db_dir=str(live_db), backup_dir=str(repository), retention={"keep_last": 1}, grace_seconds=0
    )
    results = [run_dag(dag).xcom("backup") for _ in range(3)]
    assert [result["prune"]["removed_backups"] for result in results] == [[], [1], [2]]
    assert list_with_aimrocks(repository) == [3]
    assert restore_with_aimrocks(repository, 3, tmp_path / "restored") == 1100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"retention": {}}, "would keep no backup"),
        ({"retention": {"keep_all": 1}}, "unknown keep_all; known are keep_last"),
        ({"retention": {"keep_last": 1}, "layout": "archive"}, "goes with layout backup_engine"),
    ],
)
def test_bad_retention(run_dag: RunDag, live_db: Path, tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    """A policy that makes no sense is refused before anything is done, and not tried again."""
    run = run_dag(
        backup_dag("bad", db_dir=str(live_db), backup_dir=str(tmp_path / "repository"), retries=2, **arguments)
    )
    assert run.tries == {"backup": ("failed", 1)}
    assert words in run.log
    assert not (tmp_path / "repository").exists()


def test_retention_and_an_unreadable_meta(run_dag: RunDag, live_db: Path, tmp_path: Path) -> None:
    """A meta that cannot be read fails the task, but only once: the result tells of the backup, no asset event does."""
    repository = tmp_path / "repository"
    arguments: dict[str, Any] = {
        "db_dir": str(live_db),
        "backup_dir": str(repository),
        "retries": 1,
        "retry_delay": 0.1,
    }
    dag = backup_dag("pruned", retention={"keep_last": 2}, **arguments)
    for _ in range(3):
        assert run_dag(dag).state == "success"
    (repository / "meta" / "2").write_bytes(b"damaged")
    run = run_dag(dag)
    assert run.tries == {"backup": ("failed", 1)}
    assert "backup 4 was made; " in run.log
    assert [item["backup_id"] for item in run.xcom("backup")["prune"]["unreadable"]] == [2]
    assert sorted(os.listdir(repository / "meta")) == ["2", "3", "4"]
    if EMITS_THROUGH_ALIAS:
        assert [extra["backup_id"] for _, extra, _ in asset_events("pruned")] == [1, 2, 3]


def test_exclusive(run_dag: RunDag, stopped_db: Path, tmp_path: Path) -> None:
    """Mode "exclusive" backs up a stopped database through RocksDB itself; nothing lies beside it afterwards."""
    repository = tmp_path / "repository"
    run = run_dag(backup_dag("exclusive", db_dir=str(stopped_db), backup_dir=str(repository), mode="exclusive"))
    assert run.xcom("backup")["checkpoint"]["mode"] == "exclusive"
    assert restore_with_aimrocks(repository, 1, tmp_path / "restored") == 1100
    assert not Path(f"{stopped_db}.checkpoints").exists()


def test_failure_leaves_no_checkpoint(run_dag: RunDag, stopped_db: Path, tmp_path: Path) -> None:
    """When the upload fails, here because the repository is another database's, no checkpoint stays."""
    repository = tmp_path / "repository"
    other = tmp_path / "other"
    code = "import sys; from rocksdict import Rdict; Rdict(sys.argv[1])[1] = 2"
    subprocess.run([sys.executable, "-c", code, str(other)], check=True)
    assert run_dag(backup_dag("backup_other", db_dir=str(other), backup_dir=str(repository))).state == "success"
    run = run_dag(backup_dag("backup_refused", db_dir=str(stopped_db), backup_dir=str(repository), retries=2))
    assert run.tries == {"backup": ("failed", 1)}
    assert "RepositoryMismatchError" in run.log
    assert not Path(f"{stopped_db}.checkpoints").exists()


def test_killed(run_dag: RunDag, live_db: Path, tmp_path: Path, killed_when: Callable[[Path], None]) -> None:
    """A backup that gets SIGTERM while it uploads fails, commits nothing, and leaves no checkpoint."""
    repository = tmp_path / "repository"
    killed_when(repository / "private" / "1")
    arguments = {"db_dir": str(live_db), "backup_dir": str(repository)}
    run = run_dag(backup_dag("killed_backup", max_bytes_per_second=200, **arguments))
    assert run.tries == {"backup": ("failed", 1)}
    assert not list((repository / "meta").glob("*"))
    assert temporary_checkpoints(live_db) == []


def test_killed_at_once(run_dag: RunDag, live_db: Path, tmp_path: Path) -> None:
    """What a worker killed with -9 has left beside the database, the next run deletes, and backs up."""
    code = """
        import os, signal, sys
        from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
        from airflow_provider_rocksdb.core.paths import DatabasePaths
        from airflow_provider_rocksdb.core.temporary_checkpoint import temporary_checkpoint_dir
        with temporary_checkpoint_dir(sys.argv[1]) as place:
            create_live_checkpoint(DatabasePaths(sys.argv[1]), place)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(live_db)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(temporary_checkpoints(live_db)) == 1
    run = run_dag(backup_dag("after", db_dir=str(live_db), backup_dir=str(tmp_path / "repository")))
    assert run.xcom("backup")["backup_id"] == 1
    assert temporary_checkpoints(live_db) == []


@pytest.mark.parametrize("name", ["db_dir", "backup_dir"])
def test_nothing_says_where(run_dag: RunDag, tmp_path: Path, name: str) -> None:
    """Without a connection, and without one of the two places, the task fails at once and says which is missing."""
    places = {"db_dir": str(tmp_path / "db"), "backup_dir": str(tmp_path / "repository")}
    del places[name]
    run = run_dag(backup_dag(f"without_{name}", **places))
    assert run.tries == {"backup": ("failed", 1)}
    assert "rocksdb_default" in run.log
