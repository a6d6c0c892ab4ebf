"""What operations cost grows with what they are about: requests as promised, memory at most in proportion."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_rocksdb.core import repository, repository_contents
from airflow_provider_rocksdb.core.format.backup_meta import BackupFile, BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.prune_result import PruneResult
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.repository_usage import list_usage
from airflow_provider_rocksdb.core.retention import RetentionPolicy
from airflow_provider_rocksdb.core.verify import verify_backups
from benchmarks.scale import MADE_UP, ROOT, Sample, Store, StoreFileSystem, fill, make_inventory, make_sample
from tests.core.repositories import ONCE

GRACE_SECONDS = 3600.0
OWN_FILES = 4  # of a backup that fill makes


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Write an SST file."""
    return make_sample(tmp_path_factory.mktemp("sample"))


def made(backups: int, new_files: int = 20, live_files: int = 50) -> Store:
    store = Store()
    fill(store, backups, new_files, live_files)
    return store


def prune(store: Store, keep_last: int, *, dry_run: bool = False) -> PruneResult:
    policy = RetentionPolicy(keep_last=keep_last)
    filesystem = StoreFileSystem(store)
    return prune_backups(filesystem, ROOT, policy, grace_seconds=GRACE_SECONDS, dry_run=dry_run, options=ONCE)


