"""Whole backups pass, and damage of every kind, and whatever could not be looked at, does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import google_crc32c
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from rocksdict import Rdict

from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    CorruptionError,
    CouldNotCheckError,
    IncompleteError,
    InvalidArgumentError,
)
from airflow_provider_rocksdb.core.format.backup_meta import BackupFile, BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.transfer import TransferOptions
from airflow_provider_rocksdb.core.verify import verify_backups
from airflow_provider_rocksdb.core.verify_report import VerifyReport
from tests.core.databases import NOBODY, flip, put, run_child, start_child, wait_until
from tests.core.repositories import ONCE, QUICK, WatchedFileSystem, aimrocks, build_old, grow, read_local_meta, take
from tests.servers import S3Server, Server

LOCAL = LocalFileSystem()
COMPLETE, INCOMPLETE, CORRUPT = State.COMPLETE, State.INCOMPLETE, State.CORRUPT
COULD_NOT_CHECK = State.COULD_NOT_CHECK


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository of three backups; each has an SST file more than the one before."""
    place = tmp_path_factory.mktemp("template")
    database = build_old(str(place / "db"))
    for number in range(3):
        inventory = take(str(place / "db"), str(place / f"checkpoint-{number}"))
        create_backup(inventory, LOCAL, str(place / "repository"))
        grow(database, 1500 + 500 * number, 1900 + 500 * number)
        put(database, 1900 + 500 * number, 2000 + 500 * number)
    database.close()
    return place / "repository"


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repository"))


def verify(repository: Path | str, **options: Any) -> VerifyReport:
    return verify_backups(LOCAL, str(repository), **{"options": QUICK, **options})


def named(repository: Path, *backup_ids: int) -> dict[str, int]:
    """Files that backups name, with their sizes."""
    return {file.path: file.size or 0 for i in backup_ids for file in read_local_meta(repository, i).files}


def shared_by_all(repository: Path) -> Path:
    """Return the SST file that all three backups name."""
    sets = [set(named(repository, backup_id)) for backup_id in (1, 2, 3)]
    (path,) = sets[0] & sets[1] & sets[2]
    return repository / path


# whole ones


@pytest.mark.parametrize("level", ["files", "checksums"])
def test_whole(repository: Path, level: str) -> None:
    """A whole repository is complete; level files reads nothing, level checksums every file once."""
    report = verify(repository, all_backups=True, level=level)
    files = named(repository, 1, 2, 3)
    assert (report.state, report.problems, report.backup_ids, report.layout) == (
        COMPLETE,
        (),
        (1, 2, 3),
        "backup_engine",
    )
    assert (report.file_count, report.total_bytes) == (len(files), sum(files.values()))
    read = (len(files), sum(files.values()), 1.0) if level == "checksums" else (0, 0, 0.0)
    assert (report.read_files, report.read_bytes, report.read_share) == read
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    report.raise_for_state()


def test_one_backup(repository: Path) -> None:
    """Without an id the newest backup is verified, with one that one, and no other's files are looked at."""
    newest, second = verify(repository, level="checksums"), verify(repository, level="checksums", backup_id=2)
    assert (newest.backup_ids, newest.read_bytes) == ((3,), sum(named(repository, 3).values()))
    assert (second.backup_ids, second.read_bytes) == ((2,), sum(named(repository, 2).values()))
    next(repository.glob("private/1/MANIFEST-*")).unlink()
    assert verify(repository, level="checksums").state is COMPLETE
    assert verify(repository, backup_id=1).state is INCOMPLETE


def test_each_file_is_read_once(template: Path) -> None:
    """A file that three backups name is read once."""
    store = upload(template, WatchedFileSystem())
    store.revive()
    report = verify_backups(store, "/r", all_backups=True, level="checksums", options=QUICK)
    assert report.state is COMPLETE
    assert store.requests["open rb"] == report.file_count


def test_nothing_is_written(repository: Path) -> None:
    """A repository is left as it was."""
    before = {str(path): path.stat().st_mtime_ns for path in repository.rglob("*")}
    verify(repository, all_backups=True, level="checksums")
    assert {str(path): path.stat().st_mtime_ns for path in repository.rglob("*")} == before


