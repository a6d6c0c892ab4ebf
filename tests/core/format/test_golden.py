"""Databases of real programs, RocksDB 6.14 to 11.1 and LevelDB: what is read of them is what those programs said.

``tests/golden/generate.py`` made them, and says with which programs.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.coding import encode_varint
from airflow_provider_rocksdb.core.format.filename import decode_current, newest_options
from airflow_provider_rocksdb.core.format.log_format import LogReader, iter_records
from airflow_provider_rocksdb.core.format.manifest import ColumnFamily, ManifestReader, Version
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.format.table_properties import read_session_id, read_table_properties
from airflow_provider_rocksdb.core.format.version_edit import decode_version_edit
from airflow_provider_rocksdb.core.wal import WalContent, find_gap, read_wal
from tests.core.format.encoders import pread_of
from tests.golden.generate import PLACE, PROGRAMS, dump_manifest, dump_wal, ldb

REFUSALS = (CorruptionError, NotSupportedError)
NAMES = sorted(PROGRAMS)

needs_ldb = pytest.mark.skipif(shutil.which("ldb") is None, reason="needs ldb (Debian package rocksdb-tools)")


class Golden:
    """An extracted golden database, and what is expected of it."""

    def __init__(self, name: str, place: Path) -> None:
        self.name = name
        self.place = place
        self.directory = place / "db"
        self.expected: dict[str, Any] = json.loads((PLACE / f"{name}.json").read_text())
        self.manifest = self.directory / decode_current((self.directory / "CURRENT").read_bytes())

    @functools.cached_property
    def reader(self) -> ManifestReader:
        return read_manifest(self.manifest.read_bytes())

    @property
    def version(self) -> Version:
        return self.reader.version

    @property
    def families(self) -> list[ColumnFamily]:
        return list(self.version.column_families.values())

    def table(self, number: int, path_id: int) -> Path:
        """Where an SST file is; the databases with two paths have them in ``fast`` and ``slow``."""
        paths = [self.place / "fast", self.place / "slow"] if (self.place / "slow").exists() else [self.directory]
        stem = paths[path_id] / f"{number:06d}"
        return stem.with_suffix(".ldb") if stem.with_suffix(".ldb").exists() else stem.with_suffix(".sst")

    def wals(self) -> dict[str, WalContent]:
        contents = {path.name: path.read_bytes() for path in sorted(self.directory.glob("*.log"))}
        return {name: read_wal(int(name[:-4]), len(data), pread_of(data)) for name, data in contents.items()}


def read_manifest(data: bytes) -> ManifestReader:
    reader = ManifestReader("MANIFEST")
    reader.read(pread_of(data), len(data))
    return reader


def latin_1(family: ColumnFamily) -> str:
    return family.name.decode("latin-1")


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Golden]:
    """Extract each database at most once; nobody writes to it."""

    @functools.cache
    def extract(name: str) -> Golden:
        place = tmp_path_factory.mktemp(name)
        with tarfile.open(PLACE / f"{name}.tar.xz") as tar:
            tar.extractall(place)  # noqa: S202 -- our own; the argument filter is younger than Python 3.11
        return Golden(name, place)

    return extract


@pytest.fixture
def golden(request: pytest.FixtureRequest, extracted: Callable[[str], Golden]) -> Golden:
    return extracted(request.param)


def each(*names: str) -> pytest.MarkDecorator:
    """Run a test on these databases."""
    return pytest.mark.parametrize("golden", names, indirect=True)


every = each(*NAMES)
one_path = each(*(name for name in NAMES if "two_paths" not in name))  # others make ldb abort


def test_all_are_there() -> None:
    """Every program has written its database, no file is left over, and all together are small."""
    files = {path.name: path.stat().st_size for path in PLACE.iterdir() if path.suffix in (".xz", ".json")}
    assert set(files) == {f"{name}{suffix}" for name in NAMES for suffix in (".tar.xz", ".json")}
    assert sum(files.values()) < 2_000_000


@every
def test_live_files(golden: Golden) -> None:
    """The live SST files, their sizes, levels and column families are those that the program itself named."""
    ours = {latin_1(f): {str(t.number): [t.size, t.level] for t in f.tables.values()} for f in golden.families}
    ours["*"] = {number: file for files in list(ours.values()) for number, file in files.items()}
    for name, told in golden.expected["live_files"].items():
        expected = {
            number: [size, level if level >= 0 else ours[name].get(number, [0, 0])[1]]  # a LOG does not tell levels
            for number, (size, level) in told.items()
        }
        assert ours[name] == expected
    for family in golden.families:
        for table in family.tables.values():
            assert golden.table(table.number, table.path_id).stat().st_size == table.size


@every
def test_live_blobs(golden: Golden) -> None:
    """The live blob files are those that the program itself named; each is there in its full size."""
    ours = {latin_1(family): sorted(blob.number for blob in family.live_blobs()) for family in golden.families}
    for name, expected in (golden.expected["live_blobs"] or {}).items():
        assert ours[name] == sorted(expected)
    for family in golden.families:
        for blob in family.live_blobs():
            assert (golden.directory / f"{blob.number:06d}.blob").stat().st_size == blob.size


def check_dump(version: Version, dump: dict[str, Any]) -> None:
    """Compare a Version with what ``ldb manifest_dump`` says."""
    for name in ("last_sequence", "prev_log_number"):
        assert getattr(version, name) == dump[name]
    assert version.next_file_number + 1 == dump["next_file_number"]  # the recovered database's own, one on
    assert (version.min_log_number_to_keep or 0) == dump["min_log_number_to_keep"]
    ours = {
        latin_1(family): {
            "log_number": family.log_number,
            "comparator": family.comparator,
            "files": {str(table.number): table.size for table in family.tables.values()},
            "blobs": {str(blob.number): blob.size for blob in family.live_blobs()},
        }
        for family in version.column_families.values()
    }
    assert ours == dump["families"]


@one_path
def test_manifest(golden: Golden) -> None:
    """Numbers, comparators, log numbers, files and blob files are those of ``ldb manifest_dump``."""
    check_dump(golden.version, golden.expected["manifest_dump"])


@every
def test_manifest_is_whole(golden: Golden) -> None:
    """A MANIFEST is read to its end; the id of the database, where it has that, is the one in IDENTITY."""
    assert golden.version.db_id in ("", golden.expected["db_id"])
    assert (golden.reader.bad_tail, golden.reader.is_torn) == (None, False)
    assert golden.reader.end == golden.manifest.stat().st_size


@needs_ldb
@one_path
def test_stock_rocksdb_reads_the_same(golden: Golden) -> None:
    """Stock RocksDB, asked now, says the same of MANIFEST and WALs."""
    check_dump(golden.version, dump_manifest(golden.manifest))
    for name, wal in golden.wals().items():
        told = dump_wal(golden.directory / name)
        if told or wal.records == 0:
            assert told == ([wal.records, wal.first_sequence, wal.next_sequence] if wal.records else None)


@needs_ldb
@each(*(name for name in NAMES if "two_paths" not in name and "recycled" not in name))  # on those, ldb hangs
def test_stock_rocksdb_opens_it(golden: Golden, tmp_path: Path) -> None:
    """What stock RocksDB 7.8 can open, it lists with the same live files, levels and column families."""
    copy = shutil.copytree(golden.directory, tmp_path / "db")
    text = ldb(f"--db={copy}", "--ignore_unknown_options", "list_live_files_metadata", "--sort_by_filename")
    if "Failed: " in text:
        assert "unsupported format_version" in text
        return
    lines = text.partition("Live SST and Blob Files:\n")[2].splitlines()
    listed = sorted(line.removeprefix(f"{copy}/") for line in lines if line.startswith(str(copy)))
    ours = [
        f"{table.number:06d}.sst : level {table.level}, column family '{latin_1(family)}'"
        for family in golden.families
        for table in family.tables.values()
    ]
    ours += [
        f"{blob.number:06d}.blob, column family '{latin_1(family)}'"
        for family in golden.families
        for blob in family.live_blobs()
    ]
    assert listed == sorted(ours)


@every
def test_session_ids(golden: Golden) -> None:
    """Each live SST file's session id, whatever kind of file it is, is the one in its maker's LOG."""
    for family in golden.families:
        for table in family.tables.values():
            path = golden.table(table.number, table.path_id)
            data = path.read_bytes()
            session_id = read_session_id(pread_of(data), len(data))
            told = golden.expected["session_ids"]
            if str(table.number) in told:
                assert session_id == told[str(table.number)]
            elif path.suffix == ".ldb":
                assert session_id is None


@every
def test_wals(golden: Golden) -> None:
    """Each WAL has as many records and the sequence numbers that ``ldb dump_wal`` found; the last is the database's."""
    wals = golden.wals()
    for name, told in golden.expected["wals"].items():
        wal = wals[name]
        assert (wal.damage, wal.torn) == (None, False)
        if told:
            assert [wal.records, wal.first_sequence, wal.next_sequence] == told
    assert find_gap(list(wals.values())) is None
    latest = golden.expected["latest_sequence_number"]
    newest = list(wals.values())[-1]
    assert latest is None or newest.next_sequence == latest + 1
    assert any(wal.number >= golden.version.min_wal_number for wal in wals.values())


