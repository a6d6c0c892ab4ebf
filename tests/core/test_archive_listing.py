"""Archives as backups: listed by their beginning, verified by reading all of them, one or a folder of them."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.errors import InvalidArgumentError, NotFoundError
from airflow_provider_rocksdb.core.freshness import find_backup
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.repository_usage import BackupUsage, list_usage
from airflow_provider_rocksdb.core.verify import verify_backups
from airflow_provider_rocksdb.core.verify_report import VerifyReport
from tests.core.databases import flip, put
from tests.core.repositories import QUICK, build_old, take
from tests.core.test_archive_hostile import stream
from tests.servers import S3Server

LOCAL = LocalFileSystem()
LEVELS = ["files", "checksums", "restore"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of two archives; the second has another hundred keys."""
    place = tmp_path_factory.mktemp("archives")
    database = build_old(str(place / "db"))
    for number, name in enumerate(["b-first.tar.zst", "a-second.tar.gz"]):
        inventory = take(str(place / "db"), str(place / f"checkpoint-{number}"))
        upload_archive(inventory, LOCAL, str(place / "folder" / name))
        os.utime(place / "folder" / name, (1e9 + number, 1e9 + number))
        put(database, 1500, 1600)
    database.close()
    return place / "folder"


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "folder"
    copy.mkdir()
    for path in template.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
        os.utime(copy / path.name, (path.stat().st_mtime, path.stat().st_mtime))
    return copy


def usage(place: Path) -> tuple[BackupUsage, ...]:
    return list_usage(LOCAL, str(place), options=QUICK)


def verify(place: Path, **options: Any) -> VerifyReport:
    return verify_backups(LOCAL, str(place), **{"options": QUICK, **options})


def test_list(folder: Path) -> None:
    """A folder's archives are listed, the oldest first, with what each begins with; other files are passed over."""
    (folder / "notes.txt").write_text("not an archive")
    first, second = usage(folder)
    assert [found.name for found in (first, second)] == ["b-first.tar.zst", "a-second.tar.gz"]
    for found in (first, second):
        assert (found.backup_id, found.layout, found.state, found.problems) == (None, "archive", "readable", ())
        assert found.total_bytes == found.own_bytes == (folder / found.name).stat().st_size
        assert (len(found.db_id), found.file_count, bool(found.hostname)) == (36, 7, True)
    assert (first.sequence_number, second.sequence_number) == (1500, 1600)
    assert first.time < second.time
    assert json.loads(json.dumps(first.to_dict())) == first.to_dict()
    assert usage(folder / "b-first.tar.zst") == (first,)


def test_list_of_what_is_none(folder: Path) -> None:
    """An archive that cannot be read is listed as such, with the reason; one that is not there is an error."""
    (folder / "a-second.tar.gz").write_bytes(b"not gzip")
    (folder / "c-third.tar").write_bytes(stream([("CURRENT", b"MANIFEST-000001\n")]))
    found = {item.name: item for item in usage(folder)}
    assert found["a-second.tar.gz"].state == "unreadable"
    assert "gzip" in found["a-second.tar.gz"].problems[0]
    assert (found["c-third.tar"].state, found["c-third.tar"].time) == ("readable", "")
    with pytest.raises(NotFoundError, match="no such archive"):
        usage(folder / "missing.tar")


def test_repository_goes_first(folder: Path) -> None:
    """A folder that is a repository, or has a CURRENT, is not taken for one of archives."""
    (folder / "CURRENT").write_bytes(b"MANIFEST-000001\n")
    assert [found.layout for found in usage(folder)] == ["directory"]
    (folder / "meta").mkdir()
    assert usage(folder) == ()


