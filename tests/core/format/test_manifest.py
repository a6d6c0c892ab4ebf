"""MANIFESTs: synthetic ones with every case, and real ones judged by RocksDB itself."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import BlockBasedOptions, Options, Rdict

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.log_format import BLOCK_SIZE, rewrite_records
from airflow_provider_rocksdb.core.format.manifest import ManifestReader, Version
from airflow_provider_rocksdb.core.format.version_edit import clear_path_ids
from tests.core.format import encoders as e
from tests.core.format.encoders import LogWriter, log, pread_of, s, v

NAME = "MANIFEST-000005"
FIRST_EDIT = e.first_edit()


def read(data: bytes) -> ManifestReader:
    """Read a whole MANIFEST."""
    reader = ManifestReader(NAME)
    reader.read(pread_of(data), len(data))
    return reader


def describe(version: Version) -> dict[str, Any]:
    """Everything that a Version says, as plain values."""
    return {
        "families": {
            (family.id, family.name, family.comparator, family.log_number): (
                sorted((t.number, t.level, t.size, t.path_id, t.checksum, t.unique_id) for t in family.tables.values()),
                sorted((b.number, b.size, b.garbage_count) for b in family.live_blobs()),
            )
            for family in version.column_families.values()
        },
        "wals": version.wals,
        "numbers": (
            version.db_id,
            version.last_sequence,
            version.next_file_number,
            version.prev_log_number,
            version.min_wal_number,
            version.min_log_number_to_keep,
        ),
    }


def version_of(*edits: bytes) -> Version:
    return read(log(FIRST_EDIT, *edits)).version


def tables(version: Version, family: int = 0) -> dict[int, int]:
    """File number to level."""
    return {number: table.level for number, table in version.column_families[family].tables.items()}


SMALL = [  # a small MANIFEST with an edit of every kind
    FIRST_EDIT,
    e.new_file_1(0, 10, 1000) + e.new_file_2(1, 11, 1001) + e.new_file_3(2, 12, 1002, 1),
    e.blob_file(20, 5, 500)
    + e.blob_file(21, 6, 600)
    + e.new_file_4(0, 13, 1003, (4, v(20)), (7, b"abcd"), (8, b"FileChecksumCrc32c"), (3, (4).to_bytes(8, "little"))),
    e.blob_garbage(20, 2, 30),
    e.add_column_family(3, b"thr\xffe") + e.log_number(5) + e.max_column_family(3),
    e.wal_added(6) + e.wal_added(7, 1234),
    e.wals_deleted(7),
    e.in_atomic_group(2) + e.deleted_file(0, 10) + e.last_sequence(77),
    e.in_atomic_group(1) + e.column_family(3) + e.new_file_4(0, 14, 99),
    e.in_atomic_group(0) + e.new_file_4(6, 15, 100, (12, b"u" * 16)),
    e.next_file_number(30) + e.last_sequence(99),
]
GROUP = range(7, 10)  # the records of the atomic group


def prefixes() -> tuple[bytes, list[int], list[dict[str, Any]]]:
    """Return the small MANIFEST, where its records end, and the Version after each number of records."""
    writer = LogWriter().add(*SMALL)
    data = bytes(writer.data)
    versions = []
    for count in range(len(SMALL) + 1):
        whole = min(GROUP) if count in GROUP else count
        versions.append(describe(read(log(*SMALL[:whole])).version))
    return data, writer.ends, versions


def test_small() -> None:
    """A MANIFEST with an edit of every kind sums up to the Version that it describes."""
    reader = read(log(*SMALL))
    version = reader.version
    assert tables(version) == {11: 1, 12: 2, 13: 0, 15: 6}
    assert tables(version, 3) == {14: 0}
    assert version.column_families[3].name == b"thr\xffe"
    assert [blob.number for blob in version.column_families[0].live_blobs()] == [20, 21]
    assert (version.db_id, version.last_sequence, version.next_file_number) == ("a-db-id", 99, 30)
    assert (version.wals, version.min_wal_number) == ({7: 1234}, 4)
    assert (reader.bad_tail, reader.is_torn, reader.end) == (None, False, len(log(*SMALL)))


def test_cut_at_every_byte() -> None:
    """A MANIFEST cut at any byte gives the Version up to the last whole record and group, and is torn or not."""
    data, ends, versions = prefixes()
    boundaries = [0, *ends]
    for cut in range(len(data) + 1):
        reader = read(data[:cut])
        count = sum(end <= cut for end in ends)
        assert describe(reader.version) == versions[count]
        assert reader.end == boundaries[min(GROUP) if count - 1 in GROUP and count - 1 != max(GROUP) else count]
        assert reader.is_torn == (cut != reader.end)
        assert reader.bad_tail is None
        assert describe(read(data[: reader.end]).version) == versions[count]


def test_every_flipped_byte() -> None:
    """A flipped byte is damage, with file and offset, or costs the last record and is told; never a silent change."""
    data, ends, versions = prefixes()
    for offset in range(len(data)):
        for bits in (0x01, 0x08, 0x80, 0xFF):
            damaged = data[:offset] + bytes((data[offset] ^ bits,)) + data[offset + 1 :]
            if offset < ends[-2]:
                with pytest.raises(CorruptionError, match=rf"{NAME}: damaged at offset \d+: .*valid record follows"):
                    read(damaged)
            else:
                reader = read(damaged)
                assert describe(reader.version) == versions[-2]
                assert reader.end == ends[-2]
                assert reader.bad_tail is not None or reader.is_torn


@pytest.mark.parametrize("tail", [b"\0" * 5, b"\0" * 100_000, b"\1", b"\xff" * 100, b"\xff" * 1_000_000, b"text" * 9])
def test_trailing_bytes(tail: bytes) -> None:
    """What stands behind the last record changes no Version; unless it is zeros, it is told."""
    data, ends, versions = prefixes()
    reader = read(data + tail)
    assert describe(reader.version) == versions[-1]
    assert reader.end == ends[-1]
    assert (reader.bad_tail is not None or reader.is_torn) == any(tail)


@given(st.integers(0, 2**32), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_tailing(seed: int, steps: int) -> None:
    """A MANIFEST that grows by any steps gives what it gives at once, and ``end`` is always where a copy may be cut."""
    rng = random.Random(seed)  # noqa: S311 -- any steps will do
    edits = list(SMALL)
    edits += [e.new_file_4(0, 100 + n, n, (17, rng.randbytes(rng.choice([10, 40_000])))) for n in range(5)]
    writer = LogWriter().add(*edits)
    data = bytes(writer.data)
    valid = {0, *writer.ends} - {writer.ends[index] for index in list(GROUP)[:-1]}
    reader = ManifestReader(NAME)
    for size in [*sorted(rng.randrange(len(data) + 1) for _ in range(steps)), len(data)]:
        reader.read(pread_of(data[:size]), size)
        assert reader.end in valid
        assert reader.end <= reader.offset <= size
        assert describe(reader.version) == describe(read(data[:size]).version)
    assert reader.end == len(data)


def test_a_new_manifest_is_none() -> None:
    """Before log number, next file number and last sequence number are told there is nothing to cut a copy at."""
    parts = (e.log_number(4), e.next_file_number(5), e.last_sequence(0))
    for missing in range(3):
        edits = [part for index, part in enumerate(parts) if index != missing]
        assert read(log(e.db_id(b"x"), *edits)).end == 0
    assert read(log(*parts)).end == len(log(*parts))
    assert (read(b"").end, read(b"").is_torn) == (0, False)


def test_a_manifest_that_shrinks() -> None:
    """A MANIFEST shorter than what was already read of it is damage."""
    data = log(*SMALL)
    reader = read(data)
    with pytest.raises(CorruptionError, match=f"{NAME}: damaged at offset 50: expected at least the {len(data)} bytes"):
        reader.read(pread_of(data[:50]), 50)


@pytest.mark.parametrize(
    ("edits", "error", "message"),
    [
        ([b"\1"], CorruptionError, "varint32 runs past the end"),
        ([v(5000) + s(b"x")], NotSupportedError, "unknown tag 5000"),
        ([e.column_family(9) + e.log_number(3)], CorruptionError, "column family 9, which does not exist"),
        ([e.drop_column_family(9)], CorruptionError, "column family 9, which does not exist"),
        ([e.drop_column_family(0)], CorruptionError, "default column family is dropped"),
        ([e.add_column_family(0, b"default")], CorruptionError, r"0 \(b'default'\) is added twice"),
        ([e.add_column_family(1, b"a"), e.add_column_family(1, b"b")], CorruptionError, r"1 \(b'b'\) is added twice"),
        ([e.new_file_4(0, 7, 1), e.new_file_4(1, 7, 1)], CorruptionError, "file 7 of b'default' is added twice"),
        ([e.deleted_file(0, 7)], CorruptionError, "file 7 of b'default' is deleted from level 0, but is nowhere"),
        ([e.new_file_4(2, 7, 1), e.deleted_file(0, 7)], CorruptionError, "deleted from level 0, but is on level 2"),
        ([e.blob_file(7, 1, 1), e.blob_file(7, 1, 1)], CorruptionError, "blob file 7 of b'default' is added twice"),
        ([e.blob_garbage(7, 1, 1)], CorruptionError, "blob file 7 of b'default' has garbage, but was never added"),
        ([e.wal_added(7), e.wal_added(7)], CorruptionError, "WAL 7 is created twice"),
        ([e.in_atomic_group(1), e.log_number(5)], CorruptionError, "not of the atomic group stands inside it"),
        ([e.in_atomic_group(2), e.in_atomic_group(2)], CorruptionError, "expected 1 more edits to follow, got 2"),
        ([e.in_atomic_group(2), e.in_atomic_group(0)], CorruptionError, "expected 1 more edits to follow, got 0"),
    ],
    ids=str,
)
def test_contradictions(edits: list[bytes], error: type[Exception], message: str) -> None:
    """An edit that contradicts the Version is refused, with the record's file and offset."""
    writer = LogWriter().add(FIRST_EDIT, *edits)
    offset = ([0, *writer.ends])[-2]
    with pytest.raises(error, match=rf"^{NAME}: record at offset {offset}: .*{message}"):
        read(bytes(writer.data))


