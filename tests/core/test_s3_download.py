"""Objects of S3 read by the thread that wants them: from a real server, and from one that breaks off."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from airflow_provider_rocksdb.core import s3_download, s3_http, s3_requests
from airflow_provider_rocksdb.core.download import DownloadItem, download_files
from airflow_provider_rocksdb.core.errors import TransferError
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.core.object_server import DATA, ObjectServer, object_server
from tests.servers import S3Server


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as state:
        yield state


def connect(server: ObjectServer, **options: Any) -> Storage:
    login = {"key": "who", "secret": "secret", "client_kwargs": {"region_name": "us-east-1"}}
    filesystem = fsspec.filesystem("s3", endpoint_url=server.url, **login, **options, skip_instance_cache=True)
    return Storage(filesystem, "bucket/there")


def read(storage: Storage, step: int = 1 << 20, offset: int = 0) -> bytes:
    parts = []
    with storage.open_reader("object", len(DATA), offset) as file:
        while part := file.read(step):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("step", [100_000, 1 << 20, 1 << 23])
def test_one_request(server: ObjectServer, step: int) -> None:
    """However it is read, an object is one request; the next one uses the same connection."""
    storage = connect(server)
    assert read(storage, step) == DATA
    assert read(storage, step) == DATA
    assert server.asked == [None] * 2
    assert len(server.connections) == 1


def test_from_a_position(server: ObjectServer) -> None:
    """Reading from a position on asks for no more than that."""
    assert read(connect(server), offset=1_000_001) == DATA[1_000_001:]
    assert server.asked == ["bytes=1000001-"]


def test_breaks_off(server: ObjectServer) -> None:
    """What comes after a connection has broken off is asked for from there, as long as it is the same object."""
    server.breaks = [1_000_000, 500_000]
    assert read(connect(server), 100_000) == DATA
    assert server.asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert server.conditions == [None, '"one"', '"one"']


def test_replaced_meanwhile(server: ObjectServer) -> None:
    """The rest of another object is not taken for this one's."""
    server.breaks = [1_000_000]
    with connect(server).open_reader("object", len(DATA)) as file:
        assert file.read(1_000_000) == DATA[:1_000_000]
        server.etag = '"two"'
        with pytest.raises(OSError, match=r"412|[Pp]recondition"):
            file.read(1)


def test_never_ends_well(server: ObjectServer, tmp_path: Path) -> None:
    """An object of which nothing comes fails after as many attempts as are allowed, and leaves nothing."""
    server.breaks = [0] * 100
    item = DownloadItem("object", str(tmp_path / "object"), len(DATA))
    with pytest.raises(TransferError, match=r"ended after 0 of 3000000 bytes|0 bytes read, 3000000 more"):
        download_files([item], connect(server), options=TransferOptions(attempts=3, backoff_seconds=0.01))
    assert len(server.asked) == 3
    assert os.listdir(tmp_path) == []


def test_overloaded(server: ObjectServer) -> None:
    """A server that cannot answer now is asked again, by botocore."""
    server.statuses = [503, 500]
    assert read(connect(server)) == DATA
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "error"), [(404, FileNotFoundError), (403, PermissionError)])
def test_refused(server: ObjectServer, status: int, error: type[OSError]) -> None:
    """What a server refuses has the error that s3fs has for it."""
    server.statuses = [status]
    with pytest.raises(error):
        read(connect(server))


def test_silent(server: ObjectServer) -> None:
    """A server that sends no more is given up after the driver's time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server.url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        storage = connect(server, config_kwargs={"read_timeout": 0.3, "retries": {"max_attempts": 0}})
        with pytest.raises(Exception, match=r"[Tt]imeout|timed out"):
            read(storage)


def test_left_early(server: ObjectServer) -> None:
    """A reader that is left before the end leaves no connection that something is still coming on."""
    storage = connect(server)
    with storage.open_reader("object", len(DATA)) as file:
        assert file.read(10) == DATA[:10]
    assert read(storage) == DATA
    assert len(server.connections) == 2


def test_by_a_proxy(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names is asked, as s3fs would."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    server.url = "http://nobody.invalid"
    assert read(connect(server)) == DATA


def test_many_at_once(s3_server: S3Server) -> None:
    """Objects that threads read at the same time are not mixed up."""
    filesystem = fsspec.filesystem("s3", **s3_server.storage_options, skip_instance_cache=True)
    storage = Storage(filesystem, s3_server.place)
    contents = {f"object{number}": os.urandom(300_000 + number) for number in range(8)}
    for name, content in contents.items():
        storage.write(name, content)

    def fetch(name: str) -> bytes:
        with s3_download.open_reader(filesystem, storage.path(name), 0) as file:
            return b"".join(iter(lambda: file.read(10_000), b""))

    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            assert dict(zip(contents, threads.map(fetch, contents), strict=True)) == contents


class InterruptError(BaseException):
    """What a scheduler raises at its time limit."""


def test_interrupted(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that hits while a request is on its way passes, and leaves the event loop alive."""
    storage = connect(server)
    assert read(storage) == DATA

    def interrupted(*_: object) -> None:
        raise InterruptError

    with monkeypatch.context() as patch:
        patch.setattr(s3_http.Session, "send", interrupted)
        with pytest.raises(InterruptError):
            s3_requests.request(storage.filesystem, "get_object", {"Bucket": "bucket", "Key": "key"})
    assert read(storage) == DATA
