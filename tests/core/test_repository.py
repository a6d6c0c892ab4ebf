"""Backups in BackupEngine's directory: whole, incremental, taken up after a crash, and restored by stock RocksDB."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from rocksdict import Rdict

import airflow_provider_rocksdb
from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import (
    AccessError,
    BusyError,
    CancelledError,
    CorruptionError,
    IncompleteError,
    InvalidArgumentError,
    NotFoundError,
    RepositoryMismatchError,
    RocksDBError,
    TransferError,
)
from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_meta
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.inventory import Inventory, read_inventory
from airflow_provider_rocksdb.core.repository import create_backup, list_backups
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.core.databases import NOBODY, count_keys, flip, names, only, run_child
from tests.core.repositories import (
    ONCE,
    QUICK,
    WatchedFileSystem,
    aimrocks,
    build_old,
    grow,
    list_with_aimrocks,
    read_local_meta,
    restore_with_aimrocks,
    restore_with_ldb,
    take,
)
from tests.servers import S3Server, Server

LOCAL = LocalFileSystem()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Rdict]:
    """Open a database with keys 0-999 in an SST file and 1000-1499 in the WAL."""
    made = build_old(str(tmp_path / "db"))
    yield made
    made.close()


@pytest.fixture
def inventory(database: Rdict, tmp_path: Path) -> Inventory:
    """Checkpoint it."""
    return take(str(tmp_path / "db"), str(tmp_path / "checkpoint"))


@pytest.fixture
def repository(tmp_path: Path) -> str:
    return str(tmp_path / "repository")


def tree(place: str | Path) -> dict[str, int]:
    return {str(path.relative_to(place)): path.stat().st_size for path in Path(place).rglob("*") if path.is_file()}


def test_stock_restores(inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """Stock RocksDB 7.8 and 6.29 restore a backup, and every key is there."""
    result = create_backup(inventory, LOCAL, repository)
    assert result.backup_id == 1
    assert restore_with_ldb(repository, tmp_path / "restored") == 1500
    assert list_with_aimrocks(repository) == [1]
    assert restore_with_aimrocks(repository, 1, tmp_path / "restored") == 1500


def test_what_it_leaves(inventory: Inventory, repository: str) -> None:
    """The tree holds RocksDB's files by BackupEngine's names, our two unlisted ones, and nothing else."""
    result = create_backup(inventory, LOCAL, repository)
    meta = read_local_meta(repository, 1)
    listed = {file.path for file in meta.files}
    stored = tree(repository)
    assert set(stored) - listed == {"meta/1", "private/1/checkpoint.json", "private/1/rocksdict-config.json"}
    assert {file.path: file.size for file in meta.files} == {path: stored[path] for path in listed}
    assert {file.name for file in meta.files} == {file.name for file in inventory.files}
    assert result.uploaded_bytes == sum(stored.values()) - stored["meta/1"]
    assert (result.reused_files, result.file_count) == (0, len(meta.files))
    assert result.total_bytes == sum(file.size or 0 for file in meta.files)
    assert meta.sequence_number == inventory.sequence_number == 1500
    assert abs(meta.timestamp - time.time()) < 60


def test_result_is_small_json(inventory: Inventory, repository: str) -> None:
    """The result goes through JSON unchanged."""
    result = create_backup(inventory, LOCAL, repository)
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert result.backup_dir == repository


def test_metadata(inventory: Inventory, repository: str) -> None:
    """The metadata is JSON that says what was backed up, from where, by whom, and what the caller adds."""
    create_backup(inventory, LOCAL, repository, app_metadata={"dag_id": "d", "run_id": "r"})
    metadata = json.loads(read_local_meta(repository, 1).metadata)
    assert inventory.checkpoint is not None
    assert metadata["provider_version"] == airflow_provider_rocksdb.__version__
    assert metadata["source"] == {
        "db_id": inventory.db_id,
        "hostname": inventory.checkpoint.hostname,
        "db_dir": inventory.checkpoint.source["db_dir"],
    }
    assert metadata["checkpoint_time"] == inventory.checkpoint.created
    assert metadata["run"] == {"dag_id": "d", "run_id": "r"}


@pytest.mark.parametrize("metadata", [{"x": object()}, {"x": "y" * 2**20}])
def test_bad_metadata(inventory: Inventory, repository: str, metadata: dict[str, Any]) -> None:
    """Metadata that is not JSON, or larger than BackupEngine takes, is refused before anything is written."""
    with pytest.raises(InvalidArgumentError, match="app_metadata"):
        create_backup(inventory, LOCAL, repository, app_metadata=metadata)
    assert not os.path.exists(repository)


def test_known_files_are_not_read(database: Rdict, inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """A second backup reads no SST file that is there already, not even its end; a third sends the new one."""
    create_backup(inventory, LOCAL, repository)
    again = take(str(tmp_path / "db"), str(tmp_path / "again"))
    tables = [file for file in again.files if file.type is FileType.TABLE]
    for file in tables:
        os.unlink(file.path)  # it is a link to the database's
        Path(file.path).write_bytes(bytes(file.size))
    result = create_backup(again, LOCAL, repository)
    assert result.reused_files == len(tables) == 1
    assert restore_with_ldb(repository, tmp_path / "restored") == 1500
    grow(database, 1500, 2000)
    grown = take(str(tmp_path / "db"), str(tmp_path / "grown"))
    assert create_backup(grown, LOCAL, repository).reused_files == 1
    assert restore_with_ldb(repository, tmp_path / "restored_again") == 2000


def test_file_of_another_session(inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """A file of the same number and size that another session wrote is not taken for this one."""
    create_backup(inventory, LOCAL, repository)
    shared = Path(repository, "shared_checksum")
    (name,) = os.listdir(shared)
    number, session, size = name.split("_")
    other = "s" + ("0" if session[-1] != "0" else "1").join([session[1:-1], ""])
    (shared / name).rename(shared / f"{number}_{other}_{size}")
    assert create_backup(inventory, LOCAL, repository).reused_files == 0
    assert sorted(os.listdir(shared)) == sorted([name, f"{number}_{other}_{size}"])
    assert restore_with_ldb(repository, tmp_path / "restored") == 1500


def test_increment(database: Rdict, inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """A second backup sends the new SST file and its own small files; both backups restore to what they were."""
    create_backup(inventory, LOCAL, repository)
    grow(database, 1500, 3000)
    second = take(str(tmp_path / "db"), str(tmp_path / "second"))
    before = tree(repository)
    result = create_backup(second, LOCAL, repository)
    new = set(tree(repository)) - set(before)
    assert result.reused_files == 1
    assert sorted(path.partition("/")[0] for path in new if not path.startswith("private")) == [
        "meta",
        "shared_checksum",
    ]
    assert result.uploaded_files == len(new) - 1
    assert restore_with_ldb(repository, tmp_path / "restored") == 3000
    assert restore_with_aimrocks(repository, 1, tmp_path / "restored") == 1500
    assert restore_with_aimrocks(repository, 2, tmp_path / "restored") == 3000


def test_checksums_are_the_files(database: Rdict, inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """Every checksum in a meta is that of what is stored, also of files that an earlier backup has sent."""
    create_backup(inventory, LOCAL, repository)
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "second")), LOCAL, repository)
    for backup_id in (1, 2):
        for file in read_local_meta(repository, backup_id).files:
            assert file.crc32c == crc32c_of(Path(repository, file.path))


def crc32c_of(path: Path) -> int:
    from google_crc32c import value

    return int(value(path.read_bytes()))


def test_sharing_with_stock(tmp_path: Path) -> None:
    """Backups by stock RocksDB and by us, in turns in one directory, store each SST file once."""
    repository = str(tmp_path / "repository")
    database = aimrocks.DB(str(tmp_path / "db"), aimrocks.Options(create_if_missing=True))
    for number in range(1000):
        database.put(b"%06d" % number, b"value")
    aimrocks.BackupEngine(repository).create_backup(database, flush_before_backup=True)
    shared = set(os.listdir(f"{repository}/shared_checksum"))
    assert len(shared) == 1
    result = create_backup(take(str(tmp_path / "db"), str(tmp_path / "checkpoint")), LOCAL, repository)
    assert (result.backup_id, result.reused_files) == (2, 1)
    database.put(b"%06d" % 1000, b"value")
    aimrocks.BackupEngine(repository).create_backup(database, flush_before_backup=True)
    assert list_with_aimrocks(repository) == [1, 2, 3]
    assert set(os.listdir(f"{repository}/shared_checksum")) > shared
    assert len(os.listdir(f"{repository}/shared_checksum")) == 2
    assert restore_with_aimrocks(repository, 2, tmp_path / "restored") == 1000
    assert restore_with_aimrocks(repository, 3, tmp_path / "restored") == 1001


def test_stock_purges_ours(database: Rdict, inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """Stock RocksDB deletes the older of our backups without harm to the newer."""
    create_backup(inventory, LOCAL, repository)
    grow(database, 1500, 2000)
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "second")), LOCAL, repository)
    aimrocks.BackupEngine(repository).purge_old_backups(1)
    assert list_with_aimrocks(repository) == [2]
    assert not os.path.exists(f"{repository}/meta/1")
    assert restore_with_ldb(repository, tmp_path / "restored") == 2000


def build_blobs(path: str) -> Rdict:
    return build_old(path, enable_blob_files=True, min_blob_size=0)


def test_blob_files(tmp_path: Path, repository: str) -> None:
    """Blob files are stored under their checksum, once, and restored by stock RocksDB."""
    database = build_blobs(str(tmp_path / "db"))
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "1")), LOCAL, repository)
    (blob,) = Path(repository, "shared_checksum").glob("*.blob")
    number = only(str(tmp_path / "1"), ".blob").name.removesuffix(".blob")
    assert blob.name == f"{number}_{crc32c_of(blob)}_{blob.stat().st_size}.blob"
    grow(database, 1500, 2000)
    result = create_backup(take(str(tmp_path / "db"), str(tmp_path / "2")), LOCAL, repository)
    assert result.reused_files == 2
    assert restore_with_ldb(repository, tmp_path / "restored") == 2000


def change_quietly(path: Path) -> None:
    """Change a byte in the middle of a file that others are linked to, and leave size and time as they were."""
    status = path.stat()
    flip(path, status.st_size // 3)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_present_files_are_not_read(tmp_path: Path, repository: str) -> None:
    """What the repository already has is not read again: neither an SST file nor a blob file of the same time."""
    database = build_blobs(str(tmp_path / "db"))
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "1")), LOCAL, repository)
    second = take(database.path(), str(tmp_path / "2"))
    change_quietly(only(second.directory, ".sst"))
    change_quietly(only(second.directory, ".blob"))
    assert create_backup(second, LOCAL, repository).reused_files == 2
    first, again = (
        {file for file in read_local_meta(repository, number).files if file.path.startswith("shared")}
        for number in (1, 2)
    )
    assert first == again


def test_blob_of_another_time_is_read(tmp_path: Path, repository: str) -> None:
    """A blob file whose modification time differs from the remembered one is read, and sent when it differs."""
    database = build_blobs(str(tmp_path / "db"))
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "1")), LOCAL, repository)
    second = take(database.path(), str(tmp_path / "2"))
    flip(only(second.directory, ".blob"), 100)
    assert create_backup(second, LOCAL, repository).reused_files == 1
    assert len(list(Path(repository, "shared_checksum").glob("*.blob"))) == 2


def test_old_names(tmp_path: Path, inventory: Inventory, repository: str) -> None:
    """SST files with LevelDB's suffix keep it, and stock RocksDB restores and opens them."""
    sst = only(inventory.directory, ".sst")
    record = Path(inventory.directory, "checkpoint.json")
    record.write_text(record.read_text().replace(sst.name, sst.with_suffix(".ldb").name))
    sst.rename(sst.with_suffix(".ldb"))
    renamed = read_inventory(inventory.directory)
    assert renamed.checkpoint is not None
    create_backup(renamed, LOCAL, repository)
    assert restore_with_ldb(repository, tmp_path / "restored") == 1500
    assert names(str(tmp_path / "restored"), ".ldb") == [sst.with_suffix(".ldb").name]