def test_atomic_groups() -> None:
    """A group counts when it is whole, however its edits are spread, and groups may follow each other."""
    group = [e.in_atomic_group(1) + e.new_file_4(0, 7, 1), e.in_atomic_group(0) + e.deleted_file(0, 7)]
    assert tables(version_of(*group[:1])) == {}
    assert tables(version_of(*group, *group, e.in_atomic_group(0) + e.new_file_4(0, 8, 1))) == {8: 0}


def test_column_families() -> None:
    """Column families come and go with their files; an id may be used again, and the same file number by another."""
    version = version_of(
        e.add_column_family(1, b"one", b"reversed"),
        e.column_family(1) + e.new_file_4(0, 7, 1) + e.log_number(6),
        e.add_column_family(2, b"two"),
        e.column_family(2) + e.new_file_4(0, 8, 1),
        e.drop_column_family(1),
        e.new_file_4(3, 7, 1),
    )
    assert {family.id: family.name for family in version.column_families.values()} == {0: b"default", 2: b"two"}
    assert (tables(version), tables(version, 2)) == ({7: 3}, {8: 0})
    version = version_of(e.add_column_family(1, b"one", b"reversed"), e.column_family(1) + e.log_number(6))
    assert (version.column_families[1].comparator, version.column_families[1].log_number) == ("reversed", 6)


