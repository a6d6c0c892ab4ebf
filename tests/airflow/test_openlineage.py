"""What tasks tell OpenLineage: by the real provider and the real client, which writes its events to a file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rocksdb.__main__ import main
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.utils.openlineage import Data, repository_data
from tests.airflow.conftest import AIRFLOW_HOME

HOST = socket.gethostname()
DAG_FILE = """
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_rocksdb.operators.rocksdb import (
    RocksDBBackupOperator, RocksDBCreateCheckpointOperator, RocksDBVerifyBackupOperator
)
from airflow_provider_rocksdb.transfers.fsspec_to_rocksdb import FsspecToRocksDBOperator
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator

with DAG({name!r}, schedule=None) as dag:
    {tasks}

if __name__ == "__main__":
    dag.test()
"""

Events = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def events_of(tmp_path: Path, live_db: Path) -> Callable[..., Events]:
    """Run a DAG in a process of its own, with OpenLineage; return its tasks' events by task and type."""
    pytest.importorskip("airflow.providers.openlineage", reason="without the OpenLineage provider")

    def run(name: str, tasks: str, backup_dir: Path) -> Events:
        path = AIRFLOW_HOME / "dags" / f"{name}.py"
        path.write_text(DAG_FILE.format(name=name, tasks=textwrap.indent(textwrap.dedent(tasks), "    ").strip()))
        transport = {"type": "file", "log_file_path": str(tmp_path / f"{name}.jsonl"), "append": True}
        extra = {"db_dir": str(live_db), "backup_dir": str(backup_dir)}
        env = {
            **os.environ,
            "AIRFLOW_CONN_ROCKSDB_DEFAULT": json.dumps({"conn_type": "rocksdb", "extra": extra}),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
            "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "60",
        }
        done = subprocess.run([sys.executable, path], env=env, capture_output=True, text=True, check=False, timeout=300)
        path.unlink()
        print(done.stdout, done.stderr)
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        events = [event for event in map(json.loads, lines) if event["job"]["name"].startswith(f"{name}.")]
        return {(event["job"]["name"].removeprefix(f"{name}."), event["eventType"]): event for event in events}

    return run


def names(data: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["namespace"], item["name"]) for item in data]