def test_foreign_checkpoint(tmp_path: Path, repository: str, database: Rdict) -> None:
    """A directory without our record, such as RocksDB's own checkpoint, is backed up, too."""
    from rocksdict import Checkpoint

    Checkpoint(database).create_checkpoint(str(tmp_path / "theirs"))
    create_backup(read_inventory(str(tmp_path / "theirs")), LOCAL, repository)
    assert restore_with_ldb(repository, tmp_path / "restored") == 1500
    assert list_backups(LOCAL, repository)[0].state == "readable"


@pytest.mark.parametrize("kind", ["s3", "sftp", "webdav", "ftp"])
def test_servers(
    kind: str, request: pytest.FixtureRequest, database: Rdict, inventory: Inventory, tmp_path: Path
) -> None:
    """On real servers, two backups are made, the second sends only what is new, and stock RocksDB restores both."""
    server: Server = request.getfixturevalue(f"{kind}_server")
    filesystem = fsspec.filesystem(server.protocol, **server.storage_options)
    create_backup(inventory, filesystem, server.place, options=QUICK)
    grow(database, 1500, 3000)
    second = take(str(tmp_path / "db"), str(tmp_path / "second"))
    result = create_backup(second, filesystem, server.place, options=QUICK)
    assert (result.backup_id, result.reused_files) == (2, 1)
    assert [info.state for info in list_backups(filesystem, server.place)] == ["readable", "readable"]
    assert restore_with_ldb(server.behind, tmp_path / "restored") == 3000
    assert restore_with_aimrocks(server.behind, 1, tmp_path / "restored") == 1500
    assert not list((server.behind / "incoming").glob("*"))


