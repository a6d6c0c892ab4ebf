"""Where a checkpoint may be built, what may be replaced, and that it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Checkpoint as StockCheckpoint
from rocksdict import Rdict

from airflow_provider_rocksdb.core import live_checkpoint
from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint, read_checkpoint
from airflow_provider_rocksdb.core.completeness import State, check_completeness
from airflow_provider_rocksdb.core.errors import BusyError, ExistsError, InvalidArgumentError
from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.core.databases import DYING, ENDINGS, build, count_keys, fingerprint, options, put, run_child, start_child

UNFINISHED = ".checkpoint.json.unfinished"


def take(db_dir: str, target: str | Path, **arguments: bool) -> Checkpoint:
    return create_live_checkpoint(DatabasePaths(db_dir), str(target), **arguments)  # type: ignore[arg-type]


@pytest.fixture
def target(tmp_path: Path) -> str:
    return str(tmp_path / "checkpoint")


def grow(db_dir: str) -> None:
    """Write 100 more keys into a stopped database."""
    database = Rdict(db_dir, options())
    put(database, 1500, 1600)
    database.close()


def foreign_checkpoint(db_dir: str, path: str) -> str:
    """Let RocksDB itself checkpoint a copy of a stopped database."""
    shutil.copytree(db_dir, path + ".source")
    database = Rdict(path + ".source", options())
    StockCheckpoint(database).create_checkpoint(path)
    database.close()
    return path


# the place


def test_parents_are_created(db_dir: str, tmp_path: Path) -> None:
    """Missing parents of the checkpoint are created, the last of them for its owner alone."""
    take(db_dir, tmp_path / "a" / "b" / "checkpoint")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "checkpoint").stat().st_mode & 0o777 == 0o700


def test_relative_names(db_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative names of database and checkpoint work, and the record has the checkpoint's full name."""
    monkeypatch.chdir(tmp_path)
    assert take("db", "checkpoint/").checkpoint_dir == str(tmp_path / "checkpoint")
    assert check_completeness("checkpoint").state is State.COMPLETE


@pytest.mark.parametrize("where", ["itself", "parent", "root", "through a symbolic link"])
def test_never_over_the_database(db_dir: str, tmp_path: Path, where: str) -> None:
    """The database's directory and its parents are refused as the checkpoint's place, also by another name."""
    (tmp_path / "link").symlink_to(db_dir)
    place = {"itself": db_dir, "parent": str(tmp_path), "root": "/", "through a symbolic link": f"{tmp_path}/link"}
    before = fingerprint(db_dir)
    for allowed in (False, True):
        with pytest.raises(InvalidArgumentError, match=r"is the database's directory .*, or a parent of it"):
            take(db_dir, place[where], replace=True, force=True, allow_inside=allowed)
    assert fingerprint(db_dir) == before


def test_inside_the_database_only_when_asked(db_dir: str) -> None:
    """A place inside the database's directory is refused, unless it is allowed by name."""
    inside = os.path.join(db_dir, "checkpoints", "1")
    with pytest.raises(InvalidArgumentError, match=r"lies inside the database's directory .*allow_inside"):
        take(db_dir, inside)
    assert not os.path.lexists(os.path.dirname(inside))
    take(db_dir, inside, allow_inside=True)
    assert count_keys(inside) == {"default": 1500}


