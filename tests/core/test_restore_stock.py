"""What stock RocksDB backed up is restored: BackupEngine of 6.29 (aimrocks), ``ldb backup`` and librocksdb of 7.8."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.errors import NotSupportedError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import RestoreResult, restore_backup
from tests.core.databases import build_two_paths, count_keys, names
from tests.core.repositories import (
    aimrocks,
    build_old,
    list_with_aimrocks,
    read_local_meta,
    restore_with_aimrocks,
    restore_with_ldb,
    take,
)
from tests.programs import run_ldb

LOCAL = LocalFileSystem()


def restore(repository: Path, target: Path, **arguments: Any) -> RestoreResult:
    return restore_backup(LOCAL, str(repository), DatabasePaths(str(target)), **arguments)


def back_up_with_aimrocks(place: Path, *, flush: bool) -> Path:
    """Back up twice: 1,000 keys, then 2,000."""
    database = aimrocks.DB(str(place / "db"), aimrocks.Options(create_if_missing=True))
    engine = aimrocks.BackupEngine(str(place / "repository"))
    for number in range(2000):
        database.put(b"%06d" % number, b"value")
        if number % 1000 == 999:
            engine.create_backup(database, flush_before_backup=flush)
    return place / "repository"


def back_up_with_ldb(db_dir: Path, repository: Path) -> Path:
    run_ldb(f"--db={db_dir}", f"--backup_dir={repository}", "backup")
    return repository


def back_up_with_library(db_dir: Path, repository: Path, *, share: bool) -> Path:
    """Make a new database with 1,000 keys and back it up, with SST files shared or private."""
    found = ctypes.util.find_library("rocksdb")
    if found is None:
        pytest.skip("needs librocksdb")
    library = ctypes.CDLL(found)
    for name in ("options_create", "writeoptions_create", "open", "create_default_env"):
        getattr(library, f"rocksdb_{name}").restype = ctypes.c_void_p
    library.rocksdb_backup_engine_options_create.restype = ctypes.c_void_p
    library.rocksdb_backup_engine_open_opts.restype = ctypes.c_void_p
    error = ctypes.c_char_p()
    options = ctypes.c_void_p(library.rocksdb_options_create())
    library.rocksdb_options_set_create_if_missing(options, ctypes.c_ubyte(1))
    database = ctypes.c_void_p(library.rocksdb_open(options, os.fsencode(db_dir), ctypes.byref(error)))
    writing = ctypes.c_void_p(library.rocksdb_writeoptions_create())
    for number in range(1000):
        library.rocksdb_put(
            database, writing, b"%06d" % number, ctypes.c_size_t(6), b"v", ctypes.c_size_t(1), ctypes.byref(error)
        )
    engine_options = ctypes.c_void_p(library.rocksdb_backup_engine_options_create(os.fsencode(repository)))
    library.rocksdb_backup_engine_options_set_share_table_files(engine_options, ctypes.c_ubyte(share))
    env = ctypes.c_void_p(library.rocksdb_create_default_env())
    engine = ctypes.c_void_p(library.rocksdb_backup_engine_open_opts(engine_options, env, ctypes.byref(error)))
    library.rocksdb_backup_engine_create_new_backup_flush(engine, database, ctypes.c_ubyte(1), ctypes.byref(error))
    library.rocksdb_backup_engine_close(engine)
    library.rocksdb_close(database)
    assert error.value is None
    return repository


@pytest.mark.parametrize("flush", [True, False])
def test_rocksdb_6(tmp_path: Path, flush: bool) -> None:
    """BackupEngine of RocksDB 6.29: both of its backups come back, with the keys that were only in a WAL, too."""
    repository = back_up_with_aimrocks(tmp_path, flush=flush)
    result = restore(repository, tmp_path / "restored")
    assert (result.backup_id, result.skipped_backups) == (2, ())
    assert count_keys(str(tmp_path / "restored"))["default"] == 2000
    restore(repository, tmp_path / "first", backup_id=1)
    assert count_keys(str(tmp_path / "first"))["default"] == 1000
    assert read_local_meta(repository, 1).schema_version == "1"


def test_ldb_with_blobs(tmp_path: Path) -> None:
    """``ldb backup`` of RocksDB 7.8, of a database with blob files."""
    build_old(str(tmp_path / "db"), enable_blob_files=True, min_blob_size=0).close()
    repository = back_up_with_ldb(tmp_path / "db", tmp_path / "repository")
    restore(repository, tmp_path / "restored")
    assert names(str(tmp_path / "restored"), ".blob")
    assert count_keys(str(tmp_path / "restored"))["default"] == 1500


@pytest.mark.parametrize("share", [True, False])
def test_rocksdb_7(tmp_path: Path, share: bool) -> None:
    """BackupEngine of RocksDB 7.8, with SST files in ``shared_checksum/`` and in ``private/<id>/``."""
    repository = back_up_with_library(tmp_path / "db", tmp_path / "repository", share=share)
    folders = {file.path.partition("/")[0] for file in read_local_meta(repository, 1).files if file.path[-4:] == ".sst"}
    assert folders == {"shared_checksum" if share else "private"}
    restore(repository, tmp_path / "restored")
    assert count_keys(str(tmp_path / "restored"))["default"] == 1000


def rewrite(repository: Path, change: Any) -> None:
    meta = repository / "meta" / "1"
    meta.write_text(change(meta.read_text()))


def test_shared_without_checksums(tmp_path: Path) -> None:
    """SST files in ``shared/`` under their plain names, as the oldest engines wrote them; stock agrees."""
    repository = back_up_with_library(tmp_path / "db", tmp_path / "repository", share=False)
    os.makedirs(repository / "shared", exist_ok=True)
    for path in (repository / "private" / "1").glob("*.sst"):
        path.rename(repository / "shared" / path.name)
    rewrite(repository, lambda text: re.sub(r"private/1/(\d+\.sst)", r"shared/\1", text))
    assert restore_with_aimrocks(repository, 1, tmp_path / "stock") == 1000
    restore(repository, tmp_path / "restored")
    assert count_keys(str(tmp_path / "restored"))["default"] == 1000


def test_schema_2_of_stock(tmp_path: Path) -> None:
    """Schema 2 without our sizes, with fields that nobody knows; stock agrees that it is one."""
    repository = back_up_with_ldb_of_keys(tmp_path)
    rewrite(repository, lambda text: "schema_version 2.0\n" + text.replace(" crc32 ", " temp kCold crc32 "))
    assert restore_with_ldb(repository, tmp_path / "stock") == 1500
    restore(repository, tmp_path / "restored")
    assert count_keys(str(tmp_path / "restored"))["default"] == 1500


def back_up_with_ldb_of_keys(place: Path) -> Path:
    build_old(str(place / "db")).close()
    return back_up_with_ldb(place / "db", place / "repository")


def test_newer_schema(tmp_path: Path) -> None:
    """A schema that nobody here knows is refused by its number, and nothing is made."""
    repository = back_up_with_ldb_of_keys(tmp_path)
    rewrite(repository, lambda text: "schema_version 3.0\n" + text)
    with pytest.raises(NotSupportedError, match=r"schema version '3\.0'"):
        restore(repository, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_stock_and_ours_in_one_repository(tmp_path: Path) -> None:
    """Backups by both in one repository: each restores the other's."""
    repository = back_up_with_aimrocks(tmp_path, flush=True)
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "checkpoint")), LOCAL, str(repository))
    assert list_with_aimrocks(repository) == [1, 2, 3]
    for backup_id, keys in ((1, 1000), (2, 2000), (3, 2000)):
        target = tmp_path / f"restored-{backup_id}"
        assert restore(repository, target, backup_id=backup_id).backup_id == backup_id
        assert count_keys(str(target))["default"] == keys
    assert restore_with_aimrocks(repository, 3, tmp_path / "stock") == 2000