def next_backup(directory: Path, sample: Sample, files: int) -> tuple[Store, Inventory]:
    """Make a repository whose newest backup has so many SST files, and a checkpoint with three more."""
    directory.mkdir()
    store = Store()
    fill(store, 2, files // 2, files // 2, newest=files, sample=sample)
    return store, make_inventory(directory, sample, files + 3)


def test_backup(tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next backup's requests do not depend on how many files are unchanged, but for the pages of listings."""
    monkeypatch.setattr(repository, "_FREE_SECONDS", math.inf)  # on a machine that is busy as on one that is not
    counts, pages = [], []
    for files in (100, 800, 5000):
        store, inventory = next_backup(tmp_path / str(files), sample, files)
        result = create_backup(inventory, StoreFileSystem(store), ROOT, allow_other_source=True, options=ONCE)
        assert (result.uploaded_files, result.reused_files) == (5, files)  # three SST files, CURRENT, MANIFEST
        pages.append(store.requests.pop("page"))
        counts.append(dict(store.requests))
    assert counts[0] == counts[1] == counts[2] == {"listing": 8, "read": 2, "write": 7, "delete": 1}
    assert pages == [8, 8, 8 + 4 + 5]  # shared_checksum/ is listed twice: 5,000 names before, 5,003 afterwards


def test_slow_backup(tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last look at its meta's name is too long ago, a backup asks once more whether somebody has it."""
    monkeypatch.setattr(repository, "_FREE_SECONDS", 0.0)
    store, inventory = next_backup(tmp_path / "checkpoint", sample, 100)
    create_backup(inventory, StoreFileSystem(store), ROOT, allow_other_source=True, options=ONCE)
    assert store.requests["info"] == 1


@pytest.mark.parametrize("backups", [5, 40])
def test_list_and_verify(backups: int) -> None:
    """A list, and a verification by names and sizes, are four listings and one read for each backup."""
    store = made(backups)
    assert len(list_usage(StoreFileSystem(store), ROOT, options=ONCE)) == backups
    assert {**store.requests, "page": 4} == {"listing": 4, "page": 4, "read": backups}
    store.requests.clear()
    assert verify_backups(StoreFileSystem(store), ROOT, all_backups=True, options=ONCE).state == "complete"
    assert {**store.requests, "page": 4} == {"listing": 4, "page": 4, "read": backups}


@pytest.mark.parametrize("backups", [6, 40])
def test_prune(backups: int) -> None:
    """A prune reads each meta once, lists each folder twice, and writes or deletes once for each object and mark."""
    store, gone = made(backups), backups // 2
    unreferenced = gone * 20 - 30  # of the backups that are gone, but for what the oldest that is kept still names
    listings = 2 + 2 * 6 + gone  # meta/ and marks; each folder, before and after; each private/<id>/ without a meta

    prune(store, backups - gone, dry_run=True)
    assert {**store.requests, "page": 0} == {"listing": listings, "page": 0, "read": backups}

    store.requests.clear()
    assert prune(store, backups - gone).marked.objects == unreferenced + gone * OWN_FILES
    counts = {**store.requests, "page": 0}
    assert counts == {"listing": listings, "page": 0, "read": backups, "delete": gone, "write": unreferenced + gone}

    store.requests.clear()
    store.ahead = 2 * GRACE_SECONDS
    assert prune(store, backups - gone).removed.objects == unreferenced + gone * OWN_FILES
    counts = {**store.requests, "page": 0}
    objects, marks = unreferenced + gone * OWN_FILES, unreferenced + gone
    assert counts["delete"] == objects + marks + 1  # and the announcement
    assert (counts["read"], counts["write"]) == (backups - gone, 1)
    assert counts["listing"] == 2 + 3 * (6 + gone) + 2  # once more before it deletes: marks, meta/, each folder


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["list", "verify", "prune"])
def test_memory(what: str) -> None:
    """With four times the backups and objects, each of these takes at most four times the memory."""
    peaks = []
    for backups in (20, 80):
        store = made(backups, new_files=40, live_files=40)
        work: Callable[[], object] = {
            "list": lambda store=store: list_usage(StoreFileSystem(store), ROOT, options=ONCE),
            "verify": lambda store=store: verify_backups(StoreFileSystem(store), ROOT, all_backups=True, options=ONCE),
            "prune": lambda store=store, backups=backups: prune(store, backups // 2),
        }[what]
        peaks.append(peak_bytes(work))
    assert peaks[1] < 4.4 * peaks[0], peaks


@pytest.mark.parametrize("what", ["list", "prune"])
def test_memory_of_shared_files(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More backups that name the same files take less than a pointer a file each: bits, not lists, are kept."""
    monkeypatch.setattr(repository_contents, "_READERS", 1)  # each reader holds a whole meta for the moment
    shared = [MADE_UP.shared_name(number) for number in range(1000)]
    peaks = []
    for backups in (20, 160):
        store = Store()
        for backup_id in range(1, backups + 1):
            names = [*shared, f"private/{backup_id}/CURRENT", f"private/{backup_id}/MANIFEST-000001"]
            for name in names if backup_id == 1 else names[-2:]:
                store.put(f"{ROOT}/{name}", size=MADE_UP.size)
            meta = BackupMeta(backup_id, 1, b"", tuple(BackupFile(name, 1, MADE_UP.size) for name in names))
            store.put(f"{ROOT}/meta/{backup_id}", encode_backup_meta(meta))
        work: Callable[[], object] = {
            "list": lambda store=store: list_usage(StoreFileSystem(store), ROOT, options=ONCE),
            "prune": lambda store=store: prune(store, 10, dry_run=True),
        }[what]
        peaks.append(peak_bytes(work))
    assert peaks[1] - peaks[0] < 140 * 1000 * 8, peaks


def test_memory_of_a_backup(tmp_path: Path, sample: Sample) -> None:
    """With four times the unchanged files, a backup takes at most four times the memory: some hundred bytes a file."""
    peaks = []
    for files in (1000, 4000):
        store, inventory = next_backup(tmp_path / str(files), sample, files)
        filesystem = StoreFileSystem(store)

        def work(filesystem: StoreFileSystem = filesystem, inventory: Inventory = inventory) -> None:
            create_backup(inventory, filesystem, ROOT, allow_other_source=True, options=ONCE)

        peaks.append(peak_bytes(work))
    assert peaks[1] < 4.4 * peaks[0], peaks
    assert peaks[1] < 4000 * 2048, peaks