# damage


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "flipped":
        flip(path, len(data) // 2)
    else:
        path.write_bytes({"truncated": data[:-1], "empty": b"", "longer": data + b"x"}[kind])


STATES = {
    "missing": (INCOMPLETE, "no file"),
    "folder": (INCOMPLETE, "no regular file"),
    "truncated": (INCOMPLETE, "bytes"),
    "empty": (INCOMPLETE, "0 bytes"),
    "longer": (CORRUPT, "bytes"),
    "flipped": (CORRUPT, "CRC32C 0x"),
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize(
    "where", ["shared_checksum/*.sst", "private/3/MANIFEST-*", "private/3/CURRENT", "private/3/*.log"]
)
def test_damaged_file(repository: Path, where: str, kind: str) -> None:
    """Each kind of damage to any file is found, and the problem tells file, expected and got."""
    path = min(repository.glob(where))
    damage(path, kind)
    state, got = STATES[kind]
    report = verify(repository, level="checksums")
    assert report.state is state
    (problem,) = report.problems
    assert (problem.file, problem.backup_ids) == (str(path.relative_to(repository)), (3,))
    assert got in problem.got
    assert str(named(repository, 3)[problem.file]) in problem.expected
    at_level_files = verify(repository, level="files").state
    assert at_level_files is (COMPLETE if kind == "flipped" else state)


def test_problem_names_every_backup(repository: Path) -> None:
    """A damaged shared file is one problem, which names every backup that it belongs to."""
    damage(shared_by_all(repository), "flipped")
    (problem,) = verify(repository, all_backups=True, level="checksums").problems
    assert problem.backup_ids == (1, 2, 3)
    assert str(problem).endswith("(backups 1, 2, 3)")


def test_every_problem_is_listed(repository: Path) -> None:
    """All problems are listed, the gravest first, and the error has the first ten and the number of the others."""
    for path in repository.glob("private/*/*"):
        if path.name != "checkpoint.json":
            damage(path, "truncated" if path.name != "CURRENT" else "longer")
    report = verify(repository, all_backups=True)
    assert len(report.problems) == sum(path.startswith("private/") for path in named(repository, 1, 2, 3))
    assert [problem.file[-7:] for problem in report.problems[:3]] == ["CURRENT"] * 3
    with pytest.raises(CorruptionError, match=rf"CURRENT: expected .* and {len(report.problems) - 10} more"):
        report.raise_for_state()


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "longer"])
def test_damaged_meta(repository: Path, kind: str) -> None:
    """A meta that cannot be read is a problem, of one backup or among all, and the other backups are verified."""
    path = repository / "meta" / "2"
    if kind == "flipped":
        path.write_bytes(path.read_bytes().replace(b"private/2", b"private/1", 1))
    else:
        damage(path, kind)
    assert verify(repository, backup_id=2).state is CORRUPT
    report = verify(repository, all_backups=True, level="checksums")
    assert (report.state, [problem.file for problem in report.problems]) == (CORRUPT, ["meta/2"])
    assert report.read_files == len(named(repository, 1, 3))


def test_newest_meta_is_not_passed_over(repository: Path) -> None:
    """A damaged newest meta is not passed over in favour of an older one."""
    damage(repository / "meta" / "3", "truncated")
    assert verify(repository).state is CORRUPT


def test_unknown_schema(repository: Path) -> None:
    """A meta of a schema that is not known here could not be checked."""
    (repository / "meta" / "4").write_text("schema_version 3\n1\n1\n0\n")
    assert verify(repository).state is COULD_NOT_CHECK
    with pytest.raises(CouldNotCheckError, match=r"meta/4.*schema"):
        verify(repository, all_backups=True).raise_for_state()


def write_meta(repository: Path, *files: BackupFile, schema: str = "2.1") -> None:
    (repository / "meta" / "9").write_bytes(encode_backup_meta(BackupMeta(1, 1, b"", files, schema)))


def test_meta_of_nothing(repository: Path) -> None:
    """A meta that names no CURRENT and no MANIFEST is of no database, and corrupt."""
    write_meta(repository)
    report = verify(repository)
    assert (report.state, [problem.expected for problem in report.problems]) == (CORRUPT, ["CURRENT", "a MANIFEST"])


