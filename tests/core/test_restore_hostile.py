"""Backups that lie: names that lead elsewhere, files named twice, sizes and counts that are not so."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from google_crc32c import value

from airflow_provider_rocksdb.core.errors import CorruptionError, IncompleteError, RocksDBError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.restore_names import parse_restored_name
from tests.core.databases import count_keys, fingerprint
from tests.core.repositories import build_old, take

LOCAL = LocalFileSystem()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    database = build_old(str(tmp_path / "db"))
    create_backup(take(database.path(), str(tmp_path / "1")), LOCAL, str(tmp_path / "repository"))
    database.close()
    return tmp_path / "repository"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Give a place in the middle of a tree that is watched."""
    (tmp_path / "watched" / "place").mkdir(parents=True)
    (tmp_path / "watched" / "precious").write_text("mine")
    return tmp_path / "watched" / "place" / "restored"


def edit_meta(repository: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of the files; their number is corrected."""
    meta = repository / "meta" / "1"
    lines = meta.read_text().splitlines()
    files = change(lines[5:])
    meta.write_text("\n".join([*lines[:4], str(len(files)), *files]) + "\n")


def add_file(repository: Path, path: str, content: bytes = b"hostile") -> None:
    """Store a file, if its path allows it, and name it in the meta, with the right size and checksum."""
    place = repository / path
    if ".." not in Path(path).parts and not path.startswith("/"):
        with contextlib.suppress(OSError):  # such a name cannot be
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    edit_meta(repository, lambda files: [*files, f"{path} crc32 {value(content)} size {len(content)}"])


def refuse(repository: Path, target: Path, entry: str, error: type[RocksDBError] = CorruptionError) -> None:
    """Restore, and see that it is refused by name and that nothing has changed around the target."""
    before = {path: seen[:2] for path, seen in fingerprint(target.parent.parent).items()}
    with pytest.raises(error, match=re.escape(entry)):
        restore_backup(LOCAL, str(repository), DatabasePaths(str(target)))
    assert {path: seen[:2] for path, seen in fingerprint(target.parent.parent).items()} == before


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../precious",
        "../../precious",
        "private/1/../../precious",
        "private/1/..",
        "private/1/.",
        "private/1/sub/000001.log",
        "private/2/000077.log",
        "shared_checksum/../000001.sst",
        "shared_checksum/.._1_1.sst",
        "meta/1",
        "foreign/000077.log",
        "shared_checksum/%2e%2e_1_1.",
        "private/1/" + "a" * 256,
    ],
)
def test_paths(repository: Path, target: Path, path: str) -> None:
    """A path that leads out of the backup's folders is refused by name, and nothing is written anywhere."""
    add_file(repository, path)
    refuse(repository, target, path[:64])


@pytest.mark.parametrize(
    "name",
    [
        "LOCK",
        "LOG",
        "LOG.old.1700000000",
        "notes.txt",
        "000077.log.bak",
        "000077.dbtmp",
        "METADB-000077",
        "restore.json",
        ".restore.current",
        "checkpoint.json",
        "77.log",
        "0000077.log",
        "MANIFEST-77",
        "OPTIONS-0000077",
        "CURRENT.dbtmp",
        "99999999999999999999.sst",
    ],
)
def test_unknown_types(repository: Path, target: Path, name: str) -> None:
    """A name that RocksDB does not write, or that no backup holds, is refused."""
    add_file(repository, f"private/1/{name}")
    refuse(repository, target, name)


@pytest.mark.parametrize(
    "path", ["shared/{}.sst", "private/1/{}.sst", "private/1/{}.ldb", "shared_checksum/{}_1_7.sst"]
)
def test_same_file_twice(repository: Path, target: Path, path: str) -> None:
    """Two entries that would be the same file of the database are refused."""
    (sst,) = [name for name in os.listdir(repository / "shared_checksum") if name.endswith(".sst")]
    add_file(repository, path.format(sst.partition("_")[0]))
    refuse(repository, target, sst.partition("_")[0])


def test_same_entry_twice(repository: Path, target: Path) -> None:
    """So is the same entry twice."""
    edit_meta(repository, lambda files: [*files, files[-1]])
    refuse(repository, target, "would both be restored as")


def test_blob_with_the_number_of_an_sst_file(repository: Path, target: Path) -> None:
    """RocksDB numbers all files together."""
    (sst,) = [name for name in os.listdir(repository / "shared_checksum") if name.endswith(".sst")]
    add_file(repository, f"private/1/{sst.partition('_')[0]}.blob")
    refuse(repository, target, f"{sst.partition('_')[0]}.blob")


@pytest.mark.parametrize("size", [0, 1, 2**62])
def test_sizes_that_lie(repository: Path, target: Path, size: int) -> None:
    """A size that is not the object's is refused before anything is fetched, or room is asked for."""
    edit_meta(repository, lambda files: [*files[:-1], re.sub(r"size \d+", f"size {size}", files[-1])])
    refuse(repository, target, f"expected {size} bytes")


@pytest.mark.parametrize("count", [0, 1, 4294967295])
def test_counts_that_lie(repository: Path, target: Path, count: int) -> None:
    """A number of files that is not the number of lines is refused."""
    meta = repository / "meta" / "1"
    lines = meta.read_text().splitlines()
    meta.write_text("\n".join([*lines[:4], str(count), *lines[5:]]) + "\n")
    refuse(repository, target, "meta/1")


@pytest.mark.parametrize("content", [b"", b"MANIFEST-000099\n", b"../../precious\n", b"x" * 100_000])
def test_current(repository: Path, target: Path, content: bytes) -> None:
    """A CURRENT that names no MANIFEST of the backup is refused."""
    (repository / "private" / "1" / "CURRENT").write_bytes(content)
    line = f"private/1/CURRENT crc32 {value(content)} size {len(content)}"
    edit_meta(repository, lambda files: [line if file.startswith("private/1/CURRENT ") else file for file in files])
    refuse(repository, target, "CURRENT")


@pytest.mark.parametrize("missing", ["CURRENT", "MANIFEST"])
def test_without_current(repository: Path, target: Path, missing: str) -> None:
    """A backup that lacks CURRENT or its MANIFEST is refused."""
    edit_meta(repository, lambda files: [file for file in files if missing not in file])
    refuse(repository, target, "CURRENT")


def test_manifest_is_garbage(repository: Path, target: Path) -> None:
    """A MANIFEST that is none, with the right checksum, is refused by name."""
    (path,) = (repository / "private" / "1").glob("MANIFEST-*")
    path.write_bytes(b"\xff" * 1000)
    line = f"private/1/{path.name} crc32 {value(path.read_bytes())} size 1000"
    edit_meta(repository, lambda files: [line if path.name in file else file for file in files])
    refuse(repository, target, path.name, RocksDBError)


def test_foreign_wal_is_what_the_meta_says(repository: Path, target: Path) -> None:
    """A file in the backup's folder that its meta does not name is not restored."""
    (repository / "private" / "1" / "000999.log").write_bytes(b"newer")
    restore_backup(LOCAL, str(repository), DatabasePaths(str(target)))
    assert not (target / "000999.log").exists()
    assert count_keys(str(target))["default"] == 1500


def test_directory_in_place_of_a_file(repository: Path, target: Path) -> None:
    """A folder under the name of a file is not a file."""
    (path,) = (repository / "private" / "1").glob("*.log")
    path.unlink()
    path.mkdir()
    refuse(repository, target, path.name, IncompleteError)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "CURRENT\n", "000001.sst\0", "000001.SST", "\u0661.sst"])
def test_names(name: str) -> None:
    """No name that is not exactly RocksDB's gets a path."""
    with pytest.raises(CorruptionError):
        parse_restored_name(name)


@pytest.mark.parametrize("where", ["target", "temporary place"])
def test_symbolic_link_in_the_way(repository: Path, target: Path, where: str) -> None:
    """A symbolic link under the temporary name is not followed; one under the target's leads to an empty directory."""
    victim = target.parent.parent / "victim"
    victim.mkdir()
    (target if where == "target" else Path(f"{target}.tmp")).symlink_to(victim)
    if where == "target":
        restore_backup(LOCAL, str(repository), DatabasePaths(str(target)))
        assert (target.is_symlink(), count_keys(str(victim))["default"]) == (True, 1500)
    else:
        refuse(repository, target, "is in the way", RocksDBError)
        assert os.listdir(victim) == []
