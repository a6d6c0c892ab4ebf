"""What a backup takes from a checkpoint, and from a database at rest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from rocksdict import Checkpoint as StockCheckpoint
from rocksdict import Options, Rdict

from airflow_provider_rocksdb.core.checkpoint_record import read_checkpoint
from airflow_provider_rocksdb.core.errors import (
    CorruptionError,
    IncompleteError,
    InvalidArgumentError,
    NotADatabaseError,
    NotFoundError,
)
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.inventory import Inventory, read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.core.databases import (
    build,
    build_stopped,
    build_two_paths,
    build_two_wals,
    count_keys,
    fingerprint,
    manifest_name,
    names,
    only,
    options,
    put,
    stop,
)


def restore(inventory: Inventory, target: str) -> str:
    """Make a directory of what the inventory lists, as a backup would."""
    os.mkdir(target)
    for file in (*inventory.files, *inventory.extras):
        data = file.content if file.content is not None else Path(file.path).read_bytes()
        assert len(data) == file.size
        Path(target, file.name).write_bytes(data)
    return target


def file_names(inventory: Inventory) -> set[str]:
    assert all(file.type is not None for file in inventory.files)
    assert all(file.type is None for file in inventory.extras)
    return {file.name for file in inventory.files}


def test_a_checkpoint_of_ours(tmp_path: Path) -> None:
    """A checkpoint of ours is listed by its record: RocksDB's files, and beside them rocksdict's and the record."""
    families = build_two_wals(str(tmp_path / "db"))
    target = str(tmp_path / "checkpoint")
    made = create_live_checkpoint(DatabasePaths(str(tmp_path / "db")), target)
    before = fingerprint(target)
    inventory = read_inventory(target)
    assert fingerprint(target) == before
    assert inventory.checkpoint == made
    assert (inventory.db_id, inventory.sequence_number) == (made.db_id, made.sequence_number)
    assert file_names(inventory) == {file.name for file in made.files} - {"rocksdict-config.json"}
    assert {file.name for file in inventory.extras} == {"rocksdict-config.json", "checkpoint.json"}
    assert inventory.total_bytes == sum(os.path.getsize(Path(target, name)) for name in os.listdir(target))
    assert count_keys(restore(inventory, str(tmp_path / "restored")))["b"] == 1000
    families[0].close()


def test_a_checkpoint_by_rocksdb(tmp_path: Path) -> None:
    """A checkpoint that RocksDB made is listed by its MANIFEST, with the WAL's writes in its sequence number."""
    database = build(str(tmp_path / "db"))
    StockCheckpoint(database).create_checkpoint(str(tmp_path / "stock"))
    inventory = read_inventory(str(tmp_path / "stock"))
    assert inventory.checkpoint is None
    assert inventory.db_id == Path(database.path(), "IDENTITY").read_text()
    assert inventory.sequence_number == 1500
    assert {file.name for file in inventory.extras} <= {"rocksdict-config.json"}  # newer versions of rocksdict copy it
    assert count_keys(restore(inventory, str(tmp_path / "restored"))) == {"default": 1500}
    database.close()


def test_a_database_at_rest(db_dir: str, tmp_path: Path) -> None:
    """Of a stopped database everything it needs is listed, and neither LOCK, logs nor what is obsolete."""
    for name in ("000001.sst", "000002.log", "000003.blob", "MANIFEST-000001", "LOG.old.1", "000009.dbtmp", "x.bak"):
        Path(db_dir, name).write_bytes(b"obsolete")
    os.mkdir(Path(db_dir, "archive"))
    inventory = read_inventory(db_dir)
    options_name = max(path.name for path in Path(db_dir).glob("OPTIONS-*"))
    (sst,) = set(names(db_dir, ".sst")) - {"000001.sst"}
    (wal,) = set(names(db_dir, ".log")) - {"000002.log"}
    assert file_names(inventory) == {"CURRENT", manifest_name(db_dir), options_name, "IDENTITY", sst, wal}
    assert {file.type for file in inventory.files if file.name == wal} == {FileType.WAL}
    assert [file.name for file in inventory.extras] == ["rocksdict-config.json"]
    assert inventory.sequence_number == 1500
    assert count_keys(restore(inventory, str(tmp_path / "restored"))) == {"default": 1500}


