"""Backends for the contract suite: each is a real server, started once, and an empty place on it for each test.

Airflow's own environment comes from :mod:`tests.airflow.conftest`, which must be read before Airflow is. The Google
driver asks Google itself for the kind of each bucket unless the variable below is set before it is imported.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.airflow.conftest import AIRFLOW_HOME
from tests.backends.backends import BY_CONNECTION, DRIVERS, SECRET, USER, Backend, History, build_history
from tests.backends.programs import serve_azure, serve_gcs
from tests.servers import Server, serve

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

logging.getLogger("asyncssh").setLevel(logging.ERROR)  # it tells of connections that it closes when all has ended

assert AIRFLOW_HOME.is_dir()

Connect = Callable[..., str]


@pytest.fixture(scope="package")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Take three checkpoints of one database, each with more keys than the one before."""
    return build_history(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="package")
def azure_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run one Azure Blob server for all tests here."""
    pytest.importorskip("adlfs", reason="needs adlfs")
    with serve_azure(tmp_path_factory.mktemp("azure")) as port:
        yield port


@pytest.fixture(scope="package")
def gcs_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run one Google Cloud Storage server for all tests here."""
    pytest.importorskip("gcsfs", reason="needs gcsfs")
    with serve_gcs(tmp_path_factory.mktemp("gcs")) as port:
        yield port


def _rclone_process(protocol: str) -> Callable[[pytest.TempPathFactory], Iterator[Server]]:
    def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        directory = tmp_path_factory.mktemp(protocol) / "served"
        directory.mkdir()
        with serve(protocol, directory, "--user", USER, "--pass", SECRET) as port:
            yield Server(protocol, port, directory, "")

    return run


sftp_process = pytest.fixture(scope="package", name="sftp_process")(_rclone_process("sftp"))
ftp_process = pytest.fixture(scope="package", name="ftp_process")(_rclone_process("ftp"))
webdav_process = pytest.fixture(scope="package", name="webdav_process")(_rclone_process("webdav"))


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Define an Airflow connection; returns its id."""

    def define(conn_type: str, **values: object) -> str:
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": conn_type, **values}))
        return "store"

    return define


@pytest.fixture(params=DRIVERS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Give a test an empty place on each backend in turn."""
    return (DRIVERS | BY_CONNECTION)[request.param](request, tmp_path / "backend", f"place-{uuid.uuid4().hex[:12]}")
