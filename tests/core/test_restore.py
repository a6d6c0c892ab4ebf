"""Restore: what comes back is what was backed up, in place of the old database only when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from rocksdict import Options, Rdict

from airflow_provider_rocksdb.core.directory_layout import upload_directory
from airflow_provider_rocksdb.core.errors import (
    AccessError,
    BusyError,
    CancelledError,
    CorruptionError,
    ExistsError,
    IncompleteError,
    InvalidArgumentError,
    NoSpaceError,
    NotFoundError,
)
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.progress import Progress
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.core.databases import (
    NOBODY,
    build,
    count_keys,
    edit_options,
    fingerprint,
    flip,
    only,
    put,
    run_child,
)
from tests.core.repositories import QUICK, build_old, grow, read_local_meta, take
from tests.programs import find_program
from tests.servers import Server

LOCAL = LocalFileSystem()
DELTA: dict[str, Any] = {"replace": True, "delta": True}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Rdict]:
    """Open a database with keys 0-999 in an SST file and 1000-1499 in the WAL."""
    made = build_old(str(tmp_path / "db"))
    yield made
    made.close()


@pytest.fixture
def repository(database: Rdict, tmp_path: Path) -> str:
    """Back it up twice: backup 1 has 1,500 keys, backup 2 has 3,000 in one more SST file."""
    path = str(tmp_path / "repository")
    create_backup(take(database.path(), str(tmp_path / "1")), LOCAL, path)
    grow(database, 1500, 3000)
    create_backup(take(database.path(), str(tmp_path / "2")), LOCAL, path)
    return path


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "place").mkdir()
    return str(tmp_path / "place" / "restored")


@pytest.fixture
def old(target: str) -> str:
    """Put a database of another time where the restore goes: keys 0-99."""
    made = Rdict(target, Options(raw_mode=True))
    put(made, 0, 100)
    made.close()
    return target


def restore(repository: str, target: str, **arguments: Any) -> Any:
    return restore_backup(LOCAL, repository, DatabasePaths(target), **arguments)


def beside(target: str) -> list[str]:
    """List what lies beside the target: no litter, if it is alone."""
    return sorted(os.listdir(os.path.dirname(target)))


def test_newest(repository: str, target: str) -> None:
    """The newest backup is restored by default, another by its id; every key is there and nothing else beside it."""
    result = restore(repository, target)
    assert count_keys(target)["default"] == 3000
    assert beside(target) == ["restored"]
    assert (result.backup_id, result.layout, result.sequence_number) == (2, "backup_engine", 3000)
    assert sorted(os.listdir(target)) == sorted(
        ["rocksdict-config.json", *(file.name for file in read_local_meta(repository, 2).files)]
    )
    restore(repository, target + "-1", backup_id=1)
    assert count_keys(target + "-1")["default"] == 1500


def test_result_is_small_json(repository: str, target: str) -> None:
    """The result goes through JSON unchanged, and counts every file and byte."""
    result = restore(repository, target)
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    sizes = [path.stat().st_size for path in Path(target).iterdir()]
    assert (result.file_count, result.total_bytes) == (len(sizes), sum(sizes))
    assert (result.downloaded_files, result.downloaded_bytes) == (len(sizes), sum(sizes))
    assert (result.reused_files, result.replaced, result.db_dir) == (0, False, target)


def test_own_options(repository: str, target: str) -> None:
    """The restored database opens with its own OPTIONS."""
    restore(repository, target)
    assert count_keys(target, own_options=True)["default"] == 3000


def test_config_is_carried(tmp_path: Path, target: str) -> None:
    """A database that rocksdict wrote in its own mode reads its keys and values again after a restore."""
    database = Rdict(str(tmp_path / "db"))
    database["key"] = {"a": 1}
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "1")), LOCAL, str(tmp_path / "repository"))
    database.close()
    restore(str(tmp_path / "repository"), target)
    restored = Rdict(target)
    assert restored["key"] == {"a": 1}
    restored.close()


def test_existing_is_refused(repository: str, old: str) -> None:
    """A database that is there is refused and untouched, until it may be replaced; then nothing of it stays."""
    before = fingerprint(old)
    with pytest.raises(ExistsError, match="is already there"):
        restore(repository, old)
    assert fingerprint(old) == before
    assert beside(old) == ["restored"]
    result = restore(repository, old, replace=True)
    assert result.replaced
    assert count_keys(old)["default"] == 3000
    assert beside(old) == ["restored"]


def test_done_already(repository: str, target: str) -> None:
    """A place that is already the backup, and was never opened, is left as it is; opened once, it is a database."""
    restore(repository, target)
    before = fingerprint(target)
    result = restore(repository, target)
    assert (result.downloaded_files, result.reused_files, result.backup_id) == (0, result.file_count, 2)
    assert fingerprint(target) == before
    with pytest.raises(ExistsError):
        restore(repository, target, backup_id=1)
    flip(min(Path(target).glob("*.sst")), 100)
    with pytest.raises(ExistsError):
        restore(repository, target)
    restore(repository, target, replace=True)
    Rdict(target, Options(raw_mode=True)).close()
    with pytest.raises(ExistsError):
        restore(repository, target)


def test_empty_directory_is_filled(repository: str, target: str) -> None:
    """An empty directory is no obstacle."""
    os.mkdir(target)
    restore(repository, target)
    assert count_keys(target)["default"] == 3000
    assert beside(target) == ["restored"]


def test_service_came_too_early(repository: str, target: str) -> None:
    """A program that did not find its database leaves LOCK and LOG, which are no obstacle."""
    ldb = [find_program("ldb"), f"--db={target}", "put", "a", "b"]
    assert "does not exist" in subprocess.run(ldb, capture_output=True, text=True, check=False).stderr
    assert sorted(os.listdir(target)) == ["LOCK", "LOG"]
    restore(repository, target)
    assert count_keys(target)["default"] == 3000


def test_missing_parents_are_made(repository: str, target: str) -> None:
    """Parents that are missing are made, for their owner alone."""
    restore(repository, f"{target}/a/b")
    assert count_keys(f"{target}/a/b")["default"] == 3000
    assert stat.S_IMODE(os.stat(f"{target}/a").st_mode) == 0o700


def test_symlink_to_the_directory(repository: str, old: str, tmp_path: Path) -> None:
    """A DB directory that is a symbolic link stays one; what it leads to is replaced."""
    (tmp_path / "link").symlink_to(old)
    restore(repository, str(tmp_path / "link"), replace=True)
    assert (tmp_path / "link").is_symlink()
    assert count_keys(old)["default"] == 3000


def test_foreign_files_are_not_lost(repository: str, old: str) -> None:
    """A file that is not RocksDB's is named, and nothing is replaced while it is there."""
    Path(old, "notes.txt").write_text("mine")
    before = fingerprint(old)
    with pytest.raises(InvalidArgumentError, match=r"notes\.txt: is not RocksDB's"):
        restore(repository, old, replace=True)
    assert fingerprint(old) == before
    assert beside(old) == ["restored"]