def test_a_file_moves_between_levels() -> None:
    """A file deleted and added by one edit has moved."""
    assert tables(version_of(e.new_file_4(0, 7, 1), e.new_file_4(2, 7, 1) + e.deleted_file(0, 7))) == {7: 2}


def test_oldest_wal() -> None:
    """The MANIFEST's own bound counts alone where there is one, else the smallest log number of a column family."""
    two = (e.log_number(9), e.add_column_family(1, b"one") + e.log_number(6))
    assert version_of(*two).min_wal_number == 6
    assert version_of(*two, e.log_number(8)).min_wal_number == 6  # a log number never goes back
    assert version_of(*two, e.drop_column_family(1)).min_wal_number == 9
    assert version_of(*two, e.prev_log_number(3)).min_wal_number == 3
    assert version_of(*two, e.min_log_number_to_keep(4)).min_wal_number == 4
    assert version_of(*two, e.min_log_number_to_keep(20)).min_wal_number == 20
    assert version_of(*two, e.min_log_number_to_keep(20), e.min_log_number_to_keep(4)).min_wal_number == 20
    assert version_of(*two, e.new_file_4(0, 7, 1, (3, (5).to_bytes(8, "little")))).min_wal_number == 5


@pytest.mark.parametrize("old", [False, True])
def test_tracked_wals(old: bool) -> None:
    """A WAL's synced size only grows, a deletion takes all below, and a late record brings no deleted WAL back."""

    def wals(*edits: bytes) -> dict[int, int | None]:
        return version_of(*edits).wals

    assert wals(e.wal_added(7, old=old)) == {7: None}
    assert wals(e.wal_added(7, old=old), e.wal_added(7, 100, old=old)) == {7: 100}
    assert wals(e.wal_added(7, 100, old=old), e.wal_added(7, 50, old=old)) == {7: 100}
    added = [e.wal_added(number, 10, old=old) for number in (6, 7, 8)]
    assert wals(*added, e.wals_deleted(8, old=old)) == {8: 10}
    assert wals(*added, e.wals_deleted(8, old=old), e.wal_added(7, 20, old=old)) == {8: 10}
    assert wals(*added, e.wals_deleted(8, old=old), e.wals_deleted(5), e.wal_added(7, 20, old=old)) == {8: 10}


