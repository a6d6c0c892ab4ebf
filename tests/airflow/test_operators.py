"""Create and delete checkpoints from a DAG."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_rocksdb.core import live_checkpoint
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint, read_checkpoint
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
from airflow_provider_rocksdb.operators.rocksdb import (
    RocksDBCreateCheckpointOperator,
    RocksDBDeleteCheckpointOperator,
)

RunDag = Callable[[DAG], Any]


class Fail(BaseOperator):
    def execute(self, context: Any) -> None:
        raise RuntimeError("on purpose")


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, live_db: Path) -> None:
    value = {"conn_type": "rocksdb", "extra": {"db_dir": str(live_db)}}
    monkeypatch.setenv("AIRFLOW_CONN_ROCKSDB_DEFAULT", json.dumps(value))


@pytest.fixture
def sigterm() -> Iterator[None]:
    """Airflow's signal handler goes with the test."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def checkpoints(db_dir: Path) -> set[str]:
    parent = Path(f"{db_dir}.checkpoints")
    return set(os.listdir(parent)) if parent.is_dir() else set()


def test_create_by_connection(run_dag: RunDag, connection: None, live_db: Path) -> None:
    """A checkpoint of a database that is open elsewhere lies beside it, under the DAG's and the run's name."""
    with DAG("create", schedule=None) as dag:
        RocksDBCreateCheckpointOperator(task_id="create")
    run = run_dag(dag)
    result = run.xcom("create")
    assert result["checkpoint_dir"] == f"{live_db}.checkpoints/create__{run.run_id.replace(':', '-')}"
    assert (result["sequence_number"], result["hostname"], result["damage"]) == (1100, socket.gethostname(), [])
    assert run.xcom("create", "checkpoint_dir") == result["checkpoint_dir"]
    checkpoint = read_checkpoint(result["checkpoint_dir"])
    assert checkpoint is not None
    assert checkpoint.run == {"dag_id": "create", "run_id": run.run_id, "task_id": "create", "map_index": "-1"}


def test_arguments_win(run_dag: RunDag, connection: None, stopped_db: Path, tmp_path: Path) -> None:
    """Paths named to the task are used instead of the connection's; mode "exclusive" checkpoints a stopped database."""
    with DAG("arguments", schedule=None, default_args={"db_dir": str(stopped_db)}) as dag:
        RocksDBCreateCheckpointOperator(
            task_id="create", checkpoint_dir=str(tmp_path / "{{ dag.dag_id }}" / "ck"), mode="exclusive"
        )
    run = run_dag(dag)
    assert run.xcom("create")["checkpoint_dir"] == str(tmp_path / "arguments" / "ck")
    assert run.xcom("create")["mode"] == "exclusive"


def test_exclusive_of_a_running_database(run_dag: RunDag, connection: None) -> None:
    """Mode "exclusive" fails on a database that is open elsewhere, names the way out, and is retried."""
    with DAG("busy", schedule=None) as dag:
        RocksDBCreateCheckpointOperator(task_id="create", mode="exclusive", retries=1, retry_delay=0.1)
    run = run_dag(dag)
    assert run.tries == {"create": ("failed", 2)}
    assert "has it open" in run.log
    assert "use mode 'live'" in run.log


def test_permanent_error_is_not_retried(run_dag: RunDag, tmp_path: Path) -> None:
    """A directory that is no database fails the task at the first try, whatever retries it has."""
    with DAG("permanent", schedule=None) as dag:
        RocksDBCreateCheckpointOperator(task_id="create", db_dir=str(tmp_path), retries=3)
    run = run_dag(dag)
    assert run.tries == {"create": ("failed", 1)}
    assert "NotADatabaseError" in run.log


class FailsOnce(RocksDBCreateCheckpointOperator):
    def execute(self, context: Any) -> Any:
        result = super().execute(context)
        if context["ti"].try_number == 1:
            raise RuntimeError("the worker died here")
        return result