def test_checkpoints_inside_are_not_lost(repository: str, old: str) -> None:
    """Checkpoints inside the database's directory are named, as they would go with it; in place, they stay."""
    os.mkdir(f"{old}/.checkpoints")
    with pytest.raises(InvalidArgumentError, match=r"\.checkpoints: is not RocksDB's"):
        restore(repository, old, replace=True)
    restore(repository, old, replace=True, in_place=True)
    assert os.path.isdir(f"{old}/.checkpoints")


def test_source_is_the_target(repository: str, old: str) -> None:
    """A source within the target, or the other way round, is refused: it might be replaced before it is read."""
    before = fingerprint(old)
    for source, target in ((old, old), (repository, f"{repository}/restored"), (f"{old}/repository", old)):
        with pytest.raises(InvalidArgumentError, match="or the other way round"):
            restore(source, target, replace=True, in_place=True)
    assert fingerprint(old) == before


def test_file_in_the_way(repository: str, target: str) -> None:
    """A file, or a foreign directory under the temporary name, is named and left alone."""
    Path(target).write_text("mine")
    with pytest.raises(ExistsError, match="is not a directory"):
        restore(repository, target, replace=True)
    os.rename(target, target + ".tmp")
    with pytest.raises(ExistsError, match=r"restored\.tmp: is in the way"):
        restore(repository, target)
    os.unlink(target + ".tmp")
    os.mkdir(target + ".tmp")
    Path(target + ".tmp", "CURRENT").write_text("mine")
    with pytest.raises(ExistsError, match=r"restored\.tmp: is in the way"):
        restore(repository, target)
    assert os.listdir(target + ".tmp") == ["CURRENT"]


