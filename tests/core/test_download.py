"""Downloads: in parallel, compared while they stream, tried again where that helps, and nothing half-written left."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from google_crc32c import value

from airflow_provider_rocksdb.core.download import DownloadItem, download_files
from airflow_provider_rocksdb.core.errors import (
    AccessError,
    CancelledError,
    CorruptionError,
    NotFoundError,
    TransferError,
)
from airflow_provider_rocksdb.core.progress import Progress
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions

QUICK = TransferOptions(attempts=3, backoff_seconds=0.001)


class BadStore(MemoryFileSystem):
    """A store in memory whose reads fail, end early or never end, as often as they are told."""

    cachable = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(global_store=False, skip_instance_cache=True, **settings)
        self.fails: Counter[str] = Counter()
        self.cuts: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **kwargs)
        self.opened[path] += 1
        if self.fails[path] > 0:
            self.fails[path] -= 1
            raise ConnectionError("reset by peer")
        if self.cuts[path] > 0:
            self.cuts[path] -= 1
            self.pipe_file("/cut", self.cat_file(path)[:-1])
            path = "/cut"
        return super()._open(path, mode, **kwargs)


@pytest.fixture
def store() -> BadStore:
    made = BadStore()
    for number in range(10):
        made.pipe_file(f"/r/{number}", bytes([number]) * (100_000 * number))
    made.opened.clear()
    return made


def items(store: BadStore, place: Path) -> list[DownloadItem]:
    contents = {number: store.store[f"/r/{number}"].getvalue() for number in range(10)}
    return [DownloadItem(str(n), str(place / f"f{n}"), len(data), value(data)) for n, data in contents.items()]


def test_content(store: BadStore, tmp_path: Path) -> None:
    """Every file has its content, each was read once, and the progress ends at all of it."""
    told: list[Progress] = []
    wanted = items(store, tmp_path)
    result = download_files(wanted, Storage(store, "/r"), options=TransferOptions(on_progress=told.append))
    assert {item.name: item.crc32c for item in wanted} == result.crc32c
    assert all(Path(item.target).read_bytes() == store.cat_file(f"/r/{item.name}") for item in wanted)
    assert result.bytes == told[-1].bytes == told[-1].total_bytes == 4_500_000
    assert str(told[-1]).startswith("downloaded 10 of 10 files")
    assert {oct(Path(item.target).stat().st_mode & 0o777) for item in wanted} == {"0o600"}


def test_tried_again(store: BadStore, tmp_path: Path) -> None:
    """A read that fails, or ends early, is tried again, from the start of the file."""
    store.fails["/r/3"], store.cuts["/r/4"] = 2, 1
    told: list[Progress] = []
    options = TransferOptions(attempts=3, backoff_seconds=0.001, on_progress=told.append)
    download_files(items(store, tmp_path), Storage(store, "/r"), options=options)
    assert (store.opened["/r/3"], told[-1].bytes) == (3, 4_500_000)
    assert (tmp_path / "f4").read_bytes() == store.cat_file("/r/4")


def test_failures_are_all_named(store: BadStore, tmp_path: Path) -> None:
    """Files that fail at every try are named together; nothing half-written stays of them."""
    store.fails["/r/3"] = store.cuts["/r/5"] = 100
    with pytest.raises(TransferError, match=r"2 files failed.*/r/(3|5).*/r/(3|5)"):
        download_files(items(store, tmp_path), Storage(store, "/r"), options=QUICK)
    assert not {"f3", "f5"} & set(os.listdir(tmp_path))


@pytest.mark.parametrize("change", ["size", "content"])
def test_damage_is_not_tried_again(store: BadStore, tmp_path: Path, change: str) -> None:
    """More than was announced, or other content, is corrupt at the first try, and not kept."""
    store.pipe_file("/r/9", store.cat_file("/r/9") + b"x" if change == "size" else b"x" * 900_000)
    store.opened.clear()
    wanted = [item for item in items(store, tmp_path) if item.name != "9"]
    item = DownloadItem("9", str(tmp_path / "f9"), 900_000, value(bytes([9]) * 900_000))
    with pytest.raises(CorruptionError, match="/r/9"):
        download_files([*wanted, item], Storage(store, "/r"), options=QUICK)
    assert (store.opened["/r/9"], (tmp_path / "f9").exists()) == (1, False)


def test_endless_object_is_cut_off(store: BadStore, tmp_path: Path) -> None:
    """Of an object that grows without end, never more than what was announced is written."""
    seen = []

    def create(path: str) -> int:
        seen.append(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    item = DownloadItem("9", str(tmp_path / "f9"), 10, None)
    with pytest.raises(CorruptionError, match="expected 10 bytes, got more"):
        download_files([item], Storage(store, "/r"), create=create, options=QUICK)
    assert seen == [item.target]


def test_missing(store: BadStore, tmp_path: Path) -> None:
    """An object that is not there is not tried again."""
    store.rm_file("/r/7")
    wanted = [DownloadItem("7", str(tmp_path / "f7"), 700_000)]
    with pytest.raises(NotFoundError, match="7"):
        download_files(wanted, Storage(store, "/r"), options=QUICK)


def test_taken_name(store: BadStore, tmp_path: Path) -> None:
    """A name that is taken is never written over, nor followed where it is a link."""
    (tmp_path / "f1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TransferError):
        download_files(items(store, tmp_path), Storage(store, "/r"), options=QUICK)
    assert (tmp_path / "f1").is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def test_no_right_to_write(store: BadStore, tmp_path: Path) -> None:
    """A place that may not be written is an access error with its name, not tried again."""

    def refuse(path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    with pytest.raises(AccessError, match=r"f1"):
        download_files(items(store, tmp_path)[1:2], Storage(store, "/r"), create=refuse, options=QUICK)


def test_stopped(store: BadStore, tmp_path: Path) -> None:
    """Asked to stop it stops between two chunks, and leaves no half-written file."""
    stop = threading.Event()
    options = TransferOptions(max_bytes_per_second=100_000, progress_seconds=0.01, on_progress=lambda _: stop.set())
    with pytest.raises(CancelledError):
        download_files(items(store, tmp_path), Storage(store, "/r"), options=options, stop=stop)
    assert all(path.stat().st_size % 100_000 == 0 for path in tmp_path.iterdir())
