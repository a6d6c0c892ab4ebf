"""Reading the records of a database at rest, a checkpoint or a backup: raw, read-only, in batches.

RocksDB can kill or hang the process that opens a damaged database, so each range is read by a child process
(:mod:`.record_stream`), from a throw-away directory of links; nothing is written in the directory that is read. Memory
holds a batch or two here, and two more, open files' indexes and the replayed WALs in the child.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core import scratch
from airflow_provider_rocksdb.core.completeness import DEFAULT_TIMEOUT_SECONDS, STATE_ERRORS, check_wals
from airflow_provider_rocksdb.core.database_lock import require_closed
from airflow_provider_rocksdb.core.directory import LocalDirectory
from airflow_provider_rocksdb.core.errors import (
    CouldNotCheckError,
    IncompleteError,
    InvalidArgumentError,
    NotFoundError,
    NotSupportedError,
)
from airflow_provider_rocksdb.core.inspection import Inspection, State
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.record_stream import Record, Request, StreamEndError, iter_frames
from airflow_provider_rocksdb.core.scratch_place import scratch_place
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions

CHILD_MODULE = "airflow_provider_rocksdb.core.record_stream"
_PREFIX = "rocksdb-reading-"
_BYTEWISE = "leveldb.BytewiseComparator"
_COMPARATORS = (_BYTEWISE, "rocksdb.ReverseBytewiseComparator")
_CHUNK_BYTES = 1024 * 1024


class DatabaseReader:
    """Reads column families of one database, as often as wanted, as long as the block that opened it lasts."""

    def __init__(self, found: Inspection, place: str, timeout_seconds: float) -> None:
        assert found.snapshot is not None  # noqa: S101 -- what was found is complete
        self._found = found
        self._place = place
        self._timeout_seconds = timeout_seconds
        self._comparators = {os.fsdecode(name): text for name, text in found.snapshot.column_families.items()}
        self._children: set[subprocess.Popen[bytes]] = set()
        self.directory = found.place.name
        self.db_id = found.snapshot.db_id
        self.sequence_number = found.sequence_number

    @property
    def column_families(self) -> list[str]:
        """Names of all column families, sorted."""
        return sorted(self._comparators)

    def iter_batches(
        self,
        column_family: str = "default",
        *,
        from_key: bytes | None = None,
        to_key: bytes | None = None,
        prefix: bytes | None = None,
        batch_records: int = 10_000,
        batch_bytes: int = 16 * 1024 * 1024,
    ) -> Iterator[list[Record]]:
        """Yield the records of a range in the order of their keys, a list at a time: ``(key, value)``, both bytes.

        The value of a wide-column entity is a dict of its columns, in bytes. That of a database opened with a TTL has
        RocksDB's 4 bytes of time at its end; what has expired, and not been compacted away, is there.

        Only when the iteration ends without an error was everything read: what it yields first may be part of a range
        whose rest is damaged.

        :param from_key: the first key; default: the family's first.
        :param to_key: the first key that is not wanted; default: none.
        :param prefix: only keys that begin so.
        :param batch_records: the most records in a list.
        :param batch_bytes: a list is also full with so many bytes of keys and values, or with the record that exceeds
            them.
        :raises NotFoundError: when there is no such column family.
        :raises InvalidArgumentError: for a range or a size that makes no sense.
        :raises NotSupportedError: when this RocksDB cannot read it: a comparator, a merge operator, a version.
        :raises CorruptionError: when a block is damaged.
        :raises IncompleteError: when the directory was deleted or replaced meanwhile.
        :raises CouldNotCheckError: when RocksDB died, or no batch came within the time limit.
        """
        self._check_family(column_family)
        if prefix is not None:
            if from_key is not None or to_key is not None:
                raise InvalidArgumentError("prefix: goes with neither from_key nor to_key; name one or the other")
            if self._comparators[column_family] != _BYTEWISE:
                raise InvalidArgumentError(
                    f"column family {column_family!r}: its keys are in reverse order; name from_key and to_key"
                )
            from_key, to_key = prefix, _successor(prefix)
        for name, key in (("from_key", from_key), ("to_key", to_key)):
            if key is not None and not isinstance(key, bytes):
                raise InvalidArgumentError(f"{name}: expected bytes, got {key!r}")
        if batch_records < 1 or batch_bytes < 1:
            raise InvalidArgumentError(
                f"batch_records and batch_bytes: expected 1 or more, got {batch_records} and {batch_bytes}"
            )
        return self._iter_batches(
            Request(column_family, self.sequence_number, from_key, to_key, batch_records, batch_bytes)
        )

    def close(self) -> None:
        """End what is still being read."""
        for child in self._children:
            child.kill()
            child.wait()

    def _check_family(self, column_family: str) -> None:
        if column_family not in self._comparators:
            known = ", ".join(self.column_families)
            raise NotFoundError(f"{self.directory}: has no column family {column_family!r}; it has {known}")
        if any("\udc80" <= character <= "\udcff" for character in column_family):  # see os.fsdecode
            raise NotSupportedError(
                f"{self.directory}: column family {column_family!r}: its name is not UTF-8, which rocksdict demands"
            )
        for name in (column_family, "default"):  # RocksDB always opens the second
            comparator = self._comparators[name]
            if comparator == "rocksdict":
                raise NotSupportedError(
                    f"{self.directory}: column family {name!r}: its keys and values are in rocksdict's own encoding, "
                    "not raw; restore it, and open that with rocksdict"
                )
            if comparator not in _COMPARATORS:
                raise NotSupportedError(
                    f"{self.directory}: column family {name!r}: its keys are ordered by {comparator!r}, which its own "
                    f"program alone has; this RocksDB has {' and '.join(_COMPARATORS)}"
                )

    def _iter_batches(self, request: Request) -> Iterator[list[Record]]:
        where = f"{self.directory}: column family {request.column_family!r}"
        with tempfile.TemporaryFile() as errors, self._child(request, errors) as child:
            pipe = _Pipe(child, errors, where, self._timeout_seconds)
            try:
                yield from iter_frames(pipe.read)
            except StreamEndError as end:
                if self._found.has_moved():
                    raise IncompleteError(f"{where}: was deleted or replaced while it was read: {end}") from None
                if end.state == State.CORRUPT:
                    raise STATE_ERRORS[State.CORRUPT](f"{where}: {end}") from None
                is_io = "IO error" in end.reason
                raise (CouldNotCheckError if is_io else NotSupportedError)(f"{where}: cannot be read: {end}") from None

    @contextlib.contextmanager
    def _child(self, request: Request, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(  # noqa: S603 -- our own module, in our own interpreter
            [sys.executable, "-m", CHILD_MODULE, self._place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=scratch.child_environment(),
            start_new_session=True,
            bufsize=0,
        ) as child:
            self._children.add(child)
            try:
                assert child.stdin is not None  # noqa: S101 -- it is a pipe
                with contextlib.suppress(BrokenPipeError), child.stdin as file:  # of a child that has died: see read
                    file.write(request.encode())
                yield child
            finally:
                child.kill()
                self._children.discard(child)


class _Pipe:
    """The stdout of a child that reads a column family."""

    def __init__(self, child: subprocess.Popen[bytes], errors: IO[bytes], where: str, timeout_seconds: float) -> None:
        assert child.stdout is not None  # noqa: S101 -- it is a pipe
        self._child = child
        self._errors = errors
        self._where = where
        self._timeout_seconds = timeout_seconds
        self._descriptor = child.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes.

        :raises CouldNotCheckError: when the child died, or nothing came within the time limit.
        """
        data = bytearray()
        while len(data) < size:
            if not self._poll.poll(self._timeout_seconds * 1000):
                raise CouldNotCheckError(
                    f"{self._where}: nothing was read for {self._timeout_seconds:g} s; allow more time"
                )
            chunk = os.read(self._descriptor, min(_CHUNK_BYTES, size - len(data)))
            if not chunk:
                raise CouldNotCheckError(f"{self._where}: {self._describe_end()}")
            data += chunk
        return bytes(data)

    def _describe_end(self) -> str:
        status = self._child.wait()
        if status < 0:
            return f"RocksDB died of {signal.Signals(-status).name} while it read"
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return f"the process that reads ended with status {status}: {said[-1] if said else 'no answer'}"


