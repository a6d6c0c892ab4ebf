"""Wrong credentials, no bucket, read-only storage: an error that says so, at once, and few requests until then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.errors import AccessError, NotFoundError, RocksDBError
from airflow_provider_rocksdb.core.repository import create_backup, list_backups
from airflow_provider_rocksdb.core.storage import translating
from airflow_provider_rocksdb.hooks.storage import resolve_storage
from tests.backends.backends import (
    ACCOUNT,
    ACCOUNT_KEY,
    DRIVERS,
    SECRET,
    USER,
    History,
    azure_options,
    gcs_options,
)
from tests.backends.proxy import Proxy, http_response, proxy
from tests.core.databases import mounted
from tests.core.repositories import QUICK
from tests.servers import serve

MAX_REQUESTS = 8  # a backup to a storage that lets one in takes three times as many
MAX_CONNECTIONS = 6


@dataclass
class Case:
    """How to open a storage that will refuse; its root; the proxy that counts on the way there."""

    open: Callable[[], tuple[AbstractFileSystem, str]]
    counted: Proxy | None = None


def case(url: str, counted: Proxy, **options: Any) -> Case:
    return Case(lambda: resolve_storage(url, storage_options=options), counted)


def paramiko_case(counted: Proxy, password: str, place: str) -> Case:
    from fsspec.implementations.sftp import SFTPFileSystem

    options = {"port": counted.port, "username": USER, "look_for_keys": False, "allow_agent": False}

    def connect() -> tuple[AbstractFileSystem, str]:
        with translating("sftp://127.0.0.1"):
            return SFTPFileSystem("127.0.0.1", password=password, **options), place

    return Case(connect, counted)


def as_azure(counted: Proxy, **changes: str) -> dict[str, Any]:
    return azure_options(counted.port, **changes)


def refuses(status: str, body: str, *, writing_only: bool = False) -> Callable[[bytes], bytes | None]:
    """Answer in the server's place: as one that knows the user but lets him only read, which these servers cannot."""
    writes = (b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"MKCOL ", b"MOVE ", b"COPY ")

    def answer(data: bytes) -> bytes | None:
        return http_response(status, body) if data.startswith(writes) or not writing_only else None

    return answer


def google_says(code: int) -> str:
    return f'{{"error": {{"code": {code}, "message": "Caller does not have access to the object."}}}}'


AWS_SAYS = "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def assert_refused(refusal: Case, history: History, kind: type[RocksDBError]) -> None:
    for use in (_back_up, _list):
        if refusal.counted is not None:
            refusal.counted.requests = refusal.counted.connections = 0
        if use is _list and kind is NotFoundError:
            continue  # a repository that is not there has no backups
        with pytest.raises(kind) as raised:
            use(refusal, history)
        assert SECRET not in str(raised.value)
        assert ACCOUNT_KEY not in str(raised.value)
        if refusal.counted is not None:
            counts = (refusal.counted.requests, refusal.counted.connections)
            assert refusal.counted.requests <= MAX_REQUESTS, counts
            assert refusal.counted.connections <= MAX_CONNECTIONS, counts


def _back_up(refusal: Case, history: History) -> None:
    filesystem, root = refusal.open()
    create_backup(history.inventories[0], filesystem, root, options=QUICK)


def _list(refusal: Case, history: History) -> None:
    filesystem, root = refusal.open()
    list_backups(filesystem, root, options=QUICK)


@contextlib.contextmanager
def wrong_credentials(name: str, request: pytest.FixtureRequest) -> Iterator[Case]:
    if name == "s3":
        server = request.getfixturevalue("s3_server")
        with proxy(server.port) as counted:
            endpoint = f"http://127.0.0.1:{counted.port}"
            yield case(server.url, counted, **{**server.storage_options, "endpoint_url": endpoint, "secret": "wrong"})
    elif name == "azure":
        with proxy(request.getfixturevalue("azure_port")) as counted:
            yield case("abfs://any/db", counted, **as_azure(counted, AccountKey="d3Jvbmc="))
    elif name in ("gcs 401", "gcs 403"):
        port = request.getfixturevalue("gcs_port")
        with proxy(port, refuses(f"{name[-3:]} No", google_says(int(name[-3:])))) as counted:
            yield case("gs://any/db", counted, **gcs_options(counted.port))
    elif name == "sftp":
        with proxy(request.getfixturevalue("sftp_process").port) as counted:
            yield paramiko_case(counted, "wrong", "/db")
    elif name == "sshfs":
        with proxy(request.getfixturevalue("sftp_process").port) as counted:
            where = {"host": "127.0.0.1", "port": counted.port, "login": USER, "password": "wrong"}
            conn_id = request.getfixturevalue("connect")("sftp", extra={"no_host_key_check": "true"}, **where)
            yield Case(lambda: resolve_storage("sftp://127.0.0.1/db", conn_id), counted)
    elif name == "ftp":
        with proxy(request.getfixturevalue("ftp_process").port) as counted:
            options = {"port": counted.port, "username": USER, "password": "wrong"}
            yield case("ftp://127.0.0.1/db", counted, **options)
    else:
        with proxy(request.getfixturevalue("webdav_process").port) as counted:
            options = {"base_url": f"http://127.0.0.1:{counted.port}", "auth": (USER, "wrong")}
            yield case("webdav://db", counted, **options)