@pytest.mark.parametrize("in_place", [False, True])
def test_open_database_is_refused(repository: str, target: str, in_place: bool) -> None:
    """A database that a process has open is refused, with its pid, and goes on."""
    database = build(target)
    with pytest.raises(BusyError, match=f"process {os.getpid()} has the database open"):
        restore(repository, target, replace=True, in_place=in_place)
    assert len(list(database.keys())) == 1500
    put(database, 1500, 1600)
    database.close()
    assert beside(target) == ["restored"]


def test_opened_meanwhile(repository: str, old: str) -> None:
    """A database that a process opens while the backup is fetched is not replaced either."""
    opened = []

    def open_it(progress: Progress) -> None:
        if not opened:
            opened.append(Rdict(old, Options(raw_mode=True)))

    with pytest.raises(BusyError, match="has the database open"):
        restore(repository, old, replace=True, options=TransferOptions(on_progress=open_it))
    assert len(list(opened[0].keys())) == 100
    opened[0].close()
    assert beside(old) == ["restored"]


def test_lock_is_held(repository: str, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the directories are exchanged, no program can open the old database."""
    from airflow_provider_rocksdb.core.restore_places import BesidePlace

    said = []
    swap = BesidePlace._swap

    def try_to_open(self: Any, **arguments: Any) -> None:
        code = f"from rocksdict import *; Rdict({old!r}, Options(raw_mode=True))"
        said.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr)
        swap(self, **arguments)

    monkeypatch.setattr(BesidePlace, "_swap", try_to_open)
    restore(repository, old, replace=True)
    assert "While lock file" in said[0]
    assert count_keys(old)["default"] == 3000


def test_delta(repository: str, target: str) -> None:
    """Files that the old database still has as they were are linked, all others are fetched; the rest is gone."""
    restore(repository, target, backup_id=1)
    database = Rdict(target, Options(raw_mode=True))
    put(database, 0, 10)
    database.flush()
    database.close()
    result = restore(repository, target, **DELTA)
    assert (result.reused_files, result.downloaded_files) == (1, result.file_count - 1)
    assert result.reused_bytes + result.downloaded_bytes == result.total_bytes
    assert count_keys(target)["default"] == 3000
    assert beside(target) == ["restored"]


@pytest.mark.parametrize("in_place", [False, True])
def test_delta_of_a_changed_file(repository: str, target: str, in_place: bool) -> None:
    """A file of the right name and size with another content is not taken."""
    restore(repository, target, backup_id=1)
    flip(only(target, ".sst"), 100)
    assert restore(repository, target, backup_id=1, in_place=in_place, **DELTA).reused_files == 0
    assert count_keys(target)["default"] == 1500


def test_delta_without_links(repository: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no hard link is possible a file is copied."""
    restore(repository, target)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        assert restore(repository, target, **DELTA).reused_files == 2
    assert count_keys(target)["default"] == 3000


def test_in_place(repository: str, old: str) -> None:
    """In place the directory itself stays, its old content is gone, and the database is the backup's."""
    inode = os.stat(old).st_ino
    result = restore(repository, old, replace=True, in_place=True)
    assert result.replaced
    assert os.stat(old).st_ino == inode
    names = {file.name for file in read_local_meta(repository, 2).files}
    assert set(os.listdir(old)) - names == {"rocksdict-config.json", "LOCK"}
    assert count_keys(old)["default"] == 3000


def test_in_place_must_be_allowed(repository: str, old: str) -> None:
    """In place alone allows nothing to be removed."""
    before = fingerprint(old)
    with pytest.raises(ExistsError):
        restore(repository, old, in_place=True)
    assert fingerprint(old) == before


def test_in_place_delta(repository: str, target: str) -> None:
    """In place, too, what is the same is kept."""
    restore(repository, target, backup_id=1)
    result = restore(repository, target, in_place=True, **DELTA)
    assert (result.reused_files, count_keys(target)["default"]) == (1, 3000)


def test_in_place_fails(repository: str, old: str) -> None:
    """A restore in place that fails says that the old database is gone; no RocksDB opens the rest; a retry mends it."""
    (blob,) = [file for file in read_local_meta(repository, 1).files if file.path.startswith("shared")]
    path = Path(repository, blob.path)
    content = path.read_bytes()
    flip(path, 100)
    with pytest.raises(CorruptionError, match="the old database was removed to make room"):
        restore(repository, old, backup_id=1, replace=True, in_place=True)
    with pytest.raises(Exception, match="CURRENT file"):
        Rdict(old, Options(raw_mode=True))
    shutil.rmtree(old + "-", ignore_errors=True)
    Path(old, "rocksdict-config.json").unlink(missing_ok=True)
    path.write_bytes(content)
    restore(repository, old, backup_id=1, replace=True)
    assert count_keys(old)["default"] == 1500
    assert beside(old) == ["restored"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "grown", "missing"])
