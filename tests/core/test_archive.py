"""Archives: written to every kind of storage, judged by tar, gzip, zstd and RocksDB, and whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_rocksdb.core.archive import name_archive, upload_archive
from airflow_provider_rocksdb.core.archive_layout import LIST_NAME
from airflow_provider_rocksdb.core.archive_reader import ExtractResult, check_archive, extract_archive
from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    ExistsError,
    IncompleteError,
    InvalidArgumentError,
    NoSpaceError,
    NotFoundError,
    TransferError,
)
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory, read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.progress import Progress
from airflow_provider_rocksdb.core.transfer import TransferOptions
from tests.core.databases import ROOT, count_keys, flip
from tests.core.repositories import ONCE, QUICK, take
from tests.servers import S3Server, Server

LOCAL = LocalFileSystem()
ENDINGS = [".tar.zst", ".tar.gz", ".tar"]


@pytest.fixture
def inventory(db_dir: str, tmp_path: Path) -> Inventory:
    """Checkpoint a database: keys 0-999 in an SST file, 1000-1499 in the WAL."""
    return take(db_dir, str(tmp_path / "checkpoint"))


@pytest.fixture
def large(tmp_path: Path) -> Inventory:
    """Make what looks like a checkpoint: an SST file of 20 MiB that nothing compresses."""
    (tmp_path / "000001.sst").write_bytes(os.urandom(20 << 20))
    (tmp_path / "CURRENT").write_bytes(b"MANIFEST-000002\n")
    files = [("000001.sst", 20 << 20, FileType.TABLE), ("CURRENT", 16, FileType.CURRENT)]
    found = tuple(DatabaseFile(name, str(tmp_path / name), size, kind) for name, size, kind in files)
    return Inventory(str(tmp_path), "id", 7, found, (), None)


def unpack(filesystem: Any, path: str, place: Path, **settings: Any) -> ExtractResult:
    place.mkdir()

    @contextlib.contextmanager
    def create(name: str, size: int) -> Iterator[BinaryIO]:
        with open(place / name, "xb") as file:
            yield file
        assert os.path.getsize(place / name) == size

    return extract_archive(filesystem, path, create, **settings)


def contents(directory: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["local", "memory", "s3", "sftp", "webdav", "ftp"])
def test_round_trip(
    kind: str, ending: str, request: pytest.FixtureRequest, inventory: Inventory, tmp_path: Path
) -> None:
    """From every storage comes back what went there, byte by byte, RocksDB opens it, and nothing else is left there."""
    filesystem: Any = LOCAL
    place, behind = str(tmp_path / "there"), tmp_path / "there"
    if kind == "memory":
        filesystem, place = MemoryFileSystem(global_store=False, skip_instance_cache=True), "/there"
    elif kind != "local":
        server: Server = request.getfixturevalue(f"{kind}_server")
        filesystem = fsspec.filesystem(server.protocol, **server.storage_options)
        place, behind = server.place, server.behind
    path = f"{place}/x{ending}"
    sent = upload_archive(inventory, filesystem, path, options=QUICK)
    got = unpack(filesystem, path, tmp_path / "back", options=QUICK)
    assert contents(tmp_path / "back") == contents(inventory.directory)
    assert count_keys(str(tmp_path / "back"))["default"] == 1500
    assert (got.db_id, got.sequence_number) == (inventory.db_id, inventory.sequence_number)
    assert (got.file_count, got.total_bytes) == (sent.file_count, sent.total_bytes)
    assert (sent.file_count, sent.total_bytes) == (len(contents(inventory.directory)), inventory.total_bytes)
    assert got.archive_bytes == sent.archive_bytes == filesystem.info(path)["size"]
    assert sent.reused is False
    if kind != "memory":
        assert [entry.name for entry in behind.iterdir()] == [f"x{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_tar_is_the_judge(ending: str, inventory: Inventory, tmp_path: Path) -> None:
    """GNU tar unpacks an archive into a database that RocksDB opens, with our list of files beside it."""
    archive = tmp_path / f"x{ending}"
    upload_archive(inventory, LOCAL, str(archive))
    (tmp_path / "back").mkdir()
    done = subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "back"], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    back = contents(tmp_path / "back")
    rows = json.loads(back.pop(LIST_NAME))["files"]
    assert back == contents(inventory.directory)
    assert {row["name"]: row["size"] for row in rows} == {name: len(data) for name, data in back.items()}
    assert count_keys(str(tmp_path / "back"))["default"] == 1500


def test_compressors_are_the_judges(inventory: Inventory, tmp_path: Path) -> None:
    """The programs zstd and gzip find their streams whole, and tar's stream in both; zstd's has a checksum."""
    for ending in ENDINGS:
        upload_archive(inventory, LOCAL, str(tmp_path / f"x{ending}"))
    for program in (["zstd", "-dc", tmp_path / "x.tar.zst"], ["gzip", "-dc", tmp_path / "x.tar.gz"]):
        assert subprocess.run(program, check=True, capture_output=True).stdout == (tmp_path / "x.tar").read_bytes()
    listed = subprocess.run(["zstd", "-lv", tmp_path / "x.tar.zst"], check=True, capture_output=True, text=True)
    assert "XXH64" in listed.stdout


def test_headers(inventory: Inventory, tmp_path: Path) -> None:
    """Our record is first, then the small files; CURRENT is the database's last; no owner, mode or time leaks."""
    upload_archive(inventory, LOCAL, str(tmp_path / "x.tar"))
    command = ["tar", "--utc", "--full-time", "--numeric-owner", "-tvf", tmp_path / "x.tar"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [line.split() for line in lines]
    names = [row[-1] for row in rows]
    assert (names[0], names[-2], names[-1]) == ("checkpoint.json", "CURRENT", LIST_NAME)
    small = names[1 : names.index(next(name for name in names if name[0].isdigit()))]
    assert [name.partition("-")[0] for name in small] == ["IDENTITY", "MANIFEST", "OPTIONS", "rocksdict"]
    assert names[1 + len(small) : -2] == sorted(names[1 + len(small) : -2])
    assert inventory.checkpoint is not None
    taken = inventory.checkpoint.created.partition(".")[0].split("T")
    assert {(row[0], row[1], row[3], row[4]) for row in rows} == {("-rw-------", "0/0", *taken)}


@pytest.mark.parametrize("ending", ENDINGS)
def test_same_bytes(ending: str, inventory: Inventory, large: Inventory, tmp_path: Path) -> None:
    """The same checkpoint makes the same bytes every time, with whatever number of threads."""
    made = set()
    for number, threads in enumerate((1, 4, None)):
        path = tmp_path / f"{number}{ending}"
        upload_archive(large, LOCAL, str(path), threads=threads if ending == ".tar.zst" else None)
        made.add(path.read_bytes())
        path.unlink()
    assert len(made) == 1


@pytest.mark.parametrize(("ending", "low", "high"), [(".tar.zst", 1, 19), (".tar.gz", 1, 9)])
def test_levels(ending: str, low: int, high: int, inventory: Inventory, tmp_path: Path) -> None:
    """A higher level makes a smaller archive; both are read back."""
    sizes = [
        upload_archive(inventory, LOCAL, str(tmp_path / f"{level}{ending}"), level=level).archive_bytes
        for level in (low, high)
    ]
    assert sizes[0] > sizes[1]
    for level in (low, high):
        check_archive(LOCAL, str(tmp_path / f"{level}{ending}"))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("x.tar.zst", {"level": 20}, "zstd takes a level from 1 to 19"),
        ("x.tar.gz", {"level": 10}, "gzip takes a level from 1 to 9"),
        ("x.tar", {"level": 1}, "none takes no level"),
        ("x.tar.gz", {"threads": 2}, "only zstd has threads"),
        ("x.tar.zst", {"threads": 0}, "expected 1 to 256"),
        ("x.zip", {}, "expected the name of an archive"),
        (".tar", {}, "expected the name of an archive"),
    ],
)
def test_wrong_arguments(
    name: str, settings: dict[str, Any], message: str, inventory: Inventory, tmp_path: Path
) -> None:
    """What cannot be done is refused before anything is written."""
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        upload_archive(inventory, LOCAL, str(tmp_path / "there" / name), **settings)
    assert not (tmp_path / "there").exists()


