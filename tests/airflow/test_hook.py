"""A connection of type rocksdb."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook


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
    assert f"{live_db}: a RocksDB database, open in process " in message
    assert "1 SST and blob files" in message
    assert "column families default" in message
    assert {name: os.stat(live_db / name).st_mtime_ns for name in os.listdir(live_db)} == before


def test_connection_test_of_a_stopped_database(monkeypatch: pytest.MonkeyPatch, stopped_db: Path) -> None:
    """A database that nobody has open is said to be just that."""
    connect(monkeypatch, db_dir=str(stopped_db))
    done, message = RocksDBHook().test_connection()
    assert done, message
    assert "a RocksDB database, not open" in message


def test_failing_connection_tests(monkeypatch: pytest.MonkeyPatch, stopped_db: Path) -> None:
    """No connection, no directory, no database, and no repository each fail the test, with the reason."""
    assert RocksDBHook().test_connection()[0] is False
    connect(monkeypatch, db_dir=str(stopped_db / "nowhere"))
    message = f"{stopped_db}/nowhere: no such directory on host {socket.gethostname()}"
    assert RocksDBHook().test_connection() == (False, message)
    connect(monkeypatch, db_dir=str(stopped_db), backup_dir="nosuchscheme://a/b")
    done, message = RocksDBHook().test_connection()
    assert (done, "the backup repository cannot be read" in message) == (False, True)
    shutil.rmtree(stopped_db)
    stopped_db.mkdir()
    connect(monkeypatch, db_dir=str(stopped_db))
    assert RocksDBHook().test_connection()[0] is False


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
