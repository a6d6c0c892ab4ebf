"""An object read by one request, from an HTTP server that can break off."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from airflow_provider_rocksdb.core import object_stream
from airflow_provider_rocksdb.core.download import DownloadItem, download_files
from airflow_provider_rocksdb.core.errors import TransferError
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.core.object_server import DATA, ObjectServer, object_server

PART = 1 << 20


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as state:
        yield state


def read(server: ObjectServer, step: int) -> bytes:
    parts = []
    with object_stream.open_reader(fsspec.filesystem("http"), f"{server.url}/object", PART) as file:
        while part := file.read(step):
            parts.append(part)
    assert all(len(part) == step for part in parts[:-1])
    return b"".join(parts)


@pytest.mark.parametrize("step", [100_000, 1 << 20, 1 << 23])
def test_one_request(server: ObjectServer, step: int) -> None:
    """However it is read, an object is one request, and every part has the length that was asked for."""
    assert read(server, step) == DATA
    assert server.asked == [None]


def test_breaks_off(server: ObjectServer) -> None:
    """What comes after a connection has broken off is read in ranges, not the whole object again."""
    server.breaks = [2_000_000]
    assert read(server, 500_000) == DATA
    assert server.asked[0] is None
    first = re.fullmatch(r"bytes=(\d+)-.*", server.asked[1] or "")
    assert first
    assert 500_000 <= int(first[1]) <= 2_000_000
    assert len(server.asked) <= 4


def test_never_ends_well(server: ObjectServer, tmp_path: Path) -> None:
    """An object that breaks off each time fails after as many attempts as are allowed, and leaves nothing."""
    server.breaks = [1000] * 100
    storage = Storage(fsspec.filesystem("http"), server.url)
    item = DownloadItem("object", str(tmp_path / "object"), len(DATA))
    with pytest.raises(TransferError, match=f"{server.url}/object"):
        download_files([item], storage, options=TransferOptions(attempts=3, backoff_seconds=0.01))
    assert len(server.asked) <= 3 * (1 + 5)  # a range may be tried again by its driver
    assert os.listdir(tmp_path) == []


def test_left_early(server: ObjectServer) -> None:
    """A reader that is left before the end leaves no connection open."""
    filesystem = fsspec.filesystem("http", skip_instance_cache=True)
    with object_stream.open_reader(filesystem, f"{server.url}/object", PART) as file:
        assert file.read(10) == DATA[:10]
    with object_stream.open_reader(filesystem, f"{server.url}/object", PART) as file:
        assert file.read(len(DATA)) == DATA
    assert server.asked == [None, None]


def test_without_streams(tmp_path: Path) -> None:
    """A file system without them is read as it can."""
    (tmp_path / "object").write_bytes(DATA)
    for filesystem in (fsspec.filesystem("file"), fsspec.filesystem("dir", path="/", fs=fsspec.filesystem("file"))):
        with object_stream.open_reader(filesystem, str(tmp_path / "object"), PART) as file:
            assert file.read(len(DATA)) == DATA