def test_file_without_checksum(repository: Path) -> None:
    """A file of which the meta has no checksum could not be checked, unless its name tells it."""
    (repository / "private" / "9").mkdir()
    files = {"private/9/CURRENT": None, "private/9/MANIFEST-000001": 1, "shared_checksum/000009_{}_3.blob": None}
    crc = google_crc32c.value(b"abc")
    entries = [BackupFile(name.format(crc), value and google_crc32c.value(b"abc"), 3) for name, value in files.items()]
    for entry in entries:
        (repository / entry.path).write_bytes(b"abc")
    write_meta(repository, *entries)
    report = verify(repository, level="checksums")
    assert (report.state, [problem.file for problem in report.problems]) == (COULD_NOT_CHECK, ["private/9/CURRENT"])
    damage(repository / entries[2].path, "flipped")
    assert verify(repository, level="checksums").problems[0].file == entries[2].path


def test_metas_that_disagree(repository: Path) -> None:
    """When two metas want different things of a file, the file is right for one and corrupt for the other."""
    meta = read_local_meta(repository, 3)
    path = str(shared_by_all(repository).relative_to(repository))
    files = [BackupFile(f.path, (f.crc32c or 0) ^ 1 if f.path == path else f.crc32c, f.size) for f in meta.files]
    changed = BackupMeta(meta.timestamp, meta.sequence_number, meta.metadata, tuple(files))
    (repository / "meta" / "3").write_bytes(encode_backup_meta(changed))
    (problem,) = verify(repository, all_backups=True, level="checksums").problems
    assert (problem.state, problem.file, problem.backup_ids) == (CORRUPT, path, (3,))


# what is not there


def test_no_backup(tmp_path: Path, repository: Path) -> None:
    """A repository without a backup, no repository, and a backup that is not there are incomplete, never a success."""
    for all_backups in (False, True):
        report = verify(tmp_path / "nothing", all_backups=all_backups)
        assert (report.state, report.reason) == (INCOMPLETE, "meta: expected a backup, got no backup")
    report = verify(repository, backup_id=7)
    assert (report.state, report.reason) == (INCOMPLETE, "meta: expected backup 7, got 1, 2, 3")
    for path in repository.glob("meta/*"):
        path.unlink()
    assert verify(repository, all_backups=True).state is INCOMPLETE
    with pytest.raises(IncompleteError, match="no backup"):
        verify(repository).raise_for_state()


# samples


def made_up(count: int) -> MemoryFileSystem:
    """Make a repository whose one backup names many small files."""
    store = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    names = ["private/1/CURRENT", "private/1/MANIFEST-000001"]
    names += [f"shared_checksum/{number:06d}_sABCDEFGHIJKLMNOPQRST_100.sst" for number in range(count)]
    store.pipe({f"/r/{name}": bytes(100) for name in names})
    crc = google_crc32c.value(bytes(100))
    meta = BackupMeta(1, 1, b"", tuple(BackupFile(name, crc, 100) for name in names))
    store.pipe_file("/r/meta/1", encode_backup_meta(meta))
    return store


