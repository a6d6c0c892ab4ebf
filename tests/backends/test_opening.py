"""Opening a backend: a driver that is missing, a connection that has no credentials, a server that does not answer."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from airflow_provider_rocksdb.core import drivers
from airflow_provider_rocksdb.core.errors import AccessError, InvalidArgumentError, TransferError
from airflow_provider_rocksdb.core.repository import list_backups
from airflow_provider_rocksdb.core.storage import translating
from airflow_provider_rocksdb.hooks.storage import resolve_storage
from tests.backends.backends import SECRET, USER, azure_options, gcs_options
from tests.backends.conftest import Connect
from tests.backends.proxy import proxy
from tests.core.repositories import ONCE

DRIVER_MODULES = {
    "s3": ("s3fs", "s3fs"),
    "abfs": ("adlfs", "adlfs"),
    "gs": ("gcsfs", "gcsfs"),
    "sftp": ("sshfs", "sshfs"),
    "webdav": ("webdav4.fsspec", "webdav4"),
}


@pytest.mark.parametrize("scheme", DRIVER_MODULES)
def test_missing_driver(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is not installed is an error that names it, and is not transient."""
    module, package = DRIVER_MODULES[scheme]
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(InvalidArgumentError, match=f"{scheme}://: its fsspec driver is not installed: .*{package}"):
        resolve_storage(f"{scheme}://bucket/db")


def test_azure_connection_without_credentials(connect: Connect) -> None:
    """A connection without credentials means the host's own identity; adlfs alone would try anonymously."""
    filesystem, _ = resolve_storage("abfs://bucket/db", connect("azure", extra={"account_name": "somebody"}))
    assert (filesystem.anon, type(filesystem.sync_credential).__name__) == (False, "DefaultAzureCredential")


def test_google_connection_without_credentials(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same; gcsfs alone would end up anonymous. This host has no identity, so the error says that."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(AccessError, match="DefaultCredentialsError"):
        resolve_storage("gs://bucket/db", connect("google", extra={"project": "any"}))


def test_ftp_connection_without_login(connect: Connect) -> None:
    """FTP without a login is anonymous: it must be asked for by name."""
    with pytest.raises(InvalidArgumentError, match="write anonymous as its login"):
        resolve_storage("ftp://127.0.0.1/db", connect("ftp", host="127.0.0.1"))


@pytest.mark.parametrize("name", ["s3", "azure", "gcs", "sftp", "sshfs", "ftp", "webdav"])
def test_silent_server(
    name: str, request: pytest.FixtureRequest, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers no more is given up in the time that the driver's option, or ours, says."""
    monkeypatch.setattr(drivers, "SILENCE_SECONDS", 1)
    if name in ("azure", "gcs"):
        port = request.getfixturevalue(f"{name}_port")
    else:
        server = request.getfixturevalue("s3_server" if name == "s3" else f"{name.replace('sshfs', 'sftp')}_process")
        port = server.port
    with proxy(port) as through:
        options: dict[str, Any] = {"port": through.port, "username": USER, "password": SECRET, "timeout": 1}
        if name == "s3":
            limits = {"read_timeout": 1, "retries": {"max_attempts": 0}}
            endpoint = f"http://127.0.0.1:{through.port}"
            filesystem, root = resolve_storage(
                server.url,
                storage_options={**server.storage_options, "endpoint_url": endpoint, "config_kwargs": limits},
            )
            filesystem.retries = 1
        elif name == "azure":
            monkeypatch.setattr("azure.storage.blob._shared.base_client_async.READ_TIMEOUT", 1)
            filesystem, root = resolve_storage("abfs://any/db", storage_options=azure_options(through.port))
        elif name == "gcs":
            monkeypatch.setitem(drivers._TIMEOUTS["GCSFileSystem"], "requests_timeout", 1)
            filesystem, root = resolve_storage("gs://any/db", storage_options=gcs_options(through.port))
        elif name == "sftp":
            from fsspec.implementations.sftp import SFTPFileSystem

            filesystem, root = SFTPFileSystem("127.0.0.1", look_for_keys=False, allow_agent=False, **options), "/db"
        elif name == "sshfs":
            monkeypatch.setitem(drivers._TIMEOUTS["SSHFileSystem"], "keepalive_interval", 1)
            where = {"host": "127.0.0.1", "port": through.port, "login": USER, "password": SECRET}
            filesystem, root = resolve_storage("sftp://127.0.0.1/db", connect("sftp", **where))
        elif name == "ftp":
            filesystem, root = resolve_storage("ftp://127.0.0.1/db", storage_options=options)
        else:
            base = {"base_url": f"http://127.0.0.1:{through.port}", "auth": (USER, SECRET), "timeout": 1}
            filesystem, root = resolve_storage("webdav://db", storage_options={**base, "retry": False})
        assert list_backups(filesystem, root) == ()
        through.stall()
        through.requests = 0
        with pytest.raises(TransferError), translating("here"):
            list_backups(filesystem, root, options=ONCE)
        assert through.requests <= 1  # of HTTP


def test_silent_from_the_start(
    request: pytest.FixtureRequest, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An SSH server that takes connections and says nothing is given up in the time of a login."""
    asyncssh = pytest.importorskip("asyncssh", reason="needs sshfs")
    monkeypatch.setitem(drivers._TIMEOUTS["SSHFileSystem"], "login_timeout", 1)
    with proxy(request.getfixturevalue("sftp_process").port) as through:
        through.stall()
        where = {"host": "127.0.0.1", "port": through.port, "login": USER, "password": SECRET}
        with pytest.raises(asyncssh.ConnectionLost, match="Login timeout"):
            resolve_storage("sftp://127.0.0.1/db", connect("sftp", **where))


@pytest.mark.parametrize("kind", ["requests", "channels"])
def test_hanging_sftp(connect: Connect, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """An SFTP server that hangs is given up also when the SSH server around it still answers: its disk may be gone."""
    pytest.importorskip("sshfs", reason="needs sshfs")
    from tests.backends.hanging import serve_hanging_sftp

    monkeypatch.setattr(drivers, "SILENCE_SECONDS", 1)
    with serve_hanging_sftp(channels=kind == "channels") as port:
        where = {"host": "127.0.0.1", "port": port, "login": USER, "password": SECRET}
        filesystem, root = resolve_storage("sftp://127.0.0.1/db", connect("sftp", **where))
        with pytest.raises(TransferError, match="TimeoutError"):
            list_backups(filesystem, root, options=ONCE)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("sftp", {"connect_timeout": 20, "login_timeout": 60, "keepalive_interval": 15}),
        ("webdav", {"timeout": 60}),
        ("gs", {"requests_timeout": 300}),
        ("ftp", {}),
        ("s3", {}),
        ("unknown", {}),
    ],
)
def test_default_timeouts(scheme: str, expected: dict[str, int]) -> None:
    """Drivers without limits of their own get them; an option of the caller's goes before ours."""
    assert drivers.default_timeouts(scheme) == expected
    if scheme == "webdav":
        for limit, seconds in (({}, 60), ({"timeout": 7}, 7)):
            filesystem, _ = resolve_storage("webdav://db", storage_options={"base_url": "http://127.0.0.1:9", **limit})
            assert filesystem.client.http.timeout.read == seconds
