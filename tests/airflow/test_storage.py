"""From a path or URL, a connection and options to a file system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.hooks.storage import resolve_storage


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {
        "conn_type": "aws",
        "login": "access",
        "password": "the secret key",
        "extra": {"endpoint_url": "http://127.0.0.1:9"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(value))


@pytest.fixture
def ftp(monkeypatch: pytest.MonkeyPatch) -> None:
    value: dict[str, Any] = {
        "conn_type": "ftp",
        "host": "nobody.invalid",
        "login": "me",
        "password": "the password",
        "extra": {"timeout": 3, "skip_instance_cache": True, "asynchronous": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_FTP", json.dumps(value))


def test_local_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is made absolute, and lies on the local file system."""
    monkeypatch.chdir(tmp_path)
    filesystem, path = resolve_storage("backups")
    assert ("file" in filesystem.protocol, path) == (True, str(tmp_path / "backups"))


def test_file_url(tmp_path: Path) -> None:
    """A file URL is the path in it."""
    filesystem, path = resolve_storage(f"file://{tmp_path}/backups")
    assert ("file" in filesystem.protocol, path) == (True, f"{tmp_path}/backups")


def test_scheme_without_integration() -> None:
    """A scheme that Airflow has no integration for is opened by fsspec."""
    filesystem, path = resolve_storage("memory://backups/db")
    assert (filesystem.protocol, path) == ("memory", "/backups/db")


def test_connection(aws: None) -> None:
    """A scheme that Airflow knows is opened with the connection's credentials and endpoint."""
    filesystem, path = resolve_storage("s3://bucket/db", "store")
    assert path == "bucket/db"
    assert filesystem.endpoint_url == "http://127.0.0.1:9"
    assert not filesystem.anon


def test_connection_in_the_url(aws: None) -> None:
    """The connection may be named in an s3 URL, and only the same one beside it."""
    filesystem, path = resolve_storage("s3://store@bucket/db")
    assert (filesystem.endpoint_url, path) == ("http://127.0.0.1:9", "bucket/db")
    assert resolve_storage("s3://store@bucket/db", "store")[1] == "bucket/db"
    with pytest.raises(InvalidArgumentError, match="names connection 'store', the task 'other'"):
        resolve_storage("s3://store@bucket/db", "other")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/db",
        "s3://missing@bucket/db",
        "memory://db",
        "ftp://host/db",
        "abfs://bucket/db",
        "gs://bucket/db",
        "sftp://host/db",
        "webdav://db",
    ],
)
def test_missing_connection(url: str) -> None:
    """A connection that does not exist is an error, and never anonymous access."""
    with pytest.raises(AirflowNotFoundException, match="missing"):
        resolve_storage(url, "missing")


def test_connection_and_options(aws: None) -> None:
    """A connection that would silently not be used beside storage options is refused."""
    with pytest.raises(InvalidArgumentError, match="cannot be combined"):
        resolve_storage("s3://bucket/db", "store", {"anon": False})


def test_options(aws: None) -> None:
    """Storage options alone open the file system as they say."""
    filesystem, path = resolve_storage("s3://bucket/db", storage_options={"key": "AK", "secret": "SK", "anon": False})
    assert (filesystem.key, filesystem.secret, path) == ("AK", "SK", "bucket/db")


@pytest.mark.parametrize(
    "url",
    [
        "sftp://me@host/db",
        "sftp://me:pass@host/db",
        "ftp://me:pa/ss@host/db",
        "s3://key:pass@bucket/db",
        "s3://key:pa/ss@bucket/db",
        "https://me:pass@host/db",
        "abfs://key:pass@host/db",
    ],
)
def test_credentials_in_the_url(url: str) -> None:
    """User info in a URL is refused, and not repeated in the error."""
    with pytest.raises(InvalidArgumentError, match=r"must not carry a user or a password") as raised:
        resolve_storage(url)
    assert str(raised.value).startswith(f"{url.partition(':')[0]}://***: ")
    assert "ss@" not in str(raised.value)


def test_chained_url() -> None:
    """Chained URLs are refused: the second one would escape these rules."""
    with pytest.raises(InvalidArgumentError, match="chained"):
        resolve_storage("simplecache::s3://me:pass@bucket/db")


def test_unknown_scheme() -> None:
    """An unknown scheme is refused."""
    with pytest.raises(InvalidArgumentError, match="nosuchscheme"):
        resolve_storage("nosuchscheme://a/b")


@pytest.mark.parametrize(("conn_id", "options"), [("store", None), (None, {"auto_mkdir": True})])
def test_nothing_is_silently_unused(tmp_path: Path, aws: None, conn_id: str | None, options: Any) -> None:
    """A local path with a connection or with options is refused: neither would be used."""
    with pytest.raises(InvalidArgumentError, match="name a URL"):
        resolve_storage(str(tmp_path), conn_id, options)


def test_fields_of_a_connection(ftp: None) -> None:
    """Host, login, password and the known extras reach a file system without an integration, and no other key does."""
    from airflow.providers.common.compat.sdk import BaseHook

    from airflow_provider_rocksdb.hooks.storage import _connection_options

    assert _connection_options(BaseHook.get_connection("ftp")) == {
        "host": "nobody.invalid",
        "username": "me",
        "password": "the password",
        "timeout": 3,
    }


def test_secrets_are_masked() -> None:
    """Values of storage options are masked in the log, however deep they lie and whatever their key is called."""
    from airflow.providers.common.compat.sdk import redact

    resolve_storage(
        "memory://db",
        storage_options={"encryption_key": "tops3cret-a", "client": {"nested": ["tops3cret-b"]}, "host": "an.address"},
    )
    assert redact("values: tops3cret-a tops3cret-b an.address") == "values: *** *** an.address"
