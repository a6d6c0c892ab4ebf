"""What repositories of growing size cost: requests by kind, seconds, CPU seconds and memory, and how they grow.

    python -m benchmarks.scale [--latency MILLISECONDS] [--live-files N] [BACKUPS ...]

The store is in memory and behaves as an object store: a request takes LATENCY (5 ms), a listing gives 1,000 names a
request. A repository of BACKUPS (10, 100, 1,000) has 100 new shared files a backup, and each of its metas names the
newest 200. It is listed, verified by names and sizes, and pruned to its newer half: a dry run, a prune that marks, and
one after the grace period that deletes. In another of that size the newest meta names all shared files: into that goes
a backup of the same files and ten new ones. Files of the checkpoint are links to one real SST file.

Memory is the peak of the process above what it had when the repository was there. The last lines are the growth from
size to size: tenfold is linear.
"""

# ruff: noqa: ARG002 -- a file system takes what fsspec gives

from __future__ import annotations

import argparse
import ctypes
import gc
import io
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from rocksdict import Options, Rdict

from airflow_provider_rocksdb.core.format.backup_meta import BackupFile, BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.format.filename import FileType, table_file_name
from airflow_provider_rocksdb.core.format.table_properties import read_session_id
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.repository_layout import BackupRecord, Source, name_by_session
from airflow_provider_rocksdb.core.repository_usage import list_usage
from airflow_provider_rocksdb.core.retention import RetentionPolicy
from airflow_provider_rocksdb.core.verify import verify_backups

PAGE = 1000
ROOT = "/r"
NEW_FILES = 100
FILLED = 1_700_000_000.0  # when the objects of a made-up repository were written
GRACE_SECONDS = 3600.0
KINDS = ("listing", "page", "read", "write", "delete", "info")
SOURCE = Source("3ba4fcc7-3b7b-4bd7-9a3c-6e1f2a0d8c11", "host", "/db")

_LINKS = 10_000  # to one file; file systems have a limit
_libc = ctypes.CDLL(None)


class Store:
    """Objects in memory, by folder: size, content, time. ``ahead``: seconds that its clock is ahead of ours."""

    def __init__(self, latency_seconds: float = 0.0) -> None:
        self.latency_seconds = latency_seconds
        self.folders: dict[str, dict[str, tuple[int, bytes, float]]] = {}
        self.subfolders: dict[str, set[str]] = {}
        self.requests: Counter[str] = Counter()
        self.refused = ""
        self.ahead = 0.0
        self._lock = threading.Lock()

    def request(self, kind: str, path: str, pages: int = 1) -> None:
        """Count a request, let its time pass, or refuse it."""
        if self.refused and path.endswith(self.refused):
            raise PermissionError(path)
        with self._lock:
            self.requests[kind] += 1
            if kind == "listing":
                self.requests["page"] += pages
        if self.latency_seconds:
            time.sleep(pages * self.latency_seconds)

    def put(self, path: str, data: bytes = b"", size: int | None = None, modified: float | None = None) -> None:
        """Store an object, at once; one whose content nobody reads may be said to have another size."""
        folder, _, name = path.rpartition("/")
        if folder not in self.folders:
            self.folders[folder] = {}
            above, _, own = folder.rpartition("/")
            while folder and own not in self.subfolders.setdefault(above, set()):
                self.subfolders[above].add(own)
                folder, (above, _, own) = above, above.rpartition("/")
        at = time.time() + self.ahead if modified is None else modified
        self.folders[path.rpartition("/")[0]][name] = (len(data) if size is None else size, data, at)

    def find(self, path: str) -> tuple[int, bytes, float] | None:
        """Return an object; None when there is none."""
        folder, _, name = path.rpartition("/")
        return self.folders.get(folder, {}).get(name)


