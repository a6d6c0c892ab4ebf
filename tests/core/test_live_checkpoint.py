"""The live checkpoint: what it holds, of which databases, and that the database does not feel it."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import BlockBasedOptions, Options, Rdict, SstFileWriter
from rocksdict import Checkpoint as StockCheckpoint

from airflow_provider_rocksdb.core import live_checkpoint
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint, read_checkpoint
from airflow_provider_rocksdb.core.completeness import State, check_completeness
from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    CheckpointTimeoutError,
    CorruptionError,
    InvalidArgumentError,
    NotADatabaseError,
    NotFoundError,
    NotSupportedError,
)
from airflow_provider_rocksdb.core.format.filename import newest_options
from airflow_provider_rocksdb.core.format.log_format import rewrite_records
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.progress import format_bytes
from tests.core.databases import (
    build,
    build_configured,
    build_stopped,
    build_two_paths,
    build_two_wals,
    count_keys,
    edit_options,
    fingerprint,
    flip,
    list_keys,
    manifest_name,
    names,
    only,
    options,
    put,
    read_version,
    run_child,
    stop,
    writer,
)
from tests.programs import find_program, run_ldb

STEPS = ("read MANIFEST", "link files", "pin WALs", "check MANIFEST", "copy WALs", "end")


@pytest.fixture
def target(tmp_path: Path) -> str:
    return str(tmp_path / "checkpoint")


def take(db_dir: str, target: str, **arguments: Any) -> Checkpoint:
    """Create a checkpoint, and check what must hold for each: nothing beside it, and whole by every checksum."""
    made = create_live_checkpoint(DatabasePaths(db_dir), target, **arguments)
    assert not os.path.lexists(target + ".tmp")
    assert read_checkpoint(target) == made
    assert {file.name: file.size for file in made.files} == {
        name: os.path.getsize(os.path.join(target, name)) for name in os.listdir(target) if name != "checkpoint.json"
    }
    if not made.damage:
        found = check_completeness(target, level="checksums")
        assert (found.state, found.wals) == (State.COMPLETE, "checkpoint.json"), found
        assert (found.db_id, found.sequence_number) == (made.db_id, made.sequence_number)
    return made


def at_step(monkeypatch: pytest.MonkeyPatch, step: str, act: Callable[[int], None], times: int = 1) -> None:
    """Do something between two steps of the checkpoint, the first few times it comes by; ``act`` gets the number."""
    seen = [0]

    def on_step(name: str) -> None:
        if name == step and seen[0] < times:
            seen[0] += 1
            act(seen[0])

    monkeypatch.setattr(live_checkpoint, "_step", on_step)


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Every checkpoint taken while a process writes holds all keys acknowledged before it began, without a hole."""
    db_dir = str(tmp_path / "db")
    with writer(db_dir) as acknowledged:
        for number in range(10):
            before = acknowledged()
            made = take(db_dir, str(tmp_path / f"checkpoint-{number}"))
            count = count_keys(made.checkpoint_dir)["default"]
            assert before <= count
            assert made.sequence_number == count