@every
def test_options(golden: Golden) -> None:
    """The newest OPTIONS file, where there is one, names exactly the MANIFEST's column families."""
    name = newest_options(path.name for path in golden.directory.iterdir())
    if name is not None:
        options = OptionsFile((golden.directory / name).read_bytes(), name)
        assert options.column_families == {family.name for family in golden.families}


# What each feature leaves behind, so that none of these databases is silently without it.


@each(*(name for name in NAMES if "recycled" in name))
def test_recycled(golden: Golden) -> None:
    """A recycled WAL ends where an earlier log's bytes begin, and can be recycled again."""
    newest = list(golden.wals().values())[-1]
    assert newest.recyclable
    assert 0 < newest.end < newest.size


@each(*(name for name in NAMES if "compressed" in name))
def test_compressed(golden: Golden) -> None:
    """A WAL that is compressed says so in its first record."""
    for path in golden.directory.glob("*.log"):
        reader = LogReader(path.name, int(path.stem))
        data = path.read_bytes()
        assert list(iter_records(reader, pread_of(data), len(data)))
        assert reader.compression == 7


@each(*(name for name in NAMES if "blobs" in name))
def test_blobs_have_gone(golden: Golden) -> None:
    """Blob files were added that are not live any more; RocksDB 6.14 had no way yet to let one go."""
    family = golden.families[0]
    assert (len(family.live_blobs()) < len(family.blobs)) is (golden.name != "faust-6.14-blobs")