def facets(data: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what an event's one input or output says, without where its schema is."""
    (item,) = data
    found = {**item["facets"], **item.get("inputFacets", {}), **item.get("outputFacets", {})}
    return {
        name: {key: value for key, value in facet.items() if key[0] != "_" and value is not None}
        for name, facet in found.items()
    }


def test_backup_and_restore(events_of: Callable[..., Events], live_db: Path, tmp_path: Path) -> None:
    """Each step names what it read and wrote, in the same words as the steps beside it, with versions and sizes."""
    repository, restored = tmp_path / "repository", tmp_path / "restored"
    events = events_of(
        "lineage_chain",
        f"""
        create = RocksDBCreateCheckpointOperator(task_id="create")
        upload = RocksDBToFsspecOperator(task_id="upload")
        backup = RocksDBBackupOperator(task_id="backup")
        verify = RocksDBVerifyBackupOperator(task_id="verify", level="checksums")
        restore = FsspecToRocksDBOperator(task_id="restore", db_dir={str(restored)!r})
        create >> upload >> backup >> verify >> restore
        """,
        repository,
    )
    assert sorted(events) == sorted(
        (task, kind) for task in ("create", "upload", "backup", "verify", "restore") for kind in ("START", "COMPLETE")
    )
    database, target = (f"rocksdb://{HOST}", str(live_db)), (f"rocksdb://{HOST}", str(restored))
    store = ("file", str(repository))
    for kind in ("START", "COMPLETE"):
        found = {
            task: (names(event["inputs"]), names(event["outputs"])) for (task, k), event in events.items() if k == kind
        }
        assert found["create"][0] == [database]
        assert found["upload"][1] == [store]
        assert found["backup"] == ([database], [store])
        assert found["verify"] == ([store], [])
        assert found["restore"] == ([store], [target])
    create, upload, backup, verify, restore = (
        events[task, "COMPLETE"] for task in ("create", "upload", "backup", "verify", "restore")
    )
    assert names(create["outputs"]) == names(upload["inputs"])
    assert names(create["outputs"])[0][0] == f"file://{HOST}"

    made = facets(create["outputs"])
    assert made["version"] == {"datasetVersion": "1100"} == facets(backup["inputs"])["version"]
    assert made["outputStatistics"]["size"] > 0
    assert facets(upload["outputs"])["version"] == {"datasetVersion": "1"}
    sent = facets(upload["outputs"])["outputStatistics"]["size"]
    sent += facets(backup["outputs"])["outputStatistics"]["size"]
    files = [path for path in repository.rglob("*") if path.is_file() and path.parent.name != "meta"]
    assert sent == sum(path.stat().st_size for path in files)
    verified = facets(verify["inputs"])
    assert verified["version"] == {"datasetVersion": "2"}
    assert verified["inputStatistics"]["fileCount"] > 0
    (assertion,) = verified["dataQualityAssertions"]["assertions"]
    assert (assertion["assertion"], assertion["success"]) == ("rocksdb_backup_is_whole", True)
    assert facets(restore["inputs"])["version"] == {"datasetVersion": "2"}
    assert facets(restore["outputs"])["version"] == {"datasetVersion": "1100"}


def test_failures(events_of: Callable[..., Events], live_db: Path, tmp_path: Path) -> None:
    """A task that fails says what it was about, and why it failed; a verification also what was wrong."""
    repository = tmp_path / "repository"
    main(["backup", str(live_db), str(repository)])
    (sst,) = (repository / "shared_checksum").glob("*.sst")
    sst.write_bytes(b"x" * sst.stat().st_size)
    events = events_of(
        "lineage_failures",
        f"""
        RocksDBVerifyBackupOperator(task_id="verify", level="checksums")
        RocksDBBackupOperator(task_id="backup", db_dir={str(tmp_path / "nowhere")!r})
        FsspecToRocksDBOperator(task_id="restore", db_dir={str(tmp_path / "restored")!r}, backup_id=7)
        """,
        repository,
    )
    store = ("file", str(repository))
    verify, backup, restore = (events[task, "FAIL"] for task in ("verify", "backup", "restore"))
    (assertion,) = facets(verify["inputs"])["dataQualityAssertions"]["assertions"]
    assert assertion["success"] is False
    assert sst.name in assertion["actual"]
    assert (names(backup["inputs"]), names(backup["outputs"])) == (
        [(f"rocksdb://{HOST}", str(tmp_path / "nowhere"))],
        [store],
    )
    assert "no such directory" in backup["run"]["facets"]["errorMessage"]["message"]
    assert names(restore["inputs"]) == [store]
    assert facets(restore["inputs"])["version"] == {"datasetVersion": "7"}
    assert facets(restore["outputs"]) == {}


def test_layouts(events_of: Callable[..., Events], stopped_db: Path, tmp_path: Path) -> None:
    """An archive's version is its name, a directory's the sequence number; a checkpoint can be given by its path."""
    places = {layout: str(tmp_path / layout) for layout in ("archive", "directory")}
    tasks = "\n".join(
        f"RocksDBToFsspecOperator(task_id={layout!r}, checkpoint_dir={str(stopped_db)!r}, layout={layout!r}, "
        f"backup_dir={place!r})"
        for layout, place in places.items()
    )
    events = events_of("lineage_layouts", tasks, tmp_path)
    (archive,) = (tmp_path / "archive").iterdir()
    told = facets(events["archive", "COMPLETE"]["outputs"])
    assert told["version"] == {"datasetVersion": archive.name}
    assert told["outputStatistics"] == {"size": archive.stat().st_size, "fileCount": 1}
    assert facets(events["directory", "COMPLETE"]["outputs"])["version"]["datasetVersion"].isdigit()
    assert names(events["archive", "START"]["inputs"]) == [(f"file://{HOST}", str(stopped_db))]


def test_hook_in_a_task(events_of: Callable[..., Events], live_db: Path, tmp_path: Path) -> None:
    """What a task's own code makes and reads through the hook is told of by Airflow's hook lineage."""
    place, told, repository = tmp_path / "my checkpoint", tmp_path / "told", tmp_path / "repository"
    main(["backup", str(live_db), str(repository)])
    events = events_of(
        "lineage_hook",
        f"""
        @task
        def program():
            from pathlib import Path
            from airflow.providers.common.compat.sdk import get_hook_lineage_collector
            from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
            hook = RocksDBHook()
            hook.create_checkpoint({str(place)!r})
            with hook.open_checkpoint({str(place)!r}), hook.open_backup():
                collected = get_hook_lineage_collector().collected_assets
            Path({str(told)!r}).write_text("\\n".join(info.asset.uri for info in collected.inputs))
        program()
        """,
        repository,
    )
    uris = [f"rocksdb://{HOST}{live_db}", f"file://{HOST}{place}", f"file://{repository}"]
    assert told.read_text().splitlines() == uris
    complete = events["program", "COMPLETE"]
    assert names(complete["outputs"]) == [(f"file://{HOST}", str(place))]
    assert ("file", str(repository)) in names(complete["inputs"])


@pytest.mark.parametrize(
    ("place", "namespace", "name"),
    [
        ("/backups/db/", "file", "/backups/db"),
        ("file:///backups/db", "file", "/backups/db"),
        ("s3://bucket/a/b/", "s3://bucket", "a/b"),
        ("s3a://my_conn@bucket/a", "s3://bucket", "a"),
        ("s3://bucket", "s3://bucket", "/"),
        ("gcs://bucket/a", "gs://bucket", "a"),
        (
            "abfss://box@account.dfs.core.windows.net/a",
            "abfss://box@account.dfs.core.windows.net",
            "/a",
        ),
        ("sftp://host:2222/backups/db", "sftp://host:2222", "/backups/db"),
    ],
)
def test_names(place: str, namespace: str, name: str) -> None:
    """A repository is named as OpenLineage names data of its kind of storage, and without a connection id."""
    assert repository_data(place) == Data(namespace, name)


def test_no_credentials() -> None:
    """A URL that carries credentials is named nowhere."""
    with pytest.raises(InvalidArgumentError) as refused:
        repository_data("sftp://user:hunter2@host/a")
    assert "hunter2" not in str(refused.value)
