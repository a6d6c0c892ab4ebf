"""VersionEdits: every tag, whole, cut, damaged and hostile."""

from __future__ import annotations

import contextlib
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format import version_edit
from airflow_provider_rocksdb.core.format.version_edit import (
    BlobFile,
    TableFile,
    VersionEdit,
    clear_path_ids,
    decode_version_edit,
)
from tests.core.format import encoders as e
from tests.core.format.encoders import KEY, s, v

UINT64 = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 300))
UINT32 = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 300))
ALL_CUSTOM = (
    (2, b"\1"),
    (3, (6).to_bytes(8, "little")),
    (4, v(300)),
    (5, v(1700000000)),
    (6, v(1700000001)),
    (7, b"\xde\xad\xbe\xef"),
    (8, b"FileChecksumCrc32c"),
    (9, b"\2"),
    (10, b"smallest-timestamp"),
    (11, b"largest-timestamp"),
    (12, b"u" * 16),
    (13, v(77)),
    (14, v(1000)),
    (15, v(2000)),
    (16, b"\0"),
    (17, b"open metadata" * 20),
    (65, b"\2"),
)
FIELDS = {
    "comparator": e.comparator(b"leveldb.BytewiseComparator"),
    "log number": e.log_number(300),
    "next file number": e.next_file_number(301),
    "last sequence": e.last_sequence(2**56 - 1),
    "compaction cursor": e.compaction_cursor(3),
    "deleted file": e.deleted_file(200, 300),
    "new file": e.new_file_1(1, 300, 4096),
    "previous log number": e.prev_log_number(9),
    "min log number to keep": e.min_log_number_to_keep(300),
    "new file 2": e.new_file_2(1, 300, 4096, (5, 900)),
    "new file 3": e.new_file_3(1, 300, 4096, 2, (5, 900)),
    "new file 4": e.new_file_4(1, 300, 4096, *ALL_CUSTOM, sequences=(5, 900)),
    "column family": e.column_family(300),
    "column family added": v(201) + s(b"n\xffame"),
    "column family dropped": v(202),
    "max column family": e.max_column_family(300),
    "atomic group": e.in_atomic_group(300),
    "blob file": e.blob_file(300, 10, 4096, (2, b"new field"), checksum=(b"crc", b"sum")),
    "blob garbage": e.blob_garbage(300, 10, 4096, (2, b"new field")),
    "unknown, safe": v(8192) + s(b"anything"),
    "db id": e.db_id(b"6fe7-a"),
    "blob file, old": e.blob_file(300, 10, 4096, tag=8194),
    "blob garbage, old": e.blob_garbage(300, 10, 4096, tag=8195),
    "WAL added, old": e.wal_added(300, 5000, old=True),
    "WALs deleted, old": e.wals_deleted(300, old=True),
    "full history": v(8198) + s(b"timestamp"),
    "WAL added": e.wal_added(300, 5000),
    "WALs deleted": e.wals_deleted(300),
    "persist timestamps": v(8201) + s(b"\1"),
    "subcompaction progress": v(8202) + s(b"progress" * 20),
    "last compacted MANIFEST size": v(8203) + s(v(5000)),
    "unknown, safe, later": v(1 << 13 | 1 << 20) + s(b"anything"),
}
each_field = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())


def table(file: TableFile) -> tuple[Any, ...]:
    return (file.level, file.number, file.size, file.largest_sequence, file.path_id)


def details(file: TableFile) -> tuple[Any, ...]:
    return (file.oldest_blob_file_number, file.checksum, file.checksum_function, file.unique_id)


def new_files(edit: VersionEdit) -> list[TableFile]:
    return [TableFile(*encoded) for encoded in edit.new_files]


def blob(file: BlobFile) -> tuple[Any, ...]:
    return (file.number, file.blob_count, file.size, file.checksum_function, file.checksum)


def said(edit: VersionEdit) -> dict[str, Any]:
    """Everything that an edit says, its unsaid parts left out."""
    values = {**vars(edit), "new_files": [table(file) + details(file) for file in new_files(edit)]}
    values["blob_files"] = [blob(file) for file in edit.blob_files]
    return {name: value for name, value in values.items() if value}


