"""The local file system as a storage, where others come and go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.storage import Storage


def test_listing_while_others_delete(tmp_path: Path) -> None:
    """What is there all the time is in each listing, whatever comes and goes meanwhile."""
    (tmp_path / "folder").mkdir()
    staying = {f"{number:03d}": number for number in range(100)}
    for name, size in staying.items():
        (tmp_path / "folder" / name).write_bytes(bytes(size))
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(20):
                (tmp_path / "folder" / f"coming-{number}").touch()
            for number in range(20):
                (tmp_path / "folder" / f"coming-{number}").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    storage = Storage(LocalFileSystem(), str(tmp_path))
    try:
        for _ in range(300):
            found = storage.list("folder")
            assert {name: size for name, size in found.items() if name in staying} == staying
    finally:
        ended.set()
        thread.join()


def test_what_is_listed(tmp_path: Path) -> None:
    """Files have sizes; folders, links and FIFOs have none; no folder, or a file in its place, holds nothing."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"12345")
    (folder / "below").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "broken").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    storage = Storage(LocalFileSystem(), str(tmp_path))
    assert storage.list("folder") == {"file": 5, "below": None, "link": None, "broken": None, "fifo": None}
    assert storage.list_entries("folder")["file"].modified == (folder / "file").stat().st_mtime
    assert storage.list("nowhere") == storage.list("folder/file") == {}
