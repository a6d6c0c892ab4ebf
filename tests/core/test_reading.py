"""Reading records of checkpoints and backups: real databases, of many programs, and what cannot be read."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from rocksdict import AccessType, Options, Rdict, SliceTransform

from airflow_provider_rocksdb.core import reading
from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint
from airflow_provider_rocksdb.core.completeness import State, check_completeness
from airflow_provider_rocksdb.core.errors import (
    BusyError,
    CorruptionError,
    CouldNotCheckError,
    IncompleteError,
    InvalidArgumentError,
    NotFoundError,
    NotSupportedError,
)
from airflow_provider_rocksdb.core.format.log_format import rewrite_records
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.reading import DatabaseReader, open_backup, open_checkpoint
from tests.core.databases import (
    ROOT,
    build_merged,
    build_stopped,
    edit_options,
    fingerprint,
    flip,
    manifest_name,
    only,
    options,
    put,
    replace_content,
    start_child,
    stop,
    wait_until,
    writer,
)
from tests.core.repositories import aimrocks, take

GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have temporary files in a place of the test's own, in which nothing may be left."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def records(reader: DatabaseReader, *arguments: Any, **settings: Any) -> list[Any]:
    return [record for batch in reader.iter_batches(*arguments, **settings) for record in batch]


def read(directory: str | Path, *arguments: Any, **settings: Any) -> list[Any]:
    with open_checkpoint(str(directory)) as reader:
        return records(reader, *arguments, **settings)


def value(number: int) -> bytes:
    return b"value-%06d" % number * 4


def test_everything(db_dir: str, scratch: Path) -> None:
    """Every record comes, of SST files and of the WAL, in order; nothing is written in the directory, nothing left."""
    before = fingerprint(db_dir)
    with open_checkpoint(db_dir) as reader:
        assert records(reader) == [(b"%06d" % number, value(number)) for number in range(1500)]
        assert (reader.column_families, reader.sequence_number, len(reader.db_id)) == (["default"], 1500, 36)
        assert len(os.listdir(scratch)) == 1
    assert fingerprint(db_dir) == before
    assert os.listdir(scratch) == []


def test_ranges(db_dir: str) -> None:
    """A range begins at from_key, ends before to_key, and a prefix holds what begins so; a range may be empty."""
    with open_checkpoint(db_dir) as reader:

        def keys(**settings: Any) -> list[int]:
            return [int(key) for key, _ in records(reader, **settings)]

        assert keys(from_key=b"000990", to_key=b"001003") == list(range(990, 1003))
        assert keys(from_key=b"0009905") == list(range(991, 1500))
        assert keys(to_key=b"000002") == [0, 1]
        assert keys(prefix=b"0014") == list(range(1400, 1500))
        assert keys(prefix=b"\xff\xff") == keys(from_key=b"2") == keys(from_key=b"2", to_key=b"1") == []
        assert len(keys(prefix=b"")) == 1500


def test_prefix_of_the_last_byte(tmp_path: Path) -> None:
    """A prefix whose last byte is 255 has all its keys, and no others."""
    database = Rdict(str(tmp_path / "db"), options())
    for key in (b"a", b"a\xfe", b"a\xff", b"a\xff\xff", b"a\xff\xff\xff", b"b", b"\xff", b"\xff\x01"):
        database[key] = b""
    database.close()
    assert [key for key, _ in read(tmp_path / "db", prefix=b"a\xff")] == [b"a\xff", b"a\xff\xff", b"a\xff\xff\xff"]
    assert [key for key, _ in read(tmp_path / "db", prefix=b"\xff")] == [b"\xff", b"\xff\x01"]


def test_batches(db_dir: str) -> None:
    """A batch is full with so many records, or with the record that exceeds so many bytes."""
    with open_checkpoint(db_dir) as reader:
        assert [len(batch) for batch in reader.iter_batches(batch_records=400)] == [400, 400, 400, 300]
        sizes = [len(batch) for batch in reader.iter_batches(batch_bytes=1000)]
        assert set(sizes[:-1]) == {19}  # of 54 bytes
        assert sum(sizes) == 1500


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"column_family": "other"}, NotFoundError, "has no column family 'other'; it has default"),
        ({"from_key": "a"}, InvalidArgumentError, "from_key: expected bytes, got 'a'"),
        ({"prefix": b"a", "to_key": b"b"}, InvalidArgumentError, "goes with neither from_key nor to_key"),
        ({"batch_records": 0}, InvalidArgumentError, "expected 1 or more, got 0"),
    ],
)
def test_wrong_arguments(db_dir: str, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    """A range that makes no sense is an error at once, before anything is read."""
    with open_checkpoint(db_dir) as reader, pytest.raises(error, match=message):
        reader.iter_batches(**settings)


def golden_names() -> list[str]:
    return sorted(path.name.removesuffix(".tar.xz") for path in GOLDEN.glob("*.tar.xz") if "two_paths" not in path.name)


@pytest.mark.parametrize("name", golden_names())
def test_databases_of_other_programs(name: str, tmp_path: Path) -> None:
    """Of databases by RocksDB 6.14 to 11.1 and LevelDB, each family is read whole, or it is said why it cannot be."""
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
        archive.extractall(tmp_path)  # noqa: S202 -- our own; the argument filter is younger than Python 3.11
    before = fingerprint(tmp_path / "db")
    counts, refused = {}, {}
    with open_checkpoint(str(tmp_path / "db"), timeout_seconds=60) as reader:
        for family in reader.column_families:
            try:
                counts[family] = len(records(reader, family))
            except NotSupportedError as error:
                refused[family] = str(error)
    assert fingerprint(tmp_path / "db") == before
    for family, message in refused.items():
        assert any(text in message for text in ("name is not UTF-8", "u64ts", "format_version: 7")), (family, message)
    assert sum(counts.values()) == GOLDEN_COUNTS[name], counts


GOLDEN_COUNTS = {
    "aimrocks-6.29": 61,
    "aimrocks-6.29-big_records": 6,
    "aimrocks-6.29-blobs": 65,
    "aimrocks-6.29-many_edits": 111,
    "aimrocks-6.29-tracked_wals": 100,
    "aimrocks-6.29-upgraded": 413,
    "amulet-11.1": 0,
    "debian-7.8-atomic_flush": 162,
    "debian-7.8-blobs": 65,
    "debian-7.8-compressed_recycled_wal": 112,
    "debian-7.8-compressed_wal": 65,
    "debian-7.8-ingested": 142,
    "debian-7.8-many_edits": 111,
    "debian-7.8-tracked_wals": 100,
    "faust-6.14": 3001,
    "faust-6.14-atomic_flush": 162,
    "faust-6.14-blobs": 65,
    "faust-6.14-ingested": 142,
    "faust-6.14-many_edits": 111,
    "faust-6.14-recycled_wal": 112,
    "jni-6.20": 70,
    "jni-6.20-blobs": 65,
    "jni-6.20-rolled": 29,
    "jni-9.8": 70,
    "jni-9.8-atomic_flush": 162,
    "jni-9.8-blobs": 65,
    "jni-9.8-compressed_recycled_wal": 112,
    "jni-9.8-compressed_wal": 65,
    "jni-9.8-ingested": 142,
    "jni-9.8-tables": 147,
    "jni-9.8-timestamps": 12,
    "jni-9.8-tracked_wals": 100,
    "jni-9.8-two_phase": 42,
    "leveldb": 401,
    "npm-native-10.5": 120,
    "npm-nxtedition-9.7": 210,
    "npm-rocksdb-6.17": 130,
    "pyrex-10.7": 100,
    "rdbpython-6.29": 61,
    "rocksdbpy-9.9": 41,
    "rocksdict-7.4": 217,
    "rocksdict-8.0": 217,
    "rocksdict-8.6": 217,
    "rocksdict-9.0": 217,
    "rocksdict-9.8": 217,
}


def test_a_checkpoint_of_a_live_database(tmp_path: Path) -> None:
    """Every record that a running writer had had acknowledged before the checkpoint is read, without a hole."""
    with writer(str(tmp_path / "db")) as acknowledged:
        count = acknowledged()
        create_live_checkpoint(DatabasePaths(str(tmp_path / "db")), str(tmp_path / "checkpoint"))
    found = read(tmp_path / "checkpoint")
    assert len(found) >= count
    assert [int(key) for key, _ in found] == list(range(len(found)))
    assert {len(text) for _, text in found} == {40}


def test_a_running_database(tmp_path: Path) -> None:
    """A database that a process has open is refused, with the process and what to do."""
    code = "from rocksdict import Rdict\nd = Rdict(arguments['path'])\nprint('open', flush=True)\nsys.stdin.read()"
    with start_child(code, path=str(tmp_path / "db")) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(BusyError, match=f"process {child.pid} has the database open"):
            read(tmp_path / "db")
        child.kill()


def test_many_column_families(tmp_path: Path) -> None:
    """Of a database with 200 column families each is read by its name, at no cost of the others' WALs or files."""
    database = Rdict(str(tmp_path / "db"), options())
    families = [database.create_column_family(f"family-{number:03d}", options()) for number in range(200)]
    for number, family in enumerate(families):
        family[b"key"] = b"%d" % number
    families[7].flush()
    stop(database, str(tmp_path / "stopped"))
    with open_checkpoint(str(tmp_path / "stopped")) as reader:
        assert len(reader.column_families) == 201
        for number in (7, 150):
            assert records(reader, f"family-{number:03d}") == [(b"key", b"%d" % number)]


