"""Upload a checkpoint from a DAG."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_meta
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
from airflow_provider_rocksdb.operators.rocksdb import (
    RocksDBCreateCheckpointOperator,
    RocksDBDeleteCheckpointOperator,
)
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBCheckpointSensor
from airflow_provider_rocksdb.transfers.rocksdb_to_fsspec import RocksDBToFsspecOperator
from tests.programs import run_ldb

RunDag = Callable[[DAG], Any]
Connect = Callable[..., None]


@pytest.fixture
def aws(connect: Connect, s3_server: Any) -> None:
    extra = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    connect("store", "aws", login=s3_server.key, password=s3_server.secret, extra=extra)


@pytest.fixture
def checkpoint_dir(live_db: Path, tmp_path: Path) -> Path:
    create_live_checkpoint(DatabasePaths(str(live_db)), str(tmp_path / "ck"))
    return tmp_path / "ck"


def backup_dag(dag_id: str, **options: Any) -> DAG:
    with DAG(dag_id, schedule=None) as dag:
        create = RocksDBCreateCheckpointOperator(task_id="create")
        whole = RocksDBCheckpointSensor(task_id="whole", checkpoint_dir=create.output, level="checksums")
        upload = RocksDBToFsspecOperator(task_id="upload", checkpoint_dir=create.output, **options)
        delete = RocksDBDeleteCheckpointOperator(task_id="delete", checkpoint_dir=create.output)
        create >> whole >> upload >> delete.as_teardown(setups=create)
    return dag


def upload_dag(dag_id: str, checkpoint_dir: Path, backup_dir: Path | str, **options: Any) -> DAG:
    with DAG(dag_id, schedule=None) as dag:
        RocksDBToFsspecOperator(
            task_id="upload", checkpoint_dir=str(checkpoint_dir), backup_dir=str(backup_dir), **options
        )
    return dag


def restore(repository: Path, target: Path) -> int:
    """Restore with stock RocksDB; return the number of keys."""
    run_ldb("restore", f"--db={target}", f"--backup_dir={repository}")
    from rocksdict import AccessType, Options, Rdict

    database = Rdict(str(target), Options(raw_mode=True), access_type=AccessType.read_only())
    count = len(list(database.keys()))
    database.close()
    return count


def test_whole_dag(run_dag: RunDag, connect: Connect, live_db: Path, tmp_path: Path) -> None:
    """Create, check, upload, delete: the second backup sends no SST file again, and stock RocksDB restores it."""
    repository = tmp_path / "repository"
    connect("rocksdb_default", "rocksdb", extra={"db_dir": str(live_db), "backup_dir": str(repository)})
    dag = backup_dag("whole")
    runs = [run_dag(dag), run_dag(dag)]
    assert [run.state for run in runs] == ["success", "success"]
    first, second = (run.xcom("upload") for run in runs)
    assert (first["backup_id"], second["backup_id"], second["sequence_number"]) == (1, 2, 1100)
    assert (first["reused_files"], second["reused_files"]) == (0, 1)
    metadata = json.loads(decode_backup_meta((repository / "meta" / "2").read_bytes()).metadata)
    assert metadata["run"]["run_id"] == runs[1].run_id
    assert (metadata["run"]["dag_id"], metadata["run"]["task_id"]) == ("whole", "upload")
    assert [name for name in os.listdir(f"{live_db}.checkpoints") if name.startswith("whole__")] == []
    done, message = RocksDBHook().test_connection()
    assert done
    assert f"Backup repository {repository}: the newest backup 2 is " in message
    assert restore(repository, tmp_path / "restored") == 1100


def test_s3_by_connection(
    run_dag: RunDag,
    connect: Connect,
    live_db: Path,
    tmp_path: Path,
    s3_server: Any,
    aws: None,
    stored: Callable[[], str],
) -> None:
    """The same DAG, to an S3 server through an Airflow connection; its password is nowhere to be read."""
    extra = {"db_dir": str(live_db), "backup_dir": s3_server.url, "storage_conn_id": "store"}
    connect("rocksdb_default", "rocksdb", extra=extra)
    run = run_dag(backup_dag("s3_connection"))
    assert run.state == "success"
    assert run.xcom("upload")["backup_dir"] == s3_server.url
    assert s3_server.secret not in run.log + stored()
    assert restore(s3_server.behind, tmp_path / "restored") == 1100


def test_s3_by_connection_in_the_url(run_dag: RunDag, checkpoint_dir: Path, s3_server: Any, aws: None) -> None:
    """The connection may be named in the URL."""
    run = run_dag(upload_dag("s3_url", checkpoint_dir, s3_server.url.replace("s3://", "s3://store@")))
    assert run.state == "success"
    assert (s3_server.behind / "meta" / "1").is_file()


def test_s3_by_options(run_dag: RunDag, checkpoint_dir: Path, s3_server: Any, stored: Callable[[], str]) -> None:
    """Storage options are neither a rendered template nor in an XCom nor in the log."""
    options = s3_server.storage_options
    run = run_dag(upload_dag("s3_options", checkpoint_dir, s3_server.url, storage_options=options))
    assert run.state == "success"
    assert (s3_server.behind / "meta" / "1").is_file()
    assert s3_server.secret not in run.log + stored()


def test_wrong_credentials(run_dag: RunDag, checkpoint_dir: Path, s3_server: Any) -> None:
    """Wrong credentials fail at the first try, and are not in the log."""
    options = {**s3_server.storage_options, "secret": "an0ther-one"}
    run = run_dag(upload_dag("wrong", checkpoint_dir, s3_server.url, storage_options=options, retries=2))
    assert run.tries == {"upload": ("failed", 1)}
    assert "AccessError" in run.log
    assert "an0ther-one" not in run.log


def test_credentials_in_the_url(run_dag: RunDag, checkpoint_dir: Path, stored: Callable[[], str]) -> None:
    """A password in a URL is refused at the first try, and is neither in the log nor among the rendered fields."""
    url = "s3://somebody:pa55word@bucket/repository"  # on a line of its own: Airflow 2 logs the line that runs a DAG
    run = run_dag(upload_dag("in_url", checkpoint_dir, url, retries=2))
    assert run.tries == {"upload": ("failed", 1)}
    assert "a URL must not carry a user or a password" in run.log
    assert "pa55word" not in run.log


@pytest.mark.parametrize("mode", [{"mode": "poke"}, {"deferrable": True}], ids=["poke", "deferrable"])
def test_directory_layout(
    run_dag: RunDag, checkpoint_dir: Path, s3_server: Any, aws: None, mode: dict[str, Any]
) -> None:
    """The checkpoint as it is, in a directory of its own, which the sensor finds whole on the storage."""
    url = f"{s3_server.url}/{{{{ run_id }}}}"
    with DAG("directory", schedule=None) as dag:
        options = {"checkpoint_dir": str(checkpoint_dir), "backup_dir": url, "storage_conn_id": "store"}
        upload = RocksDBToFsspecOperator(task_id="upload", layout="directory", **options)  # type: ignore[arg-type]
        upload >> RocksDBCheckpointSensor(
            task_id="whole", checkpoint_dir=url, storage_conn_id="store", level="checksums", **mode
        )
    run = run_dag(dag)
    assert run.state == "success"
    assert sorted(os.listdir(s3_server.behind / run.run_id)) == sorted(os.listdir(checkpoint_dir))
    assert run.xcom("whole")["sequence_number"] == 1100


def test_archive_layout(
    run_dag: RunDag, live_db: Path, checkpoint_dir: Path, s3_server: Any, aws: None, tmp_path: Path
) -> None:
    """One compressed file, under a name of its own or under the one given, which a retry of the task takes as done."""
    options = {"layout": "archive", "storage_conn_id": "store", "compression_level": 19, "compression_threads": 1}
    run = run_dag(upload_dag("folder", checkpoint_dir, s3_server.url, **options))
    assert run.state == "success"
    (archive,) = s3_server.behind.iterdir()
    assert re.fullmatch(rf"{live_db.name}-\d{{8}}T\d{{6}}\.\d{{3}}Z\.tar\.zst", archive.name)
    assert run.xcom("upload")["archive"] == f"{s3_server.url}/{archive.name}"
    (tmp_path / "back").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "back"], check=True)
    assert sorted(os.listdir(tmp_path / "back")) == sorted([*os.listdir(checkpoint_dir), "checkpoint-files.json"])
    named = upload_dag("named", checkpoint_dir, f"{tmp_path}/{{{{ run_id }}}}.tar.gz", layout="archive")
    runs = [run_dag(named), run_dag(upload_dag("upload_again", checkpoint_dir, s3_server.url, **options))]
    assert [run.xcom("upload")["reused"] for run in runs] == [False, True]
    assert (tmp_path / f"{runs[0].run_id}.tar.gz").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "bzip2"}, "expected one of zstd, gzip, none"),
        ({"compression": "gzip", "compression_level": 12}, "gzip takes a level from 1 to 9"),
    ],
)
def test_wrong_compression(
    run_dag: RunDag, checkpoint_dir: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """An impossible compression is refused at the first try, and nothing is written."""
    run = run_dag(upload_dag("compression", checkpoint_dir, tmp_path / "there", layout="archive", retries=2, **options))
    assert run.tries == {"upload": ("failed", 1)}
    assert message in run.log
    assert not (tmp_path / "there").exists()


def test_sensor_waits_on_a_storage(run_dag: RunDag, checkpoint_dir: Path, s3_server: Any, aws: None) -> None:
    """A copy on a storage that is not whole yet is waited for."""
    shutil.copytree(checkpoint_dir, s3_server.behind / "copy")
    (s3_server.behind / "copy" / "CURRENT").unlink()
    with DAG("remote", schedule=None) as dag:
        RocksDBCheckpointSensor(
            task_id="whole", checkpoint_dir=f"{s3_server.url}/copy", storage_conn_id="store", timeout=0, poke_interval=0
        )
    run = run_dag(dag)
    assert run.state == "failed"
    assert "Still missing: CURRENT: is missing" in run.log


@pytest.mark.parametrize(("damage", "error"), [("missing", "IncompleteError"), ("flipped", "CorruptionError")])
def test_not_complete(run_dag: RunDag, checkpoint_dir: Path, tmp_path: Path, damage: str, error: str) -> None:
    """What is not a whole database is not uploaded, and not tried again."""
    (sst,), (manifest,) = checkpoint_dir.glob("*.sst"), checkpoint_dir.glob("MANIFEST-*")
    if damage == "missing":
        sst.unlink()
    else:
        data = bytearray(manifest.read_bytes())
        data[12] ^= 1
        manifest.write_bytes(data)
    run = run_dag(upload_dag("not_complete", checkpoint_dir, tmp_path / "repository", retries=2))
    assert run.tries == {"upload": ("failed", 1)}
    assert error in run.log
    assert not (tmp_path / "repository").exists()


def test_another_database(run_dag: RunDag, checkpoint_dir: Path, stopped_db: Path, tmp_path: Path) -> None:
    """A repository of another place is refused at the first try, unless it is allowed."""
    repository = tmp_path / "repository"
    assert run_dag(upload_dag("mine", checkpoint_dir, repository)).state == "success"
    create_live_checkpoint(DatabasePaths(str(stopped_db)), str(tmp_path / "other"))
    run = run_dag(upload_dag("upload_other", tmp_path / "other", repository, retries=2))
    assert run.tries == {"upload": ("failed", 1)}
    assert "RepositoryMismatchError" in run.log
    assert run_dag(upload_dag("allowed", tmp_path / "other", repository, allow_other_source=True)).state == "success"


def test_another_host(run_dag: RunDag, tmp_path: Path) -> None:
    """A checkpoint that another host made and that is not visible here is an error that names both, and the way out."""
    with DAG("upload_elsewhere", schedule=None) as dag:
        RocksDBToFsspecOperator(
            task_id="upload",
            checkpoint_dir={"checkpoint_dir": str(tmp_path / "ck"), "hostname": "worker-7"},
            backup_dir=str(tmp_path / "repository"),
        )
    run = run_dag(dag)
    assert run.state == "failed"
    assert f"was made on host worker-7, and is not visible on host {socket.gethostname()}" in run.log
    assert "the same queue" in run.log


def test_unknown_layout(run_dag: RunDag, checkpoint_dir: Path, tmp_path: Path) -> None:
    """An unknown layout is refused at the first try, and nothing is written."""
    run = run_dag(upload_dag("layout", checkpoint_dir, tmp_path / "repository", layout="tar", retries=2))
    assert run.tries == {"upload": ("failed", 1)}
    assert "expected one of backup_engine, directory, archive" in run.log
    assert not (tmp_path / "repository").exists()


def test_killed(run_dag: RunDag, checkpoint_dir: Path, tmp_path: Path, killed_when: Callable[[Path], None]) -> None:
    """An upload that gets SIGTERM stops at once, fails, and has committed nothing; the next one succeeds."""
    repository = tmp_path / "repository"
    killed_when(repository / "private" / "1")
    run = run_dag(upload_dag("upload_killed", checkpoint_dir, repository, max_bytes_per_second=20))  # for minutes
    assert run.tries == {"upload": ("failed", 1)}
    assert run.xcom("upload") is None
    assert not list((repository / "meta").glob("*"))
    assert run_dag(upload_dag("upload_killed_again", checkpoint_dir, repository)).xcom("upload")["backup_id"] == 1