def test_plain_fields() -> None:
    """Each number and name of an edit is where RocksDB put it."""
    edit = decode_version_edit(b"".join(FIELDS.values()))
    assert edit.comparator == "leveldb.BytewiseComparator"
    assert (edit.log_number, edit.next_file_number, edit.last_sequence) == (300, 301, 2**56 - 1)
    assert (edit.prev_log_number, edit.column_family, edit.atomic_group_remaining) == (9, 300, 300)
    assert (edit.added_column_family, edit.drops_column_family, edit.db_id) == (b"n\xffame", True, "6fe7-a")
    assert edit.deleted_files == [(v(200), v(300))]


def test_new_files() -> None:
    """All four ways to add a file give level, number, size, largest sequence number and path id."""
    edit = decode_version_edit(
        b"".join(FIELDS[name] for name in ("new file", "new file 2", "new file 3", "new file 4"))
    )
    assert [table(file) for file in new_files(edit)] == [
        (1, 300, 4096, 0, 0),
        (1, 300, 4096, 900, 0),
        (1, 300, 4096, 900, 2),
        (1, 300, 4096, 900, 2),
    ]
    assert [details(file) for file in new_files(edit)[:3]] == [(0, b"", "", b"")] * 3
    assert details(new_files(edit)[3]) == (300, b"\xde\xad\xbe\xef", "FileChecksumCrc32c", b"u" * 16)


def test_min_log_number_hidden_in_a_new_file() -> None:
    """Custom field 3 of a new file is the database's min log number to keep, and the later one of two counts."""
    hidden = e.new_file_4(0, 1, 2, (3, (7).to_bytes(8, "little")))
    assert decode_version_edit(hidden).min_log_number_to_keep == 7
    assert decode_version_edit(e.min_log_number_to_keep(6) + hidden).min_log_number_to_keep == 7
    assert decode_version_edit(hidden + e.min_log_number_to_keep(8)).min_log_number_to_keep == 8


@pytest.mark.parametrize(("added", "garbage"), [(400, 401), (8194, 8195)])
def test_blob_files(added: int, garbage: int) -> None:
    """Blob files and their garbage are told by the current and the deprecated tags; a file has 62 bytes more."""
    edit = decode_version_edit(
        e.blob_file(300, 10, 4096, (2, b"x"), checksum=(b"crc", b"sum"), tag=added)
        + e.blob_garbage(300, 4, 9, tag=garbage)
    )
    assert [blob(file) for file in edit.blob_files] == [(300, 10, 4096 + 30 + 32, "crc", b"sum")]
    assert edit.blob_garbage == [(300, 4)]


@pytest.mark.parametrize("old", [False, True])
def test_wals(old: bool) -> None:
    """WAL additions, with and without a synced size, and deletions are told in the old and the current form."""
    record = e.wal_added(8, old=old) + e.wal_added(9, 5000, old=old) + e.wals_deleted(8, old=old)
    edit = decode_version_edit(record)
    assert edit.added_wals == [(8, None), (9, 5000)]
    assert edit.deleted_wals_below == 8


@given(UINT32, UINT64, UINT64, UINT64, UINT64, st.binary(max_size=200), st.binary(max_size=200))
def test_new_file_4_of_any_numbers(
    level: int, number: int, size: int, smallest: int, largest: int, low: bytes, high: bytes
) -> None:
    """A new file reads back whatever its numbers and keys are, and what follows it is not touched."""
    field = e.new_file_4(
        level, number, size, (12, low), (4, v(number)), sequences=(smallest, largest), keys=(low, high)
    )
    edit = decode_version_edit(field + e.log_number(number))
    assert [table(file) for file in new_files(edit)] == [(level, number, size, largest, 0)]
    assert (new_files(edit)[0].unique_id, new_files(edit)[0].oldest_blob_file_number) == (low, number)
    assert edit.log_number == number


@given(st.lists(st.sampled_from(list(FIELDS.values())), max_size=6))
def test_fields_in_any_order(fields: list[bytes]) -> None:
    """Fields say the same together as one by one."""
    edit = decode_version_edit(b"".join(fields))
    for name in ("new_files", "deleted_files", "blob_files", "blob_garbage", "added_wals"):
        assert len(getattr(edit, name)) == sum(len(getattr(decode_version_edit(field), name)) for field in fields)


