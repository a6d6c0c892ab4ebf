"""The record of a checkpoint, and which directories may be deleted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Checkpoint as StockCheckpoint
from rocksdict import Rdict

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.checkpoint import check_deletable, delete_checkpoint, require_checkpoint_here
from airflow_provider_rocksdb.core.checkpoint_record import (
    Checkpoint,
    CheckpointFile,
    decode_checkpoint,
    is_unchanged,
    read_checkpoint,
    same_run,
)
from airflow_provider_rocksdb.core.errors import (
    AccessError,
    BusyError,
    CorruptionError,
    ExistsError,
    InvalidArgumentError,
    NotFoundError,
)
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.core.databases import DYING, ENDINGS, NOBODY, build, fingerprint, options, run_child, start_child

RECORD = Checkpoint(
    checkpoint_dir="/data/db.checkpoints/1",
    mode="live",
    source={"db_dir": "/data/db"},
    db_id="an id",
    sequence_number=17,
    manifest="MANIFEST-000005",
    files=(CheckpointFile("000011.sst", 100, "link"), CheckpointFile("000012.log", 10, "written")),
    wals=(12,),
    damage=("000012.log: damaged",),
    options_changes={"wal_dir": "/data/wal"},
    rounds=2,
    seconds=0.5,
    run={"dag_id": "backup"},
)


@pytest.fixture
def checkpoint_dir(db_dir: str, tmp_path: Path) -> str:
    """Make a checkpoint of ours."""
    path = str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), path)
    return path


def stock_checkpoint(tmp_path: Path) -> str:
    """Let RocksDB itself make a checkpoint."""
    database = build(str(tmp_path / "stock"))
    path = str(tmp_path / "foreign")
    StockCheckpoint(database).create_checkpoint(path)
    database.close()
    return path


def test_record_round_trip() -> None:
    """A record written as JSON and read again is the same record."""
    assert decode_checkpoint(RECORD.to_json(), "here") == RECORD


def test_summary_is_small_json() -> None:
    """The summary counts files and bytes, is JSON, and lists no file."""
    summary = json.loads(json.dumps(RECORD.summary()))
    assert summary["file_count"] == 2
    assert summary["total_bytes"] == 110
    assert summary["copied_bytes"] == 10
    assert summary["kinds"] == {"link": 1, "written": 1}
    assert "files" not in summary


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(RECORD.to_json()), **values}).encode()


HOSTILE = {
    "not JSON": b"\x00\xff",
    "cut": RECORD.to_json()[:50],
    "a list": b"[]",
    "a number": b"1",
    "nothing in it": b"{}",
    "deep": b"[" * 100_000,
    "another format": changed(format=2),
    "an unknown field": changed(unknown=1),
    "a parent as file": changed(files=[{"name": "..", "size": 1, "kind": "link"}]),
    "a path as file": changed(files=[{"name": "../../etc/passwd", "size": 1, "kind": "link"}]),
    "a NUL in a name": changed(files=[{"name": "a\0b", "size": 1, "kind": "link"}]),
    "half a surrogate": changed(files=[{"name": "\ud800", "size": 1, "kind": "link"}]),
    "a negative size": changed(files=[{"name": "a", "size": -1, "kind": "link"}]),
    "a size that is text": changed(files=[{"name": "a", "size": "1", "kind": "link"}]),
    "files that are a dict": changed(files={"name": "a"}),
    "an infinite WAL": changed(wals=[float("inf")]),
    "a WAL that is text": changed(wals=["12"]),
    "WALs that are none": changed(wals=None),
    "a manifest that is a number": changed(manifest=5),
    "a manifest that is a path": changed(manifest="../MANIFEST-000005"),
    "a sequence number that is a float": changed(sequence_number=1.5),
    "a db id that is a list": changed(db_id=["x"]),
    "a source that is text": changed(source="/data/db"),
    "a run that is a list": changed(run=[]),
    "a host that is a number": changed(hostname=1),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_record(data: bytes, db_dir: str, tmp_path: Path) -> None:
    """A record that is none raises CorruptionError naming its file, and its directory is never deleted."""
    Path(db_dir, "checkpoint.json").write_bytes(data)
    with pytest.raises(CorruptionError, match=r"db/checkpoint\.json: not a record of a checkpoint"):
        read_checkpoint(db_dir)
    os.unlink(Path(db_dir, "LOCK"))
    before = fingerprint(db_dir)
    with pytest.raises(CorruptionError):
        delete_checkpoint(db_dir, force=True)
    assert fingerprint(db_dir) == before


@pytest.mark.parametrize("cut", range(0, len(RECORD.to_json()) - 2, 7))
def test_record_cut_anywhere(cut: int) -> None:
    """A record cut at any byte is told as corruption, never read as another record."""
    with pytest.raises(CorruptionError):
        decode_checkpoint(RECORD.to_json()[:cut], "here")


def test_no_record(tmp_path: Path) -> None:
    """A missing directory, a file, a directory without record and one with an empty record have no record."""
    (tmp_path / "file").touch()
    assert read_checkpoint(str(tmp_path / "missing")) is None
    assert read_checkpoint(str(tmp_path / "file")) is None
    assert read_checkpoint(str(tmp_path)) is None
    (tmp_path / "checkpoint.json").touch()
    assert read_checkpoint(str(tmp_path)) is None


def test_delete_is_idempotent(checkpoint_dir: str, db_dir: str) -> None:
    """Deleting a checkpoint removes it, leaves the database as it was, and deleting it again is no error."""
    before = fingerprint(db_dir)
    assert delete_checkpoint(checkpoint_dir) is True
    assert not os.path.lexists(checkpoint_dir)
    assert not os.path.lexists(checkpoint_dir + ".tmp")
    assert delete_checkpoint(checkpoint_dir) is False
    assert fingerprint(db_dir) == before


@pytest.mark.parametrize("force", [False, True])
def test_a_stopped_database_is_never_deleted(db_dir: str, force: bool) -> None:
    """A database whose program is stopped is refused, by force too, and stays as it was."""
    before = fingerprint(db_dir)
    with pytest.raises(InvalidArgumentError, match="a LOCK: a program has used it as a database"):
        delete_checkpoint(db_dir, force=force)
    assert fingerprint(db_dir) == before


@pytest.mark.parametrize("force", [False, True])
def test_an_opened_checkpoint_is_never_deleted(checkpoint_dir: str, force: bool) -> None:
    """A checkpoint that a program has opened as its database since is refused, by force too."""
    database = Rdict(checkpoint_dir, options())
    before = fingerprint(checkpoint_dir)
    with pytest.raises(BusyError, match=f"process {os.getpid()} has it open"):
        delete_checkpoint(checkpoint_dir, force=force)
    assert fingerprint(checkpoint_dir) == before
    database.close()
    with pytest.raises(InvalidArgumentError, match="and a LOCK: a program has used it"):
        delete_checkpoint(checkpoint_dir, force=force)
    assert read_checkpoint(checkpoint_dir) is not None


def test_a_foreign_checkpoint_needs_force(tmp_path: Path) -> None:
    """A checkpoint that RocksDB made is refused without force, and deleted with it."""
    path = stock_checkpoint(tmp_path)
    before = fingerprint(path)
    with pytest.raises(InvalidArgumentError, match=r"no checkpoint\.json: it was not made here"):
        delete_checkpoint(path)
    assert fingerprint(path) == before
    assert delete_checkpoint(path, force=True) is True
    assert not os.path.lexists(path)


def test_force_needs_a_checkpoint(tmp_path: Path) -> None:
    """A directory of other files is refused by force, too."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidArgumentError, match="it is not a checkpoint at all"):
        delete_checkpoint(str(tmp_path / "letters"), force=True)
    assert (tmp_path / "letters" / "letter.txt").read_text() == "dear"


