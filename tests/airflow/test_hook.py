"""A connection of type rocksdb."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_rocksdb.__main__ import main
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.freshness import FoundBackup
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
from airflow_provider_rocksdb.utils import connection_test
from airflow_provider_rocksdb.utils.connection_test import _describe_backup


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str = "rocksdb_default", **extra: Any) -> None:
    value = {"conn_type": "rocksdb", "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every directory of a database can be in the connection, lists also as the form's text."""
    paths = DatabasePaths("/db", "/wal", ("/a", "/b"), {"cold": ("/c",)})
    connect(monkeypatch, db_dir="/db", wal_dir="/wal", db_paths=["/a", "/b"], cf_paths={"cold": ["/c"]})
    assert RocksDBHook().get_paths() == paths
    connect(monkeypatch, db_dir="/db", wal_dir="/wal", db_paths="/a, /b", cf_paths='{"cold": "/c"}')
    assert RocksDBHook().get_paths() == paths


def test_empty_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that the form left empty is one that is not set."""
    connect(monkeypatch, db_dir="/db", wal_dir="", db_paths="", cf_paths=None, backup_dir=None, storage_conn_id="")
    assert RocksDBHook().get_paths() == DatabasePaths("/db")
    with pytest.raises(InvalidArgumentError, match="has no backup_dir"):
        RocksDBHook().get_backup_dir()


def test_uri_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may be written as a URI."""
    monkeypatch.setenv("AIRFLOW_CONN_ROCKSDB_DEFAULT", "rocksdb:///?db_dir=%2Fdb&backup_dir=s3%3A%2F%2Fbucket%2Fdb")
    assert RocksDBHook().get_paths() == DatabasePaths("/db")
    assert RocksDBHook().get_backup_dir() == "s3://bucket/db"


def test_arguments_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a db_dir given, the connection's wal_dir is not used: it may be another database's."""
    connect(monkeypatch, db_dir="/db", wal_dir="/wal", db_paths="/a")
    assert RocksDBHook().get_paths(db_dir="/other") == DatabasePaths("/other")
    assert RocksDBHook().get_paths(wal_dir="/elsewhere") == DatabasePaths("/db", "/elsewhere", ("/a",))


def test_missing_connection() -> None:
    """Only the default connection may be missing, and only when nothing is asked of it."""
    assert RocksDBHook().get_paths(db_dir="/db") == DatabasePaths("/db")
    assert RocksDBHook().get_storage("memory://db")[1] == "/db"
    with pytest.raises(AirflowNotFoundException, match="rocksdb_default"):
        RocksDBHook().get_paths()
    with pytest.raises(AirflowNotFoundException, match="typo"):
        RocksDBHook("typo").get_storage("memory://db")


def test_unknown_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt key is an error that names it and those there are."""
    connect(monkeypatch, db_dir="/db", waldir="/wal")
    with pytest.raises(InvalidArgumentError, match=r"unknown waldir .* db_dir, wal_dir, db_paths, cf_paths"):
        RocksDBHook().get_paths()


