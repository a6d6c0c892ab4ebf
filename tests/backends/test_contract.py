"""What every backend must do: the same tests for all of them, each on a real server."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.archive_reader import check_archive
from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import ExistsError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.repository import BackupResult, create_backup, list_backups
from airflow_provider_rocksdb.core.restore import RestoreResult, restore_backup
from airflow_provider_rocksdb.core.retention import RetentionPolicy
from airflow_provider_rocksdb.core.verify import verify_backups
from tests.backends.backends import LARGE_BYTES, Backend, History
from tests.core.databases import count_keys, wait_until
from tests.core.repositories import QUICK, list_with_aimrocks, restore_with_aimrocks, restore_with_ldb


def back_up(backend: Backend, history: History, number: int) -> BackupResult:
    return create_backup(history.inventories[number], backend.filesystem, backend.root, options=QUICK)


def restore(backend: Backend, target: Path, root: str = "", **arguments: Any) -> RestoreResult:
    paths = DatabasePaths(str(target))
    return restore_backup(backend.filesystem, root or backend.root, paths, options=QUICK, **arguments)


def check(backend: Backend, **arguments: Any) -> str:
    report = verify_backups(backend.filesystem, backend.root, options=QUICK, **arguments)
    return report.state.value if not report.problems else str(report.problems)


def assert_same(restored: Path, checkpoint: Path) -> None:
    """Every byte of the checkpoint is there, and nothing else; OPTIONS, which name places, apart."""
    names = {name for name in os.listdir(checkpoint) if not name.startswith("OPTIONS-")}
    found = {name for name in os.listdir(restored) if not name.startswith("OPTIONS-")}
    assert found - names <= {"LOCK", "restore.json"}
    for name in names - {"checkpoint.json"}:
        assert (restored / name).read_bytes() == (checkpoint / name).read_bytes(), name


def test_backups(backend: Backend, history: History, tmp_path: Path) -> None:
    """The second backup sends what is new; both verify; ours and stock RocksDB restore them, to the byte."""
    first, second = back_up(backend, history, 0), back_up(backend, history, 1)
    assert (first.backup_id, second.backup_id, second.reused_files) == (1, 2, 1)
    assert LARGE_BYTES < second.uploaded_bytes < second.total_bytes
    listed = list_backups(backend.filesystem, backend.root)
    assert [backup.backup_id for backup in listed] == [1, 2]
    assert check(backend, all_backups=True) == "complete"
    assert check(backend, all_backups=True, level="checksums") == "complete"
    for number in (0, 1):
        restore(backend, tmp_path / "restored", backup_id=number + 1, replace=True)
        assert_same(tmp_path / "restored", history.places[number])
    copy = backend.download(tmp_path / "copy")
    assert list_with_aimrocks(copy) == [1, 2]
    assert restore_with_aimrocks(copy, 1, tmp_path / "stock") == history.keys[0]
    assert restore_with_ldb(copy, tmp_path / "stock") == history.keys[1]


def test_damage(backend: Backend, history: History) -> None:
    """A file that is gone, and one of the right size with other bytes, are found."""
    back_up(backend, history, 0)
    folder = backend.at("shared_checksum")
    (path,) = backend.filesystem.ls(folder, detail=False)
    data = backend.filesystem.cat_file(path)
    backend.filesystem.pipe_file(path, data[:-1] + bytes([data[-1] ^ 1]))
    assert check(backend) == "complete"
    assert "CRC32C" in check(backend, level="checksums")
    backend.filesystem.rm_file(path)
    assert "no file" in check(backend)


def test_prune(backend: Backend, history: History, tmp_path: Path) -> None:
    """Pruning twice leaves one backup, which stock RocksDB restores, and nothing that it does not name."""
    for number in range(3):
        back_up(backend, history, number)
    written = time.time()
    wait_until(lambda: time.time() >= int(written) + 1)  # some stores tell times in whole seconds
    policy = RetentionPolicy(keep_last=1)
    results = [  #DBG
        prune_backups(backend.filesystem, backend.root, policy, grace_seconds=0, options=QUICK) for _ in range(2)
    ]
    assert [result.failures for result in results] == [(), ()]
    assert results[0].removed_backups == (1, 2)
    assert sum(result.removed.objects for result in results) >= 8
    assert check(backend, level="checksums") == "complete"
    copy = backend.download(tmp_path / "copy")
    assert os.listdir(copy / "meta") == ["3"]
    assert [path.name for path in (copy / "private").iterdir() if any(path.iterdir())] == ["3"]
    assert not [path for path in copy.rglob("*") if path.is_file() and path.parent.name in ("incoming", "unreferenced")]
    assert restore_with_ldb(copy, tmp_path / "stock") == history.keys[2]


def test_archive(backend: Backend, history: History, tmp_path: Path) -> None:
    """An archive makes the way there and back; a second try takes it as done; another checkpoint does not replace it."""
    path = backend.at("x.tar.gz")
    if backend.behind is not None:
        backend.filesystem.makedirs(backend.root, exist_ok=True)
    sent = upload_archive(history.inventories[1], backend.filesystem, path, level=1, options=QUICK)
    assert (sent.reused, sent.archive_bytes > LARGE_BYTES) == (False, True)
    check_archive(backend.filesystem, path, options=QUICK)
    assert upload_archive(history.inventories[1], backend.filesystem, path, level=1, options=QUICK).reused
    with pytest.raises(ExistsError):
        upload_archive(history.inventories[0], backend.filesystem, path, level=1, options=QUICK)
    restore(backend, tmp_path / "restored", path)
    assert_same(tmp_path / "restored", history.places[1])


def test_directory(backend: Backend, history: History, tmp_path: Path) -> None:
    """A checkpoint as it is: whole there, verified, opened where it was downloaded to, and restored."""
    root = backend.at("as-it-is")
    upload_directory(history.inventories[1], backend.filesystem, root, options=QUICK)
    found = check_completeness(root, filesystem=backend.filesystem, level="checksums")
    assert found.state.value == "complete", found
    assert upload_directory(history.inventories[1], backend.filesystem, root, options=QUICK).uploaded_files == 0
    copy = backend.download(tmp_path / "copy", "as-it-is")
    assert count_keys(str(copy))["default"] == history.keys[1]
    shutil.rmtree(copy)
    restore(backend, tmp_path / "restored", root)
    assert_same(tmp_path / "restored", history.places[1])