def test_inside_the_wal_dir(tmp_path: Path, target: str) -> None:
    """A place inside ``wal_dir``, known from OPTIONS alone, is refused like one inside the database's directory."""
    database = build(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal"))
    with pytest.raises(InvalidArgumentError, match=f"lies inside the database's directory {tmp_path}/wal"):
        take(str(tmp_path / "db"), tmp_path / "wal" / "checkpoint")
    database.close()


# what is there already


def test_a_taken_name(db_dir: str, target: str) -> None:
    """A name that is taken is ExistsError, and what is there stays: a checkpoint, a directory, a file, a dead link."""
    take(db_dir, target)
    before = fingerprint(target)
    for _ in range(4):
        with pytest.raises(ExistsError, match="is already there; delete it, name another place, or allow replace"):
            take(db_dir, target)
        if os.path.isdir(target) and not os.path.islink(target):
            assert fingerprint(target) == before
            shutil.rmtree(target)
            Path(target).touch()
        elif os.path.isfile(target):
            os.unlink(target)
            os.symlink("nowhere", target)
        assert os.path.lexists(target)
        before = fingerprint(target)


def test_replace(db_dir: str, target: str) -> None:
    """With ``replace`` an old checkpoint of ours gives way to the new one, and nothing else is left."""
    take(db_dir, target)
    grow(db_dir)
    assert take(db_dir, target, replace=True).sequence_number == 1600
    assert count_keys(target) == {"default": 1600}
    assert sorted(os.listdir(os.path.dirname(target))) == ["checkpoint", "db"]


def test_replacing_a_foreign_checkpoint_needs_force(db_dir: str, target: str) -> None:
    """A checkpoint that RocksDB made is replaced by force only."""
    foreign_checkpoint(db_dir, target)
    before = fingerprint(target)
    with pytest.raises(InvalidArgumentError, match="it was not made here"):
        take(db_dir, target, replace=True)
    assert fingerprint(target) == before
    take(db_dir, target, replace=True, force=True)
    assert read_checkpoint(target) is not None


def test_replacing_never_takes_a_database(db_dir: str, target: str) -> None:
    """A stopped database under the checkpoint's name is never replaced, nor one that is open."""
    shutil.copytree(db_dir, target)
    before = fingerprint(target)
    with pytest.raises(InvalidArgumentError, match="a program has used it as a database"):
        take(db_dir, target, replace=True, force=True)
    assert fingerprint(target) == before
    database = Rdict(target, options())
    with pytest.raises(BusyError, match=f"process {os.getpid()} has it open as a database"):
        take(db_dir, target, replace=True, force=True)
    database.close()


def test_a_failed_replacement_keeps_the_old(db_dir: str, target: str) -> None:
    """When the new checkpoint fails, the old one is as it was."""
    take(db_dir, target)
    before = fingerprint(target)
    Path(db_dir, "CURRENT").write_bytes(b"MANIFEST-1")
    with pytest.raises(ValueError, match="CURRENT"):
        take(db_dir, target, replace=True)
    assert fingerprint(target) == before
    assert sorted(os.listdir(os.path.dirname(target))) == ["checkpoint", "db"]


def test_taken_meanwhile(db_dir: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken while the checkpoint is built is ExistsError, and what appeared stays."""
    monkeypatch.setattr(live_checkpoint, "_step", lambda name: os.makedirs(target, exist_ok=True))
    with pytest.raises(ExistsError):
        take(db_dir, target)
    assert os.listdir(target) == []
    assert not os.path.lexists(target + ".tmp")


# what a dead run has left, and what another run is doing


def test_litter_is_cleared(db_dir: str, target: str) -> None:
    """Litter of a run that died, with or without files in it, is cleared by the next."""
    for content in ((), ("checkpoint.json",), ("checkpoint.json", "000011.sst", "db"), (UNFINISHED, "000011.sst")):
        os.mkdir(target + ".tmp")
        for name in content:
            Path(target + ".tmp", name).mkdir() if name == "db" else Path(target + ".tmp", name).touch()
        take(db_dir, target, replace=True)
        assert sorted(os.listdir(os.path.dirname(target))) == ["checkpoint", "db"]


@pytest.mark.parametrize("left", [b"", b'{"format": 1,\n"checkpoint_dir": "/', bytes(4096)])
def test_litter_of_a_power_cut(db_dir: str, target: str, left: bytes) -> None:
    """Marked as unfinished, a directory is litter whatever a power cut has left of its record."""
    take(db_dir, target + ".tmp")
    Path(target + ".tmp", UNFINISHED).touch()
    Path(target + ".tmp", "checkpoint.json").write_bytes(left)
    take(db_dir, target)
    assert sorted(os.listdir(os.path.dirname(target))) == ["checkpoint", "db"]


def test_on_disk_before_it_has_its_name(db_dir: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is there before anything else; names, then content, are on disk before the checkpoint has its own."""
    done: list[tuple[str, ...]] = []

    def noting(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*places: Any, **options: Any) -> None:
            path = os.readlink(f"/proc/self/fd/{places[0]}") if name == "fsync" else str(places[0])
            done.append((name, os.path.basename(path)))
            real(*places, **options)

        return call

    for name in ("fsync", "link", "rename", "unlink"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    monkeypatch.setattr(live_checkpoint, "_step", lambda name: done.append((name, *os.listdir(target + ".tmp"))))
    made = take(db_dir, target)
    assert done[0] == ("read MANIFEST", UNFINISHED)
    first, last = done.index(("fsync", "checkpoint.tmp")), done.index(("rename", "checkpoint.tmp"))
    assert max(number for number, (name, *_) in enumerate(done) if name == "link") < first
    written = {file.name for file in made.files if file.kind == "written"} | {"checkpoint.json"}
    assert sorted(done[first + 1 : last - 1]) == sorted(("fsync", name) for name in written)
    assert done[last - 1] == ("unlink", UNFINISHED)
    assert done[last + 1 :] == [("fsync", os.path.basename(os.path.dirname(target)))]


def test_a_mark_that_came_back(db_dir: str, target: str) -> None:
    """A checkpoint with a mark that a power cut has brought back is whole, and can be replaced and deleted."""
    take(db_dir, target)
    Path(target, UNFINISHED).touch()
    assert check_completeness(target).state is State.COMPLETE
    assert UNFINISHED not in {file.name for file in read_inventory(target).files}
    take(db_dir, target, replace=True)
    Path(target, UNFINISHED).touch()
    assert delete_checkpoint(target)
    assert os.listdir(os.path.dirname(target)) == ["db"]


@pytest.mark.parametrize("content", [("letter.txt",), ("CURRENT",), ("checkpoint.json", "LOCK"), (UNFINISHED, "LOCK")])
def test_a_foreign_temporary_directory(db_dir: str, target: str, content: tuple[str, ...]) -> None:
    """A ``.tmp`` directory that holds anything but litter of ours is an error, and stays."""
    os.mkdir(target + ".tmp")
    for name in content:
        Path(target + ".tmp", name).touch()
    with pytest.raises(ExistsError, match=r"\.tmp: is in the way, and is not what a run that died has left"):
        take(db_dir, target)
    assert sorted(os.listdir(target + ".tmp")) == sorted(content)


def test_a_temporary_directory_with_another_record(db_dir: str, target: str) -> None:
    """What is called like our record, and is none, does not make a directory litter of ours."""
    os.mkdir(target + ".tmp")
    Path(target + ".tmp", "checkpoint.json").write_text('{"model": "weights.bin"}')
    with pytest.raises(ExistsError, match=r"\.tmp: is in the way, and is not what a run that died has left"):
        take(db_dir, target)
    assert os.listdir(target + ".tmp") == ["checkpoint.json"]


def test_another_run_is_building(db_dir: str, target: str) -> None:
    """While another process builds the same checkpoint, BusyError says so, and does not disturb it."""
    code = """
def on_step(name):
    if name == "pin WALs":
        print(flush=True)
        sys.stdin.read()
live_checkpoint._step = on_step
create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"])
"""
    with start_child(code, db_dir=db_dir, target=target) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(BusyError, match=r"checkpoint\.tmp: locked, another run is building") as caught:
            take(db_dir, target)
        assert caught.value.transient
        with pytest.raises(BusyError):
            delete_checkpoint(target)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait() == 0
    assert check_completeness(target).state is State.COMPLETE


def test_the_replaced_checkpoint_is_no_litter_yet(db_dir: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a replaced checkpoint is being removed, no other run can take its directory for litter and build in it."""
    take(db_dir, target)
    seen = []
    real = os.unlink

    def unlink(path: str, **arguments: int) -> None:
        if str(path).startswith("0") and not seen:
            code = "create_live_checkpoint(DatabasePaths(arguments['db_dir']), arguments['target'], replace=True)"
            seen.append(run_child(code, db_dir=db_dir, target=target).stderr)
        real(path, **arguments)

    monkeypatch.setattr(os, "unlink", unlink)
    take(db_dir, target, replace=True)
    (error,) = seen
    assert "BusyError" in error
    assert check_completeness(target).state is State.COMPLETE
    assert sorted(os.listdir(os.path.dirname(target))) == ["checkpoint", "db"]


def test_many_runs_replace_the_same_checkpoint(db_dir: str, target: str) -> None:
    """Of processes that replace the same checkpoint at once each succeeds or is told; it is whole at every moment."""
    take(db_dir, target)
    code = """
made = 0
while made < 8:
    try:
        create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"], replace=True)
        made += 1
    except BusyError:
        time.sleep(0.001)
"""
    children = [start_child(code, db_dir=db_dir, target=target) for _ in range(3)]
    while any(child.poll() is None for child in children):
        found = check_completeness(target)
        assert found.state is State.COMPLETE, found.reason
    assert [child.wait() for child in children] == [0, 0, 0]
    assert sorted(os.listdir(os.path.dirname(target))) == ["checkpoint", "db"]


# killed


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["new", "replace", "replace a foreign one"])
def test_ended_at_any_moment(db_dir: str, target: str, kind: str, ending: str) -> None:
    """Ended before any change it makes, it leaves a whole checkpoint or none, and a retry ends as if nothing was."""
    if kind == "replace":
        take(db_dir, target + "-old")
    elif kind != "new":
        foreign_checkpoint(db_dir, target + "-old")
        shutil.rmtree(target + "-old.source")
    code = (
        DYING
        + """
db_dir, target, old = (arguments[name] for name in ("db_dir", "target", "old"))
options = dict(replace=old is not None, force=arguments["force"])
def take():
    create_live_checkpoint(DatabasePaths(db_dir), target, **options)
number = 0
while True:
    if old is not None:
        shutil.copytree(old, target)
    died = dies(take, number, arguments["ending"])
    if old is not None or os.path.lexists(target):
        found = check_completeness(target)
        assert found.state == "complete", (number, found)
    elif died:
        assert dies(take, number // 2)
    if old is not None or not os.path.lexists(target):
        take()
    found = check_completeness(target, level="checksums")
    assert (found.state, found.wals) == ("complete", "checkpoint.json"), (number, found)
    names = sorted(os.listdir(os.path.dirname(target)))
    assert not os.path.lexists(target + ".tmp"), number
    shutil.rmtree(target)
    if not died:
        break
    number += 1
print(number)
"""
    )
    before = fingerprint(db_dir)
    old = None if kind == "new" else target + "-old"
    done = run_child(code, db_dir=db_dir, target=target, old=old, force=kind.endswith("foreign one"), ending=ending)
    assert done.stderr == ""
    assert int(done.stdout) > 10
    assert fingerprint(db_dir) == before


def test_killed_at_each_step(db_dir: str, target: str) -> None:
    """Killed at any of its named steps it leaves no checkpoint, and a retry succeeds and leaves no litter."""
    code = """
for wanted in ("read MANIFEST", "link files", "pin WALs", "check MANIFEST", "copy WALs", "end"):
    pid = os.fork()
    if not pid:
        live_checkpoint._step = lambda name: die() if name == wanted else None
        create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"])
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), wanted
    assert not os.path.lexists(arguments["target"]), wanted
    assert os.path.isdir(arguments["target"] + ".tmp"), wanted
    create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"])
    assert sorted(os.listdir(os.path.dirname(arguments["target"]))) == ["checkpoint", "db"], wanted
    assert delete_checkpoint(arguments["target"])
"""
    done = run_child(code, db_dir=db_dir, target=target)
    assert (done.returncode, done.stderr) == (0, "")
