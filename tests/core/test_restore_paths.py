"""Files are put where the database's own program, with its own options, looks for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from rocksdict import DBPath, Options, Rdict

from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.upload import Layout, upload_checkpoint
from tests.core.databases import build_two_paths, count_keys, fingerprint, list_keys, names, options, put, read_version

LOCAL = LocalFileSystem()


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """Back up a database of two families: each has keys 0-999 in an SST file, and 1000-1499 in the WAL."""
    database = Rdict(str(tmp_path / "db"), options())
    families = [database, database.create_column_family("cold", options(enable_blob_files=True, min_blob_size=0))]
    for family in families:
        put(family, 0, 1000)
        family.flush()
        put(family, 1000, 1500)
    back_up(DatabasePaths(database.path()), tmp_path)
    database.close()
    return str(tmp_path / "repository")


def back_up(paths: DatabasePaths, place: Path) -> None:
    create_live_checkpoint(paths, str(place / "checkpoint"))
    create_backup(read_inventory(str(place / "checkpoint")), LOCAL, str(place / "repository"))


def open_and_count(db_dir: str, made: Options) -> list[int]:
    """Open with the owner's options; return the number of keys of both families, which must have no hole."""
    database = Rdict(db_dir, made, {"cold": options(enable_blob_files=True, min_blob_size=0)})
    counts = []
    for family in (database, database.get_column_family("cold")):
        keys = list_keys(family)
        assert keys == list(range(len(keys)))
        counts.append(len(keys))
    database.close()
    return counts


def test_wal_dir(repository: str, tmp_path: Path) -> None:
    """With ``wal_dir``, WALs lie there alone; the owner's options and the restored OPTIONS both find them."""
    db_dir, wal_dir = str(tmp_path / "restored"), str(tmp_path / "wal")
    result = restore_backup(LOCAL, repository, DatabasePaths(db_dir, wal_dir))
    assert result.options_changes == {"wal_dir": ""}
    assert (names(db_dir, ".log"), len(names(wal_dir, ".log"))) == ([], 2)
    main, families = Options.load_latest(db_dir)
    shutil.copytree(db_dir, f"{db_dir}-2")
    database = Rdict(f"{db_dir}-2", main, families)
    assert len(list(database.keys())) == 1500
    database.close()
    restore_backup(LOCAL, repository, DatabasePaths(db_dir, wal_dir), replace=True)
    assert open_and_count(db_dir, options(wal_dir=wal_dir)) == [1500, 1500]


@pytest.mark.parametrize("told_by", ["the OPTIONS", "the backup"])
def test_wal_dir_that_was_not_given(tmp_path: Path, told_by: str, caplog: pytest.LogCaptureFixture) -> None:
    """WALs that are left in a ``wal_dir`` would be replayed: without a word on it nothing is restored beside them.

    The OPTIONS of the database that is replaced tell of it, and the backup does when the database comes back to its
    place. Either answer is taken: that ``wal_dir``, which is then replaced, or the DB directory.
    """
    db_dir, wal_dir = str(tmp_path / "db"), str(tmp_path / "wal")
    database = Rdict(db_dir, options(wal_dir=wal_dir))
    put(database, 0, 1500)
    back_up(DatabasePaths(db_dir), tmp_path)
    put(database, 1500, 1600)
    database.close()
    if told_by == "the backup":
        shutil.rmtree(db_dir)
    else:
        os.rename(db_dir, tmp_path / "moved")
        db_dir = str(tmp_path / "moved")
    before = fingerprint(tmp_path)
    repository = str(tmp_path / "repository")
    with pytest.raises(InvalidArgumentError, match="give that directory as wal_dir") as caught:
        restore_backup(LOCAL, repository, DatabasePaths(db_dir), replace=True)
    assert f"its WALs are in {wal_dir}, as {told_by}" in str(caught.value)
    assert fingerprint(tmp_path) == before
    restore_backup(LOCAL, repository, DatabasePaths(db_dir, wal_dir), replace=True)
    database = Rdict(db_dir, options(wal_dir=wal_dir))
    assert list_keys(database) == list(range(1500))
    database.close()
    restore_backup(LOCAL, repository, DatabasePaths(db_dir, db_dir), replace=True)
    assert count_keys(db_dir)["default"] == 1500
    restore_backup(LOCAL, repository, DatabasePaths(str(tmp_path / "elsewhere")))
    assert f"had its WALs in {wal_dir}, here they lie in the DB directory" in caplog.text
    assert count_keys(str(tmp_path / "elsewhere"))["default"] == 1500


@pytest.mark.parametrize("layout", ["directory", "archive"])
def test_wal_dir_that_a_checkpoint_tells(tmp_path: Path, layout: Layout) -> None:
    """The other layouts tell of a ``wal_dir`` by their checkpoint's record."""
    db_dir, wal_dir = str(tmp_path / "db"), str(tmp_path / "wal")
    database = Rdict(db_dir, options(wal_dir=wal_dir))
    put(database, 0, 1500)
    create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "checkpoint"))
    place = str(tmp_path / ("x.tar" if layout == "archive" else "x"))
    upload_checkpoint(str(tmp_path / "checkpoint"), LOCAL, place, layout=layout)
    put(database, 1500, 1600)
    database.close()
    shutil.rmtree(db_dir)
    with pytest.raises(InvalidArgumentError, match="as the backup tells"):
        restore_backup(LOCAL, place, DatabasePaths(db_dir))
    assert not os.path.exists(db_dir)
    restore_backup(LOCAL, place, DatabasePaths(db_dir, wal_dir), replace=True)
    database = Rdict(db_dir, options(wal_dir=wal_dir))
    assert list_keys(database) == list(range(1500))
    database.close()