def test_column_families_at_once(tmp_path: Path) -> None:
    """Two families are read side by side, each by a process of its own."""
    database = Rdict(str(tmp_path / "db"), options())
    other = database.create_column_family("other", options())
    put(database, 0, 1000)
    put(other, 500, 1500)
    other.close()
    database.close()
    with open_checkpoint(str(tmp_path / "db")) as reader:
        pairs = zip(
            reader.iter_batches(batch_records=100), reader.iter_batches("other", batch_records=100), strict=True
        )
        assert [(int(a[0][0]), int(b[0][0])) for a, b in pairs] == [(n, n + 500) for n in range(0, 1000, 100)]


def test_reverse_order(tmp_path: Path) -> None:
    """Keys in RocksDB's own reverse order come in that order, from the largest, and have no prefix here."""
    Rdict(str(tmp_path / "other"), options()).close()
    edit_options(str(tmp_path / "other"), comparator="rocksdb.ReverseBytewiseComparator")
    main, families = Options.load_latest(str(tmp_path / "other"))
    database = Rdict(str(tmp_path / "db"), main, families)
    put(database, 0, 100)
    database.close()
    found = read(tmp_path / "db", from_key=b"000050", to_key=b"000040")
    assert [int(key) for key, _ in found] == list(range(50, 40, -1))
    with open_checkpoint(str(tmp_path / "db")) as reader, pytest.raises(InvalidArgumentError, match="reverse order"):
        reader.iter_batches(prefix=b"0")


