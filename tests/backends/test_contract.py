"""What every backend must do: the same tests for all of them, each on a real server."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rocksdb.core import s3_upload, transfer
from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.archive_reader import check_archive
from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import ExistsError, TransferError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.repository import BackupResult, create_backup, list_backups
from airflow_provider_rocksdb.core.restore import RestoreResult, restore_backup
from airflow_provider_rocksdb.core.retention import RetentionPolicy
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.verify import verify_backups
from tests.backends.backends import BY_CONNECTION, DRIVERS, LARGE_BYTES, REOPEN, Backend, History
from tests.core.databases import count_keys, run_child, wait_until
from tests.core.repositories import QUICK, list_with_aimrocks, restore_with_aimrocks, restore_with_ldb


def back_up(backend: Backend, history: History, number: int) -> BackupResult:
    return create_backup(history.inventories[number], backend.filesystem, backend.root, options=QUICK)


def restore(backend: Backend, target: Path, root: str = "", **arguments: Any) -> RestoreResult:
    paths = DatabasePaths(str(target))
    return restore_backup(backend.filesystem, root or backend.root, paths, options=QUICK, **arguments)


def wait_for_next_second() -> None:
    """Let what was written be older than what is written next: some stores tell times in whole seconds."""
    written = time.time()
    wait_until(lambda: time.time() >= int(written) + 1)


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


@pytest.mark.parametrize("backend", [*DRIVERS, *BY_CONNECTION], indirect=True)
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
    storage = Storage(backend.filesystem, backend.root)
    (name,) = (f"shared_checksum/{name}" for name in storage.list("shared_checksum"))
    data = storage.read(name)
    storage.write(name, data[:-1] + bytes([data[-1] ^ 1]))
    assert check(backend) == "complete"
    assert "CRC32C" in check(backend, level="checksums")
    storage.delete(name)
    assert "no file" in check(backend)


def test_prune(backend: Backend, history: History, tmp_path: Path) -> None:
    """Pruning twice leaves one backup, which stock RocksDB restores, and nothing that it does not name."""
    for number in range(3):
        back_up(backend, history, number)
    wait_for_next_second()
    policy = RetentionPolicy(keep_last=1)
    results = [
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
    """An archive makes the way there and back; a second try takes it as done; another's does not replace it."""
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


KILLED = """
from airflow_provider_rocksdb.core import s3_upload, transfer
done = 0
def dying(call, length):
    def work(*arguments_of_call):
        global done
        done += length(*arguments_of_call)
        if done > arguments["bytes"]:
            die()
        return call(*arguments_of_call)
    return work
transfer.write_all = dying(transfer.write_all, lambda file, chunk: len(chunk))
s3_upload.pread = dying(s3_upload.pread, lambda descriptor, offset, length: length)
inventory = read_inventory(arguments["checkpoint_dir"])
create_backup(inventory, reopen(**arguments["backend"]), arguments["root"])
"""


def list_files(backend: Backend, folder: str) -> set[str]:
    return set(Storage(backend.filesystem, backend.root).list(folder))


def assert_retried(backend: Backend, history: History, target: Path) -> None:
    """After a backup has ended in the middle: there is none, no file is half, and another try makes it."""
    assert list_backups(backend.filesystem, backend.root) == ()
    whole = {file.size for file in history.inventories[1].files}
    assert set(Storage(backend.filesystem, backend.root).list("shared_checksum").values()) <= whole
    result = back_up(backend, history, 1)
    assert check(backend, level="checksums") == "complete"
    restore(backend, target)
    assert_same(target, history.places[1])
    policy = RetentionPolicy(keep_last=1)
    wait_for_next_second()
    for _ in range(2):
        prune_backups(backend.filesystem, backend.root, policy, grace_seconds=0, options=QUICK)
    folders = list_files(backend, "private")
    assert {name for name in folders if list_files(backend, f"private/{name}")} == {str(result.backup_id)}
    assert check(backend, level="checksums") == "complete"


def test_killed(backend: Backend, history: History, tmp_path: Path) -> None:
    """A process killed with -9 in the middle of a large file leaves no backup and no half file; a retry makes it."""
    if backend.name == "memory":
        pytest.skip("a killed process takes its memory with it")
    read_before = 2 if Storage(backend.filesystem, backend.root).sends_files else 0  # for a checksum and a signature
    done = run_child(
        REOPEN + KILLED,
        bytes=LARGE_BYTES * (read_before * 4 + 3) // 4,
        backend=backend.to_child(),
        root=backend.root,
        checkpoint_dir=str(history.places[1]),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_retried(backend, history, tmp_path / "restored")


def test_failed(backend: Backend, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read to its end fails the backup, which leaves no backup and no half file."""
    read_chunks, pread = transfer.read_chunks, s3_upload.pread

    def failing_pread(descriptor: int, offset: int, length: int) -> bytes:
        if offset + length > LARGE_BYTES * 3 // 4:
            raise OSError(errno.EIO, "the disk is broken")
        return pread(descriptor, offset, length)

    def failing(item: transfer.UploadItem, chunk_bytes: int) -> Iterator[bytes]:
        for number, chunk in enumerate(read_chunks(item, chunk_bytes)):
            if number == LARGE_BYTES // chunk_bytes * 3 // 4:
                raise OSError(errno.EIO, "the disk is broken")
            yield chunk

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "read_chunks", failing)
        patch.setattr(s3_upload, "pread", failing_pread)
        with pytest.raises(TransferError, match="the disk is broken"):
            back_up(backend, history, 1)
    assert list_files(backend, "incoming") == set()
    assert_retried(backend, history, tmp_path / "restored")


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