def test_damaged_object(repository: str, old: str, damage: str) -> None:
    """A damaged object is named, and the old database untouched, whatever the damage is."""
    path = next(Path(repository, "shared_checksum").iterdir())
    if damage == "flipped":
        flip(path, path.stat().st_size // 2)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"x" if damage == "grown" else path.read_bytes()[:-1])
    before = fingerprint(old)
    error = IncompleteError if damage == "missing" else CorruptionError
    with pytest.raises(error, match=path.name):
        restore(repository, old, backup_id=2, replace=True)
    assert fingerprint(old) == before
    assert beside(old) == ["restored"]


def test_invalid_newest_is_passed_over(repository: str, target: str, caplog: pytest.LogCaptureFixture) -> None:
    """By default an invalid newest backup is passed over, with a warning that says why."""
    only(f"{repository}/private/2", ".log").unlink()
    result = restore(repository, target)
    assert (result.backup_id, count_keys(target)["default"]) == (1, 1500)
    (reason,) = result.skipped_backups
    assert ".log: is missing" in reason
    assert any(record.levelname == "WARNING" and reason in record.getMessage() for record in caplog.records)


def test_no_valid_backup(repository: str, target: str) -> None:
    """When no backup is valid, the error gives each one's reason."""
    Path(repository, "meta", "2").write_text("garbage\n")
    only(f"{repository}/private/1", ".log").unlink()
    with pytest.raises(CorruptionError, match=r"none of 2 backups is valid: .*meta/2.*backup 1: private/1/"):
        restore(repository, target)
    assert beside(target) == []


def test_no_such_backup(repository: str, target: str, tmp_path: Path) -> None:
    """An id that is not there, an empty directory and something else entirely are told apart."""
    with pytest.raises(NotFoundError, match="has no backup 7; the newest it has are 1, 2"):
        restore(repository, target, backup_id=7)
    with pytest.raises(NotFoundError, match="is empty, or not there"):
        restore(str(tmp_path / "nothing"), target)
    with pytest.raises(NotFoundError, match="neither a backup repository"):
        restore(f"{repository}/private/1/..", target)
    shutil.rmtree(f"{repository}/meta")
    os.mkdir(f"{repository}/meta")
    with pytest.raises(NotFoundError, match="holds no backup"):
        restore(repository, target)


def test_stopped(repository: str, old: str) -> None:
    """Asked to stop, it stops between two chunks; the old database is untouched and nothing is left behind."""
    before = fingerprint(old)
    stop = threading.Event()
    options = TransferOptions(max_bytes_per_second=5000, progress_seconds=0.01, on_progress=lambda _: stop.set())
    with pytest.raises(CancelledError):
        restore(repository, old, replace=True, stop=stop, options=options)
    assert fingerprint(old) == before
    assert beside(old) == ["restored"]


def test_two_at_the_same_time(repository: str, old: str) -> None:
    """A second restore into the same place is refused while the first one works, which then succeeds."""
    refusals = []

    def try_another(progress: Progress) -> None:
        for arguments in ({"replace": True}, {"replace": True, "in_place": True}):
            with pytest.raises(BusyError, match="another run is restoring") as caught:
                restore(repository, old, **arguments)
            refusals.append(str(caught.value))

    restore(repository, old, replace=True, options=TransferOptions(on_progress=try_another))
    assert len(refusals) == 4
    assert count_keys(old)["default"] == 3000
    assert beside(old) == ["restored"]


def test_full_disk(repository: str, tiny: str) -> None:
    """Where the space does not suffice, the error says how much is needed and how much is there; nothing is left."""
    Path(tiny, "filler").write_bytes(b"x" * (1024 * 1024 - 50_000))
    with pytest.raises(NoSpaceError, match=r"\d+ bytes are needed, \d+ are available"):
        restore(repository, f"{tiny}/restored")
    assert os.listdir(tiny) == ["filler"]


def test_full_disk_in_place(repository: str, tiny: str) -> None:
    """In place the old database counts as free space, and is not removed when even that does not suffice."""
    target = f"{tiny}/restored"
    restore(repository, target, backup_id=1)
    filler = Path(tiny, "filler")
    filler.write_bytes(b"x" * (shutil.disk_usage(tiny).free - 40_000))
    with pytest.raises(NoSpaceError, match=r"are needed.*or restore in place"):
        restore(repository, target, replace=True)
    restore(repository, target, replace=True, in_place=True, backup_id=1)
    assert count_keys(target)["default"] == 1500
    before = fingerprint(target)
    for path in Path(target).iterdir():
        os.link(path, f"{tiny}/{path.name}")  # as a checkpoint would: what it holds is not freed
    with pytest.raises(NoSpaceError, match="are needed"):
        restore(repository, target, replace=True, in_place=True, backup_id=1)
    assert fingerprint(target)[f"{target}/CURRENT"] == before[f"{target}/CURRENT"]
    assert count_keys(target)["default"] == 1500


def test_disk_fills_up(repository: str, tiny: str) -> None:
    """A disk that fills up meanwhile is a clear error that names the file; nothing is left, and a retry succeeds."""

    def fill(progress: Progress) -> None:
        with contextlib.suppress(OSError), open(f"{tiny}/filler", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    with pytest.raises(NoSpaceError, match=r"restored\.tmp"):
        restore(repository, f"{tiny}/restored", options=TransferOptions(on_progress=fill))
    assert os.listdir(tiny) == ["filler"]
    os.unlink(f"{tiny}/filler")
    restore(repository, f"{tiny}/restored")
    assert count_keys(f"{tiny}/restored")["default"] == 3000


def test_no_permission(repository: str, public_path: Path) -> None:
    """Without the right to write beside the target, the error names the place and the user; the old one stays."""
    shutil.copytree(repository, public_path / "repository")
    subprocess.run(["chmod", "-R", "a+rX", public_path], check=True)
    code = """
try:
    restore_backup(LocalFileSystem(), arguments["repository"], DatabasePaths(arguments["target"]), replace=True)
except AccessError as error:
    print(error)
"""
    target = public_path / "place" / "restored"
    for old in (False, True):
        if old:
            restore(repository, str(target))
        before = fingerprint(public_path)
        done = run_child(code, uid=NOBODY, repository=str(public_path / "repository"), target=str(target))
        assert done.stderr == ""
        assert f"(as uid {NOBODY})" in done.stdout
        assert fingerprint(public_path) == before


def test_unreadable_repository(repository: str, public_path: Path) -> None:
    """A repository that may not be read is named, and nothing is made."""
    shutil.copytree(repository, public_path / "repository")
    (public_path / "place").mkdir()
    os.chown(public_path / "place", NOBODY, NOBODY)
    code = """
try:
    restore_backup(LocalFileSystem(), arguments["repository"], DatabasePaths(arguments["target"]))
except AccessError as error:
    print(error)
"""
    for path in [public_path / "repository", *(public_path / "repository").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    next((public_path / "repository" / "shared_checksum").iterdir()).chmod(0o600)
    target = public_path / "place" / "restored"
    done = run_child(code, uid=NOBODY, repository=str(public_path / "repository"), target=str(target))
    assert (done.stderr, "shared_checksum/" in done.stdout) == ("", True)
    assert os.listdir(public_path / "place") == []


def test_owner_and_mode(repository: str, tmp_path: Path) -> None:
    """As root: everything gets the owner of the parent, or of the database that it replaces, whose modes it keeps."""
    place = tmp_path / "owned"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    target = str(place / "restored")
    restore(repository, target)

    def seen() -> set[tuple[int, int, int]]:
        statuses = [path.stat() for path in Path(target).iterdir()]
        return {(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) for status in statuses}

    assert seen() == {(NOBODY, NOBODY, 0o600)}
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o700
    os.chown(target, 1234, 4321)
    Path(target).chmod(0o710)
    Path(target, "CURRENT").chmod(0o640)
    for in_place in (False, True):
        restore(repository, target, replace=True, in_place=in_place)
        assert seen() - {(1234, 4321, 0o600)} == {(1234, 4321, 0o640)}  # the first is LOCK's
        status = os.stat(target)
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1234, 0o710)


def test_links_keep_their_mode(repository: str, target: str) -> None:
    """A file that is linked, not written, is not touched: a checkpoint may hold it, too."""
    restore(repository, target)
    sst = min(Path(target).glob("*.sst"))
    sst.chmod(0o444)
    os.link(sst, target + "-checkpoint.sst")
    before = os.stat(target + "-checkpoint.sst")
    restore(repository, target, **DELTA)
    after = os.stat(target + "-checkpoint.sst")
    assert os.stat(sst).st_ino == after.st_ino
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


@pytest.mark.parametrize("kind", ["memory", "s3", "sftp", "webdav", "ftp"])
def test_other_file_systems(
    kind: str, request: pytest.FixtureRequest, database: Rdict, tmp_path: Path, target: str
) -> None:
    """A round trip through a store in memory and through real servers."""
    filesystem, place = MemoryFileSystem(global_store=False, skip_instance_cache=True), "/repository"
    if kind != "memory":
        server: Server = request.getfixturevalue(f"{kind}_server")
        filesystem, place = fsspec.filesystem(server.protocol, **server.storage_options), server.place
    create_backup(take(database.path(), str(tmp_path / "1")), filesystem, place, options=QUICK)
    result = restore_backup(filesystem, place, DatabasePaths(target), options=QUICK)
    assert (result.backup_id, count_keys(target)["default"]) == (1, 1500)


def test_large_files_in_parts(tmp_path: Path, target: str, s3_server: Server) -> None:
    """A file of several parts comes back from S3 as it was."""
    database = build_old(str(tmp_path / "db"))
    for number in range(20):
        database[b"%06d" % (1500 + number)] = os.urandom(1024 * 1024)
    database.flush()
    filesystem = fsspec.filesystem("s3", **s3_server.storage_options)
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "1")), filesystem, s3_server.place, options=QUICK)
    database.close()
    restore_backup(filesystem, s3_server.place, DatabasePaths(target), options=QUICK)
    assert count_keys(target)["default"] == 1520