def test_another_comparator(db_dir: str) -> None:
    """A database whose order its own program alone knows is NotSupportedError, which names the comparator."""
    manifest = Path(db_dir, manifest_name(db_dir))
    data = rewrite_records(manifest.read_bytes(), "", lambda record: record.replace(b"Bytewise", b"Bytexise"))
    replace_content(manifest, data)
    with pytest.raises(NotSupportedError, match=r"ordered by 'leveldb\.BytexiseComparator', which its own program"):
        read(db_dir)


def test_the_encoding_of_rocksdict(tmp_path: Path) -> None:
    """A database in rocksdict's own encoding is NotSupportedError: read raw, its pickled values would mean nothing."""
    database = Rdict(str(tmp_path / "db"))
    database["key"] = {"a": 1}
    database.close()
    with pytest.raises(NotSupportedError, match="rocksdict's own encoding"):
        read(tmp_path / "db")


@pytest.mark.parametrize("flushed", [True, False])
def test_merge_operators(tmp_path: Path, flushed: bool) -> None:
    """Operands of an operator that RocksDB has are merged; of one that is not known they are NotSupportedError.

    In a WAL, RocksDB would drop them and all that follows without a word; a check of all blocks says so, too.
    """
    db_dir = build_merged(str(tmp_path / "db"))
    if flushed:
        main, families = Options.load_latest(db_dir)
        database = Rdict(db_dir, main, families)
        database.flush()
        database.close()
    assert read(db_dir) == [(b"key", (3).to_bytes(8, "little"))]
    for path in Path(db_dir).glob("OPTIONS-*"):
        path.unlink()
    message = "merge_operator_ must be set" if flushed else "up to sequence number 0, expected 3.*merge operator"
    with pytest.raises(NotSupportedError, match=message):
        read(db_dir)
    blocks = check_completeness(db_dir, level="blocks")
    assert blocks.state is State.COULD_NOT_CHECK
    assert re.search(message, blocks.reason)


