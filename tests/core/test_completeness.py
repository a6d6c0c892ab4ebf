"""Is a directory a whole database? Every answer at every level, of directories harmed in every way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rocksdict import Checkpoint as StockCheckpoint
from rocksdict import Rdict

from airflow_provider_rocksdb.core import scratch
from airflow_provider_rocksdb.core.completeness import Completeness, State, check_completeness
from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    CorruptionError,
    CouldNotCheckError,
    IncompleteError,
    InvalidArgumentError,
)
from airflow_provider_rocksdb.core.format.log_format import rewrite_records
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.core.databases import (
    NOBODY,
    build,
    build_configured,
    build_merged,
    build_two_paths,
    build_two_wals,
    fingerprint,
    flip,
    manifest_name,
    names,
    only,
    options,
    put,
    read_version,
    replace_content,
    run_child,
    stop,
    wait_until,
    writer,
)

LEVELS = ("files", "checksums", "blocks")
COMPLETE, INCOMPLETE, CORRUPT, COULD_NOT_CHECK = State


@pytest.fixture(scope="module")
def checkpoint_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a checkpoint of ours: four column families, two WALs, one SST file, one blob file."""
    place = tmp_path_factory.mktemp("checkpoint")
    families = build_two_wals(str(place / "db"))
    blobs = families[0].create_column_family("blobs", options(enable_blob_files=True, min_blob_size=10))
    put(blobs, 0, 100)
    blobs.flush()
    create_live_checkpoint(DatabasePaths(str(place / "db")), str(place / "checkpoint"))
    for family in (*families[1:], blobs):
        family.close()
    families[0].close()
    shutil.rmtree(place / "db")
    return str(place / "checkpoint")


@pytest.fixture
def checkpoint_dir(checkpoint_template: str, tmp_path: Path) -> str:
    path = str(tmp_path / "checkpoint")
    shutil.copytree(checkpoint_template, path)
    return path


def first_sst(directory: str) -> Path:
    return Path(directory, names(directory, ".sst")[0])


def check(directory: str, level: Any = "files", **arguments: Any) -> Completeness:
    """Check a directory, and that the check has written nothing into it."""
    before = fingerprint(directory)
    found = check_completeness(directory, level=level, **arguments)
    assert fingerprint(directory) == before
    assert bool(found.problems) == (found.state is not COMPLETE)
    assert json.loads(json.dumps(found.to_dict()))["state"] == found.state.value
    return found


def state(directory: str, level: Any = "files", **arguments: Any) -> State:
    return check(directory, level, **arguments).state


def move_to_memory(directory: str) -> tuple[str, MemoryFileSystem]:
    """Copy a directory into a file system in memory."""
    filesystem = fsspec.filesystem("memory")
    place = f"/checks/{time.monotonic_ns()}"
    filesystem.makedirs(place)
    for name in os.listdir(directory):
        filesystem.pipe_file(f"{place}/{name}", Path(directory, name).read_bytes())
    return place, filesystem


# whole


@pytest.mark.parametrize("level", LEVELS)
def test_a_whole_checkpoint(checkpoint_dir: str, level: str) -> None:
    """A checkpoint of ours is complete at every level, its WALs known from its record."""
    found = check(checkpoint_dir, level)
    assert (found.state, found.reason, found.wals, found.level) == (COMPLETE, "", "checkpoint.json", level)
    record = json.loads(Path(checkpoint_dir, "checkpoint.json").read_text())
    assert (found.db_id, found.sequence_number) == (record["db_id"], record["sequence_number"])
    assert found.file_count == len(record["files"])
    assert found.total_bytes == sum(file["size"] for file in record["files"])
    found.raise_for_state()


@pytest.mark.parametrize("level", LEVELS)
def test_a_stopped_database(db_dir: str, level: str) -> None:
    """A database at rest is complete at every level, and its WALs are said to be unknown."""
    found = check(db_dir, level)
    assert (found.state, found.wals) == (COMPLETE, "unknown")
    assert found.sequence_number == (1000 if level == "files" else 1500)


@pytest.mark.parametrize("level", LEVELS)
def test_a_checkpoint_by_rocksdb(tmp_path: Path, level: str) -> None:
    """A checkpoint that RocksDB made is complete at every level, and its WALs are said to be unknown."""
    database = build(str(tmp_path / "db"))
    StockCheckpoint(database).create_checkpoint(str(tmp_path / "stock"))
    database.close()
    found = check(str(tmp_path / "stock"), level)
    assert (found.state, found.wals) == (COMPLETE, "unknown")