def test_directory_layout(database: Rdict, tmp_path: Path, target: str) -> None:
    """A checkpoint uploaded as it is comes back; its record stays behind."""
    inventory = take(database.path(), str(tmp_path / "1"))
    filesystem = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    upload_directory(inventory, filesystem, "/copy")
    result = restore_backup(filesystem, "/copy", DatabasePaths(target))
    assert (result.layout, result.backup_id, result.sequence_number) == ("directory", None, 1500)
    assert count_keys(target)["default"] == 1500
    assert not os.path.exists(f"{target}/checkpoint.json")
    with pytest.raises(InvalidArgumentError, match="has no backup 1"):
        restore_backup(filesystem, "/copy", DatabasePaths(target), backup_id=1, replace=True)


def test_directory_of_a_stopped_database(db_dir: str, target: str) -> None:
    """Any DB directory at rest is restored, without its LOG and LOCK, and without SST files that it no longer needs."""
    Path(db_dir, "000900.sst").write_bytes(b"obsolete")
    restore(db_dir, target)
    assert not {"LOG", "LOCK", "000900.sst"} & set(os.listdir(target))
    assert count_keys(target)["default"] == 1500


def test_directory_of_a_running_database(database: Rdict, target: str) -> None:
    """A database that is open is no source: it changes while it is read."""
    with pytest.raises(BusyError, match="has the database open"):
        restore(database.path(), target)


