"""How files get into a checkpoint: by hard link, by reflink, by copy where that is allowed, and with enough space."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from airflow_provider_rocksdb.core import durable, live_checkpoint
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint
from airflow_provider_rocksdb.core.completeness import State, check_completeness
from airflow_provider_rocksdb.core.errors import CrossDeviceError, NoSpaceError
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.core.databases import NOBODY, build, build_stopped, count_keys, fingerprint, only, put, run_child

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and other users need root")


def kind_of_sst(checkpoint: Checkpoint) -> set[str]:
    return {file.kind for file in checkpoint.files if file.name.endswith(".sst")}


@needs_root
def test_another_file_system(db_dir: str, other_file_system: str) -> None:
    """Without leave to copy, a target on another file system is an error naming file, target and both devices."""
    target = f"{other_file_system}/checkpoint"
    sst = only(db_dir, ".sst")
    with pytest.raises(CrossDeviceError) as caught:
        create_live_checkpoint(DatabasePaths(db_dir), target)
    said = str(caught.value)
    for part in (str(sst), target, f"{os.stat(db_dir).st_dev:#x}", f"{os.stat(other_file_system).st_dev:#x}"):
        assert part in said
    assert "different file systems" in said
    assert "allow copies (allow_copy)" in said
    assert os.listdir(other_file_system) == []


@needs_root
def test_copies_to_another_file_system(db_dir: str, other_file_system: str) -> None:
    """With leave to copy, a target on another file system gets whole copies, counted in the record."""
    target = f"{other_file_system}/checkpoint"
    before = fingerprint(db_dir)
    made = create_live_checkpoint(DatabasePaths(db_dir), target, allow_copy=True)
    assert kind_of_sst(made) == {"copy"}
    assert made.copied_bytes == made.total_bytes
    assert count_keys(target) == {"default": 1500}
    assert fingerprint(db_dir) == before


@needs_root
def test_pinned_files_outlive_the_database(
    tmp_path: Path, other_file_system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is to be copied stays readable, and what is no longer live is not copied."""
    database = build(str(tmp_path / "db"))

    def on_step(name: str) -> None:
        if name == "pin WALs" and not removed:
            removed.append(only(database.path(), ".sst"))
            put(database, 0, 1600)
            database.flush()
            database.compact_range(None, None)
        if name == "end":
            put(database, 0, 1700)
            database.flush()
            database.compact_range(None, None)

    removed: list[Path] = []
    monkeypatch.setattr(live_checkpoint, "_step", on_step)
    target = f"{other_file_system}/checkpoint"
    made = create_live_checkpoint(DatabasePaths(database.path()), target, allow_copy=True)
    assert made.rounds == 2
    assert not removed[0].exists()
    assert not Path(target, removed[0].name).exists()
    assert count_keys(target) == {"default": 1600}
    database.close()


@needs_root
def test_too_little_space_is_told_before_copying(tmp_path: Path, tiny: str) -> None:
    """Copies that cannot fit are refused with the bytes needed and available, and leave nothing."""
    database = build(str(tmp_path / "db"))
    for number in range(1500, 1530):
        database[b"%06d" % number] = os.urandom(100_000)
    database.flush()
    database.close()
    with pytest.raises(
        NoSpaceError, match=r"\d{7} bytes are needed, \d+ are available; free \d+ bytes or name"
    ) as caught:
        create_live_checkpoint(DatabasePaths(str(tmp_path / "db")), f"{tiny}/checkpoint", allow_copy=True)
    assert caught.value.transient
    assert os.listdir(tiny) == []


@needs_root
@pytest.mark.parametrize("full_at", ["link files", "copy WALs", "end"])
def test_space_runs_out_on_the_way(db_dir: str, tiny: str, monkeypatch: pytest.MonkeyPatch, full_at: str) -> None:
    """When somebody else fills the file system after the check, NoSpaceError names a file, and nothing is left."""
    monkeypatch.setattr(durable, "require_space", lambda directory, needed_bytes: None)
    filler = Path(tiny, "filler")

    def on_step(name: str) -> None:
        if name == full_at:
            filler.write_bytes(bytes(shutil.disk_usage(tiny).free))

    monkeypatch.setattr(live_checkpoint, "_step", on_step)
    with pytest.raises(NoSpaceError, match=r"checkpoint\.tmp.*No space left on device"):
        create_live_checkpoint(DatabasePaths(db_dir), f"{tiny}/checkpoint", allow_copy=True)
    assert os.listdir(tiny) == ["filler"]


@needs_root
def test_who_may_not_link(public_path: Path) -> None:
    """Who may read but not link gets an error that names protected_hardlinks and the user, or copies where allowed."""
    if Path("/proc/sys/fs/protected_hardlinks").read_text() != "1\n":
        pytest.skip("fs.protected_hardlinks is off here")
    db_dir = build_stopped(str(public_path / "db"))
    subprocess.run(["chmod", "-R", "a+rX", db_dir], check=True)
    place = public_path / "place"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    code = """
made = create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"], allow_copy=arguments["copy"])
print({file.kind for file in made.files if file.name.endswith(".sst")})
"""
    refused = run_child(code, uid=NOBODY, db_dir=db_dir, target=f"{place}/checkpoint", copy=False)
    said = refused.stderr.splitlines()[-1]
    assert "CrossDeviceError" in said
    assert f"uid {NOBODY} may not link it: where fs.protected_hardlinks is 1" in said
    assert os.listdir(place) == []
    copied = run_child(code, uid=NOBODY, db_dir=db_dir, target=f"{place}/checkpoint", copy=True)
    assert (copied.stdout, copied.stderr) == ("{'copy'}\n", "")
    assert count_keys(f"{place}/checkpoint") == {"default": 1500}


def test_reflinks(reflinking: str, db_dir: str) -> None:
    """Where a link is not possible but blocks can be shared, files are cloned, without leave to copy."""
    shutil.copytree(db_dir, f"{reflinking}/db")
    subprocess.run(["chmod", "-R", "a+rX", f"{reflinking}/db"], check=True)
    os.mkdir(f"{reflinking}/place")
    os.chown(f"{reflinking}/place", NOBODY, NOBODY)
    code = """
made = create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"])
print({file.kind for file in made.files if file.name.endswith(".sst")}, made.copied_bytes < made.total_bytes)
"""
    Path(reflinking).chmod(0o755)
    done = run_child(code, uid=NOBODY, db_dir=f"{reflinking}/db", target=f"{reflinking}/place/checkpoint")
    assert (done.stdout, done.stderr) == ("{'reflink'} True\n", "")
    assert count_keys(f"{reflinking}/place/checkpoint") == {"default": 1500}


@needs_root
def test_more_files_than_descriptors(tmp_path: Path, other_file_system: str) -> None:
    """Files that wait to be copied raise the soft limit on open files; past the hard limit an error names it."""
    database = build(str(tmp_path / "db"), disable_auto_compactions=True, level_zero_slowdown_writes_trigger=1000)
    for number in range(1500, 1640):
        put(database, number, number + 1)
        database.flush()
    database.close()
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, arguments["hard"]))
made = create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"], allow_copy=True)
"""
    target = f"{other_file_system}/checkpoint"
    done = run_child(code, db_dir=str(tmp_path / "db"), target=target, hard=200)
    assert "the limit is 200 (RLIMIT_NOFILE)" in done.stderr.splitlines()[-1]
    assert os.listdir(other_file_system) == []
    done = run_child(code, db_dir=str(tmp_path / "db"), target=target, hard=4096)
    assert done.stderr == ""
    assert check_completeness(target).state is State.COMPLETE