@pytest.mark.parametrize(("percent", "days"), [(5, 20), (30, 4), (100, 1)])
def test_sample_covers_everything(percent: float, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many days in a row as the percentage asks for read every file once, each day about its share, in any year."""
    store = made_up(2000)
    opened: Counter[str] = Counter()
    original = store.open

    def watched(path: str, mode: str = "rb", **kwargs: Any) -> Any:
        opened[path] += 1
        return original(path, mode, **kwargs)

    monkeypatch.setattr(store, "open", watched)
    first = datetime(2031, 12, 20, 23, 59, tzinfo=UTC)
    for day in range(days):
        options: dict[str, Any] = {"level": "checksums", "sample_percent": percent, "options": QUICK}
        report = verify_backups(store, "/r", now=first + timedelta(days=day), **options)
        assert report.state is COMPLETE
        assert 0.6 / days < report.read_share < 1.4 / days or days == 1
        assert report.sample is not None
        assert report.sample.parts == days
    assert set(opened.values()) == {1}
    assert len(opened) == report.file_count == 2002


def test_sample_is_the_days(repository: Path) -> None:
    """Two runs on a day read the same; damage is found on its day; sizes are compared every day."""
    day = datetime(2030, 1, 1, tzinfo=UTC)
    options: dict[str, Any] = {"level": "checksums", "all_backups": True, "sample_percent": 25}
    runs = [verify(repository, now=day + timedelta(hours=hour), **options) for hour in (0, 23)]
    assert runs[0].read_bytes == runs[1].read_bytes
    damage(shared_by_all(repository), "flipped")
    states = [verify(repository, now=day + timedelta(days=number), **options).state for number in range(8)]
    assert Counter(states) == {COMPLETE: 6, CORRUPT: 2}
    assert states[:4] == states[4:]
    damage(shared_by_all(repository), "truncated")
    assert all(verify(repository, now=day + timedelta(days=n), **options).state is INCOMPLETE for n in range(4))


# what could not be looked at


def upload(repository: Path, store: Any) -> Any:
    for path in repository.rglob("*"):
        if path.is_file():
            store.pipe_file(f"/r/{path.relative_to(repository)}", path.read_bytes())
    return store


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user needs root")
@pytest.mark.parametrize(
    "closed", ["", "meta", "meta/3", "private", "private/3", "private/3/CURRENT", "shared_checksum"]
)
def test_without_the_right_to_read(template: Path, public_path: Path, closed: str) -> None:
    """What this user may not read could not be checked, and the problem names it."""
    place = shutil.copytree(template, public_path / "repository")
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    os.chmod(place / closed, 0o700)
    code = """
from airflow_provider_rocksdb.core.verify import verify_backups
print(verify_backups(LocalFileSystem(), arguments["place"], level="checksums").raise_for_state())
"""
    done = run_child(code, uid=NOBODY, place=str(place))
    assert "CouldNotCheckError" in done.stderr, done
    assert str(place / closed) in done.stderr
    assert "Permission" in done.stderr


class FailingFileSystem(MemoryFileSystem):
    """A store that fails for some paths."""

    cachable = False

    def __init__(self, failing: str, error: Exception) -> None:
        super().__init__(global_store=False, skip_instance_cache=True)
        self.failing, self.error, self.fails, self.tries, self.most = failing, error, False, 0, 1000

    def _check(self, path: str) -> None:
        if self.fails and self.failing in path and self.tries < self.most:
            self.tries += 1
            raise self.error

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._check(f"ls {path}")
        return super().ls(path, detail=detail, **kwargs)

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._check(f"find {path}")
        return super().find(path, *args, **kwargs)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._check(f"cat {path}")
        return super().cat_file(path, *args, **kwargs)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self._check(f"open {path}")
        return super()._open(path, mode, **kwargs)


@pytest.mark.parametrize(
    "failing", ["ls /r", "ls /r/meta", "cat /r/meta/2", "ls /r/shared", "find /r/private", "open /r/private/1"]
)
@pytest.mark.parametrize("error", [OSError("gone away"), PermissionError("no"), RuntimeError("ExpiredToken")])
def test_failing_store(template: Path, failing: str, error: Exception) -> None:
    """Whatever a store raises, and wherever, the backups could not be checked; the reason has its words."""
    store = upload(template, FailingFileSystem(failing, error))
    store.fails = True
    report = verify_backups(store, "/r", all_backups=True, level="checksums", options=QUICK)
    assert report.state is COULD_NOT_CHECK
    assert str(error) in report.reason


def test_dead_store_is_given_up() -> None:
    """When storage does not answer any more, not every file is tried; what was not is one more problem."""
    made = made_up(100)
    store = FailingFileSystem("open /r/shared", OSError("gone away"))
    store.store.update(made.store)
    store.fails = True
    report = verify_backups(store, "/r", level="checksums", options=ONCE)
    assert (report.state, store.tries, len(report.problems)) == (COULD_NOT_CHECK, 10, 11)
    assert report.problems[-1].file == "90 more files"


def test_lost_connection(template: Path) -> None:
    """A read that fails is tried again."""
    store = upload(template, FailingFileSystem("open /r/shared", OSError("gone away")))
    store.fails, store.most = True, 1
    report = verify_backups(store, "/r", level="checksums", options=QUICK)
    assert (report.state, store.tries, report.read_share) == (COMPLETE, 1, 1.0)


def test_deleted_meanwhile(template: Path) -> None:
    """A backup that is deleted while it is verified is no problem among others; asked for by its id it is missing."""

    class Deleting(MemoryFileSystem):
        cachable = False

        def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            if path.endswith("private/1/CURRENT"):
                for name in [name for name in self.store if name == "/r/meta/1" or "/private/1/" in name]:
                    del self.store[name]
            return super()._open(path, mode, **kwargs)

    store = upload(template, Deleting(global_store=False, skip_instance_cache=True))
    report = verify_backups(store, "/r", all_backups=True, level="checksums", options=ONCE)
    assert (report.state, report.backup_ids, report.problems) == (COMPLETE, (2, 3), ())
    assert report.read_share == 1.0
    store = upload(template, Deleting(global_store=False, skip_instance_cache=True))
    report = verify_backups(store, "/r", backup_id=1, level="checksums", options=ONCE)
    assert (report.state, report.reason) == (INCOMPLETE, "meta: expected backup 1, got 2, 3")


def test_stop(repository: Path) -> None:
    """A stopped verification ends as one."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        verify(repository, level="checksums", stop=stop)


def test_rate(repository: Path) -> None:
    """The limit of the rate is kept where files are read: what does not fit into it waits, and can be stopped."""
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(CancelledError):
        verify(repository, level="checksums", options=TransferOptions(max_bytes_per_second=1000), stop=stop)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "blocks"}, "expected one of files, checksums, restore"),
        ({"backup_id": 1, "all_backups": True}, "not both"),
        ({"backup_id": 0}, "from 1 on"),
        ({"level": "checksums", "sample_percent": 0}, "more than 0"),
        ({"level": "checksums", "sample_percent": 101}, "up to 100"),
        ({"sample_percent": 5}, "goes with level checksums"),
        ({"level": "checksums", "now": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001 -- that is the mistake
    ],
)
def test_arguments(repository: Path, options: dict[str, Any], message: str) -> None:
    """Arguments that mean nothing are refused."""
    with pytest.raises(InvalidArgumentError, match=message):
        verify(repository, **options)


