"""A backup is one event of its repository's asset, which a DAG can be scheduled on."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_rocksdb.assets.rocksdb import (
    BACKUPS_ALIAS,
    convert_asset_to_openlineage,
    create_asset,
    create_repository_asset,
    sanitize_uri,
)
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.operators.base import BACKUP_KEY
from airflow_provider_rocksdb.operators.rocksdb import (
    RocksDBBackupOperator,
    RocksDBCreateCheckpointOperator,
    RocksDBDeleteCheckpointOperator,
    RocksDBVerifyBackupOperator,
)
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor
from airflow_provider_rocksdb.transfers.fsspec_to_rocksdb import FsspecToRocksDBOperator
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator
from tests.airflow.conftest import AIRFLOW_HOME, Run, asset_events

RunDag = Callable[[DAG], Run]
AIRFLOW_3 = hasattr(Asset, "ref")
needs_airflow_3 = pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 emits events of declared outlets alone")


@needs_airflow_3
def test_a_backup_emits_one_event(live_db: Path, tmp_path: Path, run_dag: RunDag) -> None:
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

    (uri, extra, aliases), (second_uri, second_extra, _) = asset_events("emits")
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


def test_declared_outlet(live_db: Path, tmp_path: Path, run_dag: RunDag) -> None:
    """Where the author names the repository as outlet, under whatever name, its one event has the extra; alias too."""
    place = tmp_path / "declared"
    named = Asset(f"file://{place}") if not AIRFLOW_3 else Asset(name="declared backups", uri=f"file://{place}")
    with DAG("declares", schedule=None) as dag:
        RocksDBBackupOperator(task_id="backup", db_dir=str(live_db), backup_dir=str(place), outlets=[named])
    if not AIRFLOW_3:
        dag.sync_to_db()  # that makes the dataset known
    assert run_dag(dag).state == "success"
    ((uri, extra, aliases),) = asset_events("declares")
    assert (uri, extra["backup_id"], aliases) == (named.uri, 1, [BACKUPS_ALIAS] if AIRFLOW_3 else [])

    if AIRFLOW_3:  # another DAG's backups of this repository are of this asset, too
        with DAG("knows", schedule=None) as dag:
            RocksDBBackupOperator(task_id="backup", db_dir=str(live_db), backup_dir=str(place))
        assert run_dag(dag).state == "success"
        with contextlib.closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as connection:
            names = connection.execute("SELECT name FROM asset WHERE uri = ?", (named.uri,)).fetchall()
        assert names == [("declared backups",)]
        assert [uri for uri, _, _ in asset_events("knows")] == [named.uri]


@needs_airflow_3
@pytest.mark.parametrize("layout", ["archive", "directory"])
def test_other_layouts(live_db: Path, tmp_path: Path, run_dag: RunDag, layout: Any) -> None:
    """The event's URL is what a restore takes as backup_dir: of an archive its own, not its folder's."""
    place = tmp_path / "place"
    with DAG(f"emits_{layout}", schedule=None) as dag:
        RocksDBBackupOperator(task_id="backup", db_dir=str(live_db), backup_dir=str(place), layout=layout)
    assert run_dag(dag).state == "success"
    ((uri, extra, _),) = asset_events(f"emits_{layout}")
    assert (uri, extra["backup_id"], extra["layout"]) == (f"file://{place}", None, layout)
    assert extra["uploaded_bytes"] > 0
    assert extra["url"].endswith(".tar.zst") == (layout == "archive")

    restored = tmp_path / "restored"
    with DAG(f"restores_{layout}", schedule=None) as dag:
        FsspecToRocksDBOperator(task_id="restore", db_dir=str(restored), backup_dir=extra["url"])
    run = run_dag(dag)
    assert run.xcom("restore")["sequence_number"] == extra["sequence_number"]
    assert run.xcom("restore", BACKUP_KEY) == {
        "url": extra["url"],
        "rocksdb_conn_id": "rocksdb_default",
        "backup_id": None,
    }


@needs_airflow_3
def test_mapped(live_db: Path, tmp_path: Path, run_dag: RunDag) -> None:
    """Each mapped task emits the event of its own repository, through the alias."""
    places = [str(tmp_path / name) for name in ("a", "b")]
    with DAG("maps", schedule=None) as dag:
        RocksDBBackupOperator.partial(task_id="backup", db_dir=str(live_db)).expand(backup_dir=places)
    assert run_dag(dag).state == "success"
    assert sorted((uri, extra["backup_id"], aliases) for uri, extra, aliases in asset_events("maps")) == [
        (f"file://{place}", 1, [BACKUPS_ALIAS]) for place in places
    ]


def test_no_asset(live_db: Path, tmp_path: Path, run_dag: RunDag) -> None:
    """Where Airflow takes the repository's URL for no asset, here for its length, the backup succeeds without event."""
    place = tmp_path.joinpath(*["x" * 250] * 6)
    with DAG("has_no_asset", schedule=None) as dag:
        RocksDBBackupOperator(task_id="backup", db_dir=str(live_db), backup_dir=str(place))
    run = run_dag(dag)
    assert (run.state, asset_events("has_no_asset")) == ("success", [])
    assert "No asset event" in run.log or not AIRFLOW_3


@needs_airflow_3
def test_retry(live_db: Path, tmp_path: Path, run_dag: RunDag) -> None:
    """A try that fails after its backup was made emits nothing; the next one makes another, and emits that."""

    class FailsOnce(RocksDBBackupOperator):
        def execute(self, context: Any) -> Any:
            done = super().execute(context)
            if context["ti"].try_number == 1:
                raise RuntimeError("after the backup")
            return done

    with DAG("retries", schedule=None) as dag:
        FailsOnce(task_id="backup", db_dir=str(live_db), backup_dir=str(tmp_path / "place"), retries=1, retry_delay=0.1)
    run = run_dag(dag)
    assert run.tries == {"backup": ("success", 2)}
    assert [extra["backup_id"] for _, extra, _ in asset_events("retries")] == [2]


