"""Names of files, and CURRENT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.filename import (
    FileName,
    FileType,
    blob_file_name,
    decode_current,
    descriptor_file_name,
    find_wals,
    leveldb_table_file_name,
    newest_options,
    parse_file_name,
    table_file_name,
    wal_file_name,
)

NUMBERS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("name", "file_type", "number"),
    [
        ("000012.log", FileType.WAL, 12),
        ("12.log", FileType.WAL, 12),
        ("000012.sst", FileType.TABLE, 12),
        ("000012.ldb", FileType.TABLE, 12),
        ("000012.blob", FileType.BLOB, 12),
        ("000012.dbtmp", FileType.TEMP, 12),
        ("MANIFEST-000012", FileType.DESCRIPTOR, 12),
        ("OPTIONS-000012", FileType.OPTIONS, 12),
        ("OPTIONS-000012.dbtmp", FileType.TEMP, 12),
        ("COMPACTION_PROGRESS-1700000000", FileType.COMPACTION_PROGRESS, 1700000000),
        ("COMPACTION_PROGRESS-1700000000.dbtmp", FileType.TEMP, 1700000000),
        ("METADB-12", FileType.META_DATABASE, 12),
        ("CURRENT", FileType.CURRENT, 0),
        ("IDENTITY", FileType.IDENTITY, 0),
        ("LOCK", FileType.LOCK, 0),
        ("LOG", FileType.INFO_LOG, 0),
        ("LOG.old", FileType.INFO_LOG, 0),
        ("LOG.old.1700000000000000", FileType.INFO_LOG, 0),
        ("18446744073709551615.sst", FileType.TABLE, 2**64 - 1),
    ],
)
def test_known(name: str, file_type: FileType, number: int) -> None:
    """Every kind of name that RocksDB writes is told by type and number."""
    assert parse_file_name(name) == FileName(file_type, number)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".sst",
        "sst",
        "000012",
        "000012.",
        "000012.sst\n",
        "000012.SST",
        "000012.sst.trash",
        "-12.sst",
        "+12.sst",
        " 12.sst",
        "1_2.sst",
        "١٢.sst",
        "12.34.sst",
        "18446744073709551616.sst",
        "9" * 10000 + ".sst",
        "MANIFEST",
        "MANIFEST-",
        "MANIFEST-x",
        "MANIFEST-000012\n",
        "MANIFEST-000012.dbtmp",
        "MANIFEST-000012.tmp",
        "MANIFEST--12",
        "MANIFEST-18446744073709551616",
        "manifest-000012",
        "CURRENT.bak",
        "OPTIONS-000012.bak",
        "CURRENT\n",
        "LOGx",
        "LOG.old.x",
        "/000012.sst",
        "archive/000012.log",
        "rocksdict-config.json",
        "checkpoint.json",
        "\udcff.sst",
    ],
)
def test_unknown(name: str) -> None:
    """What RocksDB does not write is nothing to us either, however close it comes."""
    assert parse_file_name(name) is None


@given(st.text())
def test_any_text_is_answered(name: str) -> None:
    """Whatever a file is called, parsing its name raises nothing."""
    parse_file_name(name)


@given(NUMBERS)
def test_round_trip(number: int) -> None:
    """Each name that is made from a number parses back to it."""
    assert parse_file_name(wal_file_name(number)) == (FileType.WAL, number)
    assert parse_file_name(table_file_name(number)) == (FileType.TABLE, number)
    assert parse_file_name(leveldb_table_file_name(number)) == (FileType.TABLE, number)
    assert parse_file_name(blob_file_name(number)) == (FileType.BLOB, number)
    assert parse_file_name(descriptor_file_name(number)) == (FileType.DESCRIPTOR, number)


def test_wals_among_many_names() -> None:
    """WALs are found by their number, under the name that they have; whatever only looks like one is not."""
    others = ["000012.sst", "x12.log", "12.log ", "12.log\n", "1_2.log", "١٢.log", f"{2**64}.log"]
    assert find_wals([*others, "000012.log", "7.log"]) == {12: "000012.log", 7: "7.log"}
    assert find_wals(others) == {}


def test_newest_options() -> None:
    """The OPTIONS file with the highest number counts, not the last name; no copy of one, nor a temporary one."""
    names = ["OPTIONS-000099", "OPTIONS-1000001", "OPTIONS-000007", "OPTIONS-2000000.dbtmp", "OPTIONS-2000000.bak"]
    assert newest_options([*names, f"OPTIONS-{2**64}", "MANIFEST-3000000"]) == "OPTIONS-1000001"
    assert newest_options(["OPTIONS-", "CURRENT", "OPTIONS-000007.dbtmp"]) is None


def test_numbers_have_six_digits_or_more() -> None:
    """A number is padded to six digits and never cut."""
    assert (wal_file_name(7), table_file_name(1234567)) == ("000007.log", "1234567.sst")


def test_current() -> None:
    """CURRENT holds the MANIFEST's name and a newline."""
    assert decode_current(b"MANIFEST-000012\n") == "MANIFEST-000012"


@pytest.mark.parametrize(
    "data",
    [
        *(b"MANIFEST-000012\n"[:cut] for cut in range(16)),
        b"MANIFEST-000012\r\n",
        b"MANIFEST-000012\n\n",
        b"MANIFEST-000012\nx",
        b"MANIFEST-000012 \n",
        b"\nMANIFEST-000012\n",
        b"../MANIFEST-000012\n",
        b"MANIFEST-000012\0\n",
        b"000012.sst\n",
        b"OPTIONS-000012\n",
        b"\xff" * 1_000_000,
    ],
)
def test_damaged_current(data: bytes) -> None:
    """CURRENT cut anywhere, longer, or naming something else is damage; the message shows its beginning."""
    with pytest.raises(CorruptionError, match=rf"CURRENT.*\({len(data)} bytes\)") as caught:
        decode_current(data)
    assert len(str(caught.value)) < 400