def test_directory_of_another_file_system(inventory: Inventory, tmp_path: Path) -> None:
    """A root below a DirFileSystem, and a URL as root, are where they say."""
    (tmp_path / "mount").mkdir()
    create_backup(inventory, DirFileSystem(str(tmp_path / "mount"), LOCAL), "repository")
    create_backup(inventory, LOCAL, f"file://{tmp_path}/mount/repository/")
    assert list_with_aimrocks(tmp_path / "mount" / "repository") == [1, 2]


def crash_points(inventory: Inventory) -> int:
    """Count the steps at which a store can die during one backup."""
    store = WatchedFileSystem()
    create_backup(inventory, store, "/r", options=ONCE)
    return store.steps


def test_dies_anywhere(database: Rdict, tmp_path: Path) -> None:
    """Wherever the storage dies, no backup is there; the next run makes one, and sends no shared file twice."""
    grow(database, 1500, 2000)
    inventory = take(str(tmp_path / "db"), str(tmp_path / "checkpoint"))
    total = crash_points(inventory)
    assert total > 25
    for step in range(1, total):
        store = WatchedFileSystem()
        store.dies_at = step
        with pytest.raises(TransferError):
            create_backup(inventory, store, "/r", options=ONCE)
        store.revive()
        assert not list_backups(store, "/r")
        result = create_backup(inventory, store, "/r", options=ONCE)
        sent = [path for path in store.sent.elements() if path.startswith("/r/shared_checksum/")]
        assert len(sent) == len(set(sent)) == 2
        place = store.download("/r", tmp_path / "downloaded")
        assert list_with_aimrocks(place)[-1] == result.backup_id
        if step % 5 == 0:
            assert restore_with_ldb(place, tmp_path / "restored") == 2000