@pytest.mark.parametrize("damage", ["missing", "wal"])
def test_damaged_directory(db_dir: str, old: str, damage: str) -> None:
    """A directory that is not whole, or whose WAL is damaged, replaces nothing."""
    if damage == "missing":
        only(db_dir, ".sst").unlink()
    else:
        flip(only(db_dir, ".log"), 1000)
    before = fingerprint(old)
    with pytest.raises((IncompleteError, CorruptionError), match=r"\.sst|\.log"):
        restore(db_dir, old, replace=True)
    assert fingerprint(old) == before
    assert beside(old) == ["restored"]


def test_backup_without_a_file_that_the_manifest_needs(repository: str, target: str) -> None:
    """A backup whose meta is right in itself, but lacks an SST file of its MANIFEST, is not restored."""
    lines = Path(repository, "meta", "2").read_text().splitlines()
    index = next(number for number, line in enumerate(lines) if line.startswith("shared_checksum/"))
    del lines[index]
    lines[4] = str(int(lines[4]) - 1)
    Path(repository, "meta", "2").write_text("\n".join(lines) + "\n")
    with pytest.raises(IncompleteError, match=r"\.sst: is missing"):
        restore(repository, target)
    assert beside(target) == []


def test_running_owners_wal_dir(tmp_path: Path, target: str) -> None:
    """OPTIONS that name another database's ``wal_dir`` are emptied, and the result says what stood there."""
    shutil.copytree(_stock_backup(tmp_path), tmp_path / "repository", dirs_exist_ok=True)
    options = next(Path(tmp_path, "repository", "private", "1").glob("OPTIONS-*"))
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(options, copy)
    edit_options(str(copy), wal_dir="/running/wal", db_log_dir="/running/log")
    _replace_object(tmp_path / "repository", options.name, (copy / options.name).read_bytes())
    result = restore(str(tmp_path / "repository"), target)
    assert result.options_changes == {"wal_dir": "/running/wal", "db_log_dir": "/running/log"}
    assert "/running" not in Path(target, options.name).read_text()
    assert count_keys(target, own_options=True)["default"] == 1000