def live_blobs(*edits: bytes) -> list[int]:
    return [blob.number for blob in version_of(*edits).column_families[0].live_blobs()]


def test_live_blobs() -> None:
    """A blob file dies unrecorded: when none of its blobs is left, or every SST refers to later ones only."""
    blobs = e.blob_file(20, 5, 500) + e.blob_file(21, 6, 600) + e.blob_file(22, 7, 700)
    refers = [e.new_file_4(0, 30 + n, 1, (4, v(20 + n))) for n in range(3)]
    assert live_blobs(blobs) == []
    assert live_blobs(blobs + refers[0]) == [20, 21, 22]
    assert live_blobs(blobs + refers[1]) == [21, 22]
    assert live_blobs(blobs + refers[0] + refers[2], e.deleted_file(0, 30)) == [22]
    assert live_blobs(blobs + refers[0], e.blob_garbage(21, 5, 1)) == [20, 21, 22]
    assert live_blobs(blobs + refers[0], e.blob_garbage(21, 5, 1), e.blob_garbage(21, 1, 1)) == [20, 22]
    assert live_blobs(blobs + refers[0], e.blob_garbage(20, 5, 1)) == [20, 21, 22]  # referred to: it stays
    assert live_blobs(blobs + refers[1] + e.new_file_4(0, 40, 1, (4, v(9)))) == [21, 22]  # 9 is of the old BlobDB
    assert live_blobs(e.new_file_4(0, 40, 1, (4, v(9)))) == []


def test_cleared_path_ids() -> None:
    """A MANIFEST with all path ids cleared has the same length and says the same else; fragmented records, too."""
    edits = [
        FIRST_EDIT,
        e.new_file_4(0, 7, 1, (17, b"x" * BLOCK_SIZE), (65, b"\2"), (17, b"y" * BLOCK_SIZE)) + e.new_file_3(1, 8, 1, 3),
        e.new_file_4(0, 9, 1),
        b"".join(e.new_file_4(1, number, 1, (65, b"\1")) for number in range(100, 3000)),
    ]
    data = log(*edits)
    cleared = rewrite_records(data, NAME, clear_path_ids)
    assert len(cleared) == len(data)
    before, after = read(data), read(cleared)
    assert {table.path_id for table in before.version.column_families[0].tables.values()} == {0, 1, 2, 3}
    for table in before.version.column_families[0].tables.values():
        table.path_id = 0
    assert describe(before.version) == describe(after.version)
    assert after.end == len(data)
    assert rewrite_records(cleared, NAME, clear_path_ids) == cleared


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_answered(data: bytes) -> None:
    """Whatever a MANIFEST, or a valid record in it, holds: a Version, or the package's own error."""
    for content in (data, log(*SMALL) + data, log(FIRST_EDIT, data)):
        with contextlib.suppress(CorruptionError, NotSupportedError):
            assert read(content).version.min_wal_number >= 0


