"""A PostgreSQL and a Redis, on free ports of loopback, with nothing kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.programs import find_program

_START_SECONDS = 30.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Run PostgreSQL; yield where it is, as ``user@host:port/database``."""
    initdb, pg_ctl = find_program("initdb"), find_program("pg_ctl")
    as_user = []
    if os.geteuid() == 0:  # which PostgreSQL refuses
        as_user = [find_program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    directory, port = Path(tempfile.mkdtemp(prefix="postgresql-")), free_port()  # pytest's own are closed to others
    if as_user:
        shutil.chown(directory, "postgres", "postgres")
    data, log = directory / "data", directory / "log"
    options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c max_connections=200 -c fsync=off"
    commands = [
        [initdb, "--pgdata", data, "--username=airflow", "--auth=trust", "--no-sync"],
        [pg_ctl, "start", "--wait", "--pgdata", data, "--log", log, "--options", options],
    ]
    try:
        for command in commands:
            with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open in the server
                done = subprocess.run([*as_user, *command], stdout=output, stderr=output, cwd=directory, check=False)
                output.seek(0)
                assert done.returncode == 0, output.read()
        yield f"airflow@127.0.0.1:{port}/postgres"
    finally:
        stop = [*as_user, pg_ctl, "stop", "--mode=immediate", "--pgdata", data]
        subprocess.run(stop, capture_output=True, cwd=directory, check=False)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def redis(directory: Path) -> Iterator[str]:
    """Run Redis; yield its URL."""
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(directory)]
    with (directory / "redis.log").open("wb") as log:
        server = subprocess.Popen([find_program("redis-server"), *options], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            assert server.poll() is None, (directory / "redis.log").read_text()
            assert time.monotonic() < deadline, (directory / "redis.log").read_text()
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(5) == b"+PONG"
    return False
