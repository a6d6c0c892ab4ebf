"""Mode "exclusive": the checkpoint of a stopped database, by RocksDB itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

from airflow_provider_rocksdb.core import database as database_module
from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint
from airflow_provider_rocksdb.core.checkpoint_record import read_checkpoint
from airflow_provider_rocksdb.core.completeness import State, check_completeness
from airflow_provider_rocksdb.core.database import create_exclusive_checkpoint
from airflow_provider_rocksdb.core.errors import (
    BusyError,
    ExistsError,
    InvalidArgumentError,
    NotADatabaseError,
    NotFoundError,
    NotSupportedError,
    RocksDBError,
)
from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.core.databases import (
    build,
    build_stopped,
    build_two_paths,
    build_two_wals,
    count_keys,
    names,
    options,
    put,
    run_child,
    stop,
)

HOLDER = "import sys; from rocksdict import Rdict; d = Rdict(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
CONFIG = "rocksdict-config.json"


@pytest.fixture
def target(tmp_path: Path) -> str:
    return str(tmp_path / "checkpoint")


def take(db_dir: str, target: str, **arguments: Any) -> Any:
    """Create a checkpoint, and check what must hold for each."""
    made = create_exclusive_checkpoint(DatabasePaths(db_dir), target, **arguments)
    assert not os.path.lexists(target + ".tmp")
    assert read_checkpoint(target) == made
    assert made.mode == "exclusive"
    assert {file.name: file.size for file in made.files} == {
        name: os.path.getsize(os.path.join(target, name)) for name in os.listdir(target) if name != "checkpoint.json"
    }
    assert not any(os.path.getsize(os.path.join(target, name)) for name in names(target, ".log"))
    found = check_completeness(target, level="blocks")
    assert (found.state, found.wals) == (State.COMPLETE, "checkpoint.json"), found
    return made


def test_a_stopped_database(db_dir: str, target: str) -> None:
    """A stopped database's WAL is flushed into SST files, and the checkpoint holds every key and no WAL content."""
    made = take(db_dir, target)
    assert count_keys(target) == {"default": 1500}
    assert count_keys(db_dir) == {"default": 1500}
    assert made.sequence_number == 1500
    assert made.db_id == Path(db_dir, "IDENTITY").read_text()
    assert {file.kind for file in made.files if file.name.endswith(".sst")} == {"link"}
    assert read_inventory(target).checkpoint == made
    assert delete_checkpoint(target) is True


def test_column_families(tmp_path: Path, target: str) -> None:
    """All column families of a stopped database are in the checkpoint, which opens with its own OPTIONS."""
    families = build_two_wals(str(tmp_path / "building"))
    db_dir = stop(families[0], str(tmp_path / "db"))
    take(db_dir, target)
    expected = {"default": 1000, "a": 1000, "b": 1000, "flushed": 1}
    assert count_keys(target) == expected
    assert count_keys(target, own_options=True) == expected