def test_blocks_of_a_database_that_moves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running database that deletes what is about to be read is looked at again; it is not damaged."""
    database = build(str(tmp_path / "db"))
    real, seen = scratch._run_child, []

    def run_child(*arguments: Any) -> tuple[str, str]:
        if not seen:
            put(database, 0, 10)
            database.flush()
            database.compact_range(None, None)
            wait_until(lambda: len(names(str(tmp_path / "db"), ".sst")) == 1)
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(scratch, "_run_child", run_child)
    found = check_completeness(str(tmp_path / "db"), level="blocks")
    database.close()
    assert [state for state, _ in seen] == ["could_not_check", "complete"]
    assert found.state is COMPLETE


def test_no_place_for_links(checkpoint_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no temporary directory can be made, blocks could not be checked, and the directory is not blamed."""
    monkeypatch.setattr(scratch.tempfile, "tempdir", "/nowhere")
    found = check_completeness(checkpoint_dir, level="blocks")
    assert found.state is COULD_NOT_CHECK
    assert "no temporary directory can be made" in found.reason
    assert found.reason.endswith("name one in TMPDIR")


def test_a_running_database(tmp_path: Path) -> None:
    """A database that another process writes is complete whenever it is looked at."""
    db_dir = str(tmp_path / "db")
    with writer(db_dir):
        for number in range(150):
            found = check_completeness(db_dir, level="checksums" if number % 10 == 0 else "files")
            assert found.state is COMPLETE, found
            assert found.file_count > 2


def test_a_wal_dir(tmp_path: Path) -> None:
    """WALs in a ``wal_dir`` are found through OPTIONS, or where the caller says."""
    database = build(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal"))
    db_dir = str(tmp_path / "db")
    for level in LEVELS:
        assert state(db_dir, level) is COMPLETE
    assert check(db_dir, "checksums").sequence_number == 1500
    assert state(db_dir, paths=DatabasePaths(db_dir, wal_dir=db_dir)) is INCOMPLETE
    only(str(tmp_path / "wal"), ".log").unlink()
    assert state(db_dir) is INCOMPLETE
    database.close()


def test_two_paths(tmp_path: Path) -> None:
    """SST files in other paths are found where the caller says; unnamed, they could not be checked."""
    database = build_two_paths(str(tmp_path))
    db_dir = str(tmp_path / "db")
    found = check(db_dir)
    assert found.state is COULD_NOT_CHECK
    assert "name the database's db_paths" in found.reason
    paths = DatabasePaths(db_dir, db_paths=(str(tmp_path / "fast"), str(tmp_path / "slow")))
    for level in LEVELS:
        assert state(db_dir, level, paths=paths) is COMPLETE
    gone = Path(tmp_path, "slow", names(str(tmp_path / "slow"), ".sst")[0])
    gone.unlink()
    found = check(db_dir, paths=paths)
    assert found.state is INCOMPLETE
    assert str(gone) in found.reason
    database.close()


# missing, cut, longer


def each_file(directory: str, harm: Callable[[Path], None]) -> dict[str, tuple[State, State]]:
    """Harm one file after the other; answers of the local check and of one in memory."""
    answers = {}
    for name in sorted(os.listdir(directory)):
        data = Path(directory, name).read_bytes()
        harm(Path(directory, name))
        local = check(directory)
        if not data and local.state is COMPLETE and Path(directory, name).exists():
            continue  # an empty file cannot be cut
        place, memory = move_to_memory(directory)
        remote = check_completeness(place, filesystem=memory)
        answers[name] = (local.state, remote.state)
        if local.state is INCOMPLETE:
            assert name in local.reason or "and" in local.reason
        for level in ("checksums", "blocks"):
            assert check_completeness(directory, level=level).state is local.state  # type: ignore[arg-type]
        Path(directory, name).unlink(missing_ok=True)
        Path(directory, name).write_bytes(data)
    return answers


def test_each_file_of_a_checkpoint_is_missing(checkpoint_dir: str) -> None:
    """A checkpoint that lacks any one file is incomplete; without its record it is whole with unknown WALs."""
    answers = each_file(checkpoint_dir, lambda path: path.unlink())
    assert answers.pop("checkpoint.json") == (COMPLETE, COMPLETE)
    assert set(answers.values()) == {(INCOMPLETE, INCOMPLETE)}
    assert len(answers) == len(os.listdir(checkpoint_dir)) - 1


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["nothing", "half", "all but a byte"])
def test_each_file_of_a_checkpoint_is_cut(checkpoint_dir: str, part: float) -> None:
    """A checkpoint of which any one file is not all there yet is incomplete, here and in memory."""

    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(part * max(len(data) - 1, 0))])

    assert set(each_file(checkpoint_dir, cut).values()) == {(INCOMPLETE, INCOMPLETE)}