def test_wal_dir_that_options_name_already(tmp_path: Path) -> None:
    """A database that comes back to its own ``wal_dir`` has it in its OPTIONS again."""
    db_dir, wal_dir = str(tmp_path / "db"), str(tmp_path / "wal: of #1")
    database = Rdict(db_dir, options(wal_dir=wal_dir))
    put(database, 0, 500)
    paths = DatabasePaths(db_dir, wal_dir)
    back_up(paths, tmp_path)
    database.close()
    restore_backup(LOCAL, str(tmp_path / "repository"), paths, replace=True)
    main, families = Options.load_latest(db_dir)
    database = Rdict(db_dir, main, families)
    assert len(list(database.keys())) == 500
    database.close()


def test_wal_dir_is_the_db_dir(repository: str, tmp_path: Path) -> None:
    """A ``wal_dir`` that is the DB directory needs no word in OPTIONS: a copy of the directory would lead back here."""
    db_dir = str(tmp_path / "restored")
    assert restore_backup(LOCAL, repository, DatabasePaths(db_dir, f"{db_dir}/")).options_changes == {}
    assert open_and_count(db_dir, options()) == [1500, 1500]


def test_wal_dir_below_the_database(repository: str, tmp_path: Path) -> None:
    """A ``wal_dir`` inside the DB directory is replaced together with it, in one exchange."""
    db_dir = str(tmp_path / "restored")
    for replace in (False, True):
        restore_backup(LOCAL, repository, DatabasePaths(db_dir, f"{db_dir}/wal"), replace=replace)
        assert open_and_count(db_dir, options(wal_dir=f"{db_dir}/wal")) == [1500, 1500]


def test_db_paths(repository: str, tmp_path: Path) -> None:
    """With ``db_paths``, SST and blob files lie in the first, where their path id 0 points to; the owner opens it."""
    db_dir, paths = str(tmp_path / "restored"), (str(tmp_path / "fast"), str(tmp_path / "slow"))
    restore_backup(LOCAL, repository, DatabasePaths(db_dir, db_paths=paths))
    assert (names(db_dir, ".sst"), names(db_dir, ".blob"), os.listdir(paths[1])) == ([], [], [])
    assert (len(names(paths[0], ".sst")), len(names(paths[0], ".blob"))) == (2, 1)
    made = options(db_paths=[DBPath(paths[0], 1 << 40), DBPath(paths[1], 1 << 40)])
    assert open_and_count(db_dir, made) == [1500, 1500]


def test_owner_of_two_paths(tmp_path: Path) -> None:
    """A database that was spread over two paths comes back under its owner's options, all in the first."""
    database = build_two_paths(str(tmp_path))
    paths = DatabasePaths(database.path(), db_paths=(str(tmp_path / "fast"), str(tmp_path / "slow")))
    back_up(paths, tmp_path)
    database.close()
    restore_backup(LOCAL, str(tmp_path / "repository"), paths, replace=True)
    version = read_version(paths.db_dir)
    assert {table.path_id for family in version.column_families.values() for table in family.tables.values()} == {0}
    assert names(paths.db_paths[1], "") == []
    made = options(db_paths=[DBPath(paths.db_paths[0], 60_000), DBPath(paths.db_paths[1], 1 << 40)])
    database = Rdict(paths.db_dir, made)
    assert len(list(database.keys())) == 4100
    database.close()


def test_cf_paths(repository: str, tmp_path: Path) -> None:
    """With ``cf_paths``, a family's SST and blob files lie in its own first path, the other family's elsewhere."""
    db_dir, cold = str(tmp_path / "restored"), (str(tmp_path / "cold"), str(tmp_path / "colder"))
    paths = DatabasePaths(db_dir, db_paths=(str(tmp_path / "fast"),), cf_paths={"cold": cold})
    restore_backup(LOCAL, repository, paths)
    families = {family.name: family for family in read_version(db_dir).column_families.values()}
    assert names(cold[0], ".sst") == [f"{number:06d}.sst" for number in families[b"cold"].tables]
    assert names(cold[0], ".blob") == [f"{blob.number:06d}.blob" for blob in families[b"cold"].live_blobs()]
    assert names(str(tmp_path / "fast"), ".sst") == [f"{number:06d}.sst" for number in families[b"default"].tables]
    assert names(db_dir, ".sst") == []
    assert check_completeness(db_dir, paths=paths, level="blocks").state == "complete"


def test_cf_paths_of_an_unknown_family(repository: str, tmp_path: Path) -> None:
    """A family that the backup does not have is an error that names those it has: it may be a slip of the pen."""
    paths = DatabasePaths(str(tmp_path / "restored"), cf_paths={"clod": (str(tmp_path / "cold"),)})
    with pytest.raises(InvalidArgumentError, match=r"'clod'.*'cold', 'default'"):
        restore_backup(LOCAL, repository, paths)
    assert not (tmp_path / "restored").exists()
    assert not (tmp_path / "cold").exists()


def test_checkpoint_of_the_restored(repository: str, tmp_path: Path) -> None:
    """What was restored can be backed up again."""
    db_dir = str(tmp_path / "restored")
    restore_backup(LOCAL, repository, DatabasePaths(db_dir))
    create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "again"))
    assert set(count_keys(str(tmp_path / "again")).values()) == {1500}


def test_relative_paths(repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are those of the working directory, and absolute in OPTIONS."""
    monkeypatch.chdir(tmp_path)
    restore_backup(LOCAL, repository, DatabasePaths("restored", "wal"))
    (name,) = [name for name in os.listdir("restored") if name.startswith("OPTIONS")]
    assert f"  wal_dir={tmp_path}/wal\n" in Path("restored", name).read_text()