def test_options_that_name_the_wal_dir(tmp_path: Path) -> None:
    """OPTIONS that names ``wal_dir`` is stored without it, so that no restored copy touches the original's WALs."""
    database = build(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal"))
    db_dir = stop(database, str(tmp_path / "stopped"))
    for name in os.listdir(tmp_path / "wal"):
        shutil.copy(tmp_path / "wal" / name, db_dir)
    inventory = read_inventory(db_dir)
    (file,) = [file for file in inventory.files if file.type is FileType.OPTIONS]
    assert file.content is not None
    assert b"\n  wal_dir=\n" in file.content
    restored = restore(inventory, str(tmp_path / "restored"))
    main, families = Options.load_latest(restored)
    before = fingerprint(tmp_path / "wal")
    copy = Rdict(restored, main, families)
    put(copy, 1500, 1600)
    copy.close()
    assert fingerprint(tmp_path / "wal") == before


def test_leveldb_names(db_dir: str) -> None:
    """An SST file called ``.ldb`` is listed by the name it has."""
    sst = only(db_dir, ".sst")
    sst.rename(sst.with_suffix(".ldb"))
    assert sst.with_suffix(".ldb").name in file_names(read_inventory(db_dir))


def test_blob_files(tmp_path: Path) -> None:
    """Blob files are listed."""
    db_dir = build_stopped(str(tmp_path / "db"), enable_blob_files=True, min_blob_size=10)
    assert set(names(db_dir, ".blob")) <= file_names(read_inventory(db_dir))


def test_a_checkpoint_that_was_opened(tmp_path: Path, db_dir: str) -> None:
    """A checkpoint that was opened as a database is listed as it is now, without its record that no longer holds."""
    target = str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), target)
    database = Rdict(target, options())
    put(database, 1500, 1600)
    database.close()
    inventory = read_inventory(target)
    assert inventory.checkpoint is None
    assert "checkpoint.json" not in {file.name for file in inventory.extras}
    assert inventory.sequence_number == 1600
    assert count_keys(restore(inventory, str(tmp_path / "restored"))) == {"default": 1600}


@pytest.mark.parametrize("suffix", [".sst", "IDENTITY", ".log"])
def test_a_file_of_the_record_is_missing(tmp_path: Path, db_dir: str, suffix: str) -> None:
    """A file that the record names and that is gone is IncompleteError with its path."""
    target = str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), target)
    gone = only(target, suffix)
    gone.unlink()
    with pytest.raises(IncompleteError, match=f"{gone}: is missing"):
        read_inventory(target)


def test_a_file_of_the_manifest_is_missing(db_dir: str) -> None:
    """An SST file that the MANIFEST names and that is gone is IncompleteError, as is a missing MANIFEST."""
    gone = only(db_dir, ".sst")
    gone.unlink()
    with pytest.raises(IncompleteError, match=f"{gone}: is missing"):
        read_inventory(db_dir)
    Path(db_dir, "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(IncompleteError, match="CURRENT names MANIFEST-999999, which is not there"):
        read_inventory(db_dir)


def test_no_database(tmp_path: Path, db_dir: str) -> None:
    """What is no database, or a damaged one, or has other paths, raises the error that a checkpoint of it raises."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotADatabaseError):
        read_inventory(str(tmp_path / "empty"))
    with pytest.raises(NotFoundError):
        read_inventory(str(tmp_path / "missing"))
    Path(db_dir, "CURRENT").write_text("MANIFEST-000005")
    with pytest.raises(CorruptionError):
        read_inventory(db_dir)
    Path(db_dir, "checkpoint.json").write_text("{}")
    Path(db_dir, "LOCK").unlink()  # with it, it is a database, and the file another program's
    with pytest.raises(CorruptionError, match=r"checkpoint\.json"):
        read_inventory(db_dir)
    database = build_two_paths(str(tmp_path / "two"))
    with pytest.raises(InvalidArgumentError, match="path id 1"):
        read_inventory(database.path())
    database.close()


def test_the_record_survives_a_copy(tmp_path: Path, db_dir: str) -> None:
    """A checkpoint that was copied elsewhere is listed by its record there."""
    create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "checkpoint"))
    shutil.copytree(tmp_path / "checkpoint", tmp_path / "copied")
    inventory = read_inventory(str(tmp_path / "copied"))
    assert inventory.checkpoint == read_checkpoint(str(tmp_path / "checkpoint"))
    assert all(file.path.startswith(str(tmp_path / "copied")) for file in inventory.files)