@pytest.mark.parametrize("level", LEVELS)
def test_whole(folder: Path, level: str, tmp_path: Path) -> None:
    """At every level all of an archive is read; of a folder the one written last, or all; a drill leaves nothing."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    for place, chosen, options in [
        (folder / "b-first.tar.zst", {"b-first.tar.zst"}, {}),
        (folder, {"a-second.tar.gz"}, {}),
        (folder, set(sizes), {"all_backups": True}),
    ]:
        report = verify(place, level=level, scratch_dir=str(scratch), **options)
        assert (report.state, report.layout, report.problems) == (State.COMPLETE, "archive", ())
        size = sum(sizes[name] for name in chosen)
        assert (report.file_count, report.total_bytes, report.read_files, report.read_share) == (
            len(chosen),
            size,
            len(chosen),
            1.0,
        )
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("damage", ["cut", "flipped", "followed", "empty"])
def test_damaged(folder: Path, level: str, damage: str) -> None:
    """Damage is found at every level; the other archives of the folder are read all the same."""
    path = folder / "a-second.tar.gz"
    data = path.read_bytes()
    if damage == "flipped":
        flip(path, len(data) // 2)
    else:
        path.write_bytes({"cut": data[:-20], "followed": data + b"x", "empty": b""}[damage])
    report = verify(folder, level=level, all_backups=True)
    assert [(problem.state, problem.file) for problem in report.problems] == [(State.CORRUPT, path.name)]
    assert (report.file_count, report.read_files) == (2, 1)


def test_drill_finds_what_the_list_does_not(folder: Path) -> None:
    """An archive that is whole, of files that are no database, fails its drill."""
    path = folder / "c.tar"
    path.write_bytes(stream([("MANIFEST-000001", b"damaged"), ("CURRENT", b"MANIFEST-000001\n")]))
    assert verify(path, level="checksums").state is State.COMPLETE
    assert verify(path, level="restore").state is State.INCOMPLETE


def test_freshness(folder: Path) -> None:
    """The newest archive that begins as one counts as a backup, with its record's time and database."""
    first, second = usage(folder)
    found = find_backup(LOCAL, str(folder), max_age=timedelta(hours=1), db_id=first.db_id, options=QUICK)
    assert (found.state, found.layout, found.backup_id) == (State.COMPLETE, "archive", None)
    assert (found.name, found.time, found.sequence_number) == (second.name, second.time, 1600)
    (folder / second.name).write_bytes(b"not gzip")
    found = find_backup(LOCAL, str(folder), options=QUICK)
    assert (found.name, len(found.passed_over)) == (first.name, 1)
    later = datetime.fromisoformat(second.time) + timedelta(seconds=1)
    none = find_backup(LOCAL, str(folder), newer_than=later, options=QUICK)
    assert (none.state, len(none.passed_over)) == (State.CORRUPT, 2)
    assert find_backup(LOCAL, str(folder / first.name), db_id="another", options=QUICK).state is State.INCOMPLETE
    assert find_backup(LOCAL, str(folder / "missing.tar"), options=QUICK).state is State.INCOMPLETE


def test_arguments(folder: Path) -> None:
    """Backup ids and samples do not go with archives; an archive that is not there is incomplete."""
    for options in ({"backup_id": 1}, {"level": "checksums", "sample_percent": 5}):
        with pytest.raises(InvalidArgumentError, match="an archive"):
            verify(folder, **options)
    assert verify(folder / "missing.tar.gz").state is State.INCOMPLETE


def test_s3(folder: Path, s3_server: S3Server) -> None:
    """Archives in a bucket are listed and verified there."""
    filesystem = fsspec.filesystem("s3", **s3_server.storage_options)
    for path in folder.iterdir():
        filesystem.put_file(str(path), f"{s3_server.place}/{path.name}")
    found = list_usage(filesystem, s3_server.place, options=QUICK)
    assert sorted(item.name for item in found) == ["a-second.tar.gz", "b-first.tar.zst"]
    assert {item.state for item in found} == {"readable"}
    report = verify_backups(filesystem, s3_server.place, all_backups=True, options=QUICK)
    assert (report.state, report.read_files, report.read_share) == (State.COMPLETE, 2, 1.0)
