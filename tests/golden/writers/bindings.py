"""Write a golden database through a Python package: ``bindings.py PACKAGE DIRECTORY``; prints what RocksDB says.

``DIRECTORY/work/db`` is the database while it is open, ``DIRECTORY/db`` the copy that is kept.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any


def fill(target: Any, first: int, last: int) -> None:
    for number in range(first, last):
        target[b"%06d" % number] = b"value-%06d " % number * 3


def rocksdict(path: str) -> dict[str, Any]:
    """Rust: blob files, a compressed WAL, several column families, one dropped."""
    package = importlib.import_module("rocksdict")

    def options() -> Any:
        made = package.Options(raw_mode=True)
        made.set_disable_auto_compactions(True)
        if hasattr(made, "set_enable_blob_files"):
            made.set_enable_blob_files(True)
            made.set_min_blob_size(50)
        return made

    database = package.Rdict(path, options())
    families = {"default": database}
    for name in ("one", "z\u00fcrich", "dropped"):
        families[name] = database.create_column_family(name, options())
    for step in range(5):
        for family in families.values():
            fill(family, step * 10, step * 10 + 20)
            family[b"blob %06d" % step] = b"large " * 50
            family.flush()
    del families["dropped"]
    database.drop_column_family("dropped")
    families["one"].compact_range(None, None, package.CompactOptions())
    fill(families["one"], 500, 510)
    fill(database, 500, 512)
    return {
        "latest_sequence_number": database.latest_sequence_number(),
        "live_files": {"*": _by_number(database.live_files())},  # of all families
        "keep": [database, families],
    }


def _by_number(files: list[dict[str, Any]]) -> dict[int, list[int]]:
    return {int(re.findall(r"\d+", file["name"])[0]): [file["size"], file["level"]] for file in files}


def aimrocks(path: str) -> dict[str, Any]:
    """Cython: flushes, a compaction, an empty column family."""
    return _cython("aimrocks", path)


def rdbpy(path: str) -> dict[str, Any]:
    """Cython: flushes, a compaction, an empty column family."""
    return _cython("rdbpy", path)


def _cython(name: str, path: str) -> dict[str, Any]:
    package = importlib.import_module(name)
    database = package.DB(path, package.Options(create_if_missing=True, disable_auto_compactions=True))
    family = database.create_column_family(b"one", package.ColumnFamilyOptions())  # these cannot write to it
    for step in range(5):
        for number in range(step * 10, step * 10 + 20):
            database.put(b"%06d" % number, b"value")
        database.flush()
        if step == 2:
            database.compact_range()
    database.put(b"last", b"value")
    files = database.get_live_files_metadata()
    return {"latest_sequence_number": None, "live_files": {"*": _by_number(files)}, "keep": [database, family]}


def faust(path: str) -> dict[str, Any]:
    """Cython: memtables that fill up, and a compaction."""
    package = importlib.import_module("rocksdb")
    database = package.DB(path, package.Options(create_if_missing=True, write_buffer_size=64 * 1024))
    for number in range(3000):
        database.put(b"%06d" % number, b"value")
    database.compact_range()
    database.put(b"last", b"value")
    files = database.get_live_files_metadata()
    return {"latest_sequence_number": None, "live_files": {"*": _by_number(files)}, "keep": [database]}


def amulet(path: str) -> dict[str, Any]:
    """C++ (pybind11), opened and closed, so that each opening flushes what the WAL holds."""
    package = importlib.import_module("rocksdb")
    for step in range(6):
        database = package.RocksDB(path, step == 0)
        for number in range(step * 10, step * 10 + 20):
            database.put(b"%06d" % number, b"value-%06d" % number)
        if step == 3:
            database.compact()
        if step < 5:
            database.close()
    return {"latest_sequence_number": None, "live_files": None, "keep": [database]}


def pyrex(path: str) -> dict[str, Any]:
    """C++ (pybind11): two column families, opened and closed."""
    package = importlib.import_module("pyrex")
    for step in range(4):
        options = package.PyOptions()
        options.create_if_missing = True
        database = package.PyRocksDBExtended(path, options)
        if step == 0:
            database.create_column_family("one", options)
        family = database.get_column_family("one")
        for number in range(step * 10, step * 10 + 20):
            database.put(b"%06d" % number, b"value-%06d" % number)
            database.put_cf(family, b"%06d" % number, b"value-%06d" % number)
        if step < 3:
            database.close()
    return {"latest_sequence_number": None, "live_files": None, "keep": [database, family]}


def rocksdbpy(path: str) -> dict[str, Any]:
    """Rust: flushes alone."""
    package = importlib.import_module("rocksdbpy")
    database = package.open_default(path)
    for step in range(3):
        for number in range(step * 10, step * 10 + 20):
            database.set(b"%06d" % number, b"value-%06d" % number)
        database.flush()
    database.set(b"last", b"value")
    return {"latest_sequence_number": None, "live_files": None, "keep": [database]}


def main() -> None:
    package, directory = sys.argv[1:]
    work = Path(directory, "work", "db")
    work.parent.mkdir(exist_ok=True)
    described = globals()[package](str(work))
    shutil.copytree(work, Path(directory, "db"))
    del described["keep"]  # what had to stay open until here
    print(json.dumps(described))
    sys.stdout.flush()
    os._exit(0)  # as a process that dies: nothing is closed


if __name__ == "__main__":
    main()