def test_a_wal_dir(tmp_path: Path, target: str) -> None:
    """WALs in a ``wal_dir`` that OPTIONS names are replayed, and the checkpoint's OPTIONS no longer names it."""
    build(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal")).close()
    made = take(str(tmp_path / "db"), target)
    assert made.options_changes["wal_dir"] == str(tmp_path / "wal")
    (file,) = Path(target).glob("OPTIONS-*")
    assert "\n  wal_dir=\n" in file.read_text()
    assert count_keys(target, own_options=True) == {"default": 1500}


def test_wals_in_a_wal_dir_are_replayed(tmp_path: Path, target: str) -> None:
    """What a program that died has left in its ``wal_dir`` is in the checkpoint."""
    code = """
from rocksdict import Options, Rdict
options = Options(raw_mode=True)
options.set_wal_dir(arguments["path"] + "-wal")
database = Rdict(arguments["path"], options)
for number in range(100):
    database[b"%06d" % number] = b"value"
die()
"""
    run_child(code, path=str(tmp_path / "db"))
    assert take(str(tmp_path / "db"), target).sequence_number == 100
    assert count_keys(target) == {"default": 100}


@pytest.mark.parametrize("content", [b'{"raw_mode":false,"prefix_extractors":{}}', b'{"raw_mode": true }', None])
def test_the_config_of_rocksdict_stays(tmp_path: Path, target: str, content: bytes | None) -> None:
    """Rocksdict's own file in the database is byte for byte as before, and absent when it was absent."""
    path = str(tmp_path / "db")
    if content and b"false" in content:
        database = Rdict(path)
        database["key"] = 1
        database.close()
    else:
        build(path).close()
    config = Path(path, CONFIG)
    config.unlink()
    if content is not None:
        config.write_bytes(content)
    create_exclusive_checkpoint(DatabasePaths(path), target)
    assert (config.read_bytes() if config.exists() else None) == content
    copied = Path(target, CONFIG)
    assert (copied.read_bytes() if copied.exists() else None) == content


def test_somebody_has_it_open(db_dir: str, target: str) -> None:
    """A database that another process has open is BusyError with its pid, and points at mode live."""
    before = Path(db_dir, CONFIG).read_bytes()
    command = [sys.executable, "-c", HOLDER, db_dir]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(BusyError, match=rf"process {child.pid} has it open \(LOCK\).*mode 'live'"):
            take(db_dir, target)
        child.kill()
    assert Path(db_dir, CONFIG).read_bytes() == before
    assert not os.path.lexists(target)
    assert not os.path.lexists(target + ".tmp")
    take(db_dir, target)


def test_the_callers_own_database(tmp_path: Path, target: str) -> None:
    """A database that the caller has open is used as it is, flushed, and stays open."""
    opened = build(str(tmp_path / "db"))
    with pytest.raises(BusyError, match=f"process {os.getpid()} has it open"):
        take(str(tmp_path / "db"), target)
    made = take(str(tmp_path / "db"), target, database=opened)
    assert made.sequence_number == 1500
    assert count_keys(target) == {"default": 1500}
    put(opened, 1500, 1600)
    opened.close()


def test_the_callers_database_is_another_one(tmp_path: Path, target: str, db_dir: str) -> None:
    """An open database that is not the one named is refused: the record would name the wrong source."""
    other = build(str(tmp_path / "other"))
    with pytest.raises(InvalidArgumentError, match=r"is open on another directory, .*/other"):
        create_exclusive_checkpoint(DatabasePaths(db_dir), target, database=other)
    other.close()


def test_a_closed_database(tmp_path: Path, target: str) -> None:
    """A database that the caller has closed is an error of this package."""
    closed = build(str(tmp_path / "db"))
    closed.close()
    with pytest.raises(RocksDBError, match="closed"):
        create_exclusive_checkpoint(DatabasePaths(str(tmp_path / "db")), target, database=closed)
    assert sorted(os.listdir(tmp_path)) == ["db"]


def test_places_are_those_of_mode_live(db_dir: str, target: str, tmp_path: Path) -> None:
    """Taken names, unsafe places, replacing and missing databases are judged as in mode live."""
    with pytest.raises(InvalidArgumentError, match="lies inside the database's directory"):
        take(db_dir, f"{db_dir}/checkpoint")
    take(db_dir, target)
    with pytest.raises(ExistsError, match="is already there"):
        take(db_dir, target)
    database = Rdict(db_dir, options())
    put(database, 1500, 1600)
    database.close()
    take(db_dir, target, replace=True, run={"dag_id": "backup"})
    assert count_keys(target) == {"default": 1600}
    with pytest.raises(NotFoundError, match="no such directory"):
        take(str(tmp_path / "missing"), target + "-2")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotADatabaseError, match="is empty"):
        take(str(tmp_path / "empty"), target + "-2")
    assert os.listdir(tmp_path / "empty") == []


def test_what_rocksdict_cannot_open(tmp_path: Path, target: str) -> None:
    """A database that rocksdict cannot open, or RocksDB not checkpoint, points at mode live and leaves nothing."""
    build_two_paths(str(tmp_path)).close()
    places = (str(tmp_path / "fast"), str(tmp_path / "slow"))
    with pytest.raises(NotSupportedError, match="mode 'live'"):
        create_exclusive_checkpoint(DatabasePaths(str(tmp_path / "db"), db_paths=places), target)
    assert not os.path.lexists(target)
    assert not os.path.lexists(target + ".tmp")
    path = str(tmp_path / "own")
    database = Rdict(path)
    database["key"] = 1
    database.close()
    Path(path, CONFIG).unlink()
    with pytest.raises(NotSupportedError, match=r"rocksdict cannot open it: .*omparator.*use mode 'live'"):
        take(path, target)
    assert not Path(path, CONFIG).exists()


def test_litter_of_a_killed_run(db_dir: str, target: str) -> None:
    """Killed before, while and after RocksDB makes its checkpoint, it leaves what a retry clears."""
    code = """
import airflow_provider_rocksdb.core.database as database
real = {name: getattr(database, name) for name in ("_create_checkpoint", "_adopt", "_describe")}
for name in real:
    pid = os.fork()
    if not pid:
        setattr(database, name, lambda *arguments: (real[name](*arguments), die()))
        database.create_exclusive_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"])
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), name
    assert not os.path.lexists(arguments["target"]), name
    pid = os.fork()
    if not pid:
        database.create_exclusive_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"])
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, name
    assert sorted(os.listdir(os.path.dirname(arguments["target"]))) == ["checkpoint", "db"], name
    delete_checkpoint(arguments["target"])
"""
    done = run_child(code, db_dir=db_dir, target=target)
    assert (done.returncode, done.stderr) == (0, "")


def test_blob_files(tmp_path: Path, target: str) -> None:
    """Blob files are in the checkpoint."""
    db_dir = build_stopped(str(tmp_path / "db"), enable_blob_files=True, min_blob_size=10)
    take(db_dir, target)
    assert names(target, ".blob")
    assert count_keys(target) == {"default": 1500}


def test_reading_blocks_of_a_scratch_directory(db_dir: str) -> None:
    """The reader of blocks, run as a program, answers with one line of JSON."""
    command, request = [sys.executable, "-m", database_module.__name__, db_dir], {"sequence_number": 0, "ranges": {}}
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == '{"state": "complete", "reason": ""}'
    main, _ = Options.load_latest(db_dir)
    assert main is not None
