"""A throw-away directory of links, in which a child process opens a database; here it reads every block.

RocksDB can kill or hang the process that opens a damaged directory, and rocksdict writes a file into every directory
it opens. So the directory that is checked or read is never opened: a child gets one in a temporary place, with
symbolic links to the SST, blob and WAL files and copies of the small ones, and a time limit. The blocks of a large
database are read by several processes, each its part of every column family's keys.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.database import KeyRange
from airflow_provider_rocksdb.core.errors import CancelledError, CouldNotCheckError
from airflow_provider_rocksdb.core.format.filename import ROCKSDICT_CONFIG, newest_options
from airflow_provider_rocksdb.core.format.log_format import rewrite_records
from airflow_provider_rocksdb.core.format.manifest import ColumnFamily, Version
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.format.version_edit import clear_path_ids
from airflow_provider_rocksdb.core.inspection import SEVERITY, State
from airflow_provider_rocksdb.core.live_database import Snapshot
from airflow_provider_rocksdb.core.parallel import run_parallel

CHILD_MODULE = "airflow_provider_rocksdb.core.database"
# RocksDB reads untrusted bytes there: no credential from the environment comes near them
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD")
_POLL_SECONDS = 0.05
_MOST_PROCESSES = 4
_BYTES_A_PROCESS = 256 * 1024 * 1024  # with less it would take longer to start than to read
_BYTEWISE = "leveldb.BytewiseComparator"
_SEQUENCE_BYTES = 8  # sequence number and type, behind the user's key


def read_blocks(
    directory: str,
    snapshot: Snapshot,
    version: Version,
    files: Iterable[str],
    *,
    sequence_number: int,
    timeout_seconds: float,
    stop: threading.Event | None,
) -> tuple[State, str]:
    """Open a database read-only and read all of every column family.

    :param directory: the database at rest; nothing is written in it.
    :param version: what ``snapshot`` was taken of.
    :param files: paths of its SST files, blob files and WALs.
    :param sequence_number: of the last write that they hold.
    :returns: the gravest answer of the processes, and its reason.
    :raises CancelledError: when ``stop`` was set.
    :raises CouldNotCheckError: when there is no place for the links.
    """
    try:
        place = tempfile.mkdtemp(prefix="rocksdb-check-")
    except OSError as error:
        raise CouldNotCheckError(
            f"{directory}: no temporary directory can be made to read its blocks from: {error}; name one in TMPDIR"
        ) from None
    stop = stop or threading.Event()  # set by whatever ends this: no process outlives it
    parts = {number: part for number, part in enumerate(_divide(version)) if any(part.values())}
    paths = list(files)

    def read(part: int) -> tuple[State, str]:
        own = os.path.join(place, str(part))  # in a common one they would read each other's half-written files
        os.mkdir(own)
        fill(own, directory, snapshot, paths)
        return _run_child(own, sequence_number, parts[part], timeout_seconds, stop)

    try:
        outcome = run_parallel(read, parts, max_workers=_MOST_PROCESSES, stop=stop)
        for failure in outcome.failures.values():
            raise failure
        return max(outcome.results.values(), key=lambda answer: SEVERITY.index(answer[0]))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _divide(version: Version) -> list[dict[str, KeyRange | None]]:
    """Divide the keys among processes: the range of each column family that each reads, None for nothing of it.

    The ranges of a family have about the same number of bytes, going by its files' smallest keys. One whose order is
    not that of the keys' bytes is not divided.
    """
    families = version.column_families.values()
    total = sum(table.size for family in families for table in family.tables.values())
    count = max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), total // _BYTES_A_PROCESS))
    parts: list[dict[str, KeyRange | None]] = [{} for _ in range(count)]
    for family in families:
        bounds = _find_bounds(family, count) if family.comparator in ("", _BYTEWISE) else []
        ranges = list(zip([None, *bounds], [*bounds, None], strict=True))
        for number, part in enumerate(parts):
            part[family.name.decode("utf-8", "surrogateescape")] = ranges[number] if number < len(ranges) else None
    return parts


def _find_bounds(family: ColumnFamily, count: int) -> list[bytes]:
    """Return keys that divide a column family into at most so many ranges."""
    tables = sorted(family.tables.values(), key=lambda table: table.smallest)
    total, before = sum(table.size for table in tables), 0
    bounds: list[bytes] = []
    for table in tables:
        if len(bounds) + 1 < count and before * count >= total * (len(bounds) + 1):
            bounds.append(table.smallest[:-_SEQUENCE_BYTES])
        before += table.size
    return bounds


def fill(place: str, directory: str, snapshot: Snapshot, files: Iterable[str], *, raw: bool = False) -> None:
    """Make a directory that opens as the database, to be read only: symbolic links, and copies of the small files.

    :param directory: the database at rest; nothing is written in it.
    :param files: paths of its SST files, blob files and WALs.
    :param raw: without rocksdict's own file, which says how it orders and decodes keys.
    """
    for path in files:
        os.symlink(os.path.realpath(path), os.path.join(place, os.path.basename(path)))
    descriptor = durable.open_regular(os.path.join(directory, snapshot.manifest))
    try:
        manifest = durable.pread(descriptor, 0, snapshot.end)
    finally:
        os.close(descriptor)
    if snapshot.has_path_ids:
        manifest = rewrite_records(manifest, snapshot.manifest, clear_path_ids)
    durable.create_file(os.path.join(place, snapshot.manifest), manifest)
    durable.create_file(os.path.join(place, "CURRENT"), snapshot.manifest.encode() + b"\n")
    names = os.listdir(directory)
    options = newest_options(names)
    if options is not None:
        content, _ = OptionsFile(durable.read_small_file(os.path.join(directory, options)), options).for_copy(
            snapshot.column_families
        )
        durable.create_file(os.path.join(place, options), content)
    for name in ("IDENTITY",) if raw else ("IDENTITY", ROCKSDICT_CONFIG):
        if name in names:
            durable.create_file(os.path.join(place, name), durable.read_small_file(os.path.join(directory, name)))


def child_environment() -> dict[str, str]:
    """Return the environment of a child process that opens a database."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


def _run_child(
    place: str,
    sequence_number: int,
    ranges: Mapping[str, KeyRange | None],
    timeout_seconds: float,
    stop: threading.Event,
) -> tuple[State, str]:
    in_hex = {name: keys and [key if key is None else key.hex() for key in keys] for name, keys in ranges.items()}
    request: bytes | None = json.dumps({"sequence_number": sequence_number, "ranges": in_hex}).encode()
    with subprocess.Popen(  # noqa: S603 -- our own module, in our own interpreter
        [sys.executable, "-m", CHILD_MODULE, place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
        start_new_session=True,
    ) as child:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                output, errors = child.communicate(request, timeout=min(_POLL_SECONDS, left))
                break
            except subprocess.TimeoutExpired:
                request = None  # it goes on with what it was given first
                stopped = stop.is_set()
                if stopped or time.monotonic() >= deadline:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.communicate()
                    if stopped:
                        raise CancelledError(f"{place}: reading blocks was stopped") from None
                    return (
                        State.COULD_NOT_CHECK,
                        f"reading every block took more than {timeout_seconds:g} s; allow more time",
                    )
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return State.COULD_NOT_CHECK, f"RocksDB died of {name} while it read the database"
    try:
        answer = json.loads(output.splitlines()[-1])
        return State(answer["state"]), str(answer["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        said = errors.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else "no answer"
        return (
            State.COULD_NOT_CHECK,
            f"the process that reads blocks ended with status {child.returncode}: {reason}",
        )