@pytest.mark.parametrize("extra", [{"db_paths": 7}, {"cf_paths": "{"}, {"cf_paths": ["/a"]}, {"cf_paths": {"a": [1]}}])
def test_wrong_form(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    """A value of the wrong form is an error that names its key."""
    connect(monkeypatch, db_dir="/db", **extra)
    with pytest.raises(InvalidArgumentError, match=next(iter(extra))):
        RocksDBHook().get_paths()


def test_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's place and the storage's connection come from the connection, unless they are given."""
    monkeypatch.setenv("AIRFLOW_CONN_STORE", '{"conn_type": "generic"}')
    connect(monkeypatch, db_dir="/db", backup_dir="memory://backups/db", storage_conn_id="store")
    assert RocksDBHook().get_storage()[1] == "/backups/db"
    assert RocksDBHook().get_storage("memory://other")[1] == "/other"
    assert RocksDBHook().get_storage("/local")[1] == "/local"
    with pytest.raises(AirflowNotFoundException, match="missing"):
        RocksDBHook().get_storage(storage_conn_id="missing")


def test_connection_test(monkeypatch: pytest.MonkeyPatch, live_db: Path) -> None:
    """The connection's test says what the database is and who has it open, and leaves it as it was."""
    connect(monkeypatch, db_dir=str(live_db))
    before = {name: os.stat(live_db / name).st_mtime_ns for name in os.listdir(live_db)}
    done, message = RocksDBHook().test_connection()
    assert done, message
    assert re.fullmatch(
        rf"Database {live_db}: RocksDB on host {socket.gethostname()}, open in process \d+, [\d.]+ KiB in 1 SST and "
        r"blob files; column families default; last sequence number in the MANIFEST 1000\.",
        message,
    ), message
    assert {name: os.stat(live_db / name).st_mtime_ns for name in os.listdir(live_db)} == before


def test_connection_test_of_a_stopped_database(monkeypatch: pytest.MonkeyPatch, stopped_db: Path) -> None:
    """A database that nobody has open is said to be just that."""
    connect(monkeypatch, db_dir=str(stopped_db))
    done, message = RocksDBHook().test_connection()
    assert done, message
    assert "not open, " in message


def test_connection_test_of_a_repository(monkeypatch: pytest.MonkeyPatch, stopped_db: Path, tmp_path: Path) -> None:
    """Of a repository it says that it has none yet, then which is the newest, and which newer one is not whole."""
    repository = tmp_path / "repository"
    connect(monkeypatch, backup_dir=str(repository))
    assert RocksDBHook().test_connection() == (True, f"Backup repository {repository}: reachable; no backup yet.")
    for _ in range(2):
        main(["backup", str(stopped_db), str(repository)])
    done, message = RocksDBHook().test_connection()
    assert done, message
    newest = r"the newest backup {} is \d+ seconds old \(\d{{4}}-\d\d-\d\d \d\d:\d\d UTC\)\."
    assert re.fullmatch(rf"Backup repository {repository}: {newest.format(2)}", message), message
    (manifest,) = (repository / "private" / "2").glob("MANIFEST-*")
    manifest.unlink()
    done, message = RocksDBHook().test_connection()
    assert done, message
    assert re.search(newest.format(1) + " Newer ones are not whole: .*MANIFEST", message), message
    (repository / "meta" / "1").unlink()
    done, message = RocksDBHook().test_connection()
    assert (done, "MANIFEST" in message) == (False, True)


@pytest.mark.parametrize(
    ("seconds", "words"), [(119, "119 seconds"), (120, "2 minutes"), (7199, "119 minutes"), (26 * 3600, "26 hours")]
)
def test_age(seconds: int, words: str) -> None:
    """A backup's age is told in the largest unit that it has two of."""
    found = FoundBackup(State.COMPLETE, backup_id=7, time=(datetime.now(UTC) - timedelta(seconds=seconds)).isoformat())
    assert f" is {words} old " in _describe_backup(found)


def test_failing_connection_tests(monkeypatch: pytest.MonkeyPatch, stopped_db: Path) -> None:
    """No connection, nothing named, no directory, no database, and no repository each fail it, with the reason."""
    assert RocksDBHook().test_connection()[0] is False
    connect(monkeypatch)
    assert RocksDBHook().test_connection() == (False, "Neither a DB directory nor a backup repository is named.")
    connect(monkeypatch, db_dir=str(stopped_db / "nowhere"))
    message = f"no such directory on host {socket.gethostname()}"
    assert RocksDBHook().test_connection() == (False, f"Database {stopped_db}/nowhere: {message}")
    connect(monkeypatch, db_dir=str(stopped_db), backup_dir="nosuchscheme://a/b")
    done, message = RocksDBHook().test_connection()
    assert done is False
    database, repository = message.splitlines()
    assert "RocksDB on host" in database
    assert repository.startswith("Backup repository nosuchscheme://a/b: ")
    connect(monkeypatch, "made_up", waldir="/wal")
    done, message = RocksDBHook("made_up").test_connection()
    assert (done, message.partition(";")[0]) == (False, "this connection: unknown waldir in its extra")
    shutil.rmtree(stopped_db)
    stopped_db.mkdir()
    connect(monkeypatch, db_dir=str(stopped_db))
    assert RocksDBHook().test_connection()[0] is False


def test_connection_test_says_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with credentials is refused, and they are not in the answer."""
    connect(monkeypatch, backup_dir="sftp://user:hunter2@host/a")
    done, message = RocksDBHook().test_connection()
    assert (done, "must not carry a user or a password" in message, "hunter2" in message) == (False, True, False)


def test_connection_test_of_a_silent_storage(monkeypatch: pytest.MonkeyPatch, stopped_db: Path) -> None:
    """A storage that accepts connections and never answers ends the test in a limited time; the database is told of."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    monkeypatch.setattr(connection_test, "LIMIT_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        extra = {"endpoint_url": f"http://127.0.0.1:{server.getsockname()[1]}"}
        store = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(store))
        connect(monkeypatch, db_dir=str(stopped_db), backup_dir="s3://bucket/db", storage_conn_id="store")
        done, message = RocksDBHook().test_connection()
    database, repository = message.splitlines()
    assert done is False
    assert "not open" in database
    assert repository == "Backup repository s3://bucket/db: no answer within 3 s."


def test_button(monkeypatch: pytest.MonkeyPatch, live_db: Path, tmp_path: Path) -> None:
    """Airflow's API, behind the form's Test button, gives the same answer for what the form would save."""
    pytest.importorskip("airflow.api_fastapi", reason="without Airflow 3's API")
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "not-a-secret" * 6)
    extra = {"db_dir": str(live_db), "backup_dir": str(tmp_path / "repository")}
    body = {"connection_id": "form", "conn_type": "rocksdb", "extra": json.dumps(extra)}
    with TestClient(create_app()) as client:
        token = client.get("/auth/token").json()["access_token"]
        answer = client.post("/api/v2/connections/test", json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] is True
    database, repository = answer.json()["message"].splitlines()
    assert database.startswith(f"Database {live_db}: RocksDB on host ")
    assert repository == f"Backup repository {tmp_path}/repository: reachable; no backup yet."


def test_open_database(stopped_db: Path, tmp_path: Path) -> None:
    """A program that has its database open gives it to the hook for a checkpoint in mode "exclusive"."""
    from rocksdict import Options, Rdict

    database = Rdict(str(stopped_db), Options(raw_mode=True))
    try:
        hook = RocksDBHook(database=database)
        made = hook.create_checkpoint(str(tmp_path / "ck"), paths=DatabasePaths(str(stopped_db)), mode="exclusive")
        assert (made.mode, made.sequence_number) == ("exclusive", 1100)
        assert database[b"001099"] == b"in the WAL only"
    finally:
        database.close()


def test_unknown_mode(tmp_path: Path, stopped_db: Path) -> None:
    """An unknown mode is refused."""
    with pytest.raises(InvalidArgumentError, match="expected 'live' or 'exclusive'"):
        RocksDBHook().create_checkpoint(str(tmp_path / "ck"), paths=DatabasePaths(str(stopped_db)), mode="fast")