def test_blobs(tmp_path: Path) -> None:
    """Values in blob files are read from them; a damaged one is CorruptionError."""
    db_dir = build_stopped(str(tmp_path / "db"), enable_blob_files=True, min_blob_size=10)
    assert read(db_dir) == [(b"%06d" % number, value(number)) for number in range(1500)]
    flip(only(db_dir, ".blob"), 20_000)
    with pytest.raises(CorruptionError, match="column family 'default': Corruption"):
        read(db_dir)


def test_time_to_live(tmp_path: Path) -> None:
    """Values of a database with a TTL have RocksDB's four bytes of time at their end."""
    database = Rdict(str(tmp_path / "db"), options(), access_type=AccessType.with_ttl(1000))
    database[b"key"] = b"value"
    database.close()
    ((key, stored),) = read(tmp_path / "db")
    assert (key, stored[:-4], len(stored)) == (b"key", b"value", 9)


def test_wide_columns(tmp_path: Path) -> None:
    """A wide-column entity has a dict of its columns, between plain values; none of its columns is dropped."""
    database = Rdict(str(tmp_path / "db"), options())
    database[b"a"] = b"plain"
    database.put_entity(b"b", [b"", b"name"], [b"default", b"value"])
    database.put_entity(b"c", [b"one"], [b"1"])
    database[b"d"] = b""
    database.close()
    assert read(tmp_path / "db") == [
        (b"a", b"plain"),
        (b"b", {b"": b"default", b"name": b"value"}),
        (b"c", {b"one": b"1"}),
        (b"d", b""),
    ]


def test_prefix_extractors(tmp_path: Path) -> None:
    """With a prefix extractor, a range over several prefixes is whole."""
    settings = {"prefix_extractor": SliceTransform.create_fixed_prefix(4)}
    db_dir = build_stopped(str(tmp_path / "db"), **settings)
    assert [int(key) for key, _ in read(db_dir, from_key=b"000050", to_key=b"001250")] == list(range(50, 1250))


def test_options_of_a_newer_version(db_dir: str) -> None:
    """An option that this RocksDB does not know does not keep it from reading."""
    edit_options(db_dir, an_option_of_rocksdb_99="true")
    assert len(read(db_dir)) == 1500


# what must not end as if all were read


def test_a_damaged_block(db_dir: str, scratch: Path) -> None:
    """At a damaged block the iteration raises CorruptionError; it does not end, and leaves no scratch."""
    flip(only(db_dir, ".sst"), 9000)
    seen = []
    with open_checkpoint(db_dir) as reader, pytest.raises(CorruptionError, match="column family 'default': Corruption"):
        seen.extend(batch for batch in reader.iter_batches(batch_records=10))
    assert 0 < len(seen) < 100
    assert os.listdir(scratch) == []


def test_a_damaged_wal(db_dir: str) -> None:
    """A flipped bit in a WAL, at which RocksDB ends in silence, is CorruptionError."""
    flip(only(db_dir, ".log"), 1000)
    with pytest.raises(CorruptionError, match=r"\.log: damaged at offset"):
        read(db_dir)


