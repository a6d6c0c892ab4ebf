"""Real servers behind a network that fails: each driver ends in our error, in bounded time and requests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.sftp import SFTPFileSystem  # paramiko, also where sshfs is installed

from airflow_provider_rocksdb.core import drivers
from airflow_provider_rocksdb.core.download import DownloadItem, download_files
from airflow_provider_rocksdb.core.errors import TransferError
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.repository_listing import list_backups
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions, UploadItem, upload_files
from airflow_provider_rocksdb.core.verify import verify_backups
from tests.core.databases import count_keys
from tests.core.repositories import build_old, grow, list_with_aimrocks, take
from tests.faults.proxy import Network, draw_network, http_proxy, tcp_proxy
from tests.servers import S3Server, Server

OPTIONS = TransferOptions(attempts=4, backoff_seconds=0.01)
TWICE = TransferOptions(attempts=2, backoff_seconds=0.01)
# as little as a server on loopback needs; botocore's own second try is enough
IMPATIENT = {"read_timeout": 1.0, "connect_timeout": 1.0, "retries": {"max_attempts": 1}}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inventory, Inventory]:
    place = tmp_path_factory.mktemp("network")
    database = build_old(str(place / "db"))
    first = take(str(place / "db"), str(place / "first"))
    grow(database, 1500, 2500)
    return first, take(str(place / "db"), str(place / "second"))


@pytest.fixture
def network(s3_server: S3Server) -> Iterator[Network]:
    """Put a proxy in front of the S3 server."""
    with http_proxy(s3_server.port) as network:
        yield network


@pytest.fixture
def store(s3_server: S3Server, network: Network) -> Any:
    """Open the S3 server through the proxy."""
    options = {**s3_server.storage_options, "endpoint_url": f"http://127.0.0.1:{network.port}"}
    return fsspec.filesystem("s3", **options, config_kwargs=IMPATIENT, skip_instance_cache=True)


@pytest.mark.parametrize("seed", range(3))
def test_schedules(
    checkpoints: tuple[Inventory, Inventory],
    s3_server: S3Server,
    network: Network,
    store: Any,
    seed: int,
    tmp_path: Path,
) -> None:
    """Resets, stalls, server errors, cut and lost answers: two backups are there and whole, and the newest restored."""
    draw_network(network, seed)
    for inventory in checkpoints:
        for _ in range(5):  # as many tries as a patient scheduler makes
            try:
                create_backup(inventory, store, s3_server.place, options=OPTIONS)
                break
            except TransferError:
                assert_whole(s3_server)
    restored = DatabasePaths(str(tmp_path / "restored"))
    result = restore_backup(store, s3_server.place, restored, options=OPTIONS)
    assert (result.backup_id, result.skipped_backups) == (max(list_with_aimrocks(s3_server.behind)), ())
    assert count_keys(restored.db_dir)["default"] == 2500
    assert_whole(s3_server)
    assert network.requests.total() < 400


def assert_whole(server: S3Server) -> None:
    """Every backup that is there is whole, as seen without the network."""
    directory = fsspec.filesystem("file")
    if list_backups(directory, str(server.behind)):
        assert (
            verify_backups(directory, str(server.behind), all_backups=True, level="checksums").state is State.COMPLETE
        )


def test_latency(checkpoints: tuple[Inventory, Inventory], s3_server: S3Server, network: Network, store: Any) -> None:
    """At 100 ms and more for each answer nothing is different; a second backup asks little, and much of it at once."""
    network.latency_seconds = 0.1
    create_backup(checkpoints[0], store, s3_server.place, options=OPTIONS)
    network.requests.clear()
    network.rounds, network.latency_seconds = 0, 0.4  # longer than what a busy machine takes for several questions
    result = create_backup(checkpoints[1], store, s3_server.place, options=OPTIONS)
    assert network.requests.total() <= result.uploaded_files + 14
    assert network.rounds <= 13
    assert list_with_aimrocks(s3_server.behind) == [1, 2]


def test_one_request_for_each_file(s3_server: S3Server, network: Network, store: Any, tmp_path: Path) -> None:
    """A restore asks for each file once, whatever its size."""
    data = os.urandom(20_000_000)
    (tmp_path / "large").write_bytes(data)
    storage = Storage(store, s3_server.place)
    upload_files([UploadItem(str(tmp_path / "large"), "large", len(data))], storage)
    network.requests.clear()
    download_files([DownloadItem("large", str(tmp_path / "back"), len(data))], storage)
    assert network.requests == {"GET": 1}
    assert (tmp_path / "back").read_bytes() == data


def test_no_more_requests_than_ours(
    checkpoints: tuple[Inventory, Inventory], s3_server: S3Server, network: Network, store: Any
) -> None:
    """A server that asks for fewer requests gets one and botocore's second for each of our attempts: s3fs adds none."""
    network.rate, network.faults = 1.0, ("slow down",)
    with pytest.raises(TransferError, match="failed 2 times"):
        create_backup(checkpoints[0], store, s3_server.place, options=TWICE)
    assert network.requests.total() == TWICE.attempts * 2


@pytest.fixture(params=["s3", "sftp", "ftp", "webdav"])
def stalling(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str, Network]]:
    """Open a server through a proxy that can stall, with time-outs as small as may be."""
    kind = request.param
    server: Server = request.getfixturevalue(f"{kind}_server")
    with tcp_proxy(server.port) as network:
        own: dict[str, Any] = {
            "s3": {"endpoint_url": f"http://127.0.0.1:{network.port}", "config_kwargs": IMPATIENT},
            "sftp": {"port": network.port, "banner_timeout": 1},
            "ftp": {"port": network.port, "timeout": 1},
            "webdav": {"base_url": f"http://127.0.0.1:{network.port}", "timeout": 1},
        }[kind]
        options = {**server.storage_options, **own}
        if kind == "sftp":
            yield SFTPFileSystem(**options, skip_instance_cache=True), server.place, network
        else:
            yield fsspec.filesystem(kind, **options, skip_instance_cache=True), server.place, network


def test_stalled_server(
    stalling: tuple[Any, str, Network], checkpoints: tuple[Inventory, Inventory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes connections and never answers is a TransferError, and no backup."""
    monkeypatch.setattr(drivers, "SILENCE_SECONDS", 1)
    filesystem, place, network = stalling
    create_backup(checkpoints[0], filesystem, place, options=TWICE)
    network.is_stalled = True
    with pytest.raises(TransferError, match="failed 2 times"):
        create_backup(checkpoints[1], filesystem, place, options=TWICE)
    report = verify_backups(filesystem, place, options=TWICE)
    assert report.state is State.COULD_NOT_CHECK
    network.is_stalled = False
    assert create_backup(checkpoints[1], filesystem, place, options=TWICE).backup_id == 2