def count_calls(call: Callable[[], object]) -> int:
    """How many functions are called, Python's and C's."""
    count = 0

    def on_event(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def test_work_grows_with_length() -> None:
    """A MANIFEST four times as long, mostly new files, takes four times the work, though it has as many live files."""
    calls = []
    for count in (5000, 20_000):
        edits = [
            b"".join(e.deleted_file(0, n) for n in range(first - 5, first))
            + b"".join(e.new_file_4(0, n, n, (5, v(n)), (6, v(n)), (12, b"u" * 16)) for n in range(first, first + 5))
            for first in range(5, count, 5)
        ]
        data = log(FIRST_EDIT, b"".join(e.new_file_4(0, n, n) for n in range(5)), *edits)
        calls.append(count_calls(lambda data=data: read(data)))
        assert len(tables(read(data).version)) == 5
    assert calls[1] < 4.4 * calls[0]


# Real databases, judged by RocksDB.


def live_files(database: Rdict) -> dict[int, tuple[int, int]]:
    """RocksDB's own answer: file number to size and level."""
    return {int(file["name"].strip("/").split(".")[0]): (file["size"], file["level"]) for file in database.live_files()}


def read_directory(path: Path) -> ManifestReader:
    name = (path / "CURRENT").read_text().strip()
    data = (path / name).read_bytes()
    reader = ManifestReader(name)
    reader.read(pread_of(data), len(data))
    assert (reader.bad_tail, reader.end) == (None, len(data))
    return reader


def old_format(**settings: Any) -> Options:
    """Options of a database that ldb 7.8 can read."""
    options = Options(raw_mode=True)
    table_options = BlockBasedOptions()
    table_options.set_format_version(5)
    options.set_block_based_table_factory(table_options)
    for name, value in {
        "write_buffer_size": 64 * 1024,
        "target_file_size_base": 64 * 1024,
        "disable_auto_compactions": True,
        **settings,
    }.items():
        getattr(options, f"set_{name}")(value)
    return options


def write(database: Rdict, rounds: int, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- the same keys each time
    for _ in range(rounds):
        database[b"%06d" % rng.randrange(5000)] = rng.randbytes(rng.randrange(20, 300))


BLOBS = {
    "enable_blob_files": True,
    "min_blob_size": 100,
    "blob_file_size": 64 * 1024,
    "enable_blob_gc": True,
    "blob_gc_age_cutoff": 0.9,
}


@pytest.fixture(params=[{}, BLOBS, {"max_manifest_file_size": 500}], ids=["plain", "blobs", "rolling"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Rdict]]:
    """Build a database of several column families, one of them dropped, after many flushes and compactions."""
    path = tmp_path / "db"
    main = Rdict(str(path), old_format(**request.param))
    main.create_column_family("dropped", old_format())
    other = main.create_column_family('na"me', old_format(**request.param))
    write(main, 3000, 1)
    write(main.get_column_family("dropped"), 500, 2)
    main.get_column_family("dropped").flush()
    main.drop_column_family("dropped")
    write(other, 3000, 3)
    other.compact_range(None, None)
    write(main, 3000, 4)
    main.compact_range(None, None)
    write(main, 1500, 5)
    for family in (other, main):
        family.flush()
    yield path, main
    del other
    main.close()


def test_live_files(database: tuple[Path, Rdict]) -> None:
    """The Version of a real MANIFEST has exactly the files, sizes and levels that RocksDB itself reports."""
    path, main = database
    version = read_directory(path).version
    ours = {
        table.number: (table.size, table.level)
        for family in version.column_families.values()
        for table in family.tables.values()
    }
    assert ours == live_files(main)
    assert {family.name for family in version.column_families.values()} == {b"default", b'na"me'}
    assert version.last_sequence <= main.latest_sequence_number()
    assert version.db_id == (path / "IDENTITY").read_text()
    on_disk = {int(name.stem): name.stat().st_size for name in path.glob("*.sst")}
    assert {number: size for number, (size, _) in ours.items()}.items() <= on_disk.items()


def dump(manifest: Path, *arguments: str) -> str:
    """Stock RocksDB's reading of a MANIFEST; it may find fault with the directory around it afterwards."""
    command = ["ldb", "manifest_dump", *arguments, f"--path={manifest}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    return done.stdout + done.stderr


needs_ldb = pytest.mark.skipif(shutil.which("ldb") is None, reason="needs ldb (Debian package rocksdb-tools)")


@needs_ldb
def test_manifest_dump(database: tuple[Path, Rdict]) -> None:
    """Files, blob files, garbage and log numbers of each column family are those that ``ldb manifest_dump`` prints."""
    path, _ = database
    reader = read_directory(path)
    text = dump(path / reader.name)
    sections = re.split(r'-+ Column family "(.*)"  \(ID (\d+)\) -+', text)[1:]
    assert len(sections) == 3 * len(reader.version.column_families)
    for name, number, body in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        family = reader.version.column_families[int(number)]
        assert family.name == name.encode()
        assert f"log number: {family.log_number}\ncomparator: {family.comparator}\n" in body
        files = re.findall(r"^ (\d+):(\d+)\[.*?\](?: blob_file:(\d+))?$", body, re.MULTILINE)
        assert sorted((int(n), int(size), int(blob or 0)) for n, size, blob in files) == sorted(
            (table.number, table.size, table.oldest_blob_file_number) for table in family.tables.values()
        )
        blobs = re.findall(
            r"^blob_file_number: (\d+) .*? total_blob_bytes: (\d+) .* garbage_blob_count: (\d+) ", body, re.MULTILINE
        )
        assert sorted((int(n), int(size) + 62, int(garbage)) for n, size, garbage in blobs) == sorted(
            (blob.number, blob.size, blob.garbage_count) for blob in family.live_blobs()
        )
        assert len(family.live_blobs()) < len(family.blobs) or not blobs
        assert {blob.number: blob.size for blob in family.live_blobs()}.items() <= {
            int(file.stem): file.stat().st_size for file in path.glob("*.blob")
        }.items()
    version = reader.version
    assert f" last_sequence {version.last_sequence} " in text
    assert f" min_log_number_to_keep {version.min_log_number_to_keep}\n" in text


@needs_ldb
def test_stock_rocksdb_reads_what_the_encoders_write(tmp_path: Path) -> None:
    """The edits that these tests are made of mean to stock RocksDB what they mean here."""
    manifest = tmp_path / NAME
    manifest.write_bytes(log(*SMALL))
    text = dump(manifest, "--verbose", "--json")
    assert text.count("VersionEdit {") >= 3
    for line in (
        "DB ID: a-db-id",
        "AddFile: 0 10 1000 ",
        "AddFile: 1 11 1001 ",
        "AddFile: 2 12 1002 ",
        "AddFile: 0 13 1003 'key' seq:1, type:1 .. 'key' seq:1, type:1 blob_file:20 ",
        "file_checksum:61626364 file_checksum_func_name: FileChecksumCrc32c",
        "MinLogNumberToKeep: 4",
        "BlobFileAddition: blob_file_number: 21 total_blob_count: 6 total_blob_bytes: 600 ",
        "BlobFileGarbage: blob_file_number: 20 garbage_blob_count: 2 garbage_blob_bytes: 30",
        "MaxColumnFamily: 3",
        "WalAddition: log_number: 6 synced_size_in_bytes: 18446744073709551615",
        "WalAddition: log_number: 7 synced_size_in_bytes: 1234",
        "WalDeletion: log_number: 7",
        "AtomicGroup: 2 entries remains",
        "DeleteFile: 0 10",
        "LastSeq: 77",
        "AddFile: 6 15 100 ",
    ):
        assert line in text


@needs_ldb
@pytest.mark.parametrize(("cut", "says"), [(0, True), (-5, False)], ids=["whole", "cut"])
def test_stock_rocksdb_reads_fragmented_records(tmp_path: Path, cut: int, says: bool) -> None:
    """Stock RocksDB reads a record over several blocks, whole and rewritten, and drops it when its end is missing."""
    manifest = tmp_path / NAME
    data = log(FIRST_EDIT, e.new_file_4(3, 7777, 8888, (17, b"x" * 3 * BLOCK_SIZE), (65, b"\2")))
    data = rewrite_records(data, NAME, clear_path_ids)
    manifest.write_bytes(data[: len(data) + cut])
    assert ("AddFile: 3 7777 8888 " in dump(manifest, "--verbose", "--json")) is says
    assert (7777 in tables(read(manifest.read_bytes()).version)) is says


def test_tracked_wals_of_a_real_database(tmp_path: Path) -> None:
    """A real database that tracks its WALs has only ones of its directory in its MANIFEST, no larger than they are."""
    path = tmp_path / "db"
    Rdict(str(path), Options(raw_mode=True)).close()
    options_file = max(path.glob("OPTIONS-*"))
    options_file.write_text(
        options_file.read_text().replace("verify_wals_in_manifest=false", "verify_wals_in_manifest=true")
    )
    options, _ = Options.load_latest(str(path))
    database = Rdict(str(path), options)
    other = database.create_column_family("other", Options(raw_mode=True))
    for seed in range(3):  # a WAL is recorded when it is synced after a newer one has been begun
        write(database, 100, seed)
        write(other, 10, seed)
        database.flush()
        write(database, 1, seed)
        database.flush_wal(True)
    wals = read_directory(path).version.wals
    sizes = {int(file.stem): file.stat().st_size for file in path.glob("*.log")}
    del other
    database.close()
    assert wals
    assert wals.keys() <= sizes.keys()
    assert all(size is None or size <= sizes[number] for number, size in wals.items())