# the drill


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Upload a checkpoint as it is."""
    database: Rdict = build_old(str(tmp_path / "db"))
    upload_directory(take(str(tmp_path / "db"), str(tmp_path / "checkpoint")), LOCAL, str(tmp_path / "directory"))
    yield tmp_path / "directory"
    database.close()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def drill(repository: Path | str, scratch: Path, **options: Any) -> VerifyReport:
    """Verify at level restore; nothing may stay in the scratch directory."""
    report = verify(repository, level="restore", scratch_dir=str(scratch), **options)
    assert not os.listdir(scratch)
    return report


def test_drill(repository: Path, scratch: Path) -> None:
    """A drill restores each backup and reads all of it; the report counts each file once, and nothing stays."""
    report = drill(repository, scratch, all_backups=True)
    files = named(repository, 1, 2, 3)
    assert (report.state, report.backup_ids, report.read_share) == (COMPLETE, (1, 2, 3), 1.0)
    assert (report.read_files, report.read_bytes) == (len(files), sum(files.values()))
    assert drill(repository, scratch).read_bytes == sum(named(repository, 3).values())


@pytest.mark.parametrize("kind", ["missing", "flipped"])
def test_drill_of_a_damaged_backup(repository: Path, scratch: Path, kind: str) -> None:
    """A damaged backup fails its drill, the others' go on; one of which files are missing is not restored at all."""
    damage(next(repository.glob("private/2/MANIFEST-*")), kind)
    report = drill(repository, scratch, all_backups=True)
    assert report.state is STATES[kind][0]
    assert [problem.backup_ids for problem in report.problems] == [(2,)]
    assert report.read_bytes == sum(named(repository, 1, 3).values())