def test_lost_answer_of_the_commit(inventory: Inventory) -> None:
    """A meta that was written, but whose answer was lost, is read back: the backup is there, and no error is raised."""
    store = WatchedFileSystem()
    store.dies_at = crash_points(inventory)
    result = create_backup(inventory, store, "/r", options=ONCE)
    store.revive()
    assert [info.backup_id for info in list_backups(store, "/r")] == [result.backup_id]


def kill_at(number: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a forked process that is killed at its n-th fsync, rename or link; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **keywords: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **keywords)

            return counted

        for name in ("fsync", "replace", "rename", "link"):
            setattr(os, name, dying(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_anywhere(inventory: Inventory, tmp_path: Path) -> None:
    """A process killed (-9) at any step on a local disk leaves no half backup, and the next run makes a good one."""
    number = 0
    killed = True
    while killed:
        number += 1
        repository = str(tmp_path / f"repository-{number}")
        killed = kill_at(number, lambda: create_backup(inventory, LOCAL, repository, options=ONCE))  # noqa: B023
        done = [info for info in list_backups(LOCAL, repository) if info.state == "readable"]
        assert all(info.file_count == len(inventory.files) for info in done)
        result = create_backup(inventory, LOCAL, repository, options=ONCE)
        assert list_with_aimrocks(repository) == [*(info.backup_id for info in done), result.backup_id]
        assert restore_with_ldb(repository, tmp_path / "restored") == 1500
    assert number > 20


def test_race(inventory: Inventory, tmp_path: Path) -> None:
    """Runs that start at the same moment get different ids, and all their backups are good."""
    repository = str(tmp_path / "repository")
    results, barrier = [], threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        results.append(create_backup(inventory, LocalFileSystem(), repository, options=QUICK).backup_id)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 4
    assert list_with_aimrocks(repository) == sorted(results)
    for backup_id in results:
        assert restore_with_aimrocks(repository, backup_id, tmp_path / "restored") == 1500
    assert not list(Path(repository).glob("private/*/claim.*"))


class MeetsAnother(WatchedFileSystem):
    """Somebody else's meta gets in just before ours is written."""

    ignores_condition = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if "/meta/" in path:
            super().pipe_file(path, b"1\n1\n0\n")
            if self.ignores_condition:
                return  # ours came first, and was overwritten
        super().pipe_file(path, value, mode=mode, **kwargs)


@pytest.mark.parametrize("ignores_condition", [False, True])
def test_lost_race_for_the_meta(inventory: Inventory, ignores_condition: bool) -> None:
    """A meta that somebody else wrote is not ours, whether the store keeps the condition or overwrites."""
    store = MeetsAnother()
    store.ignores_condition = ignores_condition
    with pytest.raises(BusyError, match="meta/1"):
        create_backup(inventory, store, "/r", options=ONCE)
    assert store.cat_file("/r/meta/1") == b"1\n1\n0\n"


class Forgetful(WatchedFileSystem):
    """Ignores ``mode="create"``, as some S3 servers do."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, **kwargs)


def test_ignored_condition(inventory: Inventory) -> None:
    """A store that ignores ``mode="create"`` still gets every backup under an id of its own."""
    store = Forgetful()
    ids = [create_backup(inventory, store, "/r", options=ONCE).backup_id for _ in range(3)]
    assert ids == [1, 2, 3]


class LosesAnswers(WatchedFileSystem):
    """Writes the meta, and then reports a failure."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, mode=mode, **kwargs)
        if "/meta/" in path:
            raise OSError("connection reset")


def test_lost_answer(inventory: Inventory) -> None:
    """A meta that was written although the answer was lost makes a backup, not a failure or a second one."""
    store = LosesAnswers()
    assert create_backup(inventory, store, "/r", options=QUICK).backup_id == 1
    assert [info.backup_id for info in list_backups(store, "/r")] == [1]


class LosesFiles(WatchedFileSystem):
    """Loses an SST file right after it was stored."""

    def rm_late(self) -> None:
        for path in [path for path in self.store if path.endswith(".sst")]:
            self.store.pop(path)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if "/private/1" in path and any("CURRENT" in name for name in self.store):
            self.rm_late()
        return super().ls(path, detail=detail, **kwargs)


class Empties(LosesFiles):
    def rm_late(self) -> None:
        for path, file in self.store.items():
            if path.endswith("CURRENT"):
                file.truncate(0)


@pytest.mark.parametrize("store", [Empties()])
def test_checks_before_commit(inventory: Inventory, store: LosesFiles) -> None:
    """A file that is not in the final listing with its size keeps the backup from being committed."""
    with pytest.raises(TransferError, match="nothing was committed"):
        create_backup(inventory, store, "/r", options=ONCE)
    assert list_backups(store, "/r") == ()


def test_partial_file_is_sent_again(inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """A shared file that has not the size its name says is replaced, and the backup is good."""
    create_backup(inventory, LOCAL, repository)
    stored = only(f"{repository}/shared_checksum", ".sst")
    content = stored.read_bytes()
    os.truncate(stored, 100)
    assert create_backup(inventory, LOCAL, repository).reused_files == 0
    assert stored.read_bytes() == content
    assert restore_with_ldb(repository, tmp_path / "restored") == 1500


def test_no_request_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup of which everything is there asks a fixed number of questions, however many SST files there are."""
    monkeypatch.setattr(f"{create_backup.__module__}._FREE_SECONDS", math.inf)  # a busy machine asks no more
    asked = []
    for count in (2, 12):
        database = build_old(str(tmp_path / f"db{count}"), disable_auto_compactions=True)
        for number in range(count):
            grow(database, 1500 + number * 10, 1510 + number * 10)
        inventory = take(str(tmp_path / f"db{count}"), str(tmp_path / f"checkpoint{count}"))
        store = WatchedFileSystem()
        create_backup(inventory, store, "/r", options=QUICK)
        store.requests.clear()
        assert create_backup(inventory, store, "/r", options=QUICK).reused_files >= count
        asked.append(dict(store.requests))
    assert asked[0] == asked[1]


def test_ids(inventory: Inventory, repository: str) -> None:
    """The new id is above all that meta/ and private/ show, readable or not, and nothing there is touched."""
    for name, content in {
        "meta/3": b"garbage",
        "meta/5": b"",
        "private/8/CURRENT": b"x",
        "private/10.tmp/x": b"",
    }.items():
        path = Path(repository, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = tree(repository)
    assert create_backup(inventory, LOCAL, repository).backup_id == 11
    assert before.items() <= tree(repository).items()
    states = {info.backup_id: info.state for info in list_backups(LOCAL, repository)}
    assert states == {3: "unreadable", 5: "unreadable", 11: "readable"}


def test_last_id(inventory: Inventory, repository: str) -> None:
    """When BackupEngine's last id is taken, a backup is refused; a name beyond it counts for nothing."""
    os.makedirs(f"{repository}/private/4294967292")
    os.makedirs(f"{repository}/private/4294967295")
    assert create_backup(inventory, LOCAL, repository).backup_id == 4294967293
    assert list_with_aimrocks(repository) == [4294967293]
    with pytest.raises(InvalidArgumentError, match="the last"):
        create_backup(inventory, LOCAL, repository)


def test_other_database(inventory: Inventory, repository: str, tmp_path: Path) -> None:
    """A repository of another database is refused, unless that is allowed."""
    create_backup(inventory, LOCAL, repository)
    build_old(str(tmp_path / "other"))
    other = take(str(tmp_path / "other"), str(tmp_path / "other-checkpoint"))
    before = tree(repository)
    with pytest.raises(RepositoryMismatchError, match="another database"):
        create_backup(other, LOCAL, repository)
    assert tree(repository) == before
    assert create_backup(other, LOCAL, repository, allow_other_source=True).backup_id == 2


def test_clone(inventory: Inventory, database: Rdict, repository: str, tmp_path: Path) -> None:
    """A clone with the same database id, in another place, is refused."""
    create_backup(inventory, LOCAL, repository)
    shutil.copytree(tmp_path / "db", tmp_path / "clone")
    clone = take(str(tmp_path / "clone"), str(tmp_path / "clone-checkpoint"))
    assert clone.db_id == inventory.db_id
    with pytest.raises(RepositoryMismatchError, match="clone"):
        create_backup(clone, LOCAL, repository)


def test_behind(inventory: Inventory, database: Rdict, repository: str, tmp_path: Path) -> None:
    """A checkpoint older than the newest backup is refused: the database may have been restored meanwhile."""
    grow(database, 1500, 2000)
    create_backup(take(str(tmp_path / "db"), str(tmp_path / "newer")), LOCAL, repository)
    with pytest.raises(RepositoryMismatchError, match=r"2000.*1500"):
        create_backup(inventory, LOCAL, repository)


def test_listing(inventory: Inventory, repository: str) -> None:
    """The list tells id, time, sequence number, files, bytes and metadata; none where there is no repository."""
    assert list_backups(LOCAL, repository) == ()
    result = create_backup(inventory, LOCAL, repository, app_metadata={"dag_id": "d"})
    (info,) = list_backups(LOCAL, repository)
    assert (info.backup_id, info.state, info.sequence_number) == (1, "readable", 1500)
    assert (info.file_count, info.total_bytes) == (result.file_count, result.total_bytes)
    assert info.metadata is not None
    assert info.metadata["run"] == {"dag_id": "d"}
    assert json.loads(json.dumps(info.to_dict())) == info.to_dict()


def test_foreign_private_files(inventory: Inventory, repository: str) -> None:
    """A meta that names another backup's own files is listed as unreadable."""
    create_backup(inventory, LOCAL, repository)
    shutil.copy(f"{repository}/meta/1", f"{repository}/meta/2")
    first, second = list_backups(LOCAL, repository)
    assert (first.state, second.state) == ("readable", "unreadable")
    assert "another backup" in second.reason


def test_stop(inventory: Inventory) -> None:
    """A stopped run commits nothing and clears away what was its own."""
    stop = threading.Event()
    options = TransferOptions(max_bytes_per_second=20)  # an hour
    store = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(CancelledError):
        create_backup(inventory, store, "/r", options=options, stop=stop)
    assert not [path for path in store.store if "/meta/" in path or "/private/" in path]


def test_source_changes(inventory: Inventory, repository: str) -> None:
    """A checkpoint that lost a file, or has one of another size, is refused, and nothing is committed."""
    sst = only(inventory.directory, ".sst")
    sst.rename(f"{sst}.away")
    with pytest.raises(IncompleteError, match="is missing"):
        create_backup(inventory, LOCAL, repository)
    shutil.copy(f"{sst}.away", sst)
    os.truncate(sst, sst.stat().st_size - 1)
    with pytest.raises(IncompleteError, match="expected"):
        create_backup(inventory, LOCAL, repository)
    sst.write_bytes(bytes(sst.stat().st_size + 1))
    with pytest.raises(CorruptionError, match="magic"):
        create_backup(inventory, LOCAL, repository)
    assert list_backups(LOCAL, repository) == ()
    assert not list(Path(repository, "private").glob("*"))


def test_no_access(inventory: Inventory, public_path: Path) -> None:
    """A repository that this user may not write says so, with the place."""
    shutil.copytree(inventory.directory, public_path / "checkpoint")
    for path in [public_path / "checkpoint", *(public_path / "checkpoint").iterdir()]:
        path.chmod(0o755)
    code = """
try:
    create_backup(read_inventory(arguments["checkpoint"]), LocalFileSystem(), arguments["repository"])
except AccessError as error:
    print(error)
"""
    place = {"checkpoint": str(public_path / "checkpoint"), "repository": str(public_path / "repository")}
    done = run_child(code, uid=NOBODY, **place)
    assert str(public_path) in done.stdout, done.stderr
    assert "Permission denied" in done.stdout


def test_missing_bucket(inventory: Inventory, s3_server: S3Server) -> None:
    """A bucket that does not exist is said to be missing, and not created."""
    filesystem = fsspec.filesystem("s3", **s3_server.storage_options)
    with pytest.raises(NotFoundError, match="bucket"):
        create_backup(inventory, filesystem, "no-such-bucket/repository", options=QUICK)
    assert not (s3_server.directory / "no-such-bucket").exists()


def test_wrong_credentials(inventory: Inventory, s3_server: S3Server) -> None:
    """Wrong credentials are said to be refused, at once, and do not show in the message."""
    options = {**s3_server.storage_options, "key": "wrong-user", "secret": "wrong-secret"}
    patient = TransferOptions(backoff_seconds=3600)  # a second try would come too late
    with pytest.raises(AccessError) as caught:
        create_backup(inventory, fsspec.filesystem("s3", **options), s3_server.place, options=patient)
    assert "wrong-secret" not in str(caught.value)


def test_no_hard_links(inventory: Inventory, repository: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a mounted file system has no hard links, the meta is still created, exclusively."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert create_backup(inventory, LOCAL, repository).backup_id == 1
    assert restore_with_ldb(repository, tmp_path / "restored") == 1500


def test_every_error_is_ours(inventory: Inventory) -> None:
    """A store that raises something unheard-of makes a TransferError that quotes it."""

    class Strange(WatchedFileSystem):
        def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            raise RuntimeError("unheard-of")

    with pytest.raises(RocksDBError, match="unheard-of"):
        create_backup(inventory, Strange(), "/r", options=QUICK)


def test_private_files_are_the_checkpoints(inventory: Inventory, repository: str) -> None:
    """OPTIONS of a foreign directory is stored as the inventory gives it, not as it lies there."""
    options_file = next(file for file in inventory.files if file.type is FileType.OPTIONS)
    changed = Inventory(
        **{
            **vars(inventory),
            "files": tuple(
                type(file)(file.name, file.path, 9, file.type, b"[Version]") if file is options_file else file
                for file in inventory.files
            ),
        }
    )
    create_backup(changed, LOCAL, repository)
    assert Path(repository, "private", "1", options_file.name).read_bytes() == b"[Version]"


def test_local_files_are_private(inventory: Inventory, repository: str) -> None:
    """On a local disk only the owner may read the repository."""
    create_backup(inventory, LOCAL, repository)
    for path in [Path(repository), *Path(repository).rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0
    assert count_keys(inventory.directory)["default"] == 1500
    assert decode_backup_meta(Path(repository, "meta/1").read_bytes()).files
    assert durable.COPY_CHUNK_BYTES