def test_path_ids(tmp_path: Path) -> None:
    """A MANIFEST with path ids above 0 gets them set to 0, so that the result opens anywhere."""
    from rocksdict import AccessType, Options, Rdict

    build_two_paths(str(tmp_path)).close()
    flat = tmp_path / "flat"
    shutil.copytree(tmp_path / "db", flat)
    for name in ("fast", "slow"):
        shutil.copytree(tmp_path / name, flat, dirs_exist_ok=True)
    repository = write_repository(flat, tmp_path / "repository")
    restore(repository, tmp_path / "restored")
    assert check_completeness(str(tmp_path / "restored")).state == "complete"
    database = Rdict(str(tmp_path / "restored"), Options(raw_mode=True), access_type=AccessType.read_only())
    assert len(list(database.keys())) == 4100
    database.close()


def write_repository(directory: Path, repository: Path) -> Path:
    """Write a backup of a flat directory as an engine would that copies a MANIFEST as it is."""
    from google_crc32c import value

    (repository / "meta").mkdir(parents=True)
    shutil.copytree(directory, repository / "private" / "1")
    lines = []
    for path in sorted((repository / "private" / "1").iterdir()):
        if path.name.startswith(("LOG", "LOCK", "rocksdict")):
            path.unlink()
        else:
            lines.append(f"private/1/{path.name} crc32 {value(path.read_bytes())}")
    (repository / "meta" / "1").write_text("\n".join(["1700000000", "1", str(len(lines)), *lines]) + "\n")
    return repository