@pytest.mark.parametrize("running", [True, False])
def test_the_database_is_as_it_was(tmp_path: Path, target: str, running: bool) -> None:
    """Listing, contents, modes, owners and mtimes of all the database's directories are the same afterwards."""
    database = build(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal"))
    if not running:
        database.close()
    before = fingerprint(tmp_path / "db", tmp_path / "wal")
    take(str(tmp_path / "db"), target)
    assert fingerprint(tmp_path / "db", tmp_path / "wal") == before
    if running:
        database.close()


def test_a_stopped_database(db_dir: str, target: str, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint of a stopped database links what RocksDB never changes and copies the rest, and logs that."""
    caplog.set_level(logging.INFO)
    made = take(db_dir, target)
    assert count_keys(target) == {"default": 1500}
    assert made.sequence_number == 1500
    linked = {*names(db_dir, ".sst"), "IDENTITY", newest_options(os.listdir(db_dir))}
    assert {file.name for file in made.files if file.kind == "link"} == linked
    assert {file.kind for file in made.files} == {"link", "written"}
    for name in (file.name for file in made.files):
        assert os.path.samefile(f"{db_dir}/{name}", f"{target}/{name}") == (name in linked)
    sizes = f"{format_bytes(made.total_bytes)}, of which {format_bytes(made.copied_bytes)} are copies"
    assert f"Checkpoint {target}: {made.file_count} files, {sizes}" in caplog.text
    assert made.db_id == Path(db_dir, "IDENTITY").read_text()
    for name in ("IDENTITY", "rocksdict-config.json"):
        assert Path(target, name).read_bytes() == Path(db_dir, name).read_bytes()


def test_rocksdb_links_options(tmp_path: Path, target: str) -> None:
    """RocksDB's own checkpoint links OPTIONS, too: what has that name is replaced, never changed."""
    database = build(str(tmp_path / "db"))
    StockCheckpoint(database).create_checkpoint(target)
    name = newest_options(os.listdir(tmp_path / "db"))
    assert os.path.samefile(f"{tmp_path}/db/{name}", f"{target}/{name}")
    database.close()


def test_options_that_have_gone(db_dir: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OPTIONS file that is deleted after it was read is written into the checkpoint as it was."""
    source = Path(db_dir, newest_options(os.listdir(db_dir)) or "")
    content = source.read_bytes()
    monkeypatch.setattr(live_checkpoint, "_step", lambda name: source.unlink() if name == "end" else None)
    made = take(db_dir, target)
    assert Path(target, source.name).read_bytes() == content
    assert {file.kind for file in made.files if file.name == source.name} == {"written"}


def test_a_database_without_the_small_files(db_dir: str, target: str) -> None:
    """A database without IDENTITY, OPTIONS and rocksdict's file gives a checkpoint without them, which opens."""
    for name in os.listdir(db_dir):
        if name.startswith(("IDENTITY", "OPTIONS", "rocksdict", "LOG")):
            os.unlink(Path(db_dir, name))
    made = take(db_dir, target)
    assert not [name for name in os.listdir(target) if name.startswith(("IDENTITY", "OPTIONS", "rocksdict"))]
    assert made.db_id
    assert count_keys(target) == {"default": 1500}


def test_an_empty_database(tmp_path: Path, target: str) -> None:
    """A database that nobody has written to yet gives a checkpoint that opens with no key."""
    database = Rdict(str(tmp_path / "db"), options())
    assert take(str(tmp_path / "db"), target).sequence_number == 0
    assert count_keys(target) == {"default": 0}
    database.close()


def flush(database: Rdict) -> None:
    database.flush()


def compact(database: Rdict) -> None:
    database.flush()
    database.compact_range(None, None)


def add_family(database: Rdict) -> None:
    family = database.create_column_family("added", options())
    put(family, 0, 10)


def drop_family(database: Rdict) -> None:
    database.drop_column_family("old")


def ingest(database: Rdict) -> None:
    path = database.path() + ".ingested"
    sst = SstFileWriter(options())
    sst.open(path)
    sst[b"002000"] = b"ingested"
    sst.finish()
    family = database.get_column_family("old")
    family.ingest_external_file([path])


@pytest.mark.parametrize("event", [flush, compact, add_family, drop_family, ingest], ids=lambda event: event.__name__)
@pytest.mark.parametrize("step", STEPS)
def test_the_database_moves_on_between_two_steps(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch, step: str, event: Callable[[Rdict], None]
) -> None:
    """Whatever the database does between two steps, the checkpoint has every key written before it, without a hole."""
    db_dir = str(tmp_path / "db")
    database = build(db_dir)
    database.create_column_family("old", options())

    def act(_: int) -> None:
        put(database, 1500, 1600)
        event(database)
        put(database, 1600, 1700)

    at_step(monkeypatch, step, act)
    made = take(db_dir, target)
    main, families = Options.load_latest(target)
    copy = Rdict(target, main, families)
    assert list_keys(copy) in [list(range(count)) for count in (1500, 1600, 1700)]
    copy.close()
    if made.rounds == 1:
        assert step in ("read MANIFEST", "copy WALs", "end")
    database.close()


def test_giving_up_says_how_often_and_what_to_do(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database whose MANIFEST grows in every round ends in an error that counts the rounds; nothing is left."""
    database = build(str(tmp_path / "db"))

    def act(number: int) -> None:
        put(database, 1500 + number, 1501 + number)
        database.flush()

    at_step(monkeypatch, "pin WALs", act, times=10**6)
    with pytest.raises(
        CheckpointTimeoutError,
        match=r"moved on \d+ times in 0\.3 s, last because .*(has grown|is missing); allow more",
    ) as caught:
        create_live_checkpoint(DatabasePaths(str(tmp_path / "db")), target, timeout_seconds=0.3)
    assert caught.value.transient
    assert sorted(os.listdir(tmp_path)) == ["db"]
    database.close()


@pytest.mark.parametrize("step", ["before", *STEPS[:-1]])
def test_stopping_leaves_nothing(db_dir: str, target: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Told to stop before or at any step, it raises CancelledError and leaves nothing."""
    event = threading.Event()
    if step == "before":
        event.set()
    at_step(monkeypatch, step, lambda _: event.set())
    before = fingerprint(db_dir)
    with pytest.raises(CancelledError, match="nothing is left"):
        create_live_checkpoint(DatabasePaths(db_dir), target, stop=event)
    assert os.listdir(os.path.dirname(target)) == ["db"]
    assert fingerprint(db_dir) == before


# where the files are


def test_wal_dir_from_options(tmp_path: Path, target: str) -> None:
    """WALs in a ``wal_dir`` that OPTIONS names are found, and the checkpoint's OPTIONS no longer names it."""
    wal_dir = str(tmp_path / "wal")
    database = build(str(tmp_path / "db"), wal_dir=wal_dir, db_log_dir=str(tmp_path / "log"))
    made = take(str(tmp_path / "db"), target)
    database.close()
    assert count_keys(target) == {"default": 1500}
    assert made.options_changes == {"wal_dir": wal_dir, "db_log_dir": str(tmp_path / "log")}
    assert made.source["wal_dir"] == wal_dir
    text = only_options(target)
    assert "\n  wal_dir=\n" in text
    assert "\n  db_log_dir=\n" in text
    assert wal_dir in only_options(str(tmp_path / "db"))


def only_options(directory: str) -> str:
    (name,) = [name for name in os.listdir(directory) if name.startswith("OPTIONS-")]
    return Path(directory, name).read_text()


def test_wal_dir_that_has_moved(tmp_path: Path, target: str) -> None:
    """A ``wal_dir`` that is not where OPTIONS says is an error naming it; named by the caller, its WALs are taken."""
    db_dir = build_stopped(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal"))
    os.rename(tmp_path / "wal", tmp_path / "moved")
    with pytest.raises(NotFoundError, match=rf"its wal_dir {tmp_path}/wal \(from OPTIONS-\d+\) is not there"):
        take(db_dir, target)
    create_live_checkpoint(DatabasePaths(db_dir, wal_dir=str(tmp_path / "moved")), target)
    # the process "died" when its directory was copied, and its wal_dir went on: all keys are in SST files or WAL
    assert check_completeness(target, level="checksums").state is State.COMPLETE


def test_wal_dir_of_a_stock_checkpoint(tmp_path: Path, target: str) -> None:
    """The OPTIONS of RocksDB's own checkpoint name the running database's ``wal_dir``: its WALs are not taken."""
    os.mkdir(tmp_path / "wal")
    database = build(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal"))
    StockCheckpoint(database).create_checkpoint(str(tmp_path / "stock"))
    put(database, 1500, 1600)
    database.flush()
    put(database, 1600, 1700)
    made = create_live_checkpoint(DatabasePaths(str(tmp_path / "stock")), target)
    database.close()
    assert made.sequence_number == 1500
    assert count_keys(target) == {"default": 1500}


def test_wal_dir_of_a_directory_never_opened(tmp_path: Path, target: str) -> None:
    """Without LOCK and WALs nobody knows whether the WALs in ``wal_dir`` are its own: the caller must say it."""
    os.mkdir(tmp_path / "wal")
    db_dir = build_stopped(str(tmp_path / "db"), wal_dir=str(tmp_path / "wal"))
    os.unlink(f"{db_dir}/LOCK")
    with pytest.raises(
        InvalidArgumentError, match=rf"was never opened, and OPTIONS-\d+ names the wal_dir {tmp_path}/wal"
    ):
        create_live_checkpoint(DatabasePaths(db_dir), target)
    assert create_live_checkpoint(DatabasePaths(db_dir, wal_dir=db_dir), target).wals == ()


def test_wal_dir_of_a_directory_that_was_moved(db_dir: str, target: str) -> None:
    """Before RocksDB 6.23 OPTIONS names the directory itself: moved, or mounted elsewhere, its WALs lie in it."""
    edit_options(db_dir, wal_dir="/data/of/another/container")
    assert create_live_checkpoint(DatabasePaths(db_dir), target).sequence_number == 1500
    assert check_completeness(db_dir).state == "complete"


def test_wal_dir_without_wals(db_dir: str, target: str, tmp_path: Path) -> None:
    """A database that was opened has a WAL: where none is, the ``wal_dir`` is wrong, and nothing is lost in silence."""
    os.mkdir(tmp_path / "wal")
    with pytest.raises(
        CorruptionError, match=rf"no WAL from 000008\.log on is in {tmp_path}/wal.*wal_dir are not the ones"
    ):
        create_live_checkpoint(DatabasePaths(db_dir, wal_dir=str(tmp_path / "wal")), target)
    assert not os.path.exists(target)


def test_wal_dir_that_is_another_database(tmp_path: Path, target: str) -> None:
    """Before RocksDB 6.23 OPTIONS names the directory itself: in a copied one that is the original's, not its own."""
    original = build(str(tmp_path / "db"))
    copy = shutil.copytree(tmp_path / "db", tmp_path / "copy")
    edit_options(str(copy), wal_dir=str(tmp_path / "db"))
    put(original, 1500, 1600)
    made = create_live_checkpoint(DatabasePaths(str(copy)), target)
    original.close()
    assert made.sequence_number == 1500
    assert check_completeness(str(copy)).state == "complete"


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST", "OPTIONS", "IDENTITY", ".log", ".sst"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "device"])
def test_not_a_regular_file(db_dir: str, target: str, name: str, kind: str) -> None:
    """A FIFO, device, socket or directory under a file's name is damage at once; nobody waits, or reads for ever."""
    (file,) = (entry for entry in os.listdir(db_dir) if name in entry)
    path = os.path.join(db_dir, file)
    os.unlink(path)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            os.mkdir(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
        case "device":
            os.symlink("/dev/zero", path)
    with pytest.raises(CorruptionError, match=r"expected a regular file|expected [0-9]+ bytes"):
        create_live_checkpoint(DatabasePaths(db_dir), target)
    assert not os.path.exists(target)
    assert check_completeness(db_dir).state == ("complete" if name in ("OPTIONS", "IDENTITY") else "incomplete")


def test_small_files_have_a_limit(db_dir: str, target: str) -> None:
    """A CURRENT of any size takes no such memory."""
    os.truncate(f"{db_dir}/CURRENT", 1 << 40)
    with pytest.raises(CorruptionError, match="CURRENT: expected at most 268435456 bytes, got 1099511627776"):
        create_live_checkpoint(DatabasePaths(db_dir), target)


def test_record_names_directories_in_full(db_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means the same place as its full name: a repository knows a database by it."""
    monkeypatch.chdir(tmp_path)
    relative = os.path.relpath(db_dir)
    made = create_live_checkpoint(
        DatabasePaths(relative + "/", relative, (relative,), {"a": (relative,)}), "checkpoint"
    )
    full = os.path.abspath(db_dir)
    assert made.source == {"db_dir": full, "wal_dir": full, "db_paths": [full], "cf_paths": {"a": [full]}}


def test_relative_wal_dir(db_dir: str, target: str) -> None:
    """A relative ``wal_dir`` in OPTIONS cannot be found from here: an error asks for its full name."""
    edit_options(db_dir, wal_dir="wal")
    with pytest.raises(InvalidArgumentError, match="names the relative wal_dir 'wal'; name it in full"):
        take(db_dir, target)


def test_opening_the_checkpoint_leaves_the_owner_alone(tmp_path: Path, target: str) -> None:
    """Opened read-write with its own OPTIONS, the checkpoint touches no directory of the running owner."""
    paths = [str(tmp_path / name) for name in ("db", "wal", "log")]
    db_dir, wal_dir, log_dir = paths
    os.mkdir(log_dir)
    database = build(db_dir, wal_dir=wal_dir, db_log_dir=log_dir)
    take(db_dir, target)
    before = fingerprint(*paths)
    main, families = Options.load_latest(target)
    copy = Rdict(target, main, families)
    put(copy, 1500, 3000)
    copy.flush()
    copy.compact_range(None, None)
    put(copy, 3000, 3100)
    copy.close()
    assert fingerprint(*paths) == before
    put(database, 1500, 1700)
    shutil.copytree(db_dir, tmp_path / "crashed" / "db")
    shutil.copytree(wal_dir, tmp_path / "crashed" / "wal")
    database.close()
    crashed = Rdict(str(tmp_path / "crashed" / "db"), options(wal_dir=str(tmp_path / "crashed" / "wal")))
    assert list_keys(crashed) == list(range(1700))
    crashed.close()


def test_two_paths_must_be_named(tmp_path: Path, target: str) -> None:
    """An SST file with a path id that nobody has named a directory for is an error that says what to name."""
    database = build_two_paths(str(tmp_path))
    with pytest.raises(InvalidArgumentError, match="has path id 1, and 1 directories are known; name the database's"):
        create_live_checkpoint(DatabasePaths(str(tmp_path / "db")), target)
    assert not os.path.lexists(target)
    database.close()


def test_two_paths_make_a_flat_checkpoint(tmp_path: Path, target: str) -> None:
    """With its paths named, the checkpoint is flat, opens anywhere without them, and stock ldb finds it consistent."""
    database = build_two_paths(str(tmp_path))
    places = (str(tmp_path / "fast"), str(tmp_path / "slow"))
    before = fingerprint(tmp_path / "db", *places)
    create_live_checkpoint(DatabasePaths(str(tmp_path / "db"), db_paths=places), target)
    assert fingerprint(tmp_path / "db", *places) == before
    assert {table.path_id for table in read_version(target).column_families[0].tables.values()} == {0}
    assert check_completeness(target, level="blocks").state is State.COMPLETE
    assert count_keys(target) == {"default": 4100}
    database.close()
    assert run_ldb(f"--db={target}", "checkconsistency") == "OK\n"


def test_a_family_with_its_own_paths(tmp_path: Path, target: str) -> None:
    """``cf_paths`` of one family are used for that family alone."""
    database = build_two_paths(str(tmp_path))
    places = (str(tmp_path / "fast"), str(tmp_path / "slow"))
    paths = DatabasePaths(str(tmp_path / "db"), cf_paths={"default": places})
    create_live_checkpoint(paths, target)
    assert count_keys(target) == {"default": 4100}
    database.close()


# what databases are made of


def test_archive(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WAL that moves into the archive between two steps is found there, also when others are there already."""
    database = build(str(tmp_path / "db"), wal_ttl_seconds=3600)

    def act(number: int) -> None:
        put(database, 1400 + 100 * number, 1500 + 100 * number)
        database.flush()

    act(1)
    assert names(str(tmp_path / "db" / "archive"), ".log")
    at_step(monkeypatch, "pin WALs", act, times=3)
    take(str(tmp_path / "db"), target)
    assert count_keys(target)["default"] >= 1500
    database.close()


def test_a_needed_wal_lies_in_the_archive(tmp_path: Path, target: str) -> None:
    """A WAL that the Version needs is copied from the archive."""
    db_dir = build_stopped(str(tmp_path / "db"))
    wal = only(db_dir, ".log")
    os.mkdir(f"{db_dir}/archive")
    wal.rename(Path(db_dir, "archive", wal.name))
    take(db_dir, target)
    assert count_keys(target) == {"default": 1500}


def test_recycled_wals(tmp_path: Path, target: str) -> None:
    """Of a recycled WAL only the new log's records are in the checkpoint, which opens strictly."""
    database = build(str(tmp_path / "db"), recycle_log_file_num=2)
    for number in range(6):
        put(database, 1500 + 200 * number, 1700 + 200 * number)
        database.flush()
        put(database, 1700 + 200 * number, 1701 + 200 * number)
    made = take(str(tmp_path / "db"), target)
    (number,) = made.wals
    name = f"{number:06d}.log"
    assert Path(target, name).stat().st_size < (tmp_path / "db" / name).stat().st_size
    assert count_keys(target) == {"default": 2701}
    database.close()


def test_a_wal_recycled_while_it_is_copied(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WAL whose file is reused for another log just before it is copied asks for another round."""
    database = build(str(tmp_path / "db"), recycle_log_file_num=2)
    database.flush()
    put(database, 1500, 1600)

    def act(_: int) -> None:
        for number in range(4):
            put(database, 1600 + 100 * number, 1700 + 100 * number)
            database.flush()

    at_step(monkeypatch, "copy WALs", act)
    made = take(str(tmp_path / "db"), target)
    assert made.rounds > 1
    assert count_keys(target) == {"default": 2000}
    database.close()


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_recycled_wal_that_is_not_closed_yet(tmp_path: Path, target: str, is_whole: bool) -> None:
    """An earlier log's bytes behind an inner WAL's records are cut, but not where a record of its own may be missing.

    RocksDB begins the next WAL before it cuts them off; ``kAbsoluteConsistency`` takes them for a torn end.
    """
    families = build_two_wals(str(tmp_path / "building"), recycle_log_file_num=2)
    db_dir = stop(families[0], str(tmp_path / "db"))
    inner, newest = (Path(db_dir, name) for name in names(db_dir, ".log"))
    records = inner.read_bytes()
    left = newest.read_bytes()[20:3000]  # half a record of another log first
    inner.write_bytes((records if is_whole else records[:-30]) + left)
    with pytest.raises(Exception, match="Corruption"):
        count_keys(db_dir)
    take(db_dir, target)
    if is_whole:
        assert Path(target, inner.name).read_bytes() == records
        assert count_keys(target) == {"default": 1000, "a": 1000, "b": 1000, "flushed": 1}
    else:
        assert Path(target, inner.name).read_bytes() == inner.read_bytes()


def test_a_recycled_wal_that_holds_nothing_yet(tmp_path: Path, target: str) -> None:
    """The newest WAL that still holds an earlier log's records only is empty in the copy."""
    families = build_two_wals(str(tmp_path / "building"), recycle_log_file_num=2)
    db_dir = stop(families[0], str(tmp_path / "db"))
    newest = Path(db_dir, names(db_dir, ".log")[-1])
    shutil.copy(newest, Path(db_dir, "000099.log"))
    made = take(db_dir, target)
    assert Path(target, "000099.log").stat().st_size == 0
    assert Path(target, newest.name).read_bytes() == newest.read_bytes()
    assert made.damage == ()
    assert count_keys(target) == {"default": 1000, "a": 1000, "b": 1000, "flushed": 1}


@pytest.mark.parametrize("suffix", [".sst", ".log", "MANIFEST", "CURRENT"])
def test_symbolic_links(db_dir: str, target: str, tmp_path: Path, suffix: str) -> None:
    """Where a file of the database is a symbolic link, the checkpoint has the file that it leads to."""
    name = (
        manifest_name(db_dir) if suffix == "MANIFEST" else suffix if suffix == "CURRENT" else only(db_dir, suffix).name
    )
    (tmp_path / "elsewhere").mkdir()
    os.rename(Path(db_dir, name), tmp_path / "elsewhere" / name)
    Path(db_dir, name).symlink_to(tmp_path / "elsewhere" / name)
    before = fingerprint(db_dir, tmp_path / "elsewhere")
    take(db_dir, target)
    assert not Path(target, name).is_symlink()
    assert fingerprint(db_dir, tmp_path / "elsewhere") == before
    shutil.rmtree(tmp_path / "elsewhere")
    assert count_keys(target) == {"default": 1500}


def test_leveldb_names(db_dir: str, target: str) -> None:
    """An SST file that is called ``.ldb`` on disk keeps that name."""
    sst = only(db_dir, ".sst")
    sst.rename(sst.with_suffix(".ldb"))
    take(db_dir, target)
    assert names(target, ".ldb") == [sst.with_suffix(".ldb").name]
    assert count_keys(target) == {"default": 1500}


def test_column_families(tmp_path: Path, target: str) -> None:
    """All column families are there with their WAL-written keys, and opened with the checkpoint's own OPTIONS."""
    families = build_two_wals(str(tmp_path / "db"))
    made = take(str(tmp_path / "db"), target)
    assert len(made.wals) == 2
    expected = {"default": 1000, "a": 1000, "b": 1000, "flushed": 1}
    assert count_keys(target) == expected
    assert count_keys(target, own_options=True) == expected
    families[0].close()


def test_options_without_a_family(tmp_path: Path, target: str) -> None:
    """OPTIONS that lacks a family, as between its creation and the next OPTIONS file, gets a section for it."""
    families = build_two_wals(str(tmp_path / "building"))
    db_dir = stop(families[0], str(tmp_path / "db"))
    newest = max(Path(db_dir).glob("OPTIONS-*"))
    head, _, _ = newest.read_text().partition('[CFOptions "b"]')
    newest.write_text(head)
    made = take(db_dir, target)
    assert made.options_changes == {"added_column_families": ["b", "flushed"]}
    assert count_keys(target, own_options=True)["b"] == 1000


def test_options_with_a_dropped_family(tmp_path: Path, target: str) -> None:
    """OPTIONS that still names a dropped family loses its sections, so that the checkpoint opens with it."""
    families = build_two_wals(str(tmp_path / "db"))
    newest = max((tmp_path / "db").glob("OPTIONS-*"))
    stale = newest.read_bytes()
    families[0].drop_column_family("a")
    max((tmp_path / "db").glob("OPTIONS-*")).write_bytes(stale)
    made = take(str(tmp_path / "db"), target)
    assert made.options_changes == {"removed_column_families": ["a"]}
    assert count_keys(target, own_options=True) == {"default": 1000, "b": 1000, "flushed": 1}
    families[0].close()


def test_direct_blob_writes_are_refused(db_dir: str, target: str) -> None:
    """With ``enable_blob_direct_write`` in OPTIONS no copy of the files is whole: refused, with the reason."""
    newest = max(Path(db_dir).glob("OPTIONS-*"))
    text = newest.read_text()
    newest.write_text(text.replace("\n  enable_blob_files=false", "\n  enable_blob_direct_write=true"))
    with pytest.raises(NotSupportedError, match="enable_blob_direct_write is on"):
        take(db_dir, target)


def test_blob_files(tmp_path: Path, target: str) -> None:
    """Blob files are linked like SST files, and their values are there."""
    database = build(str(tmp_path / "db"), enable_blob_files=True, min_blob_size=10)
    made = take(str(tmp_path / "db"), target)
    (blob,) = names(target, ".blob")
    assert {file.kind for file in made.files if file.name == blob} == {"link"}
    assert check_completeness(target, level="blocks").state is State.COMPLETE
    copy = Rdict(target, options())
    assert copy[b"000017"] == b"value-000017" * 4
    copy.close()
    database.close()


def test_blob_garbage(tmp_path: Path, target: str) -> None:
    """Blob files that died by garbage collection, without a MANIFEST record, are not asked for."""
    database = build(
        str(tmp_path / "db"),
        enable_blob_files=True,
        min_blob_size=10,
        enable_blob_gc=True,
        blob_gc_age_cutoff=1.0,
        disable_auto_compactions=True,
    )
    for _ in range(3):
        put(database, 0, 1500)
        database.flush()
    database.compact_range(None, None)
    assert len(names(str(tmp_path / "db"), ".blob")) == 1
    take(str(tmp_path / "db"), target)
    assert count_keys(target) == {"default": 1500}
    database.close()


def test_family_names_that_are_not_text(tmp_path: Path, target: str) -> None:
    """A column family whose name is not UTF-8 keeps its bytes in MANIFEST and OPTIONS, and stock ldb reads it."""
    block = BlockBasedOptions()
    block.set_format_version(5)
    made = options(block_based_table_factory=block)
    database = Rdict(str(tmp_path / "building"), made)
    family = database.create_column_family("odd-ZZ", made)
    put(family, 0, 10)
    db_dir = stop(database, str(tmp_path / "db"))
    manifest = Path(db_dir, manifest_name(db_dir))
    data = rewrite_records(manifest.read_bytes(), "", lambda record: record.replace(b"odd-ZZ", b"odd-\xff\xfe"))
    manifest.write_bytes(data)
    for path in Path(db_dir).glob("OPTIONS-*"):
        path.write_bytes(path.read_bytes().replace(b"odd-ZZ", b"odd-\xff\xfe"))
    made = take(db_dir, target)
    assert made.options_changes == {}
    command = [
        find_program("ldb").encode(),
        b"--db=" + target.encode(),
        b"--column_family=odd-\xff\xfe",
        b"--ignore_unknown_options",
        b"scan",
    ]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.count(b"\n") == 10


def test_tracked_wals(tmp_path: Path, target: str) -> None:
    """With WALs tracked in the MANIFEST, all tracked ones are there, whole, and RocksDB's own check accepts them."""
    database = build_configured(str(tmp_path / "db"), track_and_verify_wals_in_manifest="true")
    families = [database.create_column_family(name, options()) for name in ("a", "b")]
    put(families[0], 0, 500)
    put(families[1], 0, 1)
    families[1].flush()
    put(families[0], 500, 1000)
    version = read_version(str(tmp_path / "db"))
    assert version.wals
    made = take(str(tmp_path / "db"), target)
    assert set(version.wals) <= set(made.wals)
    assert count_keys(target, own_options=True) == {"default": 1500, "a": 1000, "b": 1}
    database.close()


def test_a_tracked_wal_is_missing(tmp_path: Path, target: str) -> None:
    """A WAL that the MANIFEST tracks and that is gone while the database stands still is told as damage."""
    database = build_configured(str(tmp_path / "building"), track_and_verify_wals_in_manifest="true")
    families = [database.create_column_family(name, options()) for name in ("a", "b")]
    put(families[0], 0, 500)
    put(families[1], 0, 1)
    families[1].flush()
    db_dir = stop(database, str(tmp_path / "db"))
    (number,) = read_version(db_dir).wals
    os.unlink(Path(db_dir, f"{number:06d}.log"))
    with pytest.raises(CorruptionError, match=rf"the WALs \[{number}\], which the MANIFEST tracks, are missing"):
        take(db_dir, target)


# damage in the WALs: copied and told; ends: cut


def test_a_torn_wal_is_cut(db_dir: str, target: str) -> None:
    """Half a record at the newest WAL's end is cut from the copy, which then opens under kAbsoluteConsistency."""
    wal = only(db_dir, ".log")
    os.truncate(wal, wal.stat().st_size - 5)
    with pytest.raises(Exception, match="Corruption"):
        count_keys(db_dir)
    made = take(db_dir, target)
    assert made.damage == ()
    assert count_keys(target) == {"default": 1499}


@pytest.mark.parametrize("cut", [0, 1, 6, 7, 20, 5000, -7, -1])
def test_a_wal_cut_anywhere_opens(db_dir: str, target: str, cut: int) -> None:
    """Wherever the newest WAL ends, the checkpoint opens strictly with the keys before that place."""
    wal = only(db_dir, ".log")
    size = wal.stat().st_size
    os.truncate(wal, cut if cut >= 0 else size + cut)
    take(db_dir, target)
    assert 1000 <= count_keys(target)["default"] < 1500


def test_preallocated_zeros_are_cut(db_dir: str, target: str) -> None:
    """Zeros that were preallocated behind the newest WAL's records are not in the copy."""
    wal = only(db_dir, ".log")
    size = wal.stat().st_size
    os.truncate(wal, size + 100_000)
    take(db_dir, target)
    assert Path(target, wal.name).stat().st_size == size
    assert count_keys(target) == {"default": 1500}


def test_damage_in_the_newest_wal(db_dir: str, target: str, caplog: pytest.LogCaptureFixture) -> None:
    """Damage in the middle of the newest WAL is copied byte for byte, logged, recorded, and then told as corrupt."""
    wal = only(db_dir, ".log")
    flip(wal, wal.stat().st_size // 2)
    made = take(db_dir, target)
    assert Path(target, wal.name).read_bytes() == wal.read_bytes()
    (damage,) = made.damage
    assert damage.startswith(f"{wal.name}: damaged at offset ")
    assert damage in caplog.text
    found = check_completeness(target)
    assert found.state is State.CORRUPT
    assert found.reason == f"already damaged in the source: {damage}"


@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_damage_in_an_inner_wal(tmp_path: Path, target: str, harm: str) -> None:
    """A flipped byte, or a missing end, of a WAL that is not the newest is copied as it is and recorded."""
    families = build_two_wals(str(tmp_path / "building"))
    db_dir = stop(families[0], str(tmp_path / "db"))
    inner = Path(db_dir, names(db_dir, ".log")[0])
    if harm == "flip":
        flip(inner, inner.stat().st_size // 2)
    else:
        os.truncate(inner, inner.stat().st_size - 5)
    made = take(db_dir, target)
    assert Path(target, inner.name).read_bytes() == inner.read_bytes()
    assert [item.partition(":")[0] for item in made.damage] == [inner.name]
    assert check_completeness(target).state is State.CORRUPT


# no database, or a damaged one


def test_no_directory(tmp_path: Path, target: str) -> None:
    """A directory that is not there is NotFoundError."""
    with pytest.raises(NotFoundError, match=f"{tmp_path}/missing: no such directory"):
        take(str(tmp_path / "missing"), target)


def test_no_database(tmp_path: Path, target: str) -> None:
    """A file, an empty directory and a directory of other files are NotADatabaseError, each saying what is there."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").touch()
    for name, said in (("file", "is a file"), ("empty", "is empty"), ("letters", "1 entries, but no CURRENT")):
        with pytest.raises(NotADatabaseError, match=f"{name}: .*{said}"):
            take(str(tmp_path / name), target)
    assert not os.path.lexists(target + ".tmp")


@pytest.mark.parametrize(
    "content", [b"", b"MANIFEST-000005", b"MANIFEST-000005\r\n", b"MANIFEST-000005\n\n", b"../x\n"]
)
def test_current_that_rocksdb_refuses(db_dir: str, target: str, content: bytes) -> None:
    """A CURRENT without its newline, with CRLF, or that names no MANIFEST is refused, never mended."""
    Path(db_dir, "CURRENT").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"db/CURRENT: expected 'MANIFEST-<number>' and a newline, got"):
        take(db_dir, target)
    assert os.listdir(os.path.dirname(target)) == ["db"]


def test_current_points_nowhere(db_dir: str, target: str) -> None:
    """A CURRENT whose MANIFEST is missing while nothing moves is told as damage, long before the time limit."""
    Path(db_dir, "CURRENT").write_bytes(b"MANIFEST-000999\n")
    with pytest.raises(CorruptionError, match="CURRENT names MANIFEST-000999, which is not there, and the"):
        take(db_dir, target)
    assert os.listdir(os.path.dirname(target)) == ["db"]


@pytest.mark.parametrize("where", ["beginning", "middle", "last record"])
def test_manifest_with_a_flipped_byte(db_dir: str, target: str, where: str) -> None:
    """One flipped bit anywhere in the MANIFEST, its last record too, is damage with file and offset, never cut away."""
    manifest = Path(db_dir, manifest_name(db_dir))
    flip(manifest, {"beginning": 9, "middle": manifest.stat().st_size // 2, "last record": -3}[where])
    with pytest.raises(CorruptionError, match=rf"{manifest.name}: damaged at offset \d+: .*CRC32C expected"):
        take(db_dir, target)


def test_manifest_with_half_a_record(db_dir: str, target: str) -> None:
    """Half a record at the MANIFEST's end, as of an edit being written, is left out."""
    manifest = Path(db_dir, manifest_name(db_dir))
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + whole[:20])
    take(db_dir, target)
    assert Path(target, manifest.name).read_bytes() == whole
    assert count_keys(target) == {"default": 1500}


def test_empty_manifest(db_dir: str, target: str) -> None:
    """A MANIFEST without a single record is told as damage."""
    Path(db_dir, manifest_name(db_dir)).write_bytes(b"")
    with pytest.raises(CorruptionError, match="holds no whole record"):
        take(db_dir, target)


def test_sst_is_missing(db_dir: str, target: str) -> None:
    """A live SST file that is missing while the MANIFEST stands still is told as damage, long before the time limit."""
    sst = only(db_dir, ".sst")
    sst.unlink()
    with pytest.raises(CorruptionError, match=f"{sst} is missing, and the MANIFEST stands still"):
        take(db_dir, target)
    assert os.listdir(os.path.dirname(target)) == ["db"]


@pytest.mark.parametrize("change", [-1, 1])
def test_sst_has_another_size(db_dir: str, target: str, change: int) -> None:
    """A live SST file that is shorter or longer than the MANIFEST says is damage, with both sizes."""
    sst = only(db_dir, ".sst")
    size = sst.stat().st_size
    os.truncate(sst, size + change)
    with pytest.raises(
        CorruptionError, match=rf"{sst}: damaged: expected {size} bytes \(MANIFEST\), got {size + change}"
    ):
        take(db_dir, target)


# what others may read


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user needs root")
def test_as_another_user(public_path: Path) -> None:
    """A user with no right to write in the database takes a checkpoint of it, and it stays as it was."""
    db_dir = str(public_path / "db")
    database = build(db_dir)
    subprocess.run(["chmod", "-R", "a+rX", db_dir], check=True)
    place = public_path / "place"
    place.mkdir()
    os.chown(place, 65534, 65534)
    before = fingerprint(db_dir)
    code = """
made = create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"], allow_copy=True)
try:
    open(arguments["db_dir"] + "/x", "w")
except PermissionError:
    print(made.sequence_number)
"""
    done = run_child(code, uid=65534, db_dir=db_dir, target=str(place / "checkpoint"))
    assert (done.stdout, done.stderr) == ("1500\n", "")
    assert fingerprint(db_dir) == before
    assert count_keys(str(place / "checkpoint")) == {"default": 1500}
    database.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user needs root")
@pytest.mark.parametrize("closed", [".", "CURRENT", "MANIFEST", "OPTIONS", ".sst", ".log"])
def test_without_the_right_to_read(public_path: Path, closed: str) -> None:
    """A user who may not read the directory, or any one file of it, gets AccessError naming it and the user."""
    db_dir = build_stopped(str(public_path / "db"))
    subprocess.run(["chmod", "-R", "a+rX", db_dir], check=True)
    name = next((name for name in sorted(os.listdir(db_dir)) if closed != "." and closed in name), ".")
    os.chmod(Path(db_dir, name), 0o700)
    place = public_path / "place"
    place.mkdir()
    os.chown(place, 65534, 65534)
    code = 'create_live_checkpoint(DatabasePaths(arguments["db_dir"]), arguments["target"], allow_copy=True)'
    done = run_child(code, uid=65534, db_dir=db_dir, target=str(place / "checkpoint"))
    said = done.stderr.splitlines()[-1]
    assert said.startswith("airflow_provider_rocksdb.core.errors.AccessError: ")
    assert (name if closed != "." else db_dir) in said
    assert "(as uid 65534)" in said
    assert os.listdir(place) == []