def test_each_file_of_a_checkpoint_is_longer(checkpoint_dir: str) -> None:
    """A checkpoint of which any one file is longer than it was is corrupt."""

    def lengthen(path: Path) -> None:
        with path.open("ab") as file:
            file.write(b"\0\n}\n")

    assert set(each_file(checkpoint_dir, lengthen).values()) == {(CORRUPT, CORRUPT)}


def test_each_file_of_a_database_is_missing(db_dir: str) -> None:
    """A database lacking CURRENT, MANIFEST, an SST file or its WAL is incomplete; of other files none is needed."""
    needed = {"CURRENT", manifest_name(db_dir), only(db_dir, ".sst").name, only(db_dir, ".log").name}
    answers = each_file(db_dir, lambda path: path.unlink())
    assert {name for name, answer in answers.items() if answer == (INCOMPLETE, INCOMPLETE)} == needed - {"LOCK"}
    assert {answer for name, answer in answers.items() if name not in needed} == {(COMPLETE, COMPLETE)}


def test_an_sst_file_of_a_database_has_another_size(db_dir: str) -> None:
    """Without a record, too, an SST file that is too short is incomplete, and one that is too long is corrupt."""
    sst = only(db_dir, ".sst")
    size = sst.stat().st_size
    for wrong, expected in ((0, INCOMPLETE), (size // 2, INCOMPLETE), (size - 1, INCOMPLETE), (size + 1, CORRUPT)):
        os.truncate(sst, wrong)
        found = check(db_dir)
        assert found.state is expected
        assert found.reason == f"{sst.name}: expected {size} bytes, got {wrong}"


@pytest.mark.parametrize("level", LEVELS)
def test_a_manifest_cut_at_every_byte(db_dir: str, level: str) -> None:
    """A MANIFEST cut at any byte is never corrupt, and complete only where a whole record ends."""
    os.unlink(Path(db_dir, "LOCK"))
    manifest = Path(db_dir, manifest_name(db_dir))
    data = manifest.read_bytes()
    answers = []
    for length in range(len(data)) if level == "files" else range(0, len(data), 40):
        manifest.write_bytes(data[:length])
        answers.append(check_completeness(db_dir, level=level).state)  # type: ignore[arg-type]
    assert set(answers) <= {COMPLETE, INCOMPLETE}
    assert answers.count(COMPLETE) <= 6


def test_a_database_without_wal(db_dir: str) -> None:
    """A database that was opened and shows no WAL is not complete; the answer asks for its ``wal_dir``."""
    only(db_dir, ".log").unlink()
    found = check(db_dir)
    assert found.state is INCOMPLETE
    assert "a database that was opened has one; is its wal_dir elsewhere?" in found.reason


def test_no_directory(tmp_path: Path) -> None:
    """A directory that is not there, a file, and an empty directory are incomplete, here and in memory."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, reason in (("missing", "is missing"), ("file", "is not a directory"), ("empty", "CURRENT: is missing")):
        found = check_completeness(str(tmp_path / name))
        assert found.state is INCOMPLETE
        assert reason in found.reason
    for place in ("/checks/missing", "/checks"):
        fsspec.filesystem("memory").makedirs("/checks", exist_ok=True)
        assert check_completeness(place, filesystem=fsspec.filesystem("memory")).state is INCOMPLETE


def test_a_checkpoint_still_being_built(tmp_path: Path, db_dir: str) -> None:
    """The temporary directory of a checkpoint being built is incomplete."""
    (tmp_path / "checkpoint.tmp").mkdir()
    (tmp_path / "checkpoint.tmp" / "checkpoint.json").touch()
    found = check(str(tmp_path / "checkpoint.tmp"))
    assert found.state is INCOMPLETE
    assert "still being built" in " ".join(found.problems)


# damaged


def test_a_flipped_byte_in_an_sst_file(checkpoint_dir: str) -> None:
    """A flipped bit in a block goes unseen at levels files and checksums, and is corruption at level blocks."""
    flip(first_sst(checkpoint_dir), 20)
    assert state(checkpoint_dir) is COMPLETE
    assert state(checkpoint_dir, "checksums") is COMPLETE
    found = check(checkpoint_dir, "blocks")
    assert found.state is CORRUPT
    assert found.reason.startswith("column family 'flushed': Corruption: block checksum mismatch")


def test_a_flipped_byte_in_a_blob_file(checkpoint_dir: str) -> None:
    """A flipped bit in a blob is corruption at level blocks."""
    flip(only(checkpoint_dir, ".blob"), 500)
    assert state(checkpoint_dir, "checksums") is COMPLETE
    assert state(checkpoint_dir, "blocks") is CORRUPT


def test_a_flipped_byte_against_a_file_checksum(tmp_path: Path) -> None:
    """Where the MANIFEST has file checksums, a flipped bit in an SST file is corruption at level checksums."""
    database = build_configured(str(tmp_path / "db"), file_checksum_gen_factory="FileChecksumGenCrc32cFactory")
    create_live_checkpoint(DatabasePaths(str(tmp_path / "db")), str(tmp_path / "checkpoint"))
    database.close()
    checkpoint_dir = str(tmp_path / "checkpoint")
    assert state(checkpoint_dir, "checksums") is COMPLETE
    sst = first_sst(checkpoint_dir)
    flip(sst, 20)
    found = check(checkpoint_dir, "checksums")
    assert found.state is CORRUPT
    assert found.reason.startswith(f"{sst.name}: expected CRC32C 0x")
    place, memory = move_to_memory(checkpoint_dir)
    assert check_completeness(place, filesystem=memory, level="checksums").state is CORRUPT


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("part", [0.0001, 0.5, 0.9999])
def test_a_flipped_byte_in_a_wal(checkpoint_dir: str, which: int, part: float) -> None:
    """A flipped bit anywhere in any WAL of a checkpoint is corruption at level checksums."""
    wal = Path(checkpoint_dir, names(checkpoint_dir, ".log")[which])
    flip(wal, int(part * wal.stat().st_size))
    assert state(checkpoint_dir) is COMPLETE
    found = check(checkpoint_dir, "checksums")
    assert found.state is CORRUPT
    assert found.reason.startswith(f"{wal.name}: damaged at offset ")
    place, memory = move_to_memory(checkpoint_dir)
    assert check_completeness(place, filesystem=memory, level="checksums").state is CORRUPT


def test_a_flipped_byte_in_the_manifest(checkpoint_dir: str) -> None:
    """A flipped bit anywhere in a checkpoint's MANIFEST is never complete, and in a checksum or payload is corrupt."""
    manifest = Path(checkpoint_dir, manifest_name(checkpoint_dir))
    data = manifest.read_bytes()
    answers = []
    for offset in range(len(data)):
        manifest.write_bytes(data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :])
        answers.append(check_completeness(checkpoint_dir).state)
    assert set(answers) <= {INCOMPLETE, CORRUPT}
    assert answers.count(CORRUPT) > 0.95 * len(answers)


def test_current_names_another_manifest(checkpoint_dir: str) -> None:
    """A CURRENT with another name, a carriage return or without its newline is corrupt."""
    current = Path(checkpoint_dir, "CURRENT")
    os.unlink(Path(checkpoint_dir, "checkpoint.json"))
    whole = current.read_bytes()
    for data in (whole[:-1], whole[:-1] + b"\r\n", b"../" + whole, b"\xff\n"):
        current.write_bytes(data)
        assert state(checkpoint_dir) is CORRUPT
    current.write_bytes(b"MANIFEST-999999\n")
    assert state(checkpoint_dir) is INCOMPLETE


def test_a_foreign_wal(checkpoint_dir: str) -> None:
    """A WAL that is not of the checkpoint, and would be replayed into it, is corruption at every level."""
    newest = names(checkpoint_dir, ".log")[-1]
    shutil.copy(Path(checkpoint_dir, newest), Path(checkpoint_dir, "999999.log"))
    for level in LEVELS:
        found = check(checkpoint_dir, level)
        assert found.state is CORRUPT
        assert found.reason.startswith("999999.log: is not of this checkpoint (checkpoint.json), but would be replayed")
    place, memory = move_to_memory(checkpoint_dir)
    assert check_completeness(place, filesystem=memory).state is CORRUPT


def test_other_foreign_files_do_not_matter(checkpoint_dir: str) -> None:
    """Files that RocksDB does not read, subdirectories and dead links leave a checkpoint complete."""
    Path(checkpoint_dir, "letter.txt").touch()
    Path(checkpoint_dir, "directory").mkdir()
    Path(checkpoint_dir, "link").symlink_to("nowhere")
    for level in LEVELS:
        assert state(checkpoint_dir, level) is COMPLETE


def test_tracked_wals(tmp_path: Path) -> None:
    """WALs that the MANIFEST tracks are missed when they are gone or too short, without any record of ours."""
    database = build_configured(str(tmp_path / "db"), track_and_verify_wals_in_manifest="true")
    families = [database.create_column_family(name, options()) for name in ("a", "b")]
    put(families[0], 0, 500)
    put(families[1], 0, 1)
    families[1].flush()
    put(families[0], 500, 1000)
    db_dir = stop(database, str(tmp_path / "stopped"))
    assert check(db_dir).wals == "manifest"
    (number,) = read_version(db_dir).wals
    wal = Path(db_dir, f"{number:06d}.log")
    os.truncate(wal, wal.stat().st_size - 1)
    found = check(db_dir)
    assert found.state is INCOMPLETE
    assert "expected at least" in found.reason
    wal.unlink()
    found = check(db_dir)
    assert found.state is INCOMPLETE
    assert found.reason == f"{wal.name}: is missing, the MANIFEST tracks it"


@pytest.mark.parametrize(
    "content",
    [
        b"null\n}\n",
        b"{\n}\n",
        b"\xff\n}\n",
        b'{"format": 1, "files": [{"name": "../../etc/passwd", "size": 1, "kind": "link"}], "wals": []\n}\n',
        b'{"format": 1, "files": [], "wals": [1e999], "damage": []\n}\n',
        b"[" * 100_000 + b"\n}\n",
    ],
)
def test_a_hostile_record(checkpoint_dir: str, content: bytes) -> None:
    """A record that is none is corruption, here and in memory, at every level."""
    Path(checkpoint_dir, "checkpoint.json").write_bytes(content)
    for level in LEVELS:
        found = check(checkpoint_dir, level)
        assert found.state is CORRUPT
        assert "checkpoint.json: not a record of a checkpoint" in found.reason
    place, memory = move_to_memory(checkpoint_dir)
    assert check_completeness(place, filesystem=memory).state is CORRUPT


def test_a_record_that_lies(checkpoint_dir: str) -> None:
    """A record that names no files and no WALs does not make a checkpoint complete that lacks an SST file."""
    path = Path(checkpoint_dir, "checkpoint.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "files": []}, indent=1) + "\n")
    first_sst(checkpoint_dir).unlink()
    assert state(checkpoint_dir) is INCOMPLETE


def test_a_checkpoint_that_was_opened(checkpoint_dir: str) -> None:
    """A checkpoint that a program has opened and written since is judged as the database it is now."""
    families = {name: options() for name in Rdict.list_cf(checkpoint_dir) if name != "default"}
    database = Rdict(checkpoint_dir, options(), families)
    put(database, 0, 2000)
    database.flush()
    database.close()
    found = check(checkpoint_dir, "checksums")
    assert (found.state, found.wals) == (COMPLETE, "unknown")


# what could not be checked


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user needs root")
@pytest.mark.parametrize("closed", [".", "CURRENT", "MANIFEST", "checkpoint.json", ".log"])
def test_without_the_right_to_read(public_path: Path, checkpoint_template: str, closed: str) -> None:
    """A directory or file that this user may not read could not be checked, and the reason names it."""
    path = public_path / "checkpoint"
    shutil.copytree(checkpoint_template, path)
    subprocess.run(["chmod", "-R", "a+rX", path], check=True)
    name = next((name for name in sorted(os.listdir(path)) if closed != "." and closed in name), ".")
    os.chmod(path / name, 0o700)
    code = """
found = check_completeness(arguments["path"], level="checksums")
print(found.state.value, found.reason)
"""
    done = run_child(code, uid=NOBODY, path=str(path))
    assert done.stdout.startswith("could_not_check "), done
    assert (str(path) if closed == "." else name) in done.stdout


class ExpiredStorage(MemoryFileSystem):
    """Storage whose credentials run out after the listing."""

    protocol = "expired"

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        raise RuntimeError("ExpiredToken: the token has expired")


def test_storage_that_refuses(checkpoint_dir: str) -> None:
    """Whatever a storage driver raises, the directory could not be checked, and the reason has its words."""
    place, _ = move_to_memory(checkpoint_dir)
    found = check_completeness(place, filesystem=ExpiredStorage())
    assert found.state is COULD_NOT_CHECK
    assert "ExpiredToken: the token has expired" in found.reason


def test_blocks_of_a_remote_directory(checkpoint_dir: str) -> None:
    """Level blocks of a directory that is not local could not be checked; the reason says to copy it here."""
    place, memory = move_to_memory(checkpoint_dir)
    found = check_completeness(place, filesystem=memory, level="blocks")
    assert found.state is COULD_NOT_CHECK
    assert "copy it here and check that" in found.reason
    assert check_completeness(place, filesystem=memory, level="checksums").state is COMPLETE


def test_the_local_file_system_of_fsspec(checkpoint_dir: str) -> None:
    """Through fsspec's local file system the answers are the same, symbolic links followed."""
    local = fsspec.filesystem("file")
    assert check_completeness(checkpoint_dir, filesystem=local, level="checksums").state is COMPLETE
    sst = first_sst(checkpoint_dir)
    os.rename(sst, checkpoint_dir + ".elsewhere")
    sst.symlink_to(checkpoint_dir + ".elsewhere")
    assert check_completeness(checkpoint_dir, filesystem=local).state is COMPLETE
    sst.unlink()
    assert check_completeness(checkpoint_dir, filesystem=local).state is INCOMPLETE


def test_a_time_limit_for_blocks(checkpoint_dir: str) -> None:
    """Reading blocks that takes longer than allowed could not be checked, and the child is gone."""
    found = check(checkpoint_dir, "blocks", timeout_seconds=0.01)
    assert found.state is COULD_NOT_CHECK
    assert found.reason == "reading every block took more than 0.01 s; allow more time"


@pytest.mark.timeout(60)
def test_a_wal_that_hangs_rocksdb(db_dir: str) -> None:
    """A torn WAL tail on which RocksDB never ends could not be checked at level blocks, within the time limit."""
    with only(db_dir, ".log").open("ab") as file:
        file.write(b"\1\2\3\4\xff\x7f\x05\0\0\0\0" + bytes(20))
    found = check(db_dir, "blocks", timeout_seconds=2)
    assert found.state is not CORRUPT


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "RocksDB died of SIGSEGV while it read"),
        ("raise SystemExit(3)", "ended with status 3: no answer"),
        ("print('{}')", "ended with status 0: no answer"),
        ("import sys; sys.exit('out of memory')", "ended with status 1: out of memory"),
    ],
)
def test_a_child_that_dies(
    checkpoint_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    """When the process that reads the blocks dies, or answers nonsense, they could not be checked, with the reason."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "dying_child.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr(scratch, "CHILD_MODULE", "dying_child")
    found = check(checkpoint_dir, "blocks")
    assert found.state is COULD_NOT_CHECK
    assert said in found.reason


def test_blocks_leave_nothing_behind(checkpoint_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scratch directory of level blocks is gone afterwards, also after a time limit and a stop."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    assert state(checkpoint_dir, "blocks") is COMPLETE
    assert state(checkpoint_dir, "blocks", timeout_seconds=0) is COULD_NOT_CHECK
    assert os.listdir(tmp_path / "scratch") == []


def test_another_comparator(db_dir: str) -> None:
    """A database of another comparator is complete, and could not be checked at level blocks: it is not corrupt."""
    for path in (Path(db_dir, manifest_name(db_dir)), *Path(db_dir).glob("OPTIONS-*")):
        data = path.read_bytes()
        if path.name.startswith("MANIFEST"):
            data = rewrite_records(
                data, "", lambda record: record.replace(b"BytewiseComparator", b"BytewiseXomparator")
            )
        replace_content(path, data.replace(b"leveldb.BytewiseComparator", b"leveldb.BytewiseXomparator"))
    assert state(db_dir, "checksums") is COMPLETE
    found = check(db_dir, "blocks")
    assert found.state is COULD_NOT_CHECK
    assert "omparator" in found.reason


@pytest.mark.parametrize("with_options", [True, False])
def test_merge_operators(tmp_path: Path, with_options: bool) -> None:
    """A database with merge operands that nobody here can merge is never called corrupt."""
    db_dir = build_merged(str(tmp_path / "db"))
    if not with_options:
        for path in Path(db_dir).glob("OPTIONS-*"):
            path.unlink()
    assert state(db_dir, "checksums") is COMPLETE
    assert state(db_dir, "blocks") in (COMPLETE, COULD_NOT_CHECK)


def test_no_value_is_decoded(tmp_path: Path) -> None:
    """Reading every block of a database of pickled values runs no code that a hostile value holds."""
    marker = tmp_path / "ran"
    code = """
from rocksdict import Rdict
class Hostile:
    def __reduce__(self):
        return os.system, (f"touch {arguments['marker']}",)
database = Rdict(arguments["path"])
database["key"] = Hostile()
database.flush()
database["another"] = Hostile()
if arguments["read"]:
    database["key"]
database.close()
"""
    for number, read in enumerate((True, False)):
        path = str(tmp_path / f"db{number}")
        assert run_child(code, path=path, marker=str(marker), read=read).returncode == 0
        assert marker.exists() == read
        marker.unlink(missing_ok=True)
        assert state(path, "blocks") is COMPLETE
        assert not marker.exists()


def test_damage_in_a_database_with_its_own_comparator(tmp_path: Path) -> None:
    """Damage in a database that rocksdict opens in its own mode is found at level blocks, too."""
    path = str(tmp_path / "db")
    database = Rdict(path)
    for number in range(1000):
        database[number] = "value"
    database.close()
    assert state(path, "blocks") is COMPLETE
    flip(only(path, ".sst"), 20)
    assert state(path, "blocks") is CORRUPT


# asking


def test_stopping(checkpoint_dir: str) -> None:
    """Told to stop, a check raises CancelledError at levels checksums and blocks."""
    stop = threading.Event()
    stop.set()
    for level in ("checksums", "blocks"):
        with pytest.raises(CancelledError, match="stopped"):
            check_completeness(checkpoint_dir, level=level, stop=stop)  # type: ignore[arg-type]


def test_an_unknown_level(checkpoint_dir: str) -> None:
    """A level that is none is refused with those there are."""
    with pytest.raises(InvalidArgumentError, match="expected one of files, checksums, blocks"):
        check_completeness(checkpoint_dir, level="all")  # type: ignore[arg-type]


def test_every_problem_is_listed(checkpoint_dir: str) -> None:
    """All problems are listed, the gravest first, and the reason is one line that says how many more there are."""
    sst = first_sst(checkpoint_dir)
    os.truncate(sst, sst.stat().st_size + 1)
    only(checkpoint_dir, ".blob").unlink()
    found = check(checkpoint_dir)
    assert found.state is CORRUPT
    assert len(found.problems) == 2
    assert found.problems[0].startswith(sst.name)
    assert found.reason == f"{found.problems[0]} (and 1 more)"


def test_errors_by_state(checkpoint_dir: str, tmp_path: Path) -> None:
    """Each state that is not complete has an error of its own, with directory and reason."""
    place, _ = move_to_memory(checkpoint_dir)
    with pytest.raises(CouldNotCheckError, match=r"could not check: .*ExpiredToken"):
        check_completeness(place, filesystem=ExpiredStorage()).raise_for_state()
    with pytest.raises(IncompleteError, match=f"{tmp_path}/missing: incomplete: "):
        check_completeness(str(tmp_path / "missing")).raise_for_state()
    Path(checkpoint_dir, "checkpoint.json").write_bytes(b"{\n}\n")
    with pytest.raises(CorruptionError, match=f"{checkpoint_dir}: corrupt: "):
        check_completeness(checkpoint_dir).raise_for_state()
