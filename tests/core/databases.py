"""Small real databases for the tests of the core: built, looked at, opened and counted, also in child processes."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import BlockBasedOptions, DBPath, DBRecoveryMode, Options, Rdict

from airflow_provider_rocksdb.core.format.manifest import ManifestReader, Version

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534

_PRELUDE = """
import contextlib, json, os, shutil, signal, sys, time
import airflow_provider_rocksdb.core.live_checkpoint as live_checkpoint
import airflow_provider_rocksdb.core.checkpoint as checkpoint_module
import airflow_provider_rocksdb.core.completeness as completeness
import airflow_provider_rocksdb.core.durable as durable
from airflow_provider_rocksdb.core.errors import *
from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import restore_backup
from fsspec.implementations.local import LocalFileSystem
create_live_checkpoint = live_checkpoint.create_live_checkpoint
check_completeness = completeness.check_completeness
delete_checkpoint = checkpoint_module.delete_checkpoint
arguments = json.loads(sys.argv[1])
if arguments["uid"] is not None:  # as setpriv --reuid --clear-groups, but with the modules in memory: no right is left
    os.setgroups([])
    os.setresgid(arguments["uid"], arguments["uid"], arguments["uid"])
    os.setresuid(arguments["uid"], arguments["uid"], arguments["uid"])
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""

_WRITER = """
import mmap, os, struct, sys
from rocksdict import Options, Rdict
path, acknowledged = sys.argv[1:]
options = Options(raw_mode=True)
options.set_write_buffer_size(64 * 1024)
database = Rdict(path, options)
descriptor = os.open(acknowledged, os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 8)
count = mmap.mmap(descriptor, 8)
number = 0
while True:
    database[b"%08d" % number] = os.urandom(40)
    number += 1
    count[:8] = number.to_bytes(8, "little")
"""


def options(**settings: Any) -> Options:
    """Return raw-mode options; each keyword is a ``set_…`` of rocksdict's Options."""
    made = Options(raw_mode=True)
    for name, value in settings.items():
        getattr(made, f"set_{name}")(value)
    return made


def put(database: Any, first: int, last: int) -> None:
    for number in range(first, last):
        database[b"%06d" % number] = b"value-%06d" % number * 4


def build(path: str, **settings: Any) -> Rdict:
    """Open a new database: keys 0-999 in an SST file, 1000-1499 in the WAL; it stays open."""
    database = Rdict(path, options(**settings))
    put(database, 0, 1000)
    database.flush()
    put(database, 1000, 1500)
    return database


def edit_options(path: str, **settings: str) -> None:
    """Set lines in the newest OPTIONS file of a database at rest."""
    file = Path(path, max(name for name in os.listdir(path) if name.startswith("OPTIONS-")))
    text = file.read_text()
    for name, value in settings.items():
        text, count = re.subn(rf"(?m)^  {name}=.*$", f"  {name}={value}", text)
        if not count:
            text = text.replace("[DBOptions]\n", f"[DBOptions]\n  {name}={value}\n")
    file.write_text(text)


def build_configured(path: str, **settings: str) -> Rdict:
    """Open a new database with options that rocksdict cannot set, but reads from OPTIONS; see :func:`build`."""
    Rdict(path, options()).close()
    edit_options(path, **settings)
    main, families = Options.load_latest(path)
    database = Rdict(path, main, families)
    put(database, 0, 1000)
    database.flush()
    put(database, 1000, 1500)
    return database


def build_two_wals(path: str, **settings: Any) -> list[Rdict]:
    """Open a new database: keys 0-499 of three families in an older WAL, 500-999 in the newest, none in an SST file.

    Returns all its families, "default" first: one that nobody holds any more is flushed.
    """
    database = Rdict(path, options(**settings))
    families = [database, *(database.create_column_family(name, options()) for name in ("a", "b", "flushed"))]
    for family in families[:3]:
        put(family, 0, 500)
    put(families[3], 0, 1)
    families[3].flush()
    for family in families[:3]:
        put(family, 500, 1000)
    return families