def test_retry_replaces_its_own(run_dag: RunDag, connection: None, live_db: Path) -> None:
    """A retry replaces the checkpoint that the try before it made."""
    with DAG("retry", schedule=None) as dag:
        FailsOnce(task_id="create", retries=1, retry_delay=0.1)
    run = run_dag(dag)
    assert run.tries == {"create": ("success", 2)}
    assert os.path.isdir(run.xcom("create")["checkpoint_dir"])


def test_other_task_is_not_replaced(run_dag: RunDag, connection: None, tmp_path: Path) -> None:
    """A task does not replace another task's checkpoint, unless it is told to."""
    place = str(tmp_path / "ck")
    with DAG("other", schedule=None) as dag:
        first = RocksDBCreateCheckpointOperator(task_id="first", checkpoint_dir=place)
        second = RocksDBCreateCheckpointOperator(task_id="second", checkpoint_dir=place, trigger_rule="all_done")
        third = RocksDBCreateCheckpointOperator(
            task_id="third", checkpoint_dir=place, replace=True, trigger_rule="all_done"
        )
        first >> second >> third
    assert run_dag(dag).states == {"first": "success", "second": "failed", "third": "success"}


def test_mapped(run_dag: RunDag, connection: None, live_db: Path) -> None:
    """Each task of a mapped one has a checkpoint of its own, and a mapped delete task finds the one of its index."""
    before = checkpoints(live_db)
    with DAG("mapped", schedule=None) as dag:
        create = RocksDBCreateCheckpointOperator.partial(task_id="create").expand(timeout_seconds=[60, 61])
        delete = RocksDBDeleteCheckpointOperator.partial(task_id="delete").expand(force=[False, False])
        create >> delete
    run = run_dag(dag)
    assert run.state == "success"
    for index in (0, 1):
        created, deleted = run.xcom("create", map_index=index), run.xcom("delete", map_index=index)
        assert created["checkpoint_dir"].endswith(f"__{index}")
        assert deleted == {"checkpoint_dir": created["checkpoint_dir"], "deleted": True}
    assert checkpoints(live_db) == before


@pytest.mark.parametrize("given", [None, "output", "key", "template"])
def test_setup_and_teardown(run_dag: RunDag, connection: None, live_db: Path, given: str | None) -> None:
    """The teardown deletes the checkpoint although the work failed, however it was told which."""
    before = checkpoints(live_db)
    with DAG(f"teardown_{given}", schedule=None) as dag:
        create = RocksDBCreateCheckpointOperator(task_id="create", checkpoint_dir=f"{live_db}.checkpoints/{given}")
        values = {
            "output": create.output,
            "key": create.output["checkpoint_dir"],
            "template": "{{ ti.xcom_pull(task_ids='create') }}",
        }
        delete = RocksDBDeleteCheckpointOperator(task_id="delete", checkpoint_dir=values.get(given or ""))
        create >> Fail(task_id="work") >> delete.as_teardown(setups=create)
    run = run_dag(dag)
    assert run.states == {"create": "success", "work": "failed", "delete": "success"}
    assert run.xcom("delete") == {"checkpoint_dir": f"{live_db}.checkpoints/{given}", "deleted": True}
    assert checkpoints(live_db) == before


@pytest.mark.parametrize("given", [None, "output", "template"])
def test_teardown_after_failed_setup(run_dag: RunDag, stopped_db: Path, given: str | None) -> None:
    """A teardown whose create task failed looks at the run's own place, finds nothing, and succeeds."""
    (stopped_db / "CURRENT").unlink()
    with DAG(f"failed_{given}", schedule=None, default_args={"db_dir": str(stopped_db)}) as dag:
        create = RocksDBCreateCheckpointOperator(task_id="create")
        values = {"output": create.output, "template": "{{ ti.xcom_pull(task_ids='create') }}"}
        delete = RocksDBDeleteCheckpointOperator(
            task_id="delete", checkpoint_dir=values.get(given or ""), trigger_rule="all_done"
        )
        create >> delete
    run = run_dag(dag)
    assert run.states == {"create": "failed", "delete": "success"}
    assert run.xcom("delete")["deleted"] is False
    assert run.xcom("delete")["checkpoint_dir"].startswith(f"{stopped_db}.checkpoints/")


