"""Write a golden database through RocksDB's C API: ``c_api.py LIBRARY SCENARIO DIRECTORY``; prints what RocksDB says.

``DIRECTORY/work`` holds the database while it is open, ``DIRECTORY/db`` and its neighbours the copy that is kept.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

SMALL = "disable_auto_compactions=true;write_buffer_size=65536;compression=kNoCompression;"
BLOBS = "enable_blob_files=true;min_blob_size=50;blob_file_size=4096;"
U64_TIMESTAMPS = "comparator=leveldb.BytewiseComparator.u64ts;"
NOT_UTF_8 = b"caf\xe9\xff"

_VOID_POINTERS = (
    "options_create", "writeoptions_create", "flushoptions_create", "open_column_families",
    "create_column_family", "sstfilewriter_create", "envoptions_create", "ingestexternalfileoptions_create",
    "dbpath_create", "cuckoo_options_create", "property_value_cf",
    "transactiondb_options_create", "transaction_options_create", "transactiondb_open", "transactiondb_get_base_db",
    "transaction_begin", "get_default_column_family_handle",
)  # fmt: skip


class Library:
    """The C API: ``call`` raises what RocksDB reports; every pointer is a plain number."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.library, f"rocksdb_{name}")
        function.restype = c_void_p if name in _VOID_POINTERS else c_uint64
        return lambda *arguments: function(*(c_void_p(a) if isinstance(a, int) else a for a in arguments))

    def call(self, name: str, *arguments: Any) -> Any:
        error = c_char_p()
        result = getattr(self, name)(*arguments, ctypes.byref(error))
        if error.value:
            raise RuntimeError(f"{name}: {error.value!r}")
        return result

    def options(self, text: str) -> int:
        base, made = self.options_create(), self.options_create()
        self.call("get_options_from_string", base, text.encode(), made)
        self.options_set_create_if_missing(made, c_int(1))
        return int(made)

    def has_option(self, text: str) -> bool:
        try:
            return bool(self.options(text))
        except RuntimeError:
            return False