@pytest.mark.parametrize("name", ["s3", "azure", "gcs 401", "gcs 403", "sftp", "sshfs", "ftp", "webdav"])
def test_wrong_credentials(
    name: str, request: pytest.FixtureRequest, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong credentials are an AccessError, whatever the driver raises, and are not tried again."""
    with wrong_credentials(name, request) as refusal:
        assert_refused(refusal, history, AccessError)
    assert "failed, next in" not in caplog.text


@pytest.mark.parametrize("name", ["s3", "azure", "gcs"])
def test_missing_bucket(
    name: str, request: pytest.FixtureRequest, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    """A bucket or container that is not there is a NotFoundError; none is made."""
    if name == "s3":
        server = request.getfixturevalue("s3_server")
        port, url, options = server.port, "s3://no-such-bucket/db", server.storage_options
    else:
        port = request.getfixturevalue(f"{name}_port")
        url = "abfs://no-such-bucket/db" if name == "azure" else "gs://no-such-bucket/db"
    with proxy(port) as counted:
        if name == "s3":
            options = {**options, "endpoint_url": f"http://127.0.0.1:{counted.port}"}
        else:
            options = azure_options(counted.port) if name == "azure" else gcs_options(counted.port)
        assert_refused(case(url, counted, **options), history, NotFoundError)
        filesystem, _ = resolve_storage(url, storage_options=options)
        assert not filesystem.exists("no-such-bucket")
    assert "failed, next in" not in caplog.text


@contextlib.contextmanager
def read_only(name: str, request: pytest.FixtureRequest, place: Path) -> Iterator[Case]:
    place.mkdir()
    if name == "local":
        with mounted(place / "mounted", "-t", "tmpfs", "-o", "ro", "tmpfs") as directory:
            yield Case(lambda: resolve_storage(f"{directory}/db"))
    elif name == "azure":
        with proxy(request.getfixturevalue("azure_port")) as counted:
            yield case("abfs://readable/db", counted, **_azure_reading(counted))
    elif name == "gcs":
        port = request.getfixturevalue("gcs_port")
        fsspec.filesystem("gs", **gcs_options(port)).mkdir("readable")
        with proxy(port, refuses("403 Forbidden", google_says(403), writing_only=True)) as counted:
            yield case("gs://readable/db", counted, **gcs_options(counted.port))
    elif name == "s3":
        server = request.getfixturevalue("s3_server")
        with proxy(server.port, refuses("403 Forbidden", AWS_SAYS, writing_only=True)) as counted:
            endpoint = f"http://127.0.0.1:{counted.port}"
            yield case(server.url, counted, **{**server.storage_options, "endpoint_url": endpoint})
    elif name == "webdav":
        port = request.getfixturevalue("webdav_process").port
        with proxy(port, refuses("403 Forbidden", "", writing_only=True)) as counted:
            yield case("webdav://db", counted, base_url=f"http://127.0.0.1:{counted.port}", auth=(USER, SECRET))
    else:
        (place / "served" / "db").mkdir(parents=True)
        login = ("--user", USER, "--pass", SECRET, "--read-only")
        protocol = {"sshfs": "sftp"}.get(name, name)
        with serve(protocol, place / "served", *login) as port, proxy(port) as counted:
            yield _served(name, counted, request)


def _azure_reading(counted: Proxy) -> dict[str, Any]:
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    with contextlib.suppress(FileExistsError):
        fsspec.filesystem("abfs", **azure_options(counted.port)).mkdir("readable")
    token = generate_account_sas(
        ACCOUNT,
        ACCOUNT_KEY,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, list=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    text = f"BlobEndpoint=http://127.0.0.1:{counted.port}/{ACCOUNT};SharedAccessSignature={token}"
    return {"connection_string": text}


def _served(name: str, counted: Proxy, request: pytest.FixtureRequest) -> Case:
    login = {"port": counted.port, "username": USER, "password": SECRET}
    if name == "sftp":
        return paramiko_case(counted, SECRET, "/db")
    if name == "ftp":
        return case("ftp://127.0.0.1/db", counted, **login)
    where = {"host": "127.0.0.1", "port": counted.port, "login": USER, "password": SECRET}
    conn_id = request.getfixturevalue("connect")("sftp", extra={"no_host_key_check": "true"}, **where)
    return Case(lambda: resolve_storage("sftp://127.0.0.1/db", conn_id), counted)


@pytest.mark.parametrize("name", [name for name in DRIVERS if name != "memory"])
def test_read_only(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    """What may only be read: a backup is refused as soon as it writes; what is there can be listed."""
    with read_only(name, request, tmp_path / "place") as refusal:
        with pytest.raises(AccessError):
            _back_up(refusal, history)
        if refusal.counted is not None:
            assert refusal.counted.requests <= 2 * MAX_REQUESTS
            assert refusal.counted.connections <= 2 * MAX_CONNECTIONS
        filesystem, root = refusal.open()
        assert list_backups(filesystem, root, options=QUICK) == ()
    assert "failed, next in" not in caplog.text
