"""The ready retry policy: what fails at once, and what is tried again, when."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowNotFoundException, BaseHook, task

from airflow_provider_rocksdb.__main__ import main
from airflow_provider_rocksdb.core import errors, verify_backups
from airflow_provider_rocksdb.policies.retry import RocksDBRetryPolicy
from tests.airflow.conftest import Run

try:
    from airflow.sdk.definitions.retry_policy import RetryPolicy
except ImportError:
    RetryPolicy = None

needs_policies = pytest.mark.skipif(RetryPolicy is None, reason="without Airflow 3.3's retry policies")
RunDag = Callable[[DAG], Run]


def refused_connection() -> Exception:
    """Return what a connection to a port raises on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as refused:
        socket.create_connection(("127.0.0.1", port))
    return refused.value


def missing_connection() -> Exception:
    """Return what Airflow raises for a connection that is not there."""
    with pytest.raises(AirflowNotFoundException) as missing:
        BaseHook.get_connection("nowhere_to_be_found")
    return missing.value


@needs_policies
@pytest.mark.parametrize(
    ("error", "action", "delay"),
    [
        (lambda: errors.CorruptionError("damage"), "fail", None),
        (lambda: errors.IncompleteError("a file is missing"), "fail", None),
        (lambda: errors.NotFoundError("no such bucket"), "fail", None),
        (lambda: errors.AccessError("bad key"), "fail", None),
        (lambda: FileNotFoundError("no such key"), "fail", None),
        (lambda: PermissionError("Access Denied"), "fail", None),
        (missing_connection, "fail", None),
        (lambda: errors.TransferError("kept failing"), "retry", 90),
        (refused_connection, "retry", 90),
        (TimeoutError, "retry", 90),
        (lambda: errors.BusyError("locked"), "retry", None),
        (lambda: errors.NoSpaceError("full"), "retry", None),
        (lambda: errors.CouldNotCheckError("no answer"), "default", None),
        (lambda: errors.CancelledError("killed"), "default", None),
        (lambda: KeyError("a bug"), "default", None),
    ],
)
def test_decisions(error: Callable[[], Exception], action: str, delay: int | None) -> None:
    """Damage, what is not there and bad credentials fail; the network is tried again after its own delay."""
    decision = RocksDBRetryPolicy(timedelta(seconds=90)).evaluate(error(), 1, 3)
    assert decision.action.value == action
    assert decision.retry_delay == (None if delay is None else timedelta(seconds=delay))


def test_serialized() -> None:
    """It comes back from JSON as it was."""
    policy = RocksDBRetryPolicy(timedelta(seconds=90))
    again = RocksDBRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
    assert again.network_delay == policy.network_delay


def test_run(run_dag: RunDag, stopped_db: Path, tmp_path: Path) -> None:
    """A @task that finds damage is tried once, and with Airflow before 3.3, which leaves the policy out, as ever."""
    repository = tmp_path / "repository"
    main(["backup", str(stopped_db), str(repository)])
    (sst,) = (repository / "shared_checksum").glob("*.sst")
    sst.write_bytes(b"x" * sst.stat().st_size)

    @task
    def look() -> None:
        import fsspec

        verify_backups(fsspec.filesystem("file"), str(repository), level="checksums").raise_for_state()

    arguments = {"retries": 1, "retry_delay": 0.1, "retry_policy": RocksDBRetryPolicy()}
    with DAG("with_policy", schedule=None, default_args=arguments) as dag:
        look()
    assert run_dag(dag).tries == {"look": ("failed", 2 if RetryPolicy is None else 1)}