def test_links(live_db: Path, tmp_path: Path, run_dag: RunDag, connect: Callable[..., None]) -> None:
    """Every task tells which repository it is about, also one that fails, and which backup as soon as it knows."""
    place = tmp_path / "place"
    connect("rocksdb_links", "rocksdb", extra={"db_dir": str(live_db), "backup_dir": str(place)})
    with DAG("links", schedule=None, default_args={"rocksdb_conn_id": "rocksdb_links"}) as dag:
        backup = RocksDBBackupOperator(task_id="backup")
        found = [
            RocksDBBackupSensor(task_id="sensor"),
            RocksDBVerifyBackupOperator(task_id="verify"),
            FsspecToRocksDBOperator(task_id="restore", db_dir=str(tmp_path / "restored")),
        ]
        none = [
            RocksDBDeleteCheckpointOperator(task_id="delete", checkpoint_dir=str(tmp_path / "nothing")),
            RocksDBVerifyBackupOperator(task_id="password", backup_dir="webdav://me:hunter2@host/x"),
        ]
        failing = RocksDBVerifyBackupOperator(task_id="failing", backup_dir="s3://store@bucket/path", level="nonsense")
        backup >> [*found, *none, failing]
    run = run_dag(dag)
    about = {"rocksdb_conn_id": "rocksdb_links"}
    for task in (backup, *found):
        assert run.xcom(task.task_id, BACKUP_KEY) == {**about, "url": f"file://{place}", "backup_id": 1}
    for task in none:
        assert run.xcom(task.task_id, BACKUP_KEY) == {**about, "url": None, "backup_id": None}
    assert run.states["failing"] == run.states["password"] == "failed"
    assert run.xcom("failing", BACKUP_KEY) == {**about, "url": "s3://bucket/path", "backup_id": None}


@needs_airflow_3
def test_no_credential(
    live_db: Path, s3_server: Any, run_dag: RunDag, connect: Callable[..., None], stored: Callable[[], str]
) -> None:
    """Neither secret storage options nor a connection id are in the event or the XCom of a backup."""
    options = {
        "key": s3_server.key,
        "secret": s3_server.secret,
        "endpoint_url": s3_server.endpoint,
        "client_kwargs": {"region_name": "us-east-1"},
    }
    store = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    connect("secret_store", "aws", login=s3_server.key, password=s3_server.secret, extra=store)
    bucket = s3_server.url.removeprefix("s3://")
    with DAG("tells_no_secret", schedule=None) as dag:
        first = RocksDBBackupOperator(
            task_id="options", db_dir=str(live_db), backup_dir=s3_server.url, storage_options=options
        )
        second = RocksDBBackupOperator(
            task_id="url", db_dir=str(live_db), backup_dir=f"s3://secret_store@{bucket}", allow_other_source=True
        )
        first >> second
    run = run_dag(dag)
    assert run.state == "success"
    told = asset_events("tells_no_secret")
    assert [(uri, extra["url"]) for uri, extra, _ in told] == [(s3_server.url, s3_server.url)] * 2
    assert [run.xcom(task, BACKUP_KEY)["url"] for task in ("options", "url")] == [s3_server.url] * 2
    assert "secret_store" not in json.dumps(told)
    rows = "\n".join(line for line in stored().splitlines() if "serialized_dag" not in line)
    assert s3_server.secret not in rows


def test_uris() -> None:
    """URIs are what is documented; characters that mean something in a URI are letters of a path."""
    assert create_asset(db_dir="/data//db/", host="db-host-1").uri == "rocksdb://db-host-1/data/db"
    odd = create_asset(db_dir="/data/a#b?c%d", host="h")
    assert odd.uri == "rocksdb://h/data/a%23b%3Fc%25d"
    for backup_dir, uri in {
        "/backups/a#b/": "file:///backups/a%23b",
        "file:///backups/": "file:///backups",
        "s3://bucket/a/b/": "s3://bucket/a/b",
        "s3://conn@bucket/a": "s3://bucket/a",
        **({"abfs://container@account/a": "abfs://container@account/a"} if AIRFLOW_3 else {}),  # 2 drops all users
    }.items():
        assert create_repository_asset(backup_dir=backup_dir).uri == uri


def test_openlineage() -> None:
    """OpenLineage knows a database by its host and by its path, as it is."""
    pytest.importorskip("openlineage.client.event_v2", reason="without OpenLineage's client")
    lineage = convert_asset_to_openlineage(create_asset(db_dir="/data/a#b?c%d", host="h"), None)
    assert (lineage.namespace, lineage.name) == ("rocksdb://h", "/data/a#b?c%d")


def test_refused_uris() -> None:
    """What is no database's URI is refused, and no password is in the message."""
    with pytest.raises(ValueError, match="absolute"):
        create_asset(db_dir="relative")
    with pytest.raises(InvalidArgumentError, match="must not carry") as refused:
        create_repository_asset(backup_dir="webdav://me:hunter2@host/x")
    assert "hunter2" not in str(refused.value)
    for uri in ("rocksdb:///data/db", "rocksdb://host", "rocksdb://me@host/db", "rocksdb://host/db?x=1"):
        with pytest.raises(ValueError, match="expected"):
            sanitize_uri(urlsplit(uri))