def _successor(prefix: bytes) -> bytes | None:
    """First key after all that begin with a prefix; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


@contextlib.contextmanager
def open_checkpoint(
    checkpoint_dir: str, *, scratch_dir: str | None = None, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> Iterator[DatabaseReader]:
    """Read a checkpoint, or any database at rest; nothing is written in it.

    Files and sizes are checked first, and every record of the WALs. The WALs are replayed into memory, each time that a
    range is read: about their size, so no more than the database's own memtables had.

    :param scratch_dir: where the directory of links is made; default: the directory of temporary files.
    :param timeout_seconds: the longest wait for a batch.
    :raises IncompleteError: when something is missing: it is still being made, or being deleted.
    :raises CorruptionError: when something is not what it must be.
    :raises BusyError: when a process has the database open: read a checkpoint of it.
    :raises CouldNotCheckError: when it cannot be looked at, or there is no place for the links.
    """
    directory = os.path.abspath(checkpoint_dir)
    require_closed(directory)
    found = Inspection(LocalDirectory(directory), DatabasePaths(directory))
    with found.noting():
        if found.inspect_files() and found.state is State.COMPLETE:
            check_wals(found)
    if found.state is not State.COMPLETE or found.snapshot is None:
        raise STATE_ERRORS[found.state](f"{directory}: {found.state.value.replace('_', ' ')}: {found.texts[0]}")
    files = [*found.names.values(), *(name for name, _ in found.needed_wals().values())]
    with scratch_place(scratch_dir, _PREFIX) as place:
        try:
            scratch.fill(place, directory, found.snapshot, [os.path.join(directory, name) for name in files], raw=True)
        except FileNotFoundError as error:
            raise IncompleteError(f"{error.filename}: was deleted while the checkpoint was opened") from None
        reader = DatabaseReader(found, place, timeout_seconds)
        try:
            yield reader
        finally:
            reader.close()


@contextlib.contextmanager
def open_backup(
    filesystem: AbstractFileSystem,
    root: str,
    *,
    backup_id: int | None = None,
    scratch_dir: str | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    options: TransferOptions = DEFAULT_OPTIONS,
) -> Iterator[DatabaseReader]:
    """Restore a backup into a scratch directory, and read that; it is gone afterwards.

    :param root: on ``filesystem``: a backup repository, a directory with a database as it is, or an archive.
    :param backup_id: which backup; None: the newest valid one.
    :param scratch_dir: where, with room for the database; default: the directory of temporary files.
    :param timeout_seconds: the longest wait for a batch.
    :raises RocksDBError: as :func:`.restore.restore_backup` and :func:`open_checkpoint`.
    """
    from airflow_provider_rocksdb.core.restore import restore_backup  # who reads a checkpoint restores nothing

    with scratch_place(scratch_dir, _PREFIX) as place:
        db_dir = os.path.join(place, "db")
        restore_backup(filesystem, root, DatabasePaths(db_dir), backup_id=backup_id, options=options)
        with open_checkpoint(db_dir, scratch_dir=place, timeout_seconds=timeout_seconds) as reader:
            yield reader
