"""The text of ``meta/<id>``: what RocksDB writes, what it must refuse, and that ours comes back as it was."""

from __future__ import annotations

import contextlib
import importlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError
from airflow_provider_rocksdb.core.format.backup_meta import (
    MAX_BACKUP_ID,
    BackupFile,
    BackupMeta,
    decode_backup_id,
    decode_backup_meta,
    encode_backup_meta,
)

aimrocks = importlib.import_module("aimrocks")  # ships no types

REFUSALS = (CorruptionError, NotSupportedError)

SCHEMA_1 = b"""1700000000
42
metadata 7B7D
2
shared_checksum/000012_sABC_17.sst crc32 3735928559
private/3/CURRENT crc32 0
"""
SCHEMA_2 = b"""schema_version 2.1
1700000000
42
metadata 7b7d
future some data
2
shared_checksum/000012_sABC_17.sst crc32 3735928559 temp kCold size 17
private/3/CURRENT future x size 16
// FOOTER
checksum of some kind
"""
FILES = (BackupFile("shared_checksum/000012_sABC_17.sst", 3735928559), BackupFile("private/3/CURRENT", 0))


def with_path(path: str) -> bytes:
    return b"schema_version 2.1\n1\n1\n1\n" + path.encode() + b" crc32 1 size 1\n"


def test_schema_1() -> None:
    """The first schema: checksums, no sizes."""
    assert decode_backup_meta(SCHEMA_1) == BackupMeta(1700000000, 42, b"{}", FILES, "1")


def test_schema_2() -> None:
    """The second: fields in pairs, of which unknown ones are passed over, and a footer."""
    meta = decode_backup_meta(SCHEMA_2)
    assert meta.schema_version == "2.1"
    assert meta.files == (
        BackupFile("shared_checksum/000012_sABC_17.sst", 3735928559, 17),
        BackupFile("private/3/CURRENT", None, 16),
    )


def test_real_meta(tmp_path: Path) -> None:
    """What RocksDB's own BackupEngine writes is read: every file it stored, and none else."""
    database = aimrocks.DB(str(tmp_path / "db"), aimrocks.Options(create_if_missing=True))
    database.put(b"key", b"value")
    engine = aimrocks.BackupEngine(str(tmp_path / "backup"))
    engine.create_backup(database, flush_before_backup=True)
    meta = decode_backup_meta((tmp_path / "backup" / "meta" / "1").read_bytes())
    stored = {
        str(path.relative_to(tmp_path / "backup"))
        for folder in ("private", "shared", "shared_checksum")
        for path in (tmp_path / "backup" / folder).rglob("*")
        if path.is_file()
    }
    assert {file.path for file in meta.files} == stored
    assert any(file.name == "CURRENT" for file in meta.files)
    assert encode_backup_meta(meta) == (tmp_path / "backup" / "meta" / "1").read_bytes()


@pytest.mark.parametrize("data", [SCHEMA_1, SCHEMA_2], ids=["1", "2"])
def test_cut_at_every_byte(data: bytes) -> None:
    """A text cut anywhere is refused, but where a line of the footer ends, which nothing counts."""
    footer = data.find(b"// FOOTER")
    for end in range(len(data)):
        if footer >= 0 and end >= footer and data[end - 1 : end] == b"\n":
            assert len(decode_backup_meta(data[:end]).files) == 2
        else:
            with pytest.raises(REFUSALS):
                decode_backup_meta(data[:end])


@pytest.mark.parametrize("tail", [b"\n", b"\0", b"x", b"private/3/LOCK crc32 0\n", b"// FOOTER"])
@pytest.mark.parametrize("data", [SCHEMA_1, SCHEMA_2], ids=["1", "2"])
def test_trailing_data(data: bytes, tail: bytes) -> None:
    """Anything behind the last line is refused, but one more field of a footer."""
    if data is SCHEMA_2 and tail.startswith(b"private"):
        with pytest.raises(CorruptionError, match="field"):
            decode_backup_meta(data + tail)
    else:
        with pytest.raises(REFUSALS):
            decode_backup_meta(data + tail)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "private/../x",
        "private/3/..",
        "private/3/.",
        "private/3/",
        "private/3//x",
        "private/3/a/b",
        "private//x",
        "private/03/x",
        "private/0/x",
        "private/4294967294/x",
        "private/3.tmp/x",
        "shared/../x",
        "shared_checksum/a/b",
        "shared_checksum/",
        "shared_checksum/_1_2.",
        "shared_checksum/._1_2.",
        "shared_checksum",
        "meta/1",
        "incoming/x",
        "Private/3/x",
        "private/3/a\\b",
        "private/3/a\0b",
        "private/3/a\tb",
        "private/3/a\rb",
        "private/3/é",
        "private/3/" + "a" * 256,
    ],
)
def test_hostile_paths(path: str) -> None:
    """A path that leads anywhere but to a file of a backup's folders is refused."""
    with pytest.raises(REFUSALS):
        decode_backup_meta(with_path(path))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("shared_checksum/000012_sABC_17.sst", "000012.sst"),
        ("shared_checksum/000012_1_2.blob", "000012.blob"),
        ("shared_checksum/000012.sst", "000012.sst"),
        ("shared/000012.sst", "000012.sst"),
        ("private/3/MANIFEST-000005", "MANIFEST-000005"),
        ("private/4294967293/OPTIONS_x.1", "OPTIONS_x.1"),
    ],
)
def test_restored_names(path: str, name: str) -> None:
    """A shared file is restored without what lies between its first ``_`` and its last dot; others as they are."""
    assert decode_backup_meta(with_path(path)).files[0].name == name