def test_drill_finds_what_checksums_do_not(repository: Path, scratch: Path) -> None:
    """A file that was damaged before it was backed up has the right CRC32C in its meta; the drill finds it."""
    path = shared_by_all(repository)
    damage(path, "flipped")
    crc, place = google_crc32c.value(path.read_bytes()), str(path.relative_to(repository))
    meta = read_local_meta(repository, 1)
    files = tuple(BackupFile(f.path, crc if f.path == place else f.crc32c, f.size) for f in meta.files)
    changed = BackupMeta(meta.timestamp, meta.sequence_number, meta.metadata, files)
    (repository / "meta" / "1").write_bytes(encode_backup_meta(changed))
    assert verify(repository, backup_id=1, level="checksums").state is COMPLETE
    report = drill(repository, scratch, backup_id=1)
    assert report.state is CORRUPT
    assert report.problems[0].file == "meta/1"


def test_drill_has_no_place(repository: Path, tiny: str, tmp_path: Path) -> None:
    """Without a scratch directory, without room in it or time for it, a backup could not be checked."""
    report = verify(repository, level="restore", scratch_dir=str(tmp_path / "missing"))
    assert (report.state, "missing" in report.reason) == (COULD_NOT_CHECK, True)
    Path(tiny, "filler").write_bytes(bytes(1024 * 1024 - 16 * 1024))
    report = verify(repository, level="restore", scratch_dir=tiny)
    assert report.state is COULD_NOT_CHECK
    assert os.listdir(tiny) == ["filler"]
    Path(tiny, "filler").unlink()
    report = verify(repository, level="restore", scratch_dir=tiny, timeout_seconds=0)
    assert (report.state, "allow more time" in report.reason) == (COULD_NOT_CHECK, True)


def test_drill_of_a_directory(directory: Path, scratch: Path) -> None:
    """The layout directory has its drill, too."""
    report = drill(directory, scratch)
    assert (report.state, report.layout, report.read_share) == (COMPLETE, "directory", 1.0)


DRILLS = """
from airflow_provider_rocksdb.core.transfer import TransferOptions
from airflow_provider_rocksdb.core.verify import verify_backups
repository, scratch = arguments["repository"], arguments["scratch"]
slow = TransferOptions(max_bytes_per_second=1000)
verify_backups(LocalFileSystem(), repository, level="restore", scratch_dir=scratch, options=slow)
"""


def test_killed_drill(repository: Path, scratch: Path, tmp_path: Path) -> None:
    """What a killed drill has left, the next one there removes; not what a running one has, nor anybody else's."""
    child = start_child(DRILLS, repository=str(repository), scratch=str(scratch))
    wait_until(lambda: any(scratch.glob("rocksdb-drill-*/db*")))
    (left,) = scratch.iterdir()
    foreign = scratch / "rocksdb-drill-of-nobody"
    foreign.mkdir()
    os.chown(foreign, NOBODY, NOBODY)
    (scratch / "rocksdb-drill-link").symlink_to(tmp_path)
    others = {"rocksdb-drill-of-nobody", "rocksdb-drill-link"}
    assert verify(repository, level="restore", scratch_dir=str(scratch)).state is COMPLETE
    assert set(os.listdir(scratch)) == {left.name, *others}
    child.kill()
    child.communicate()
    assert verify(repository, level="restore", scratch_dir=str(scratch)).state is COMPLETE
    assert set(os.listdir(scratch)) == others


def test_drill_is_stopped(repository: Path, scratch: Path) -> None:
    """A drill that is stopped leaves nothing."""
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    options = TransferOptions(max_bytes_per_second=1000)
    with pytest.raises(CancelledError):
        verify(repository, level="restore", scratch_dir=str(scratch), options=options, stop=stop)
    assert not os.listdir(scratch)


# written by others, and elsewhere