def test_not_complete(db_dir: str, tmp_path: Path) -> None:
    """What is not there, not all there, or no database is IncompleteError, which names what is missing."""
    with pytest.raises(IncompleteError, match="nowhere: is missing"):
        read(tmp_path / "nowhere")
    with pytest.raises(IncompleteError, match="CURRENT: is missing"):
        read(tmp_path)
    os.unlink(only(db_dir, ".sst"))
    with pytest.raises(IncompleteError, match=r"\.sst: is missing"):
        read(db_dir)


def test_deleted_meanwhile(db_dir: str, tmp_path: Path, scratch: Path) -> None:
    """A checkpoint that is deleted before its files are opened is IncompleteError, which says so."""
    checkpoint_dir = str(tmp_path / "checkpoint")
    create_live_checkpoint(DatabasePaths(db_dir), checkpoint_dir)
    with open_checkpoint(checkpoint_dir) as reader:
        delete_checkpoint(checkpoint_dir)
        with pytest.raises(IncompleteError, match="was deleted or replaced while it was read"):
            records(reader)
    assert os.listdir(scratch) == []


def test_no_scratch(db_dir: str, tmp_path: Path) -> None:
    """Where no scratch directory can be made, the error names the place and the parameter."""
    opened = open_checkpoint(db_dir, scratch_dir=str(tmp_path / "nowhere"))
    with (
        pytest.raises(CouldNotCheckError, match=r"nowhere: a scratch directory cannot be made there.*scratch_dir"),
        opened,
    ):
        pass


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "RocksDB died of SIGSEGV while it read"),
        ("raise SystemExit('no rocksdict')", "ended with status 1: no rocksdict"),
        ("import sys; sys.stdin.read()", "ended with status 0: no answer"),
        ("import time; time.sleep(600)", "nothing was read for 0.5 s; allow more time"),
    ],
)
def test_a_process_that_dies(
    db_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str, scratch: Path
) -> None:
    """When the process that reads dies, hangs or says nothing, it is CouldNotCheckError, and never the end."""
    (tmp_path / "dying_reader.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(reading, "CHILD_MODULE", "dying_reader")
    limit = 0.5 if "sleep" in body else 60
    with open_checkpoint(db_dir, timeout_seconds=limit) as reader, pytest.raises(CouldNotCheckError, match=message):
        records(reader)
    assert os.listdir(scratch) == []


def test_an_iteration_that_is_left(db_dir: str, scratch: Path) -> None:
    """An iteration that nobody ends is ended with the block: no process and no scratch stays."""
    with open_checkpoint(db_dir) as reader:
        batches = reader.iter_batches(batch_records=1)
        next(batches)
        (child,) = reader._children
        assert child.poll() is None
    assert child.poll() == -signal.SIGKILL
    assert os.listdir(scratch) == []
    with pytest.raises(CouldNotCheckError):
        for _ in batches:
            pass


READS = """
import tempfile
from airflow_provider_rocksdb.core.reading import open_backup, open_checkpoint
tempfile.tempdir = arguments["scratch"]
if arguments["what"] == "checkpoint":
    opened = open_checkpoint(arguments["path"])
else:
    opened = open_backup(LocalFileSystem(), arguments["path"])
with opened as reader:
    batches = reader.iter_batches(batch_records=1)
    next(batches)
    print("reading", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("what", ["checkpoint", "backup"])
def test_a_killed_reader(what: str, db_dir: str, repository: str, scratch: Path) -> None:
    """A reader that is killed leaves scratch, which the next one clears while it leaves a running one's alone."""
    place = db_dir if what == "checkpoint" else repository

    def opened() -> Any:
        return open_checkpoint(place) if what == "checkpoint" else open_backup(LocalFileSystem(), place)

    with start_child(READS, path=place, scratch=str(scratch), what=what) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        (left,) = os.listdir(scratch)
        with opened() as reader:
            assert len(records(reader)) == 1500
            assert len(os.listdir(scratch)) == 2
        assert os.listdir(scratch) == [left]
        child.kill()
        child.communicate()
    wait_until(lambda: not readers_of(scratch / left))
    with opened() as reader:
        assert len(records(reader)) == 1500
    assert os.listdir(scratch) == []


def readers_of(place: Path) -> list[str]:
    """List processes whose command line has a path under this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if os.fsencode(place) in path.read_bytes() else []
        except OSError:  # it has ended
            continue
    return found


# backups


@pytest.fixture
def repository(db_dir: str, tmp_path: Path) -> str:
    """Have a repository with one backup of ``db_dir``."""
    from airflow_provider_rocksdb.core.repository import create_backup

    path = str(tmp_path / "repository")
    create_backup(take(db_dir, str(tmp_path / "taken")), LocalFileSystem(), path)
    return path


def test_a_backup(repository: str, scratch: Path) -> None:
    """A backup is restored to scratch and read there; nothing of it stays."""
    with open_backup(LocalFileSystem(), repository, backup_id=1) as reader:
        assert records(reader) == [(b"%06d" % number, value(number)) for number in range(1500)]
    assert os.listdir(scratch) == []
    with pytest.raises(NotFoundError, match="has no backup 2"), open_backup(LocalFileSystem(), repository, backup_id=2):
        pass


def test_a_damaged_backup(repository: str, scratch: Path) -> None:
    """A damaged backup is CorruptionError before anything is read, and leaves no scratch."""
    (sst,) = Path(repository, "shared_checksum").iterdir()
    flip(sst, 9000)
    with pytest.raises(CorruptionError, match="expected CRC32C"), open_backup(LocalFileSystem(), repository):
        pass
    assert os.listdir(scratch) == []


def test_a_backup_of_stock_rocksdb(tmp_path: Path) -> None:
    """A backup that BackupEngine 6.29 wrote is read."""
    database = aimrocks.DB(str(tmp_path / "db"), aimrocks.Options(create_if_missing=True))
    for number in range(100):
        database.put(b"%06d" % number, b"value")
    aimrocks.BackupEngine(str(tmp_path / "repository")).create_backup(database, flush_before_backup=False)
    with open_backup(LocalFileSystem(), str(tmp_path / "repository")) as reader:
        assert records(reader) == [(b"%06d" % number, b"value") for number in range(100)]


# memory

MEASURE = """
import json, re, resource, sys
from airflow_provider_rocksdb.core.reading import open_checkpoint

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1]) * 1024