@pytest.mark.parametrize("second", ["000012_1_2.sst", "000012_3_4.sst", "000012.sst"])
def test_two_files_of_one_name(second: str) -> None:
    """Two files that would be restored under one name are refused."""
    line = "shared_checksum/{} crc32 1\n"
    with pytest.raises(CorruptionError, match="restored as"):
        decode_backup_meta(("1\n1\n2\n" + line.format("000012_1_2.sst") + line.format(second)).encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "schema_version 2.1\n",
        "schema_version 2.1\r\n1\n1\n0\n",
        "-1\n1\n0\n",
        "01\n1\n0\n",
        " 1\n1\n0\n",
        "1\n18446744073709551616\n0\n",
        "1\n1\n4294967296\n",
        "1\n1\n1\n",
        "1\n1\n0\nprivate/1/CURRENT crc32 1\n",
        "1\n1\nmetadata 7\n0\n",
        "1\n1\nmetadata xx\n0\n",
        "1\n1\nmetadata\n0\n",
        "1\n1\nmetadata 7b\nmetadata 7b\n0\n",
        "1\n1\nother x\n0\n",
        "1\n1\n0\n// FOOTER\n",
        "1\n1\n1\nprivate/1/CURRENT\n",
        "1\n1\n1\nprivate/1/CURRENT crc32\n",
        "1\n1\n1\nprivate/1/CURRENT size 1\n",
        "1\n1\n1\nprivate/1/CURRENT crc32 4294967296\n",
        "1\n1\n1\nprivate/1/CURRENT crc32 -1\n",
        "1\n1\n1\nprivate/1/CURRENT crc32 1 size 1\n",
        "1\n1\n1\nprivate/1/CURRENT  crc32 1\n",
        "schema_version 2.1\n1\n1\n1\nprivate/1/CURRENT size 9223372036854775808\n",
        "schema_version 2.1\n1\n1\n1\nprivate/1/CURRENT size 1 size 1\n",
        "schema_version 2.1\n1\n1\n1\nprivate/1/CURRENT size\n",
        "schema_version 2.1\n1\n1\n1\n// FOOTER\n",
    ],
)
def test_malformed(text: str) -> None:
    """What is not exactly the grammar is damage."""
    with pytest.raises(CorruptionError):
        decode_backup_meta(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "schema_version 3\n1\n1\n0\n",
        "schema_version 20\n1\n1\n0\n",
        "schema_version \n1\n1\n0\n",
        "schema_version 2.1\n1\n1\nni::escape x\n0\n",
        "schema_version 2.1\n1\n1\n1\nprivate/1/CURRENT ni::other x\n",
        "schema_version 2.1\n1\n1\n1\nprivate/1/CURRENT ni::excluded true\n",
        "schema_version 2.1\n1\n1\n0\n// FOOTER\nni::checksum x\n",
    ],
)
def test_from_the_future(text: str) -> None:
    """Another schema, and a field that must not be passed over, are refused as not known."""
    with pytest.raises(NotSupportedError):
        decode_backup_meta(text.encode())


def test_lying_count_allocates_nothing() -> None:
    """A count of four billion files, without the files, is refused at once."""
    tracemalloc.start()
    with pytest.raises(CorruptionError, match="expected 4294967295 files, got 1"):
        decode_backup_meta(b"1\n1\n4294967295\nprivate/1/CURRENT crc32 1\n")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "backup_id"),
    [
        ("1", 1),
        ("4294967293", MAX_BACKUP_ID),
        *((name, None) for name in ("0", "01", "4294967294", "1.tmp", ".1.tmp", "", "-1", "9" * 5000, "²")),
    ],
)
def test_backup_ids(name: str, backup_id: int | None) -> None:
    """Ids are decimal, without leading zeros, up to BackupEngine's largest."""
    assert decode_backup_id(name) == backup_id


NAMES = st.from_regex(r"[0-9]{6}\.(sst|blob|ldb)", fullmatch=True)
SHARED = st.builds(lambda name, crc: f"shared_checksum/{name[:6]}_{crc}_7.{name[7:]}", NAMES, st.integers(0, 2**32 - 1))
OWN = st.builds(
    lambda number, name: f"private/{number}/{name}",
    st.integers(1, MAX_BACKUP_ID),
    st.sampled_from(["CURRENT", "MANIFEST-000005", "OPTIONS-000007", "IDENTITY", "000012.log"]),
)
BACKUP_FILES = st.lists(
    st.builds(
        BackupFile,
        SHARED | OWN,
        st.none() | st.integers(0, 2**32 - 1),
        st.none() | st.integers(0, 2**63 - 1),
    ),
    max_size=10,
    unique_by=lambda file: file.name,
)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=50), BACKUP_FILES)
def test_round_trip(timestamp: int, sequence_number: int, metadata: bytes, files: list[BackupFile]) -> None:
    """What is written comes back as it was."""
    meta = BackupMeta(timestamp, sequence_number, metadata, tuple(files))
    assert decode_backup_meta(encode_backup_meta(meta)) == meta


def test_cannot_write_what_cannot_be_read() -> None:
    """A meta that no reader would take is not written."""
    for file in (BackupFile("../x", 1, 1), BackupFile("private/1/a b", 1, 1), BackupFile("private/1/x", 2**32, 1)):
        with pytest.raises(ValueError, match="backup meta"):
            encode_backup_meta(BackupMeta(1, 1, b"", (file,)))


@given(st.binary(max_size=200) | st.text(alphabet="0123456789 \n/abcmetdsz_crsize:", max_size=200).map(str.encode))
def test_noise(data: bytes) -> None:
    """Noise raises this package's errors, and nothing else."""
    with contextlib.suppress(*REFUSALS):
        decode_backup_meta(data)