def build_two_paths(place: str) -> Rdict:
    """Open a new database ``db``: keys 0-3999 in ``slow``, 4000-4049 in ``fast``, 4050-4099 in the WAL."""
    block = BlockBasedOptions()
    block.set_format_version(5)
    database = Rdict(
        f"{place}/db",
        options(
            db_paths=[DBPath(f"{place}/fast", 60_000), DBPath(f"{place}/slow", 1 << 40)],
            write_buffer_size=64 * 1024,
            target_file_size_base=16 * 1024,
            max_bytes_for_level_base=40_000,
            block_based_table_factory=block,
        ),
    )
    for number in (*range(4000), *range(0, 4000, 3)):  # files that overlap, so that compaction writes new ones
        database[b"%06d" % number] = os.urandom(40)
    database.flush()

    def is_idle() -> bool:
        waiting = ("rocksdb.compaction-pending", "rocksdb.num-running-compactions")
        files = [*names(f"{place}/fast", ".sst"), *names(f"{place}/slow", ".sst")]
        live = len(read_version(f"{place}/db").column_families[0].tables)
        return len(files) == live and not any(database.property_int_value(name) for name in waiting)

    wait_until(is_idle)
    database.set_options({"disable_auto_compactions": "true"})
    put(database, 4000, 4050)
    database.flush()
    put(database, 4050, 4100)
    assert names(f"{place}/fast", ".sst")
    assert names(f"{place}/slow", ".sst")
    return database


def build_merged(path: str) -> str:
    """Make a database in which ``key`` has three merge operands of RocksDB's own operator ``uint64add``: 1 each."""
    name = ctypes.util.find_library("rocksdb")
    if name is None:
        pytest.skip("needs librocksdb (Debian package librocksdb7.8)")
    library = ctypes.CDLL(name)
    library.rocksdb_options_create.restype = ctypes.c_void_p
    library.rocksdb_writeoptions_create.restype = ctypes.c_void_p
    library.rocksdb_open.restype = ctypes.c_void_p
    made = ctypes.c_void_p(library.rocksdb_options_create())
    library.rocksdb_options_set_create_if_missing(made, ctypes.c_ubyte(1))
    library.rocksdb_options_set_uint64add_merge_operator(made)
    error = ctypes.c_char_p()
    database = ctypes.c_void_p(library.rocksdb_open(made, path.encode(), ctypes.byref(error)))
    assert error.value is None
    write_options = ctypes.c_void_p(library.rocksdb_writeoptions_create())
    for _ in range(3):
        operand = (1).to_bytes(8, "little")
        size = ctypes.c_size_t
        library.rocksdb_merge(database, write_options, b"key", size(3), operand, size(8), ctypes.byref(error))
    library.rocksdb_close(database)
    assert error.value is None
    return path


def build_stopped(path: str, **settings: Any) -> str:
    """Make the same database as a process that died has left it."""
    stop(build(path + ".building", **settings), path)
    shutil.rmtree(path + ".building")
    return path


def stop(database: Rdict, path: str) -> str:
    """Copy an idle database to ``path`` as if its process had died, and close the original."""
    shutil.copytree(database.path(), path, symlinks=True)
    database.close()
    return path


def read_version(path: str) -> Version:
    """Version of a database at rest."""
    data = Path(path, manifest_name(path)).read_bytes()
    reader = ManifestReader(manifest_name(path))
    reader.read(lambda offset, length: data[offset : offset + length], len(data))
    return reader.version


def manifest_name(path: str) -> str:
    return Path(path, "CURRENT").read_text().strip()


def names(path: str, suffix: str) -> list[str]:
    """Sorted names in a directory that end so."""
    return sorted(name for name in os.listdir(path) if name.endswith(suffix))


def only(path: str, suffix: str) -> Path:
    """Return the one file in a directory whose name ends so."""
    (name,) = names(path, suffix)
    return Path(path, name)


def fingerprint(*directories: str | Path) -> dict[str, tuple[Any, ...]]:
    """Everything that can be seen of directories: names, modes, owners, sizes, times of change, contents, links.

    But the content of LOG, into which a running database writes when it likes.
    """
    seen: dict[str, tuple[Any, ...]] = {}
    for directory in directories:
        for place, _, file_names in os.walk(directory):
            status = os.stat(place)
            seen[place] = (status.st_mode, status.st_uid, status.st_mtime_ns, *sorted(os.listdir(place)))
            for name in file_names:
                path = os.path.join(place, name)
                status = os.lstat(path)
                link = os.readlink(path) if os.path.islink(path) else ""
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest() if os.path.isfile(path) else ""
                owner = (status.st_uid, status.st_gid)
                content = () if name == "LOG" else (status.st_size, status.st_mtime_ns, digest)
                seen[path] = (status.st_mode, owner, link, *content)
    return seen