@each_field
def test_cut_at_every_byte(field: bytes) -> None:
    """A field cut at any byte is damage, alone and behind another."""
    before = e.log_number(7)
    for cut in range(1, len(field)):
        for data in (field[:cut], before + field[:cut]):
            with pytest.raises(CorruptionError):
                decode_version_edit(data)
    assert said(decode_version_edit(before)) == {"log_number": 7}
    assert said(decode_version_edit(b"")) == {}


@each_field
def test_trailing_bytes(field: bytes) -> None:
    """A byte too many behind a field is refused, whatever it is."""
    for tail in (b"\0", b"\x80", b"\xff", b"\1", b"\x67", b"\0" * 100, b"\x0b"):
        with pytest.raises((CorruptionError, NotSupportedError)):
            decode_version_edit(field + tail)


@each_field
def test_any_damage_is_answered(field: bytes) -> None:
    """Any byte changed gives an edit or the package's own error, nothing else."""
    for position in range(len(field)):
        for value in range(256):
            with contextlib.suppress(CorruptionError, NotSupportedError):
                decode_version_edit(field[:position] + bytes((value,)) + field[position + 1 :])


@given(st.binary(max_size=100), st.sampled_from(list(FIELDS.values())))
def test_any_bytes_are_answered(data: bytes, field: bytes) -> None:
    """Any bytes, also behind a whole field or a field's beginning, give an edit or the package's own error."""
    for record in (data, field + data, field[: len(field) // 2] + data):
        with contextlib.suppress(CorruptionError, NotSupportedError):
            decode_version_edit(record)


@pytest.mark.parametrize("tag", [0, 8, 11, 101, 104, 199, 204, 299, 301, 402, 4096, 8191, 16384, 2**32 - 1 - 8192])
def test_unknown_tag(tag: int) -> None:
    """An unknown tag without bit 13 is refused by its number, since what follows cannot be told."""
    with pytest.raises(NotSupportedError, match=f"unknown tag {tag} before byte"):
        decode_version_edit(e.log_number(7) + v(tag) + s(b"anything"))


@pytest.mark.parametrize("tag", [8192, 8204, 8191 + 8192, 3 * 8192, 2**32 - 1])
def test_unknown_tag_that_may_be_skipped(tag: int) -> None:
    """An unknown tag with bit 13 is passed over with its slice."""
    edit = decode_version_edit(v(tag) + s(b"anything") + e.log_number(7))
    assert said(edit) == {"log_number": 7}


@pytest.mark.parametrize("tag", [18, 63, 128, 128 + 63, 256 + 5])
def test_unknown_custom_field(tag: int) -> None:
    """An unknown custom field without bit 6 is passed over with its slice, of any length."""
    for length in (0, 1, 127, 128, 300):
        edit = decode_version_edit(e.new_file_4(0, 1, 2, (tag, b"x" * length), (12, b"id")) + e.log_number(7))
        assert (new_files(edit)[0].unique_id, edit.log_number) == (b"id", 7)
        record = e.blob_file(1, 2, 3, *([(tag, b"x" * length)] if tag < 64 else []))
        assert decode_version_edit(record).blob_files[0].blob_count == 2


@pytest.mark.parametrize("tag", [64, 66, 127, 64 + 128, 127 + 256])
def test_unknown_custom_field_that_must_be_known(tag: int) -> None:
    """An unknown custom field with bit 6 is refused by its number, in SST and blob files alike."""
    for record in (
        e.new_file_4(0, 1, 2, (tag, b"x")),
        e.blob_file(1, 2, 3, (tag, b"x")),
        e.blob_garbage(1, 2, 3, (tag, b"")),
    ):
        with pytest.raises(NotSupportedError, match=f"custom field {tag} .*must not be ignored"):
            decode_version_edit(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (e.new_file_4(0, 5, 2, (65, b"")), r"file 5: path id b'' \(0 bytes\), expected one byte, 0 to 3"),
        (e.new_file_4(0, 5, 2, (65, b"\4")), r"file 5: path id b'\\x04'"),
        (e.new_file_4(0, 5, 2, (65, b"\1\1")), "file 5: path id"),
        (e.new_file_4(0, 5, 2, (3, b"1234567")), "file 5: min log number to keep has 7 bytes, expected 8"),
        (e.new_file_4(0, 5, 2, (4, b"\x80")), "varint64 runs past the end"),
        (v(8199) + s(v(5)), "varint32 runs past the end"),
        (v(8200) + s(b""), "varint64 runs past the end"),
    ],
    ids=range(7),
)
def test_fields_of_a_wrong_size(record: bytes, message: str) -> None:
    """A field whose content cannot be what it must be is damage, and named."""
    with pytest.raises(CorruptionError, match=message):
        decode_version_edit(record)


def test_unknown_field_of_a_wal() -> None:
    """A WAL addition with a field that only a later RocksDB knows is refused, as RocksDB does."""
    with pytest.raises(NotSupportedError, match="WAL 5: unknown field 3"):
        decode_version_edit(v(8199) + s(v(5) + v(3) + v(1) + v(1)))


HUGE = v(2**32 - 1)
CLAIMS = {
    "comparator": v(1) + HUGE,
    "cursor": v(5) + v(0) + HUGE,
    "new file": v(7) + v(0) + v(1) + v(2) + HUGE,
    "new file 4, key": v(103) + v(0) + v(1) + v(2) + HUGE,
    "new file 4, second key": v(103) + v(0) + v(1) + v(2) + s(KEY) + HUGE,
    "new file 4, skipped": e.new_file_4(0, 1, 2)[:-1] + v(5) + HUGE,
    "new file 4, read": e.new_file_4(0, 1, 2)[:-1] + v(7) + HUGE,
    "name": v(201) + HUGE,
    "blob checksum": v(400) + v(1) + v(2) + v(3) + HUGE,
    "blob custom": v(400) + v(1) + v(2) + v(3) + s(b"") + s(b"") + v(2) + HUGE,
    "ignorable": v(8192) + HUGE,
    "WAL": v(8199) + HUGE,
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
def test_a_length_of_4_gib_allocates_nothing(claim: bytes) -> None:
    """A length field of 4 GiB is refused without anything of that size being allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError):
            decode_version_edit(claim + b"x" * 50)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 1_000_000,
        b"\0" * 1_000_000,
        v(103) + b"\x80" * 1_000_000,
        v(103) + v(0) + v(1) + v(2) + s(b"") + s(b"") + b"\x80" * 1_000_000,
        e.new_file_4(0, 1, 2)[:-1] + b"\2\0" * 500_000,
        b"\xca\1" * 500_000,
        e.deleted_file(0, 0) * 300_000,
    ],
    ids=range(7),
)
@pytest.mark.timeout(60)
def test_hostile_records(data: bytes) -> None:
    """A megabyte of anything is answered in bounded time."""
    with contextlib.suppress(CorruptionError, NotSupportedError):
        decode_version_edit(data)


def test_clear_path_ids() -> None:
    """Clearing path ids keeps a record's length and everything else that it says."""
    record = (
        e.log_number(7)
        + e.new_file_3(1, 300, 4096, 3)
        + e.new_file_3(1, 301, 4096, 300)  # two bytes wide
        + e.new_file_3(1, 302, 4096, 0)
        + e.new_file_4(1, 303, 4096, *ALL_CUSTOM)
        + e.new_file_4(1, 304, 4096)
        + e.last_sequence(9)
    )
    cleared = clear_path_ids(record)
    assert cleared is not None
    assert len(cleared) == len(record)
    before, after = decode_version_edit(record), decode_version_edit(cleared)
    assert [file.path_id for file in new_files(before)] == [3, 300, 0, 2, 0]
    assert [file.path_id for file in new_files(after)] == [0] * 5
    before.new_files = [(*encoded[:3], 0) for encoded in before.new_files]
    before.path_id_positions = []
    assert said(before) == said(after)
    assert clear_path_ids(cleared) is None


@pytest.mark.parametrize("clear", [clear_path_ids, decode_version_edit])
def test_damage_is_not_rewritten(clear: Callable[[bytes], Any]) -> None:
    """A damaged record is refused, not rewritten."""
    with pytest.raises(CorruptionError):
        clear(e.new_file_3(1, 300, 4096, 3)[:-1])


NOTHING_IS_USUAL = re.compile(b"(?!)" + b"()" * version_edit._USUAL_FIELDS.groups + b"|.+", re.DOTALL)
CUSTOM_FIELDS = st.one_of(
    st.sampled_from([*ALL_CUSTOM, (7, b""), (8, b"Unknown"), (13, v(1)), (15, v(4000)), (12, b"u" * 24)]),
    st.tuples(st.sampled_from([*range(16), 63, 64, 65, 66, 200]), st.binary(max_size=9)),
    st.tuples(st.just(4), st.sampled_from([b"", b"\0", b"\x80", v(300), v(300) + b"\0", v(2**63 - 1), v(2**63)])),
    st.tuples(st.sampled_from([10, 12]), st.binary(min_size=120, max_size=140)),
)


@given(
    level=st.sampled_from([0, 6, 127, 128]),
    numbers=st.tuples(UINT64, UINT64, UINT64, UINT64),
    keys=st.tuples(st.binary(max_size=130), st.binary(max_size=130)),
    custom=st.lists(CUSTOM_FIELDS, max_size=6),
    change=st.tuples(st.floats(0, 1), st.integers(0, 255)),
    cut=st.booleans(),
)
def test_usual_files_are_no_exception(
    level: int,
    numbers: tuple[int, int, int, int],
    keys: tuple[bytes, bytes],
    custom: list[tuple[int, bytes]],
    change: tuple[float, int],
    cut: bool,
) -> None:
    """What is decoded fast is what the decoder for everything else would say, errors and what follows included."""
    number, size, *sequences = numbers
    data = e.new_file_4(level, number, size, *custom, sequences=(sequences[0], sequences[1]), keys=keys) + v(2) + v(9)
    position = int(change[0] * (len(data) - 1))
    for case in (data, data[:position] if cut else data[:position] + bytes([change[1]]) + data[position + 1 :]):
        fast = describe(case)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(version_edit, "_USUAL_FIELDS", NOTHING_IS_USUAL)
            assert fast == describe(case)


ROWS = st.one_of(
    st.sampled_from([*FIELDS.values(), *(e.v(tag) + e.v(0) for tag in version_edit._NUMBERS)]),
    st.builds(lambda tag, number: v(tag) + v(number), st.sampled_from(list(version_edit._NUMBERS)), UINT64),
    st.builds(e.deleted_file, st.sampled_from([0, 6, 127, 128]), UINT64),
    st.builds(e.new_file_4, st.integers(0, 6), UINT64, UINT64, CUSTOM_FIELDS, CUSTOM_FIELDS),
    st.builds(lambda number: v(2) + b"\x80" * number + b"\0", st.integers(0, 11)),  # longer than it need be
)


@given(st.lists(ROWS, max_size=12), st.integers(1, 200), st.tuples(st.floats(0, 1), st.integers(0, 255)), st.booleans())
def test_usual_rows_are_no_exception(
    fields: list[bytes], most_bytes: int, change: tuple[float, int], damaged: bool
) -> None:
    """Fields of all kinds in a row say the same however many are decoded at once, and one by one; so does damage."""
    data = b"".join(fields)
    if damaged and data:
        position = int(change[0] * (len(data) - 1))
        data = data[:position] + bytes([change[1]]) + data[position + 1 :]
    told = describe(data)
    for name, value in (("_MOST_BYTES_AT_ONCE", most_bytes), ("_USUAL_FIELDS", NOTHING_IS_USUAL)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(version_edit, name, value)
            assert told == describe(data)


def describe(data: bytes) -> Any:
    """Return all that an edit says, or the error."""
    try:
        edit = decode_version_edit(data)
    except (CorruptionError, NotSupportedError) as error:
        return type(error), str(error)
    files = [(table(file), file.smallest, details(file)) for file in new_files(edit)]
    return {
        **vars(edit),
        "new_files": edit.new_files,
        "files": files,
        "blob_files": [vars(file) for file in edit.blob_files],
    }