@each(*(name for name in NAMES if "tracked" in name))
def test_tracked_wals(golden: Golden) -> None:
    """The WALs that the MANIFEST tracks are there, at least as large as they were synced."""
    assert golden.version.wals
    for number, size in golden.version.wals.items():
        assert (golden.directory / f"{number:06d}.log").stat().st_size >= (size or 0)


@each("jni-9.8-two_phase")
def test_prepared_transaction(golden: Golden) -> None:
    """The WAL with a prepared transaction is needed, although every column family has left it behind."""
    oldest = min(wal.number for wal in golden.wals().values())
    assert golden.version.min_wal_number == oldest
    assert oldest < min(family.log_number for family in golden.families)


@each(*(name for name in NAMES if "two_paths" in name))
def test_two_paths(golden: Golden) -> None:
    """Path ids lead to the directories in which the files are."""
    assert {table.path_id for family in golden.families for table in family.tables.values()} == {0, 1}


@each("faust-6.14-many_edits", "aimrocks-6.29-many_edits", "debian-7.8-many_edits", "jni-6.20", "jni-9.8")
def test_names_that_are_not_utf_8(golden: Golden) -> None:
    """Column family names are bytes."""
    assert {family.name for family in golden.families} & {b"caf\xe9", b"caf\xe9\xff"}


@each("leveldb", "aimrocks-6.29-upgraded")
def test_leveldb(golden: Golden) -> None:
    """Files of LevelDB are found by their own names, and beside RocksDB's."""
    suffixes = {golden.table(t.number, t.path_id).suffix for family in golden.families for t in family.tables.values()}
    assert suffixes == ({".ldb"} if golden.name == "leveldb" else {".ldb", ".sst"})


@each("jni-9.8-tables", "amulet-11.1")
def test_table_kinds(golden: Golden) -> None:
    """Every kind of SST file has its properties read, its column family's name among them."""
    for family in golden.families:
        for table in family.tables.values():
            data = golden.table(table.number, table.path_id).read_bytes()
            assert read_table_properties(pread_of(data), len(data))["rocksdb.column.family.name"] == family.name
    last = golden.table(*[(t.number, t.path_id) for f in golden.families for t in f.tables.values()][-1]).read_bytes()
    assert golden.name != "amulet-11.1" or int.from_bytes(last[-12:-8], "little") == 7


@each("jni-9.8-ingested", "debian-7.8-ingested", "faust-6.14-ingested")
def test_ingested(golden: Golden) -> None:
    """Ingested files have their sequence numbers in the MANIFEST alone or in themselves, and are read both ways."""
    tables = golden.families[0].tables.values()
    assert sum(str(table.number) not in golden.expected["session_ids"] for table in tables) == 2
    for table in tables:
        data = golden.table(table.number, 0).read_bytes()
        assert read_table_properties(pread_of(data), len(data))