class StoreFileSystem(AbstractFileSystem):
    """A thread's way to a store."""

    protocol = "memory"  # an object store, for what it can do
    cachable = False

    def __init__(self, store: Store, **settings: Any) -> None:
        super().__init__(**settings)
        self.store = store

    def _entries(self, folder: str) -> list[dict[str, Any]]:
        return [
            {"name": f"{folder}/{name}", "type": "file", "size": size, "mtime": modified}
            for name, (size, _, modified) in list(self.store.folders.get(folder, {}).items())
        ]

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[dict[str, Any]]:
        """List a folder: one request for 1,000 names."""
        found = self._entries(path)
        below = (name for name in list(self.store.subfolders.get(path, ())) if self._is_there(f"{path}/{name}"))
        found += [{"name": f"{path}/{name}", "type": "directory", "size": 0} for name in below]
        self.store.request("listing", path, max(1, -(-len(found) // PAGE)))
        return found

    def _is_there(self, folder: str) -> bool:
        """Whether there is anything in a folder, without which an object store has none."""
        store = self.store
        subfolders = store.subfolders.get(folder, ())
        return bool(store.folders.get(folder)) or any(self._is_there(f"{folder}/{name}") for name in subfolders)

    def find(self, path: str, *args: Any, **kwargs: Any) -> dict[str, dict[str, Any]]:
        """List a tree: one request for 1,000 names."""
        folders, found = [path], {}
        for folder in folders:
            found.update({entry["name"]: entry for entry in self._entries(folder)})
            folders += [f"{folder}/{name}" for name in self.store.subfolders.get(folder, ())]
        self.store.request("listing", path, max(1, -(-len(found) // PAGE)))
        return found

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Describe an object."""
        self.store.request("info", path)
        return {"name": path, "type": "file", "size": self._get(path)[0]}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Read an object."""
        self.store.request("read", path)
        return self._get(path)[1][start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write an object."""
        self.store.request("write", path)
        if mode == "create" and self.store.find(path):
            raise FileExistsError(path)
        self.store.put(path, value)

    def rm_file(self, path: str) -> None:
        """Delete an object."""
        self.store.request("delete", path)
        self._get(path)
        folder, _, name = path.rpartition("/")
        del self.store.folders[folder][name]

    def open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        """Write an object when the file is closed."""
        return _Writer(self, path)

    def _get(self, path: str) -> tuple[int, bytes, float]:
        found = self.store.find(path)
        if found is None:
            raise FileNotFoundError(path)
        return found


class _Writer(io.BytesIO):
    def __init__(self, filesystem: StoreFileSystem, path: str) -> None:
        super().__init__()
        self._filesystem, self._path = filesystem, path

    def close(self) -> None:
        if not self.closed:
            self._filesystem.pipe_file(self._path, self.getvalue())
        super().close()

    def discard(self) -> None:
        super().close()


@dataclass(frozen=True)
class Sample:
    """A real SST file, to be linked under many names: its path, size and session id."""

    path: str
    size: int
    session_id: str

    def shared_name(self, number: int) -> str:
        """Path in a repository of the copy with a file number."""
        return name_by_session(table_file_name(number), self.session_id, self.size)


MADE_UP = Sample("", 1007, "ABCDEFGHIJKLMNOPQRST")


def make_sample(directory: Path) -> Sample:
    """Write an SST file."""
    with_one = Rdict(str(directory / "db"), Options(raw_mode=True))
    with_one[b"key"] = b"value"
    with_one.flush()
    with_one.close()
    path = next((directory / "db").glob("*.sst"))
    data = path.read_bytes()
    session_id = read_session_id(lambda offset, length: data[offset : offset + length], len(data))
    assert session_id is not None  # noqa: S101 -- every RocksDB since 6.12 writes one
    return Sample(str(path), len(data), session_id)


def fill(
    store: Store, backups: int, new_files: int, live_files: int, *, newest: int = 0, sample: Sample = MADE_UP
) -> None:
    """Make a repository in which each backup has so many new shared files, and names so many of all.

    :param newest: how many the newest backup names, where that is more.
    """
    for backup_id in range(1, backups + 1):
        last = backup_id * new_files
        named = max(live_files, newest if backup_id == backups else 0)
        own = [f"private/{backup_id}/{name}" for name in ("CURRENT", "IDENTITY", "MANIFEST-000001", "000002.log")]
        shared = [sample.shared_name(number) for number in range(max(0, last - named), last)]
        for name in (*own, *shared[-new_files:]):
            store.put(f"{ROOT}/{name}", size=sample.size, modified=FILLED)
        record = BackupRecord("1.0.0", SOURCE, {}, "2026-01-01T00:00:00.000+00:00", "live", {}, f"{backup_id:016x}")
        files = tuple(
            BackupFile(name, (index * 2654435761) % 2**32, sample.size) for index, name in enumerate((*shared, *own))
        )
        meta = encode_backup_meta(BackupMeta(backup_id, backup_id, record.encode(), files))
        store.put(f"{ROOT}/meta/{backup_id}", meta, modified=FILLED)


def make_inventory(directory: Path, sample: Sample, files: int) -> Inventory:
    """Make a checkpoint's directory of so many SST files, all of the same content."""
    found = []
    origin = sample.path
    for number in range(files):
        path = directory / table_file_name(number)
        if number % _LINKS == 0:
            path.write_bytes(Path(sample.path).read_bytes())
            origin = str(path)
        else:
            os.link(origin, path)
        found.append(DatabaseFile(path.name, str(path), sample.size, FileType.TABLE))
    manifest = directory / "MANIFEST-000001"
    manifest.write_bytes(b"manifest")
    found += [
        DatabaseFile("CURRENT", "", 16, FileType.CURRENT, b"MANIFEST-000001\n"),
        DatabaseFile(manifest.name, str(manifest), manifest.stat().st_size, FileType.DESCRIPTOR),
    ]
    return Inventory(SOURCE.db_dir, SOURCE.db_id, 2**40, tuple(found), (), None)


@dataclass(frozen=True)
class Cost:
    """What something took. ``mebibytes``: the peak above the start."""

    requests: Counter[str]
    seconds: float
    cpu_seconds: float
    mebibytes: float

    def values(self) -> Iterator[float]:
        """Yield the numbers, in the order of the table."""
        yield from (self.requests[kind] for kind in KINDS)
        yield from (self.seconds, self.cpu_seconds, self.mebibytes)


def read_memory(name: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process in MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def settle() -> float:
    """Give back what is free, and forget the peak; return what is in memory, in MiB."""
    gc.collect()
    _libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return read_memory("VmRSS")


def measure(work: Callable[[], object], store: Store, start_mebibytes: float) -> Cost:
    """Do something, and tell what it took."""
    settle()
    store.requests.clear()
    began, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return Cost(store.requests.copy(), seconds, cpu_seconds, read_memory("VmHWM") - start_mebibytes)


def measure_size(backups: int, live_files: int, latency_seconds: float) -> dict[str, Cost]:
    """Measure everything on repositories of one size."""
    costs: dict[str, Cost] = {}
    store = Store()
    fill(store, backups, NEW_FILES, live_files)
    store.latency_seconds = latency_seconds
    filesystem, start = StoreFileSystem(store), settle()
    policy = RetentionPolicy(keep_last=max(1, backups // 2))

    def prune(dry_run: bool = False) -> object:
        return prune_backups(filesystem, ROOT, policy, grace_seconds=GRACE_SECONDS, dry_run=dry_run)

    costs["list"] = measure(lambda: list_usage(filesystem, ROOT), store, start)
    costs["verify, files"] = measure(lambda: verify_backups(filesystem, ROOT, all_backups=True), store, start)
    costs["prune, dry run"] = measure(lambda: prune(dry_run=True), store, start)
    costs["prune, marks"] = measure(prune, store, start)
    store.ahead += 2 * GRACE_SECONDS
    costs["prune, deletes"] = measure(prune, store, start)
    del store, filesystem

    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        sample, files = make_sample(directory), backups * NEW_FILES
        store = Store()
        fill(store, backups, NEW_FILES, live_files, newest=files, sample=sample)
        (directory / "checkpoint").mkdir()
        inventory = make_inventory(directory / "checkpoint", sample, files + 10)
        store.latency_seconds = latency_seconds
        filesystem, start = StoreFileSystem(store), settle()
        costs["backup, 10 new"] = measure(
            lambda: create_backup(inventory, filesystem, ROOT, allow_other_source=True), store, start
        )
    return costs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale")
    parser.add_argument("backups", nargs="*", type=int, default=[10, 100, 1000])
    parser.add_argument("--latency", type=float, default=5.0, help="milliseconds a request (5)")
    parser.add_argument("--live-files", type=int, default=200, help="shared files that a meta names (200)")
    given = parser.parse_args()
    print(f"{given.latency:g} ms a request, a meta names {given.live_files} shared files")
    head = "".join(f"{kind:>9}" for kind in (*KINDS, "seconds", "CPU s", "MiB"))
    previous: dict[str, Cost] = {}
    for backups in given.backups:
        print(f"{f'{backups} backups, {backups * NEW_FILES} objects':<28}{head}")
        costs = measure_size(backups, given.live_files, given.latency / 1000)
        for name, cost in costs.items():
            *counts, seconds, cpu_seconds, mebibytes = cost.values()
            row = "".join(f"{count:9.0f}" for count in counts) + f"{seconds:9.2f}{cpu_seconds:9.2f}{mebibytes:9.1f}"
            print(f"  {name:<26}{row}", flush=True)
        for name, cost in costs.items() if previous else ():
            pairs = zip(cost.values(), previous[name].values(), strict=True)
            row = "".join(f"{new / old:9.1f}" if old else f"{'':9}" for new, old in pairs)
            print(f"  {f'growth, {name}':<26}{row}", flush=True)
        previous = costs


if __name__ == "__main__":
    main()
