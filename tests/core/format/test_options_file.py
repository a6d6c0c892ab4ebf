"""OPTIONS files: read, and changed for a copy; RocksDB itself opens what comes out."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.options_file import OptionsFile

BYTEWISE = "leveldb.BytewiseComparator"
HEAD = b"# This is a RocksDB option file.\n\n[Version]\n  rocksdb_version=9.8.4\n\n"
PLAIN = (
    HEAD
    + b"[DBOptions]\n  max_open_files=-1\n  wal_dir=/var/db/wal\n  db_log_dir=/var/log/db\n  db_id=x\n\n"
    + b'[CFOptions "default"]\n  comparator=leveldb.BytewiseComparator\n  wal_dir=not this one\n'
    + b'[TableOptions/BlockBasedTable "default"]\n  block_size=4096\n\n'
    + b'[CFOptions "users"]\n  comparator=leveldb.BytewiseComparator\n'
    + b'[TableOptions/BlockBasedTable "users"]\n  block_size=8192\n'
)
FAMILIES = {b"default": BYTEWISE, b"users": BYTEWISE}
NAMES = [b'qu"ote', b'"', b'""', b"a#b", b"#", b"back\\slash", b"\\", b"a:b", b"new\nline", b"\r\n", b"]", b'a"] # x']
NAMES += [b"\xff\xfe", "naïve".encode(), b" blank ", b"=", b"wal_dir=/x", b"[DBOptions]"]


def escape(name: bytes) -> bytes:
    return re.sub(rb"([\\#:])", rb"\\\1", name).replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def with_family(name: bytes) -> bytes:
    section = b'[CFOptions "%s"]\n  comparator=x\n[TableOptions/BlockBasedTable "%s"]\n  block_size=1\n'
    return PLAIN + section % (escape(name), escape(name))


def test_directories_are_emptied() -> None:
    """``wal_dir`` and ``db_log_dir`` are emptied in a copy, their values told; every other line stays as it was."""
    data, changes = OptionsFile(PLAIN).for_copy(FAMILIES)
    expected = PLAIN.replace(b"wal_dir=/var/db/wal", b"wal_dir=").replace(b"db_log_dir=/var/log/db", b"db_log_dir=")
    assert data == expected
    assert changes == {"wal_dir": "/var/db/wal", "db_log_dir": "/var/log/db"}
    again, changes = OptionsFile(data).for_copy(FAMILIES)
    assert (again, changes) == (expected, {})


@pytest.mark.parametrize("wal_dir", ["/new/wal", "/new: #1\\x", "/naïve", "/\udcff"])
def test_wal_dir_is_set(wal_dir: str) -> None:
    """A copy whose WALs lie elsewhere gets that ``wal_dir``, once, and its old value is told; set already, it stays."""
    for content, old in ((PLAIN, "/var/db/wal"), (PLAIN.replace(b"  wal_dir=/var/db/wal\n", b""), "")):
        data, changes = OptionsFile(content).for_copy(FAMILIES, wal_dir=wal_dir)
        assert OptionsFile(data).db_option("wal_dir") == wal_dir
        assert data.count(b"wal_dir=") == 2  # with the one of a family, which is none
        assert changes == {"wal_dir": old, "db_log_dir": "/var/log/db"}
        again, changes = OptionsFile(data).for_copy(FAMILIES, wal_dir=wal_dir)
        assert (again, changes) == (data, {})


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"  wal_dir=/var/wal", "/var/wal"),
        (b"wal_dir = /var/wal  # moved here", "/var/wal"),
        (b"\twal_dir\t=\t/var/wal\t\r", "/var/wal"),
        (b"wal_dir=/var/a\\#b\\:c\\\\d", "/var/a#b:c\\d"),
        (b"wal_dir=/var/a=b", "/var/a=b"),
        (b"wal_dir=/var/\xff", "/var/\udcff"),
        (b"wal_dir=/var/wal\n  wal_dir=/not/this", "/var/wal"),
        (b"wal_dir=", ""),
        (b"# wal_dir=/var/wal", ""),
        (b"#[DBOptions]", ""),
        (b"wal_dir", ""),
        (b"other_wal_dir=/x", ""),
    ],
)
def test_values(line: bytes, value: str) -> None:
    """A value is read as RocksDB reads it, the first of two, and emptied wherever and however it stands."""
    data = HEAD + b"[DBOptions]\n" + line + b'\n[CFOptions "default"]\n'
    options = OptionsFile(data)
    assert options.db_option("wal_dir") == value
    copy, changes = options.for_copy({b"default": BYTEWISE})
    assert OptionsFile(copy).db_option("wal_dir") == ""
    assert b"/not/this" not in copy
    assert ("wal_dir" in changes) == bool(value)


def test_family_options() -> None:
    """The values of an option in all column families are read, in their order."""
    assert OptionsFile(PLAIN).family_options("comparator") == [BYTEWISE, BYTEWISE]
    assert OptionsFile(PLAIN).family_options("block_size") == []


def test_removed_family() -> None:
    """A column family that the copy has not loses all its sections, and no other line is touched."""
    data, changes = OptionsFile(PLAIN).for_copy({b"default": BYTEWISE})
    assert b"users" not in data
    assert b"8192" not in data
    assert data.endswith(b"  block_size=4096\n\n")
    assert changes["removed_column_families"] == ["users"]


def test_added_family() -> None:
    """A column family that has no section yet gets one with its comparator."""
    data, changes = OptionsFile(PLAIN).for_copy({**FAMILIES, b"new": "their:own", b"also": BYTEWISE})
    assert changes["added_column_families"] == ["also", "new"]
    assert OptionsFile(data).column_families == {b"default", b"users", b"new", b"also"}
    assert OptionsFile(data).family_options("comparator") == [BYTEWISE, BYTEWISE, BYTEWISE, "their:own"]
    assert data.endswith(b'[CFOptions "new"]\n  comparator=their\\:own\n')


@pytest.mark.parametrize("name", NAMES)
def test_names(name: bytes) -> None:
    """A column family of any name is recognised, kept, removed and added, and hides or breaks nothing else."""
    options = OptionsFile(with_family(name))
    assert options.column_families == {b"default", b"users", name}
    assert options.db_option("wal_dir") == "/var/db/wal"
    kept, changes = options.for_copy({**FAMILIES, name: "x"})
    assert OptionsFile(kept).column_families == {b"default", b"users", name}
    assert "removed_column_families" not in changes
    removed, changes = options.for_copy(FAMILIES)
    assert OptionsFile(removed).column_families == {b"default", b"users"}
    assert changes["removed_column_families"] == [name.decode("utf-8", "backslashreplace")]
    added, _ = OptionsFile(PLAIN).for_copy({**FAMILIES, name: "x"})
    assert OptionsFile(added).column_families == {b"default", b"users", name}
    assert b'[CFOptions "' + escape(name) + b'"]\n' in added


@settings(deadline=None)
@given(st.binary(), st.binary())
def test_any_names(name: bytes, other: bytes) -> None:
    """Any names come back as they went in."""
    families = {b"default": BYTEWISE, name: "x", other: "y"}
    data, _ = OptionsFile(PLAIN).for_copy(families)
    assert OptionsFile(data).column_families == set(families)
    assert OptionsFile(data).for_copy(families) == (data, {})


def test_no_newline_at_the_end() -> None:
    """A last line without its newline counts, and gets one, since RocksDB passes over a line that has none."""
    data, _ = OptionsFile(PLAIN[:-1]).for_copy({**FAMILIES, b"new": BYTEWISE})
    assert b'\n  block_size=8192\n\n[CFOptions "new"]\n' in data
    assert OptionsFile(PLAIN[:-1]).for_copy(FAMILIES) == OptionsFile(PLAIN).for_copy(FAMILIES)


def test_carriage_returns() -> None:
    """Lines that end in CR LF are read alike, and kept."""
    data, changes = OptionsFile(PLAIN.replace(b"\n", b"\r\n")).for_copy({b"default": BYTEWISE})
    assert changes == {
        "wal_dir": "/var/db/wal",
        "db_log_dir": "/var/log/db",
        "removed_column_families": ["users"],
    }
    assert b'[CFOptions "default"]\r\n' in data


@pytest.mark.parametrize(
    ("data", "section"),
    [
        (b"", r"\[DBOptions\]"),
        (HEAD, r"\[DBOptions\]"),
        (b"\xff" * 1000, r"\[DBOptions\]"),
        (b'[CFOptions "default"]\n', r"\[DBOptions\]"),
        (b'#[DBOptions]\n[CFOptions "default"]\n', r"\[DBOptions\]"),
        (HEAD + b"[DBOptions]\n  wal_dir=/x\n", r"\[CFOptions default\]"),
        (HEAD + b'[DBOptions]\n  wal_dir=/x\n[CFOptions "users"]\n', r"\[CFOptions default\]"),
    ],
    ids=range(7),
)
def test_no_options_file(data: bytes, section: str) -> None:
    """A file without the sections that RocksDB asks for is damage."""
    with pytest.raises(CorruptionError, match=f"OPTIONS-000007: expected a section {section}, {len(data)} bytes"):
        OptionsFile(data, "OPTIONS-000007")


def test_cut_anywhere() -> None:
    """An OPTIONS file cut at any byte leaves no ``wal_dir`` in the copy, or raises the package's own error."""
    for cut in range(len(PLAIN)):
        with contextlib.suppress(CorruptionError):
            data, _ = OptionsFile(PLAIN[:cut]).for_copy(FAMILIES)
            assert OptionsFile(data).db_option("wal_dir") == ""