def test_delete_refuses_a_database(run_dag: RunDag, stopped_db: Path) -> None:
    """A directory that is a database, and no checkpoint, is not deleted, also not with force."""
    with DAG("refuse", schedule=None) as dag:
        RocksDBDeleteCheckpointOperator(task_id="delete", checkpoint_dir=str(stopped_db), force=True, retries=2)
    before = sorted(os.listdir(stopped_db))
    assert run_dag(dag).tries == {"delete": ("failed", 1)}
    assert sorted(os.listdir(stopped_db)) == before


def test_delete_on_another_host(run_dag: RunDag, tmp_path: Path) -> None:
    """A checkpoint that another host made and that is not visible here is no "nothing to delete": both are named."""
    with DAG("elsewhere", schedule=None) as dag:
        RocksDBDeleteCheckpointOperator(
            task_id="delete", checkpoint_dir={"checkpoint_dir": str(tmp_path / "ck"), "hostname": "worker-7"}
        )
    run = run_dag(dag)
    assert run.state == "failed"
    assert f"was made on host worker-7, and is not visible on host {socket.gethostname()}" in run.log


@pytest.mark.parametrize("step", ["read MANIFEST", "copy WALs", "end"])
def test_killed(
    run_dag: RunDag, connection: None, live_db: Path, monkeypatch: pytest.MonkeyPatch, sigterm: None, step: str
) -> None:
    """A create task that gets SIGTERM at any step fails, is not recorded as a success, and leaves nothing."""
    before, kills = checkpoints(live_db), []

    def kill(name: str) -> None:
        if name == step and not kills:
            kills.append(name)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(live_checkpoint, "_step", kill)
    with DAG("killed", schedule=None) as dag:
        RocksDBCreateCheckpointOperator(task_id="create")
    run = run_dag(dag)
    assert kills
    assert run.tries == {"create": ("failed", 1)}
    assert run.xcom("create") is None
    assert checkpoints(live_db) == before


class KilledAtTheEnd(RocksDBHook):
    def create_checkpoint(self, *arguments: Any, **options: Any) -> Checkpoint:
        checkpoint = super().create_checkpoint(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return checkpoint


class Create(RocksDBCreateCheckpointOperator):
    @property
    def hook(self) -> RocksDBHook:
        return KilledAtTheEnd(self.rocksdb_conn_id)


def test_killed_at_the_end(run_dag: RunDag, connection: None, sigterm: None) -> None:
    """A task that is killed when its work is just done fails as well."""
    with DAG("killed_at_the_end", schedule=None) as dag:
        Create(task_id="create")
    run = run_dag(dag)
    assert run.tries == {"create": ("failed", 1)}
    assert run.xcom("create") is None


def test_runs_twice_in_one_process(run_dag: RunDag, connection: None) -> None:
    """The same DAG object runs a second time: nothing of the first run is left in it."""
    with DAG("twice", schedule=None) as dag:
        create = RocksDBCreateCheckpointOperator(task_id="create")
        create >> RocksDBDeleteCheckpointOperator(task_id="delete")
    assert run_dag(dag).state == "success"
    assert run_dag(dag).state == "success"


def test_inside_a_mount_root(run_dag: RunDag, stopped_db: Path) -> None:
    """With allow_inside the run's place is in the DB directory, and the delete task after it finds it there."""
    with DAG("inside", schedule=None, default_args={"db_dir": str(stopped_db)}) as dag:
        create = RocksDBCreateCheckpointOperator(task_id="create", allow_inside=True)
        create >> RocksDBDeleteCheckpointOperator(task_id="delete")
    run = run_dag(dag)
    assert run.xcom("create")["checkpoint_dir"].startswith(f"{stopped_db}/.checkpoints/inside__")
    assert run.xcom("delete")["deleted"] is True