def test_root_home_and_working_directory_are_never_deleted(
    checkpoint_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root, a home, the working directory and its parents are refused, even where a record of ours lies."""
    with pytest.raises(InvalidArgumentError, match="the root, a home or the working directory"):
        check_deletable("/", force=True)
    monkeypatch.setenv("HOME", checkpoint_dir)
    with pytest.raises(InvalidArgumentError, match="the root, a home or the working directory"):
        check_deletable(checkpoint_dir, force=True)
    monkeypatch.setenv("HOME", "/nonexistent")
    check_deletable(checkpoint_dir)
    monkeypatch.chdir(checkpoint_dir)
    for path in (checkpoint_dir, ".", os.path.dirname(checkpoint_dir)):
        with pytest.raises(InvalidArgumentError, match="the root, a home or the working directory"):
            check_deletable(path, force=True)


def test_only_a_flat_directory_is_deleted(checkpoint_dir: str, tmp_path: Path) -> None:
    """A symbolic link to a checkpoint, a file, and a checkpoint with a subdirectory are refused."""
    link = tmp_path / "link"
    link.symlink_to(checkpoint_dir)
    (tmp_path / "file").touch()
    for path in (link, tmp_path / "file"):
        with pytest.raises(InvalidArgumentError, match="it is not a directory"):
            delete_checkpoint(str(path), force=True)
    Path(checkpoint_dir, "more").mkdir()
    with pytest.raises(InvalidArgumentError, match="it has subdirectories"):
        delete_checkpoint(checkpoint_dir, force=True)
    assert link.is_symlink()
    assert read_checkpoint(checkpoint_dir) is not None


def test_delete_clears_what_a_dead_run_left(checkpoint_dir: str) -> None:
    """Deleting removes the litter of a run that died, with or without a checkpoint beside it."""
    for _ in range(2):
        litter = Path(checkpoint_dir + ".tmp")
        litter.mkdir()
        (litter / "checkpoint.json").touch()
        (litter / "000011.sst").touch()
        assert delete_checkpoint(checkpoint_dir) is True
        assert not litter.exists()
        assert not os.path.lexists(checkpoint_dir)


def test_delete_refuses_a_foreign_temporary_directory(checkpoint_dir: str) -> None:
    """A ``.tmp`` directory that is not litter of ours stops a delete, and nothing is touched."""
    foreign = Path(checkpoint_dir + ".tmp")
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    for force, error in ((False, ExistsError), (True, InvalidArgumentError)):
        with pytest.raises(error, match=r"\.tmp: is "):
            delete_checkpoint(checkpoint_dir, force=force)
    assert (foreign / "letter.txt").read_text() == "dear"
    assert read_checkpoint(checkpoint_dir) is not None


@pytest.mark.parametrize("suffix", ["", ".tmp"])
def test_delete_waits_for_no_lock(checkpoint_dir: str, suffix: str) -> None:
    """While another process builds, replaces or deletes a checkpoint, a delete raises BusyError and changes nothing."""
    os.makedirs(checkpoint_dir + suffix, exist_ok=True)
    code = "descriptor = durable.lock_directory(arguments['path']); print(flush=True); sys.stdin.read()"
    with start_child(code, path=checkpoint_dir + suffix) as child:
        assert child.stdout is not None
        child.stdout.readline()
        before = fingerprint(checkpoint_dir)
        with pytest.raises(BusyError, match="another run is building, replacing or deleting it"):
            delete_checkpoint(checkpoint_dir)
        assert fingerprint(checkpoint_dir) == before
        child.kill()
    assert delete_checkpoint(checkpoint_dir) is True


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["ours", "foreign"])
def test_an_ended_delete_is_finished_by_a_retry(checkpoint_dir: str, tmp_path: Path, kind: str, ending: str) -> None:
    """Ended before any of its steps, a delete leaves what a second one, killed at one, and a third finish."""
    source = checkpoint_dir if kind == "ours" else stock_checkpoint(tmp_path)
    code = (
        DYING
        + """
template, path, force = arguments["template"], arguments["path"], arguments["force"]
number = 0
while True:
    shutil.copytree(template, path)
    died = dies(lambda: delete_checkpoint(path, force=force), number, arguments["ending"])
    dies(lambda: delete_checkpoint(path, force=force), number // 2)
    delete_checkpoint(path, force=force)
    assert not os.path.lexists(path) and not os.path.lexists(path + ".tmp"), number
    if not died:
        break
    number += 1
print(number)
"""
    )
    done = run_child(code, template=source, path=str(tmp_path / "doomed"), force=kind == "foreign", ending=ending)
    assert done.stderr == ""
    assert int(done.stdout) > 8


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user needs root")
def test_delete_without_the_right_to(public_path: Path, db_dir: str) -> None:
    """A user who may not delete gets AccessError naming path and user."""
    path = str(public_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), path, allow_copy=True)
    subprocess.run(["chmod", "-R", "a+rX", path], check=True)
    done = run_child("delete_checkpoint(arguments['path'])", uid=NOBODY, path=path)
    assert AccessError.__name__ in done.stderr.splitlines()[-1]
    assert f"(as uid {NOBODY})" in done.stderr
    assert read_checkpoint(path) is not None


def test_is_unchanged_until_it_is_opened(checkpoint_dir: str) -> None:
    """A checkpoint is unchanged until its CURRENT or MANIFEST is another."""
    record = read_checkpoint(checkpoint_dir)
    assert record is not None
    assert is_unchanged(checkpoint_dir, record)
    Path(checkpoint_dir, "CURRENT").write_text("MANIFEST-000099\n")
    assert not is_unchanged(checkpoint_dir, record)


def test_same_run(db_dir: str, tmp_path: Path) -> None:
    """A checkpoint belongs to the run in its record and to no other, nor to a run without names."""
    path = str(tmp_path / "checkpoint")
    run = {"dag_id": "backup", "run_id": "1"}
    create_live_checkpoint(DatabasePaths(db_dir), path, run=run)
    assert same_run(path, run)
    assert not same_run(path, {**run, "run_id": "2"})
    assert not same_run(path, {})
    assert not same_run(str(tmp_path / "missing"), run)
    Path(path, "checkpoint.json").write_bytes(b"{")
    assert not same_run(path, run)


def test_checkpoint_of_another_host(tmp_path: Path) -> None:
    """A checkpoint that cannot be seen here is told with both hosts' names and what to do."""
    require_checkpoint_here(str(tmp_path), "elsewhere")
    with pytest.raises(NotFoundError, match=r"made on host elsewhere, and is not visible on host .*same worker"):
        require_checkpoint_here(str(tmp_path / "missing"), "elsewhere")
    with pytest.raises(NotFoundError, match="no such directory on host"):
        require_checkpoint_here(str(tmp_path / "missing"))


def test_litter_is_a_directory(db_dir: str, tmp_path: Path) -> None:
    """A file or a symbolic link under the temporary name is told, and stays."""
    temporary = tmp_path / "checkpoint.tmp"
    temporary.touch()
    with pytest.raises(ExistsError, match=r"checkpoint\.tmp: is in the way, and is not a directory"):
        create_live_checkpoint(DatabasePaths(db_dir), str(tmp_path / "checkpoint"))
    temporary.unlink()
    shutil.copytree(db_dir, tmp_path / "elsewhere")
    temporary.symlink_to("elsewhere")
    with pytest.raises(ExistsError, match=r"checkpoint\.tmp: is in the way, and is not a directory"):
        delete_checkpoint(str(tmp_path / "checkpoint"))
    assert temporary.is_symlink()
    assert durable.lock_owner(str(tmp_path / "elsewhere" / "LOCK")) is None