class Database:
    """An open database and its column families by name."""

    def __init__(self, lib: Library, path: Path, text: str, prepare: Callable[[int], None] = lambda _: None) -> None:
        self.lib = lib
        self.options = lib.options(text)
        prepare(self.options)
        self.write_options = lib.writeoptions_create()
        self.flush_options = lib.flushoptions_create()
        handle = (c_void_p * 1)()
        name, options = (c_char_p * 1)(b"default"), (c_void_p * 1)(self.options)
        self.handle = lib.call("open_column_families", self.options, os.fsencode(path), c_int(1), name, options, handle)
        self.families: dict[bytes, int] = {b"default": handle[0] or 0}

    def add_family(self, name: bytes, text: str | None = None) -> None:
        self.add_family_with(name, self.options if text is None else self.lib.options(text))

    def add_family_with(self, name: bytes, options: int) -> None:
        self.families[name] = self.lib.call("create_column_family", self.handle, options, c_char_p(name))

    def put(self, family: bytes, first: int, last: int, size: int = 40) -> None:
        for number in range(first, last):
            key, value = b"%06d" % number, (b"value-%06d-" % number * (size // 13 + 1))[:size]
            self.lib.call(
                "put_cf", self.handle, self.write_options, self.families[family],
                key, c_size_t(len(key)), value, c_size_t(len(value)),
            )  # fmt: skip

    def flush(self, family: bytes = b"default") -> None:
        self.lib.call("flush_cf", self.handle, self.flush_options, self.families[family])

    def compact(self, family: bytes = b"default") -> None:
        none = c_char_p(None)
        self.lib.compact_range_cf(self.handle, self.families[family], none, c_size_t(0), none, c_size_t(0))

    def drop(self, family: bytes) -> None:
        self.lib.call("drop_column_family", self.handle, self.families.pop(family))

    def text(self, name: str, family: bytes = b"default") -> str:
        pointer = self.lib.property_value_cf(self.handle, self.families[family], f"rocksdb.{name}".encode())
        return ctypes.string_at(pointer).decode("latin-1")

    def value(self, name: str) -> int:
        return int(self.text(name))

    def describe(self) -> dict[str, Any]:
        return {
            "latest_sequence_number": self.lib.get_latest_sequence_number(self.handle),
            "sstables": {name.decode("latin-1"): self.text("sstables", name) for name in self.families},
        }


def many_edits(lib: Library, work: Path) -> Database:
    """Write flushes, compactions, deletions; a family with a name that is not UTF-8, one dropped; a WAL."""
    db = Database(lib, work / "db", SMALL)
    db.add_family(NOT_UTF_8)
    db.add_family(b"dropped")
    db.add_family(b"empty")
    for step in range(8):
        for family in (b"default", NOT_UTF_8, b"dropped"):
            db.put(family, step * 10, step * 10 + 30)
            db.flush(family)
        if step % 3 == 2:
            db.compact()
    db.drop(b"dropped")
    db.put(NOT_UTF_8, 500, 520)
    db.put(b"default", 500, 511)
    return db


def blobs(lib: Library, work: Path) -> Database:
    """Write blob files, some of them all garbage and gone."""
    collecting = "enable_blob_garbage_collection=true;"
    db = Database(lib, work / "db", SMALL + BLOBS + (collecting if lib.has_option(collecting) else ""))
    for step in range(6):
        db.put(b"default", step * 5, step * 5 + 30, 300)
        db.flush()
        if step == 3:
            db.compact()
    db.put(b"default", 100, 110, 300)
    return db


def recycled_wal(lib: Library, work: Path, text: str = "") -> Database:
    """Write a WAL over the bytes of earlier ones."""
    db = Database(lib, work / "db", SMALL + "recycle_log_file_num=2;wal_recovery_mode=kSkipAnyCorruptedRecords;" + text)
    for step in range(5):
        db.put(b"default", step * 10, step * 10 + 100 - 15 * step)
        db.flush()
    db.put(b"default", 500, 512)
    return db


def compressed_wal(lib: Library, work: Path) -> Database:
    """Write two compressed WALs, one with records over several blocks."""
    db = Database(lib, work / "db", SMALL + "wal_compression=kZSTD;")
    db.add_family(b"other")
    db.put(b"other", 0, 50)
    db.put(b"default", 0, 3, 90_000)
    db.flush()
    db.put(b"default", 500, 512)
    return db


def compressed_recycled_wal(lib: Library, work: Path) -> Database:
    """Write a compressed WAL over the bytes of earlier ones."""
    return recycled_wal(lib, work, "wal_compression=kZSTD;")


def big_records(lib: Library, work: Path) -> Database:
    """Write a WAL whose records go over block borders."""
    db = Database(lib, work / "db", SMALL + "write_buffer_size=1048576;")
    for number in range(6):
        db.put(b"default", number, number + 1, 20_000 + number * 5000)
    return db


def atomic_flush(lib: Library, work: Path) -> Database:
    """Write atomic groups in the MANIFEST."""
    db = Database(lib, work / "db", SMALL + "atomic_flush=true;")
    db.add_family(b"one")
    db.add_family(b"two")
    for step in range(3):
        for family in (b"one", b"two"):
            db.put(family, step * 10, step * 10 + 20)
        db.put(b"default", step * 10, step * 10 + 50, 2000)  # more than a memtable holds: a flush of all three
        db.flush()
    db.put(b"two", 500, 512)
    return db


def tracked_wals(lib: Library, work: Path) -> Database:
    """Write WALs that the MANIFEST knows, with the sizes to which they were synced."""
    db = Database(lib, work / "db", SMALL + "track_and_verify_wals_in_manifest=true;")
    db.add_family(b"other")
    for step in range(4):
        db.put(b"other", step * 10, step * 10 + 10)
        db.put(b"default", step * 10, step * 10 + 30)
        db.flush()
        db.put(b"default", step * 10, step * 10 + 5)
        lib.call("flush_wal", db.handle, ctypes.c_ubyte(1))
    return db


def two_paths(lib: Library, work: Path) -> Database:
    """Write SST files in two ``db_paths``."""

    def prepare(options: int) -> None:
        (work / "fast").mkdir()
        (work / "slow").mkdir()
        paths = (c_void_p * 2)(
            lib.dbpath_create(os.fsencode(work / "fast"), c_uint64(1000)),
            lib.dbpath_create(os.fsencode(work / "slow"), c_uint64(1 << 40)),
        )
        lib.options_set_db_paths(options, paths, c_size_t(2))

    text = "disable_auto_compactions=false;max_bytes_for_level_base=5000;level_compaction_dynamic_level_bytes=false;"
    db = Database(lib, work / "db", SMALL + text, prepare)
    for first in (0, 100, 50, 20):  # the fourth file in level 0 makes RocksDB compact them
        db.put(b"default", first, first + 200, 100)
        db.flush()
    while any(map(db.value, ("num-files-at-level0", "compaction-pending", "num-running-compactions"))):
        time.sleep(0.05)
    time.sleep(1)  # until what was compacted has been deleted
    db.put(b"default", 500, 520)
    db.flush()
    db.put(b"default", 520, 530)
    return db


def ingested(lib: Library, work: Path) -> Database:
    """Write files ingested: one with its global sequence number written into it, one below."""
    db = Database(lib, work / "db", SMALL)
    db.put(b"default", 0, 100)
    db.flush()
    for first, writes_number in ((50, 1), (1000, 0)):
        external = os.fsencode(work / f"external-{first}.sst")
        writer = lib.sstfilewriter_create(lib.envoptions_create(), db.options)
        lib.call("sstfilewriter_open", writer, external)
        for number in range(first, first + 30):
            key = b"%06d" % number
            lib.call("sstfilewriter_put", writer, key, c_size_t(6), b"ingested", c_size_t(8))
        lib.call("sstfilewriter_finish", writer)
        how = lib.ingestexternalfileoptions_create()
        lib.ingestexternalfileoptions_set_move_files(how, ctypes.c_ubyte(1))
        if not writes_number and hasattr(lib.library, "rocksdb_ingestexternalfileoptions_set_write_global_seqno"):
            lib.library.rocksdb_ingestexternalfileoptions_set_write_global_seqno(c_void_p(how), ctypes.c_ubyte(0))
        lib.call("ingest_external_file", db.handle, (c_char_p * 1)(external), c_size_t(1), how)
    db.put(b"default", 500, 512)
    return db


def rolled(lib: Library, work: Path) -> Database:
    """Write a MANIFEST that begins anew every few edits."""
    db = Database(lib, work / "db", SMALL + "max_manifest_file_size=300;")
    for step in range(9):
        db.put(b"default", step, step + 9)
        db.flush()
    db.put(b"default", 500, 512)
    return db


def timestamps(lib: Library, work: Path) -> Database:
    """Write a family with user-defined timestamps, another that does not persist them."""
    db = Database(lib, work / "db", SMALL + "allow_concurrent_memtable_write=false;")
    db.add_family(b"kept", SMALL + U64_TIMESTAMPS)
    db.add_family(b"stripped", SMALL + U64_TIMESTAMPS + "persist_user_defined_timestamps=false;")

    def put_at(family: bytes, first: int, last: int) -> None:
        for number in range(first, last):
            key, time = b"%06d" % number, number.to_bytes(8, "little")
            lib.call(
                "put_cf_with_ts", db.handle, db.write_options, db.families[family],
                key, c_size_t(6), time, c_size_t(8), b"value", c_size_t(5),
            )  # fmt: skip

    for step in range(3):
        for family in (b"kept", b"stripped"):
            put_at(family, step * 10, step * 10 + 20)
            if family == b"stripped":
                low = (step * 10 + 30).to_bytes(8, "little")
                lib.call("increase_full_history_ts_low", db.handle, db.families[family], low, c_size_t(8))
            db.flush(family)
    put_at(b"kept", 500, 512)
    put_at(b"stripped", 500, 512)
    db.put(b"default", 500, 512)
    return db


def tables(lib: Library, work: Path) -> Database:
    """Write SST files of every kind and format version that this RocksDB writes, a family each."""
    db = Database(lib, work / "db", SMALL + "allow_mmap_reads=true;")
    for version in (2, 3, 4, 5, 6):
        for checksum in ("kNoChecksum", "kCRC32c", "kxxHash", "kxxHash64", "kXXH3"):
            table = f"block_based_table_factory={{format_version={version};checksum={checksum};}};"
            name = f"{version}-{checksum}".encode()
            db.add_family(name, SMALL + table)
            db.put(name, 0, 5)
            db.flush(name)
    plain = lib.options(SMALL + "prefix_extractor=fixed:6;")
    lib.options_set_plain_table_factory(
        plain, ctypes.c_uint32(0), c_int(10), ctypes.c_double(0.75), c_size_t(16), c_size_t(0),
        ctypes.c_byte(0), ctypes.c_ubyte(0), ctypes.c_ubyte(0),
    )  # fmt: skip
    cuckoo = lib.options(SMALL)
    lib.options_set_cuckoo_table_factory(cuckoo, lib.cuckoo_options_create())
    for name, options in ((b"plain", plain), (b"cuckoo", cuckoo)):
        db.add_family_with(name, options)
        db.put(name, 0, 5)
        db.flush(name)
    db.put(b"default", 500, 512)
    return db


def two_phase(lib: Library, work: Path) -> Database:
    """Write a prepared transaction in a WAL that every column family has left behind."""
    db = object.__new__(Database)
    db.lib, db.options, db.write_options, db.flush_options = (
        lib, lib.options(SMALL), lib.writeoptions_create(), lib.flushoptions_create(),
    )  # fmt: skip
    pessimistic = lib.call(
        "transactiondb_open", db.options, lib.transactiondb_options_create(), os.fsencode(work / "db")
    )
    db.handle = lib.transactiondb_get_base_db(pessimistic)
    db.families = {b"default": lib.get_default_column_family_handle(db.handle)}

    def write(first: int, last: int, name: bytes, commit: bool) -> None:
        transaction = lib.transaction_begin(
            pessimistic, db.write_options, lib.transaction_options_create(), c_void_p(None)
        )
        lib.call("transaction_set_name", transaction, name, c_size_t(len(name)))
        for number in range(first, last):
            lib.call("transaction_put", transaction, b"%06d" % number, c_size_t(6), b"value", c_size_t(5))
        lib.call("transaction_prepare", transaction)
        if commit:
            lib.call("transaction_commit", transaction)

    write(0, 10, b"prepared only", commit=False)
    for step in range(3):
        write(100 + step * 10, 110 + step * 10, b"committed-%d" % step, commit=True)
        db.flush()
    write(500, 512, b"committed last", commit=True)
    return db


def upgraded(lib: Library, work: Path) -> Database:
    """Write a database that LevelDB began: files ``.ldb`` and ``.sst`` side by side."""
    db = Database(lib, work / "db", SMALL)
    db.put(b"default", 50, 60)
    db.flush()
    db.put(b"default", 500, 512)
    return db


def main() -> None:
    library, scenario, directory = sys.argv[1:]
    work = Path(directory, "work")
    work.mkdir(exist_ok=True)
    db = globals()[scenario](Library(library), work)
    described = db.describe()
    for place in ("db", "fast", "slow"):
        if (work / place).exists():
            shutil.copytree(work / place, Path(directory, place))
    print(json.dumps(described))
    sys.stdout.flush()
    os._exit(0)  # as a process that dies: nothing is closed


if __name__ == "__main__":
    main()