@each(*(name for name in NAMES if "atomic" in name), "jni-6.20", "jni-9.8")
def test_atomic_groups(golden: Golden) -> None:
    """A MANIFEST cut inside an atomic group ends before it."""
    data = golden.manifest.read_bytes()
    groups, before = 0, 0
    for record in LogReader("MANIFEST").feed(data):
        remaining = decode_version_edit(record.payload).atomic_group_remaining
        reader = read_manifest(data[: record.end])
        if remaining:
            groups += 1
            assert (reader.end, reader.is_torn) == (before, True)
        else:
            before = reader.end
    assert groups > 2


@each("jni-9.8-timestamps")
def test_timestamps(golden: Golden) -> None:
    """A WAL that records the sizes of user-defined timestamps has its batches counted: 36, all that was written."""
    (wal,) = golden.wals().values()
    assert wal.records == 36
    manifest = golden.manifest.read_bytes()
    assert all(encode_varint(tag) in manifest for tag in (8198, 8201))


@each("jni-6.20", "jni-9.8", "npm-nxtedition-9.7", "npm-native-10.5", "pyrex-10.7", "amulet-11.1")
def test_database_id(golden: Golden) -> None:
    """The MANIFEST has the database's id where a program asks for that, and by default from RocksDB 10 on."""
    assert golden.version.db_id == golden.expected["db_id"]
    assert len(golden.version.db_id) == 36


# Damage.


def prefixes(data: bytes) -> dict[int, Any]:
    """Every end at which a MANIFEST may be cut, and what a MANIFEST cut there says."""
    said = {}
    reader = ManifestReader("MANIFEST")
    for size in range(len(data) + 1):
        before = reader.end
        reader.read(pread_of(data), size)
        if reader.end != before:
            said[reader.end] = summary(reader.version)
    return said


def summary(version: Version) -> Any:
    return (
        version.last_sequence,
        version.next_file_number,
        version.min_log_number_to_keep,
        {f.id: (f.name, f.log_number, sorted(f.tables), len(f.live_blobs())) for f in version.column_families.values()},
        sorted(version.wals.items(), key=lambda wal: wal[0]),
    )


def window(data: bytes, count: int, name: str) -> Iterator[int]:
    """Every offset of small data; of larger, the last ones and as many others."""
    if len(data) <= 2 * count:
        yield from range(len(data))
        return
    yield from random.Random(name).sample(range(len(data) - count), count)  # noqa: S311 -- the same each time
    yield from range(len(data) - count, len(data))


@every
def test_manifest_cut(golden: Golden) -> None:
    """A MANIFEST cut at any byte says what its whole records and groups say."""
    data = golden.manifest.read_bytes()
    said = prefixes(data)
    assert said[len(data)] == summary(golden.version)
    for cut in window(data, 100, golden.name):
        reader = read_manifest(data[:cut])
        assert reader.end == max((end for end in said if end <= cut), default=0)
        assert reader.end == 0 or summary(reader.version) == said[reader.end]


@every
def test_manifest_flipped(golden: Golden) -> None:
    """A flipped byte of a MANIFEST is refused, or costs records at its end; it never says anything else."""
    data = golden.manifest.read_bytes()
    said = prefixes(data)
    for offset in window(data, 100, golden.name):
        damaged = bytearray(data)
        damaged[offset] ^= random.Random(offset).randrange(1, 256)  # noqa: S311 -- the same each time
        try:
            reader = read_manifest(bytes(damaged))
        except REFUSALS:
            continue
        assert reader.end <= offset
        assert reader.end == 0 or summary(reader.version) == said[reader.end]


@every
def test_manifest_with_more_behind(golden: Golden) -> None:
    """Bytes behind the last record change nothing, and are told unless they are zeros."""
    data = golden.manifest.read_bytes()
    for tail in (b"\0", b"\0" * 5000, b"\xff" * 40, b"MANIFEST"):
        reader = read_manifest(data + tail)
        assert (reader.end, summary(reader.version)) == (len(data), summary(golden.version))
        assert (reader.bad_tail is None and not reader.is_torn) == (not tail.strip(b"\0"))


@every
def test_wal_cut_and_flipped(golden: Golden) -> None:
    """A WAL cut anywhere has a prefix of its records; one with a flipped byte as well, or it is damaged."""
    whole = list(golden.wals().values())[-1]
    data = (golden.directory / f"{whole.number:06d}.log").read_bytes()
    for offset in window(data[: whole.end], 15, golden.name):
        cut = read_wal(whole.number, offset, pread_of(data[:offset]))
        assert cut.damage is None
        assert cut.records <= whole.records
        assert cut.end <= offset
        damaged = bytearray(data)
        damaged[offset] ^= 0x55
        flipped = read_wal(whole.number, len(data), pread_of(bytes(damaged)))
        assert flipped.records < whole.records or flipped.damage
        assert flipped.end <= offset