def flip(path: str | Path, offset: int) -> None:
    """Change one bit of a file; a negative offset counts from its end. A hard-linked file gets its own copy first."""
    data = bytearray(Path(path).read_bytes())
    data[offset] ^= 0x10
    replace_content(path, bytes(data))


def replace_content(path: str | Path, data: bytes) -> None:
    """Give a name other content without touching the file that it was linked to."""
    os.unlink(path)
    Path(path).write_bytes(data)


def count_keys(directory: str, *, strict: bool = True, own_options: bool = False) -> dict[str, int]:
    """Open a copy of a database and count the keys of each column family; keys must be 0, 1, 2… without a hole.

    :param strict: open under ``kAbsoluteConsistency``: a torn end of a WAL is an error.
    :param own_options: with the OPTIONS that lie in it.
    """
    with tempfile.TemporaryDirectory() as place:
        copy = os.path.join(place, "copy")
        shutil.copytree(directory, copy)
        families = Rdict.list_cf(copy)
        if own_options:
            main, others = Options.load_latest(copy)
        else:
            main = options()
            others = {name: options() for name in families if name != "default"}
        if strict:
            main.set_wal_recovery_mode(DBRecoveryMode.absolute_consistency())
        database = Rdict(copy, main, others)
        try:
            return {name: _count(_family(database, name)) for name in families}
        finally:
            database.close()


def _family(database: Rdict, name: str) -> Any:
    return database if name == "default" else database.get_column_family(name)


def list_keys(family: Any) -> list[int]:
    return [int(key) for key in family.keys()]  # noqa: SIM118 -- an Rdict cannot be iterated


def _count(family: Any) -> int:
    iterator = family.iter()
    iterator.seek_to_first()
    count = 0
    while iterator.valid():
        assert int(iterator.key()) == count, f"key {count} is missing"
        count += 1
        iterator.next()
    iterator.status()
    return count


def run_child(code: str, *, uid: int | None = None, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a child process with the core imported, ``arguments`` as a dict, perhaps as another user."""
    return subprocess.run(
        [sys.executable, "-c", _PRELUDE + code, json.dumps({"uid": uid, **arguments})],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        cwd="/",
    )


def start_child(code: str, **arguments: Any) -> subprocess.Popen[str]:
    """Start the same and leave it running; its stdin and stdout are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + code, json.dumps({"uid": None, **arguments})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )


@contextlib.contextmanager
def writer(path: str) -> Iterator[Callable[[], int]]:
    """Run a process that writes keys 0, 1, 2… as fast as it can; yields how many it has had acknowledged so far."""
    acknowledged = path + ".acknowledged"
    child = subprocess.Popen([sys.executable, "-c", _WRITER, path, acknowledged])

    def count() -> int:
        with contextlib.suppress(FileNotFoundError, struct.error), open(acknowledged, "rb") as file:
            return int(struct.unpack("<Q", file.read(8))[0])
        return 0

    try:
        wait_until(lambda: count() > 2000)
        yield count
        assert child.poll() is None, "the writer has died"
    finally:
        child.kill()
        child.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextlib.contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[str]:
    """Mount a file system on a new directory (root only): ``mount(8)``'s arguments but the directory."""
    place.mkdir()
    subprocess.run(["mount", *arguments, str(place)], check=True, capture_output=True)
    try:
        yield str(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


ENDINGS = ("killed", "failed", "interrupted")
"""How :data:`DYING` ends an action: kill -9; an I/O error, once; an exception that is none of ours, as of a signal."""

DYING = """
import errno, logging, traceback

os.fsync = lambda descriptor: None  # only a power cut would tell

class Interrupted(BaseException):
    pass

def dies(action, number, ending="killed"):
    "Run an action in a fork, and end it before its number-th change of the file system; False: it had fewer."
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] != 0
    done = 0
    def change():
        nonlocal done
        done += 1
        if done == number + 1:
            if ending == "killed":
                die()
            raise OSError(errno.EIO, os.strerror(errno.EIO)) if ending == "failed" else Interrupted
    def hook(event, details):
        if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate") or (
            event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            change()
    def counted(call):
        def counted(*arguments):
            change()
            call(*arguments)
            change()
        return counted
    os.fsync = counted(os.fsync)  # of these no audit event tells
    durable.exchange_directories = counted(durable.exchange_directories)
    sys.addaudithook(hook)
    logging.disable()
    try:
        action()
    except (Interrupted, OSError, RocksDBError):
        assert done > number
    except BaseException:
        traceback.print_exc()
    os._exit(done > number)
"""