def _stock_backup(place: Path) -> Path:
    from tests.core.repositories import aimrocks

    database = aimrocks.DB(str(place / "stock"), aimrocks.Options(create_if_missing=True))
    for number in range(1000):
        database.put(b"%06d" % number, b"value")
    aimrocks.BackupEngine(str(place / "stock-repository")).create_backup(database, flush_before_backup=True)
    return place / "stock-repository"


def _replace_object(repository: Path, name: str, content: bytes) -> None:
    """Give a private file of backup 1 another content, and its meta the checksum."""
    from google_crc32c import value

    (repository / "private" / "1" / name).write_bytes(content)
    meta = repository / "meta" / "1"
    lines = [
        f"{line.split()[0]} crc32 {value(content)}" if line.startswith(f"private/1/{name} ") else line
        for line in meta.read_text().splitlines()
    ]
    meta.write_text("\n".join(lines) + "\n")


def test_wrong_credentials(target: str, s3_server: Server) -> None:
    """Wrong credentials are an access error at once, and nothing is made."""
    filesystem = fsspec.filesystem("s3", **{**s3_server.storage_options, "secret": "another"})
    with pytest.raises(AccessError):
        restore_backup(filesystem, s3_server.place, DatabasePaths(target), options=QUICK)
    assert beside(target) == []
