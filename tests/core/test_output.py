"""A new file that has its name only when it is whole, on this host, in memory, and on S3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.errors import NoSpaceError, NotFoundError
from airflow_provider_rocksdb.core.output import open_output
from tests.core.databases import start_child
from tests.servers import S3Server


def write_and_fail(filesystem: Any, path: str, content: bytes) -> None:
    with open_output(filesystem, path) as file:
        file.write(content)
        raise FileNotFoundError("of the block")


def test_local(tmp_path: Path) -> None:
    """A file appears when its block ends, in a folder that is made, in place of an older one; nothing else stays."""
    path = tmp_path / "new" / "file"
    for content in (b"first", b"second"):
        with open_output(LocalFileSystem(), str(path)) as file:
            file.write(content[:3])
            assert file.tell() == 3
            assert not path.exists() or path.read_bytes() == b"first"
            file.write(content[3:])
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


def test_local_failure(tmp_path: Path) -> None:
    """When its block fails, the older file stays, nothing else does, and the error is the block's own."""
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileNotFoundError, match=r"^of the block$"):
        write_and_fail(LocalFileSystem(), f"{tmp_path}/file", b"new")
    assert (os.listdir(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"old")


def test_killed(tmp_path: Path) -> None:
    """A writer that is killed leaves no file of that name, and the next one clears what it has left."""
    code = """
from airflow_provider_rocksdb.core.output import open_output
with open_output(LocalFileSystem(), arguments["path"]) as file:
    file.write(b"half")
    print("half", flush=True)
    sys.stdin.read()
"""
    with start_child(code, path=str(tmp_path / "file")) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half\n"
        child.kill()
    assert os.listdir(tmp_path) == ["incoming"]
    with open_output(LocalFileSystem(), str(tmp_path / "file")) as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["file"]


def test_no_space(tiny: str) -> None:
    """A full disk is NoSpaceError, also where the first write past the end is cut short; no file is there."""
    with pytest.raises(NoSpaceError, match="file"), open_output(LocalFileSystem(), f"{tiny}/file") as file:
        file.write(os.urandom(2 << 20))
    assert os.listdir(tiny) == []


def test_no_folder(tmp_path: Path) -> None:
    """A place that cannot be is NotFoundError, with the place."""
    (tmp_path / "file").touch()
    opened = open_output(LocalFileSystem(), f"{tmp_path}/file/file")
    with pytest.raises(NotFoundError, match="/file/file"), opened:
        pass


def test_s3(s3_server: S3Server) -> None:
    """On S3 an object of several parts appears when its block ends, and none when it fails."""
    filesystem, path = fsspec.filesystem("s3", **s3_server.storage_options), f"{s3_server.place}/object"
    content = os.urandom(20 << 20)
    with pytest.raises(FileNotFoundError, match=r"^of the block$"):
        write_and_fail(filesystem, path, content)
    filesystem.invalidate_cache()
    assert not filesystem.exists(path)
    with open_output(filesystem, path) as file:
        file.write(content)
    assert filesystem.cat_file(path) == content