began, size, batches = peak(), 0, 0
with open_checkpoint(sys.argv[1]) as reader:
    for batch in reader.iter_batches(batch_bytes=int(sys.argv[2])):
        size += sum(len(value) for _, value in batch)
        batches += 1
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"peak_bytes": peak() - began, "child_bytes": child, "bytes": size, "batches": batches}))
"""


def measure(db_dir: Path, batch_bytes: int) -> dict[str, int]:
    command = [sys.executable, "-c", MEASURE, str(db_dir), str(batch_bytes)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    result: dict[str, int] = json.loads(done.stdout)
    print(batch_bytes, result)
    return result


def test_memory(tmp_path: Path) -> None:
    """Memory follows the batch, not the database: four times the data needs no more, here and in the child."""
    peaks = []
    database = Rdict(str(tmp_path / "db"), options(disable_auto_compactions=True, compression_type=no_compression()))
    for first in (0, 48):
        for number in range(first, 4 * first or 48):
            database[b"%06d" % number] = os.urandom(1 << 20)
        database.flush()
        database.flush_wal()
        shutil.copytree(tmp_path / "db", tmp_path / f"copy-{first}")
        peaks.append(measure(tmp_path / f"copy-{first}", 4 << 20))
    database.close()
    assert [peak["bytes"] >> 20 for peak in peaks] == [48, 192]
    for what in ("peak_bytes", "child_bytes"):
        assert peaks[1][what] < peaks[0][what] + (16 << 20), peaks
    larger = measure(tmp_path / "copy-48", 64 << 20)
    assert larger["peak_bytes"] > peaks[1]["peak_bytes"] + (64 << 20)


def no_compression() -> Any:
    from rocksdict import DBCompressionType

    return DBCompressionType.none()
