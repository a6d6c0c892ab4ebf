"""A throw-away directory of links, in which a child process opens a database; here it reads every block.

RocksDB can kill or hang the process that opens a damaged directory, and rocksdict writes a file into every directory
it opens. So the directory that is checked or read is never opened: the child gets one in a temporary place, with
symbolic links to the SST, blob and WAL files and copies of the small ones, and a time limit.
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
from collections.abc import Iterable

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import CancelledError, CouldNotCheckError
from airflow_provider_rocksdb.core.format.log_format import rewrite_records
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.format.version_edit import clear_path_ids
from airflow_provider_rocksdb.core.live_database import Snapshot, newest_options

CHILD_MODULE = "airflow_provider_rocksdb.core.database"
_OWN_CONFIG = "rocksdict-config.json"
# RocksDB reads untrusted bytes there: no credential from the environment comes near them
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD")
_POLL_SECONDS = 0.05


def read_blocks(
    directory: str,
    snapshot: Snapshot,
    files: Iterable[str],
    *,
    sequence_number: int,
    timeout_seconds: float,
    stop: threading.Event | None,
) -> tuple[str, str]:
    """Open a database read-only and read all of every column family.

    :param directory: the database at rest; nothing is written in it.
    :param files: paths of its SST files, blob files and WALs.
    :param sequence_number: of the last write that they hold.
    :returns: a state of :class:`~airflow_provider_rocksdb.core.completeness.State` by its value, and the reason.
    :raises CancelledError: when ``stop`` was set.
    :raises CouldNotCheckError: when there is no place for the links.
    """
    try:
        place = tempfile.mkdtemp(prefix="rocksdb-check-")
    except OSError as error:
        raise CouldNotCheckError(
            f"{directory}: no temporary directory can be made to read its blocks from: {error}; name one in TMPDIR"
        ) from None
    try:
        fill(place, directory, snapshot, files)
        return _run_child(place, sequence_number, timeout_seconds, stop)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def fill(place: str, directory: str, snapshot: Snapshot, files: Iterable[str], *, raw: bool = False) -> None:
    """Make a directory that opens as the database, to be read only: symbolic links, and copies of the small files.

    :param directory: the database at rest; nothing is written in it.
    :param files: paths of its SST files, blob files and WALs.
    :param raw: without rocksdict's own file, which says how it decodes keys and values.
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
    for name in ("IDENTITY",) if raw else ("IDENTITY", _OWN_CONFIG):
        if name in names:
            durable.create_file(os.path.join(place, name), durable.read_small_file(os.path.join(directory, name)))


def child_environment() -> dict[str, str]:
    """Return the environment of a child process that opens a database."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


def _run_child(
    place: str, sequence_number: int, timeout_seconds: float, stop: threading.Event | None
) -> tuple[str, str]:
    with subprocess.Popen(  # noqa: S603 -- our own module, in our own interpreter
        [sys.executable, "-m", CHILD_MODULE, place, str(sequence_number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
        start_new_session=True,
    ) as child:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                output, errors = child.communicate(timeout=min(_POLL_SECONDS, left))
                break
            except subprocess.TimeoutExpired:
                stopped = stop is not None and stop.is_set()
                if stopped or time.monotonic() >= deadline:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.communicate()
                    if stopped:
                        raise CancelledError(f"{place}: reading blocks was stopped") from None
                    return (
                        "could_not_check",
                        f"reading every block took more than {timeout_seconds:g} s; allow more time",
                    )
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return "could_not_check", f"RocksDB died of {name} while it read the database"
    try:
        answer = json.loads(output.splitlines()[-1])
        return str(answer["state"]), str(answer["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        said = errors.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else "no answer"
        return "could_not_check", f"the process that reads the blocks ended with status {child.returncode}: {reason}"
