"""Objects of S3 read by the thread that wants them: from a real server, and from one that breaks off."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from airflow_provider_rocksdb.core import s3_download, s3_http, s3_requests
from airflow_provider_rocksdb.core.download import DownloadItem, download_files
from airflow_provider_rocksdb.core.errors import TransferError
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.servers import S3Server

DATA = os.urandom(3_000_000)


@dataclass
class Server:
    """A server that has ``DATA`` under every key.

    ``breaks`` are the bytes after which its next answers break off, ``statuses`` what it answers before any of that.
    """

    url: str = ""
    etag: str = '"one"'
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)  # ranges and conditions
    connections: set[Any] = field(default_factory=set)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.connections.add(self.client_address)
            asked, condition = self.headers["Range"], self.headers["If-Match"]
            state.asked.append((asked, condition))
            if state.statuses:
                self.answer(state.statuses.pop(0), b"")
            elif condition not in (None, state.etag):
                self.answer(412, b"")
            else:
                start = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", asked or "")) else 0
                self.answer(206 if asked else 200, DATA[start:], state.breaks.pop(0) if state.breaks else None)

        def answer(self, status: int, data: bytes, kept: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", state.etag)
            self.end_headers()
            self.wfile.write(data[:kept])
            self.close_connection = kept is not None

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield state
        http.shutdown()


def connect(server: Server, **options: Any) -> Storage:
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
def test_one_request(server: Server, step: int) -> None:
    """However it is read, an object is one request; the next one uses the same connection."""
    storage = connect(server)
    assert read(storage, step) == DATA
    assert read(storage, step) == DATA
    assert server.asked == [(None, None)] * 2
    assert len(server.connections) == 1


def test_from_a_position(server: Server) -> None:
    """Reading from a position on asks for no more than that."""
    assert read(connect(server), offset=1_000_001) == DATA[1_000_001:]
    assert server.asked == [("bytes=1000001-", None)]


def test_breaks_off(server: Server) -> None:
    """What comes after a connection has broken off is asked for from there, as long as it is the same object."""
    server.breaks = [1_000_000, 500_000]
    assert read(connect(server), 100_000) == DATA
    assert server.asked == [(None, None), ("bytes=1000000-", '"one"'), ("bytes=1500000-", '"one"')]


def test_replaced_meanwhile(server: Server) -> None:
    """The rest of another object is not taken for this one's."""
    server.breaks = [1_000_000]
    with connect(server).open_reader("object", len(DATA)) as file:
        assert file.read(1_000_000) == DATA[:1_000_000]
        server.etag = '"two"'
        with pytest.raises(OSError, match=r"412|[Pp]recondition"):
            file.read(1)


def test_never_ends_well(server: Server, tmp_path: Path) -> None:
    """An object of which nothing comes fails after as many attempts as are allowed, and leaves nothing."""
    server.breaks = [0] * 100
    item = DownloadItem("object", str(tmp_path / "object"), len(DATA))
    with pytest.raises(TransferError, match=r"ended after 0 of 3000000 bytes|0 bytes read, 3000000 more"):
        download_files([item], connect(server), options=TransferOptions(attempts=3, backoff_seconds=0.01))
    assert len(server.asked) == 3
    assert os.listdir(tmp_path) == []


def test_overloaded(server: Server) -> None:
    """A server that cannot answer now is asked again, by botocore."""
    server.statuses = [503, 500]
    assert read(connect(server)) == DATA
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "error"), [(404, FileNotFoundError), (403, PermissionError)])
def test_refused(server: Server, status: int, error: type[OSError]) -> None:
    """What a server refuses has the error that s3fs has for it."""
    server.statuses = [status]
    with pytest.raises(error):
        read(connect(server))


def test_silent(server: Server) -> None:
    """A server that sends no more is given up after the driver's time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server.url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        storage = connect(server, config_kwargs={"read_timeout": 0.3, "retries": {"max_attempts": 0}})
        with pytest.raises(Exception, match=r"[Tt]imeout|timed out"):
            read(storage)


def test_left_early(server: Server) -> None:
    """A reader that is left before the end leaves no connection that something is still coming on."""
    storage = connect(server)
    with storage.open_reader("object", len(DATA)) as file:
        assert file.read(10) == DATA[:10]
    assert read(storage) == DATA
    assert len(server.connections) == 2


def test_by_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_interrupted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
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