def test_stock_6(tmp_path: Path) -> None:
    """A repository that BackupEngine 6.29 wrote (schema 1: no sizes) is complete, and damage in it is found."""
    options = aimrocks.Options()
    options.create_if_missing = True
    database = aimrocks.DB(str(tmp_path / "db"), options)
    engine = aimrocks.BackupEngine(str(tmp_path / "repository"))
    for number in range(2):
        database.put(b"key%d" % number, b"value" * 100)
        engine.create_backup(database, flush_before_backup=True)
    repository = tmp_path / "repository"
    assert b"schema_version" not in (repository / "meta" / "1").read_bytes()
    report = verify(repository, all_backups=True, level="checksums")
    assert (report.state, report.backup_ids, report.read_share) == (COMPLETE, (1, 2), 1.0)
    (sst, *_) = sorted((repository / "shared_checksum").iterdir())
    damage(sst, "truncated")
    (problem,) = verify(repository, all_backups=True).problems
    assert (problem.state, problem.file, problem.backup_ids) == (INCOMPLETE, f"shared_checksum/{sst.name}", (1, 2))
    damage(next((repository / "private" / "2").glob("MANIFEST-*")), "truncated")
    assert len(verify(repository, all_backups=True).problems) == 1  # schema 1 has no size of it
    assert len(verify(repository, all_backups=True, level="checksums").problems) == 2


def test_stock_7(tmp_path: Path) -> None:
    """A repository that ``ldb backup`` 7.8 wrote is complete, and damage in it is found."""
    build_old(str(tmp_path / "db")).close()
    repository = tmp_path / "repository"
    command = ["ldb", f"--db={tmp_path / 'db'}", f"--backup_dir={repository}", "--ignore_unknown_options", "backup"]
    subprocess.run(command, check=True, capture_output=True)
    report = verify(repository, level="checksums")
    assert (report.state, report.read_share) == (COMPLETE, 1.0)
    damage(next(repository.glob("shared_checksum/*.sst")), "flipped")
    assert verify(repository, level="checksums").state is CORRUPT


@pytest.mark.parametrize("kind", ["s3", "sftp", "webdav", "ftp"])
def test_servers(kind: str, request: pytest.FixtureRequest, template: Path) -> None:
    """On real servers a whole repository is complete, and damage behind the server is found."""
    server: Server = request.getfixturevalue(f"{kind}_server")
    shutil.copytree(template, server.behind)
    filesystem = fsspec.filesystem(server.protocol, **server.storage_options)
    options: dict[str, Any] = {"all_backups": True, "level": "checksums", "options": QUICK}
    report = verify_backups(filesystem, server.place, **options)
    assert (report.state, report.backup_ids, report.read_share) == (COMPLETE, (1, 2, 3), 1.0)
    damage(shared_by_all(server.behind), "flipped")
    damage(next((server.behind / "private" / "2").glob("MANIFEST-*")), "missing")
    problems = verify_backups(filesystem, server.place, **options).problems
    states = {problem.file.partition("/")[0]: problem.state for problem in problems}
    assert states == {"shared_checksum": CORRUPT, "private": INCOMPLETE}


@pytest.mark.parametrize("options", [{"key": "wrong-user"}, {"endpoint_url": "http://127.0.0.1:9"}])
def test_s3_out_of_reach(s3_server: S3Server, options: dict[str, str]) -> None:
    """With wrong credentials, or without a server, backups could not be checked, and no secret shows."""
    filesystem = fsspec.filesystem(
        "s3", **{**s3_server.storage_options, **options}, config_kwargs={"retries": {"max_attempts": 0}}
    )
    report = verify_backups(filesystem, s3_server.place, options=ONCE)
    assert report.state is COULD_NOT_CHECK
    assert s3_server.secret not in report.reason


def test_directory(directory: Path) -> None:
    """The layout directory is checked as a database is; the report says what was read of it."""
    report = verify(directory)
    assert (report.state, report.layout, report.backup_ids, report.read_files) == (COMPLETE, "directory", (), 0)
    report = verify(directory, level="checksums")
    assert report.state is COMPLETE
    assert (
        0 < report.read_bytes < report.total_bytes
    )  # CURRENT, MANIFEST, WAL: this MANIFEST has no checksums of SST files
    with pytest.raises(InvalidArgumentError, match="one database"):
        verify(directory, backup_id=1)
    next(directory.glob("*.sst")).unlink()
    (problem,) = verify(directory).problems
    assert (problem.state, "is missing" in problem.got) == (INCOMPLETE, True)