@pytest.mark.parametrize(
    "line",
    [b"[a/" + b" " * 500_000 + b"x", b"[" + b"a" * 500_000, b"[" * 500_000, b'["' * 250_000, b" " * 500_000 + b"x"],
    ids=lambda line: repr(line[:4]),
)
@pytest.mark.timeout(60)
def test_hostile_lines(line: bytes) -> None:
    """Half a megabyte in one line is read in bounded time."""
    OptionsFile(PLAIN + line + b"\n" + line * 2).for_copy(FAMILIES)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    """Any bytes, also inside a real file, are read or refused by the package's own error."""
    for content in (data, PLAIN + data, data + PLAIN, PLAIN[:100] + data + PLAIN[100:]):
        with contextlib.suppress(CorruptionError):
            OptionsFile(content).for_copy(FAMILIES)


REAL_NAMES = [
    'qu"ote',
    "a#b",
    "#",
    "back\\slash",
    "a:b",
    "new\nline",
    "\r",
    "]",
    'a"] # x',
    "naïve",
    "=",
    "[DBOptions]",
]


@pytest.mark.parametrize("added", [False, True])
def test_rocksdb_opens_it(tmp_path: Path, added: bool) -> None:
    """A copy opens in RocksDB by its own changed OPTIONS and leaves the first one's directories alone."""
    path, wals, logs = tmp_path / "db", tmp_path / "wals", tmp_path / "logs"
    options = Options(raw_mode=True)
    options.set_wal_dir(str(wals))
    options.set_db_log_dir(str(logs))
    database = Rdict(str(path), options)
    handles = [database.create_column_family(name, Options(raw_mode=True)) for name in REAL_NAMES]
    for handle in handles:
        handle[b"k"] = b"v"
        handle.flush()
    newest = max(path.glob("OPTIONS-*"), key=lambda file: int(file.name.partition("-")[2]))
    handles.clear()
    del handle
    database.close()
    before = sorted((file.name, file.stat().st_mtime_ns) for file in (*wals.iterdir(), *logs.iterdir()))

    parsed = OptionsFile(newest.read_bytes())
    names = {name.encode(): BYTEWISE for name in ["default", *REAL_NAMES]}
    assert parsed.column_families == set(names)
    assert (parsed.db_option("wal_dir"), parsed.db_option("db_log_dir")) == (str(wals), str(logs))
    if added:  # as if written before the column families were created
        parsed = OptionsFile(parsed.for_copy({b"default": BYTEWISE})[0])
    data, changes = parsed.for_copy(names)
    assert len(changes.get("added_column_families", [])) == added * len(REAL_NAMES)  # type: ignore[arg-type]

    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    for file in copy.glob("OPTIONS-*"):
        file.unlink()
    (copy / newest.name).write_bytes(data)
    loaded, families = Options.load_latest(str(copy))
    assert set(families) == {"default", *REAL_NAMES}
    opened = Rdict(str(copy), loaded, families)
    for name in REAL_NAMES:
        assert opened.get_column_family(name)[b"k"] == b"v"
    opened.close()
    assert before == sorted((file.name, file.stat().st_mtime_ns) for file in (*wals.iterdir(), *logs.iterdir()))
