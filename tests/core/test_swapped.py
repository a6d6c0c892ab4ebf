"""Directories that another run replaces at the worst moment: what has their name then is told from what had it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from rocksdict import Rdict

from airflow_provider_rocksdb.core import checkpoint, durable
from airflow_provider_rocksdb.core.checkpoint import check_deletable, delete_checkpoint
from airflow_provider_rocksdb.core.completeness import State, check_completeness
from airflow_provider_rocksdb.core.directory import LocalDirectory
from airflow_provider_rocksdb.core.errors import BusyError, ExistsError
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.temporary_checkpoint import temporary_checkpoint_dir
from tests.core.databases import count_keys, options, put
from tests.core.repositories import take

AfterOpening = Callable[..., None]


def build(path: Path, count: int) -> str:
    """Make a database at rest, of so many keys in one SST file."""
    database = Rdict(str(path), options())
    put(database, 0, count)
    database.flush()
    database.close()
    return str(path)


@pytest.fixture
def after_opening(monkeypatch: pytest.MonkeyPatch) -> AfterOpening:
    """Give a way to do something between the opening of a directory and the first, or second, locking of it."""

    def arrange(path: str, action: Callable[[], object], at: int = 1) -> None:
        asked, real = 0, durable.fcntl.flock

        def flock(descriptor: int, operation: int) -> None:
            nonlocal asked
            if os.readlink(f"/proc/self/fd/{descriptor}") == path:
                asked += 1
                if asked == at:
                    action()
            real(descriptor, operation)

        monkeypatch.setattr(durable.fcntl, "flock", flock)

    return arrange


def test_finished_meanwhile(tmp_path: Path, after_opening: AfterOpening) -> None:
    """A checkpoint gets its name while another run is about to lock its temporary directory: it is left alone."""
    db_dir, target = build(tmp_path / "db", 100), str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "other"))
    os.rename(tmp_path / "other", f"{target}.tmp")
    after_opening(f"{target}.tmp", lambda: os.rename(f"{target}.tmp", target))
    with pytest.raises(ExistsError):
        create_live_checkpoint(DatabasePaths(db_dir), target)
    assert check_completeness(target).state is State.COMPLETE
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "db"]


def test_replaced_meanwhile(tmp_path: Path, after_opening: AfterOpening) -> None:
    """A checkpoint is replaced while another run is about to lock it: that one replaces what is there now."""
    db_dir, target = build(tmp_path / "db", 100), str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), target)
    create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "other"))

    def replace() -> None:
        shutil.rmtree(target)
        os.rename(tmp_path / "other", target)

    after_opening(target, replace)
    create_live_checkpoint(DatabasePaths(db_dir), target, replace=True)
    assert check_completeness(target).state is State.COMPLETE
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "db"]


def test_replaced_while_it_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that takes another's name right before that is deleted keeps its name."""
    db_dir, target = build(tmp_path / "db", 100), str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), target)
    create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "other"))
    real = checkpoint._create_record

    def create(descriptor: int) -> None:
        monkeypatch.setattr(checkpoint, "_create_record", real)
        os.rename(target, tmp_path / "aside")
        os.rename(tmp_path / "other", target)
        real(descriptor)

    monkeypatch.setattr(checkpoint, "_create_record", create)
    with pytest.raises(BusyError, match="was replaced by something else while it was being deleted"):
        delete_checkpoint(target)
    assert check_completeness(target).state is State.COMPLETE


def test_replaced_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that is replaced while somebody looks whether it may be deleted is looked at again."""
    db_dir, target = build(tmp_path / "db", 100), str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), target)
    create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "other"))
    waiting, real = [True], checkpoint.read_checkpoint

    def read(path: str) -> Any:
        if waiting:
            waiting.pop()
            shutil.rmtree(target)
            os.rename(tmp_path / "other", target)
        return real(path)

    monkeypatch.setattr(checkpoint, "read_checkpoint", read)
    check_deletable(target)


@pytest.mark.parametrize("at", [1, 2])
def test_removed_meanwhile(tmp_path: Path, after_opening: AfterOpening, at: int) -> None:
    """A run that ends removes the directory that the next one is about to lock: its checkpoint is safe all the same."""
    db_dir = build(tmp_path / "db", 100)
    parent = f"{db_dir}.checkpoints"
    after_opening(parent, lambda: os.rmdir(parent), at)
    with temporary_checkpoint_dir(db_dir) as mine:
        create_live_checkpoint(DatabasePaths(db_dir), mine)
        with temporary_checkpoint_dir(db_dir):  # which clears what nobody uses
            pass
        assert check_completeness(mine).state is State.COMPLETE


def test_restored_meanwhile(tmp_path: Path, after_opening: AfterOpening) -> None:
    """A restore ends while another is about to lock the place where that builds: what was restored stays."""
    db_dir, target = build(tmp_path / "db", 100), str(tmp_path / "restored")
    create_backup(take(db_dir, str(tmp_path / "checkpoint")), LocalFileSystem(), str(tmp_path / "repository"))
    shutil.copytree(db_dir, f"{target}.tmp")
    (tmp_path / "restored.tmp" / "restore.json").touch()
    after_opening(f"{target}.tmp", lambda: os.rename(f"{target}.tmp", target))
    with pytest.raises(ExistsError):
        restore_backup(LocalFileSystem(), str(tmp_path / "repository"), DatabasePaths(target))
    assert count_keys(target)["default"] == 100


def test_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database exchanged, at whatever step, for one with the same CURRENT and size of MANIFEST is looked at again."""
    old, new = build(tmp_path / "old", 100), build(tmp_path / "new", 120)
    sizes = [{name: os.path.getsize(f"{path}/{name}") for name in os.listdir(path)} for path in (old, new)]
    manifests = [{name: size for name, size in each.items() if name.startswith("MANIFEST")} for each in sizes]
    assert manifests[0] == manifests[1]
    steps, at = 0, 0

    def step(self: LocalDirectory, method: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == at:
            durable.exchange_directories(old, new)
        return method(self, *arguments)

    for name in ("list", "read", "pread"):
        method = getattr(LocalDirectory, name)
        monkeypatch.setattr(LocalDirectory, name, lambda self, *rest, method=method: step(self, method, *rest))
    while at <= steps:
        at, steps = at + 1, 0
        found = check_completeness(old)
        assert found.state is State.COMPLETE, f"exchanged before step {at}: {found.reason}"
    assert at > 5