def test_without_zstd(inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where zstd is not installed, the error names the extra to install and what goes without; gzip still works."""
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidArgumentError, match=re.escape("airflow-provider-rocksdb[zstd]")):
        upload_archive(inventory, LOCAL, str(tmp_path / "there" / "x.tar.zst"))
    assert not (tmp_path / "there").exists()
    assert upload_archive(inventory, LOCAL, str(tmp_path / "there" / "x.tar.gz")).archive_bytes


def test_names(inventory: Inventory, tmp_path: Path) -> None:
    """A new archive is named by database and time, the same for every try; a name that was given is kept."""
    assert inventory.checkpoint is not None
    made = dataclasses.replace(inventory.checkpoint, created="2026-01-02T03:04:05.678+00:00")
    inventory = dataclasses.replace(inventory, checkpoint=made)
    assert name_archive(inventory, "bucket/folder/") == "bucket/folder/db-20260102T030405.678Z.tar.zst"
    assert name_archive(inventory, "/folder", "none") == "/folder/db-20260102T030405.678Z.tar"
    assert name_archive(inventory, "/folder/x.tar.gz") == name_archive(inventory, "/folder/x.tar.gz", "gzip")
    with pytest.raises(InvalidArgumentError, match="has compression gzip, not zstd"):
        name_archive(inventory, "/folder/x.tar.gz", "zstd")
    with pytest.raises(InvalidArgumentError, match="expected one of zstd, gzip, none"):
        name_archive(inventory, "/folder", "bzip2")  # type: ignore[arg-type]
    odd = dataclasses.replace(made, source={"db_dir": "/srv/.a b#c/"})
    assert name_archive(dataclasses.replace(inventory, checkpoint=odd), "f").startswith("f/a_b_c-2026")


def test_foreign_directory(db_dir: str, tmp_path: Path) -> None:
    """A directory without our record is archived, too: named by its newest file's time, OPTIONS as they should be."""
    for path in Path(db_dir).iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    inventory = read_inventory(db_dir)
    assert inventory.checkpoint is None
    path = name_archive(inventory, str(tmp_path / "there"))
    assert path.endswith("/db-20010909T014640.000Z.tar.zst")
    changed = [
        dataclasses.replace(file, content=b"[Version]", size=9) if file.type is FileType.OPTIONS else file
        for file in inventory.files
    ]
    upload_archive(dataclasses.replace(inventory, files=tuple(changed)), LOCAL, path)
    unpack(LOCAL, path, tmp_path / "back")
    (options,) = (tmp_path / "back").glob("OPTIONS-*")
    assert options.read_bytes() == b"[Version]"
    assert count_keys(str(tmp_path / "back"))["default"] == 1500
    with pytest.raises(ExistsError, match="already there"):
        upload_archive(inventory, LOCAL, path)


def test_taken_name(inventory: Inventory, db_dir: str, tmp_path: Path) -> None:
    """Another's file, and another checkpoint's archive, are refused and stay as they were."""
    path = tmp_path / "there" / "x.tar.zst"
    path.parent.mkdir()
    path.write_bytes(b"somebody's")
    with pytest.raises(ExistsError, match="not this checkpoint's"):
        upload_archive(inventory, LOCAL, str(path))
    assert path.read_bytes() == b"somebody's"
    path.unlink()
    upload_archive(take(db_dir, str(tmp_path / "other")), LOCAL, str(path))
    before = path.read_bytes()
    with pytest.raises(ExistsError, match="not this checkpoint's"):
        upload_archive(inventory, LOCAL, str(path))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["x.tar.zst"]


def test_done_before(inventory: Inventory, tmp_path: Path) -> None:
    """An archive of the same checkpoint is done once it is found whole; a damaged one is replaced."""
    path = tmp_path / "x.tar"
    first = upload_archive(inventory, LOCAL, str(path))
    inode = path.stat().st_ino
    again = upload_archive(inventory, LOCAL, str(path))
    assert (again.reused, again.archive_bytes) == (True, first.archive_bytes)
    assert path.stat().st_ino == inode
    flip(path, path.stat().st_size // 2)
    assert upload_archive(inventory, LOCAL, str(path)).reused is False
    check_archive(LOCAL, str(path))


def test_same_run(db_dir: str, tmp_path: Path) -> None:
    """A run that made its checkpoint anew replaces the archive of its earlier one; another run does not."""
    inventories = []
    for number, run in enumerate(({"run_id": "a"}, {"run_id": "a"}, {"run_id": "b"})):
        checkpoint_dir = str(tmp_path / f"checkpoint-{number}")
        create_live_checkpoint(DatabasePaths(db_dir), checkpoint_dir, run=run)
        inventories.append(read_inventory(checkpoint_dir))
    path = str(tmp_path / "x.tar.gz")
    upload_archive(inventories[0], LOCAL, path)
    assert upload_archive(inventories[1], LOCAL, path).reused is False
    unpack(LOCAL, path, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(inventories[1].directory)
    with pytest.raises(ExistsError):
        upload_archive(inventories[2], LOCAL, path)


class Appears(MemoryFileSystem):
    """Somebody else's file gets the name while ours is being written."""

    protocol = "renaming"
    cachable = False

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        super().mv(path1, path2, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        if "/incoming/" in path and not self.exists("/there/x.tar"):
            self.pipe_file("/there/x.tar", b"somebody's")
        return super().info(path, **kwargs)


@pytest.mark.parametrize("kind", ["local", "renaming", "s3"])
def test_lost_race(kind: str, inventory: Inventory, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A file that gets the name while the archive is being written stays, and nothing of ours is left."""
    filesystem: Any = LOCAL
    path = str(tmp_path / "there" / "x.tar")
    if kind == "renaming":
        filesystem, path = Appears(global_store=False), "/there/x.tar"
    elif kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        filesystem, path = fsspec.filesystem("s3", **server.storage_options), f"{server.place}/x.tar"

    def appear(_: Progress) -> None:
        if kind != "renaming" and not filesystem.exists(path):
            filesystem.pipe_file(path, b"somebody's")

    with pytest.raises(ExistsError, match="another run made it meanwhile"):
        upload_archive(inventory, filesystem, path, options=TransferOptions(progress_seconds=0, on_progress=appear))
    assert filesystem.cat_file(path) == b"somebody's"
    assert [name.rpartition("/")[2] for name in filesystem.find(path.rpartition("/")[0])] == ["x.tar"]


class BreaksOnce(MemoryFileSystem):
    """The connection breaks in the middle of a file, once when it is written and once when it is read."""

    cachable = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(global_store=False, **settings)
        self.left = {"wb": 1, "rb": 1}
        self.opened = {"wb": 0, "rb": 0}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self.opened[mode] += 1
        file = super()._open(path, mode, **kwargs)
        name, after = ("write", 8) if mode == "wb" else ("read", 2)
        call, count = getattr(file, name), 0

        def breaking(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count > after and self.left[mode]:
                self.left[mode] -= 1
                raise ConnectionResetError("gone")
            return call(*arguments)

        setattr(file, name, breaking)
        return file


def test_broken_connection(large: Inventory) -> None:
    """A broken upload is sent anew, a broken download goes on where it broke; the last progress is the whole."""
    store, told = BreaksOnce(), []
    options = TransferOptions(backoff_seconds=0.01, progress_seconds=0, on_progress=told.append)
    sent = upload_archive(large, store, "/x.tar.zst", options=options)
    assert (told[-1].files, told[-1].bytes) == (2, large.total_bytes)
    assert max(progress.bytes for progress in told) == large.total_bytes
    assert check_archive(store, "/x.tar.zst", options=options).archive_bytes == sent.archive_bytes
    assert store.opened == {"wb": 2, "rb": 2}
    assert (told[-1].files, told[-1].bytes, told[-1].total_bytes) == (1, sent.archive_bytes, sent.archive_bytes)


def test_dead_storage(large: Inventory) -> None:
    """A storage that fails at every attempt is a TransferError, and there is no archive."""
    store = BreaksOnce()
    store.left["wb"] = 99
    with pytest.raises(TransferError, match="gone"):
        upload_archive(large, store, "/x.tar.zst", options=ONCE)
    assert not store.exists("/x.tar.zst")


class LosesAnswer(MemoryFileSystem):
    """Renames, and then reports a failure."""

    protocol = "renaming"
    cachable = False

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        super().mv(path1, path2, **kwargs)
        raise ConnectionResetError("gone")


def test_lost_answer(inventory: Inventory) -> None:
    """An archive that got its name although the answer was lost is there, and is not sent again."""
    store = LosesAnswer(global_store=False)
    assert upload_archive(inventory, store, "/there/x.tar", options=ONCE).reused is False
    assert upload_archive(inventory, store, "/there/x.tar", options=ONCE).reused is True
    assert [path for path in store.find("/") if not path.startswith("/there/incoming")] == ["/there/x.tar"]


class Shortens(MemoryFileSystem):
    """Loses the end of what is written."""

    cachable = False

    def info(self, path: str, **kwargs: Any) -> Any:
        found = super().info(path, **kwargs)
        return {**found, "size": found["size"] - 1} if found["type"] == "file" else found


def test_size_is_compared(inventory: Inventory) -> None:
    """An archive that is not there with all its bytes is no archive."""
    store = Shortens(global_store=False)
    with pytest.raises(TransferError, match="bytes were sent"):
        upload_archive(inventory, store, "/x.tar", options=ONCE)
    assert store.find("/") == []


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_stop(kind: str, large: Inventory, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """An upload that is told to stop leaves nothing; a download that is told to stop ends."""
    filesystem: Any = LOCAL
    place = str(tmp_path / "there")
    if kind == "memory":
        filesystem, place = MemoryFileSystem(global_store=False, skip_instance_cache=True), "/there"
    elif kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        filesystem, place = fsspec.filesystem("s3", **server.storage_options), server.place
    stop = threading.Event()

    def half(progress: Progress) -> None:
        if progress.bytes > progress.total_bytes // 2:
            stop.set()

    options = TransferOptions(progress_seconds=0, on_progress=half)
    with pytest.raises(CancelledError):
        upload_archive(large, filesystem, f"{place}/x.tar", options=options, stop=stop)
    assert filesystem.find(place) == []
    upload_archive(large, filesystem, f"{place}/x.tar")
    stop.clear()
    with pytest.raises(CancelledError):
        check_archive(filesystem, f"{place}/x.tar", options=options, stop=stop)


KILLED = """
import json, os, signal, sys
import fsspec
from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory
from airflow_provider_rocksdb.core.transfer import TransferOptions
directory, protocol, storage_options, path = json.loads(sys.argv[1])
files = [("000001.sst", FileType.TABLE), ("CURRENT", FileType.CURRENT)]
found = tuple(
    DatabaseFile(name, f"{directory}/{name}", os.path.getsize(f"{directory}/{name}"), kind) for name, kind in files
)
def die(progress):
    if progress.bytes > progress.total_bytes * 0.9:
        os.kill(os.getpid(), signal.SIGKILL)
options = TransferOptions(progress_seconds=0, on_progress=die)
inventory = Inventory(directory, "id", 7, found, (), None)
upload_archive(inventory, fsspec.filesystem(protocol, **storage_options), path, options=options)
"""


@pytest.mark.parametrize("kind", ["local", "s3", "sftp"])
def test_killed(kind: str, large: Inventory, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A process killed (-9) when most was sent leaves no archive; the next run makes one, and clears what is left."""
    protocol, settings, place, behind = "file", {}, str(tmp_path / "there"), tmp_path / "there"
    if kind != "local":
        server: Server = request.getfixturevalue(f"{kind}_server")
        protocol, settings, place, behind = server.protocol, server.storage_options, server.place, server.behind
    path = f"{place}/x.tar.zst"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps([large.directory, protocol, settings, path])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -9
    assert not (behind / "x.tar.zst").exists()
    filesystem = fsspec.filesystem(protocol, **settings)
    assert upload_archive(large, filesystem, path).reused is False
    left = [name for name in os.listdir(behind) if not name.startswith(".rclone_temp_")]  # the S3 server's own
    assert left == ["x.tar.zst"]
    assert check_archive(filesystem, path).total_bytes == large.total_bytes


def test_rate(inventory: Inventory, tmp_path: Path) -> None:
    """An archive is sent no faster than was asked."""
    options = TransferOptions(max_bytes_per_second=50_000)
    result = upload_archive(inventory, LOCAL, str(tmp_path / "x.tar"), options=options)
    assert result.seconds > (result.archive_bytes - 40_000) / 50_000  # the last piece goes at once


@pytest.mark.parametrize("change", ["missing", "shorter", "longer"])
def test_source_changes(change: str, large: Inventory, tmp_path: Path) -> None:
    """A file that is not what the checkpoint says makes no archive."""
    sst = tmp_path / "000001.sst"
    if change == "missing":
        sst.unlink()
    else:
        os.truncate(sst, sst.stat().st_size + (1 if change == "longer" else -1))
    inventory = large if change != "missing" else dataclasses.replace(large, checkpoint=None)
    with pytest.raises(IncompleteError, match=r"000001\.sst"):
        upload_archive(inventory, LOCAL, str(tmp_path / "there" / "x.tar"))
    assert not (tmp_path / "there" / "x.tar").exists()


def test_what_is_no_checkpoint(large: Inventory, tmp_path: Path) -> None:
    """Without CURRENT, or with a file that an archive cannot have, nothing is sent."""
    headless = dataclasses.replace(large, files=large.files[:1])
    with pytest.raises(IncompleteError, match="CURRENT"):
        upload_archive(headless, LOCAL, str(tmp_path / "there" / "x.tar"))
    odd = DatabaseFile("script.sh", str(tmp_path / "000001.sst"), 1, None)
    with pytest.raises(InvalidArgumentError, match=re.escape("script.sh")):
        upload_archive(dataclasses.replace(large, extras=(odd,)), LOCAL, str(tmp_path / "there" / "x.tar"))
    assert not (tmp_path / "there").exists()


def test_full_disk(large: Inventory, tiny: str) -> None:
    """A disk that is full is said to be, and nothing is left on it."""
    with pytest.raises(NoSpaceError, match=re.escape(tiny)):
        upload_archive(large, LOCAL, f"{tiny}/there/x.tar.zst", options=QUICK)
    assert list(Path(tiny).rglob("*.tar*")) == []


def test_missing_archive(tmp_path: Path, s3_server: S3Server) -> None:
    """An archive that is not there is said to be missing."""
    with pytest.raises(NotFoundError, match="no such archive"):
        check_archive(LOCAL, str(tmp_path / "x.tar.zst"))
    with pytest.raises(NotFoundError, match="no such archive"):
        check_archive(fsspec.filesystem("s3", **s3_server.storage_options), f"{s3_server.place}/x.tar.zst")


def test_url_and_directory_file_system(inventory: Inventory, tmp_path: Path) -> None:
    """A URL as path, and a path below a DirFileSystem, are where they say."""
    (tmp_path / "mount").mkdir()
    upload_archive(inventory, LOCAL, f"file://{tmp_path}/mount/x.tar")
    assert check_archive(DirFileSystem(str(tmp_path / "mount"), LOCAL), "x.tar").db_id == inventory.db_id


def test_results_are_small_json(inventory: Inventory, tmp_path: Path) -> None:
    """Both results go through JSON unchanged, and say where the archive is."""
    path = str(tmp_path / "x.tar.zst")
    for result in (upload_archive(inventory, LOCAL, path), check_archive(LOCAL, path)):
        assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
        assert result.archive == path


def test_local_files_are_private(inventory: Inventory, tmp_path: Path) -> None:
    """On a local disk only the owner may read an archive and list its folder."""
    upload_archive(inventory, LOCAL, str(tmp_path / "there" / "x.tar"))
    for path in (tmp_path / "there", tmp_path / "there" / "x.tar"):
        assert path.stat().st_mode & 0o077 == 0
