"""Backups for tests: checkpoints of small databases, file systems that fail, and stock RocksDB as judge."""

from __future__ import annotations

import importlib
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem
from rocksdict import BlockBasedOptions, Rdict

from airflow_provider_rocksdb.core.format.backup_meta import BackupMeta, decode_backup_meta
from airflow_provider_rocksdb.core.inventory import Inventory, read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.core.databases import build, count_keys, put
from tests.programs import run_ldb

QUICK = TransferOptions(backoff_seconds=0.01)
ONCE = TransferOptions(max_workers=1, attempts=1)

aimrocks = importlib.import_module("aimrocks")  # ships no types


def build_old(path: str, **settings: Any) -> Rdict:
    """Open a new database that RocksDB 7.8 can read: keys 0-999 in an SST file, 1000-1499 in the WAL."""
    table = BlockBasedOptions()
    table.set_format_version(5)
    return build(path, block_based_table_factory=table, **settings)


def grow(database: Rdict, first: int, last: int) -> None:
    """Add keys in a new SST file."""
    put(database, first, last)
    database.flush()


def take(db_dir: str, checkpoint_dir: str) -> Inventory:
    """Checkpoint a live database."""
    create_live_checkpoint(DatabasePaths(db_dir), checkpoint_dir)
    return read_inventory(checkpoint_dir)


def read_local_meta(repository: str | Path, backup_id: int) -> BackupMeta:
    return decode_backup_meta(Path(repository, "meta", str(backup_id)).read_bytes())


def restore_with_ldb(repository: str | Path, target: Path) -> int:
    """Restore the newest backup with stock RocksDB 7.8, open it, count its keys, which must have no hole."""
    shutil.rmtree(target, ignore_errors=True)
    run_ldb(f"--db={target}", f"--backup_dir={repository}", "restore")
    return count_keys(str(target))["default"]


def list_with_aimrocks(repository: str | Path) -> list[int]:
    """Ids of the backups that stock RocksDB 6.29 sees; one whose files are not all there is none."""
    return [info["backup_id"] for info in aimrocks.BackupEngine(str(repository)).get_backup_info()]


def restore_with_aimrocks(repository: str | Path, backup_id: int, target: Path) -> int:
    """Restore a backup with stock RocksDB 6.29, open it, count its keys."""
    shutil.rmtree(target, ignore_errors=True)
    aimrocks.BackupEngine(str(repository)).restore_backup(backup_id, str(target), str(target))
    return count_keys(str(target))["default"]


class StockRepository:
    """A repository, and a database in it, that stock RocksDB 6.29 alone writes; each backup has one key more."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "repository"
        self.database = aimrocks.DB(str(directory / "stock"), aimrocks.Options(create_if_missing=True))
        self.count = 0
        self.reopen()

    def reopen(self) -> None:
        """Have an engine that knows only what is there."""
        self.engine = aimrocks.BackupEngine(str(self.place))

    def back_up(self) -> None:
        self.count += 1
        self.database.put(b"%06d" % self.count, b"value")
        self.engine.create_backup(self.database, flush_before_backup=True)


class StorageDiedError(OSError):
    """The storage does not answer any more."""


class WatchedFileSystem(MemoryFileSystem):
    """A store in memory that counts what is asked of it, and can die at a chosen step of any write.

    What was written until then stays, under its name: as on the worst of stores.
    """

    cachable = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(global_store=False, skip_instance_cache=True, **settings)
        self.steps = 0
        self.dies_at = 0
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def revive(self) -> None:
        self.steps = self.dies_at = 0
        self.requests.clear()

    def step(self) -> None:
        with self._mutex:
            self.steps += 1
            if self.dies_at and self.steps >= self.dies_at:
                raise StorageDiedError(f"died at step {self.steps}")

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self.requests[f"open {mode}"] += 1
        if mode == "rb":
            return super()._open(path, mode, **kwargs)
        self.step()
        file = super()._open(path, mode, **kwargs)
        if "data" in kwargs:
            self.sent[path] += 1
            self.step()  # written, but the answer is lost
        else:
            self._watch(path, file)
        return file

    def _watch(self, path: str, file: Any) -> None:
        write, cut, closed = file.write, False, False

        def watched_write(data: bytes) -> int:
            nonlocal cut
            write(data[: len(data) // 2])
            cut = True
            self.step()
            cut = False
            write(data[len(data) // 2 :])
            return len(data)

        def watched_close() -> None:
            nonlocal closed
            if not cut and not closed:
                closed = True
                self.sent[path] += 1
                self.step()

        file.write, file.close = watched_write, watched_close

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self.requests["ls"] += 1
        if self.dies_at and self.steps >= self.dies_at:
            raise StorageDiedError("dead")
        return super().ls(path, detail=detail, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        self.requests["info"] += 1
        return super().info(path, **kwargs)

    def rm_file(self, path: str) -> None:
        if self.dies_at and self.steps >= self.dies_at:
            raise StorageDiedError("dead")
        self.store.pop(self._strip_protocol(path))

    def download(self, root: str, target: Path) -> Path:
        """Copy everything below a path to a local directory."""
        shutil.rmtree(target, ignore_errors=True)
        for path, file in self.store.items():
            if path.startswith(f"{root}/"):
                place = target / path.removeprefix(f"{root}/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.getvalue())
        return target
