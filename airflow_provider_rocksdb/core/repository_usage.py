"""The backups of a repository with what each of them takes, and whether it is all there: in a few listings.

Requests: a listing of the root and of ``meta/``, one read for each meta, a listing of each folder that they name (see
:mod:`.repository_contents`), and one read for each database id that only an IDENTITY file tells. Of archives, a listing
of their folder, and the beginning of each. Nothing is written.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.archive_listing import Beginning, read_beginnings
from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME, Checkpoint, decode_checkpoint
from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.errors import CancelledError, RocksDBError
from airflow_provider_rocksdb.core.inspection import gravest
from airflow_provider_rocksdb.core.repository_contents import Contents, forget_deleted, read_contents
from airflow_provider_rocksdb.core.repository_layout import Layout
from airflow_provider_rocksdb.core.repository_listing import BackupInfo, list_metas, read_identity, read_layout
from airflow_provider_rocksdb.core.storage import Storage, translating
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions
from airflow_provider_rocksdb.core.verify_report import Problem


@dataclass(frozen=True)
class BackupUsage:
    """A backup, what it takes, and whether every file that it names is there with its size.

    ``backup_id`` is None for the layouts ``directory`` and ``archive``; ``name`` is an archive's. ``state``:
    ``complete``, ``incomplete``, ``corrupt``, ``could_not_check``, or ``unreadable`` for a meta, or an archive, that
    cannot be read; an archive of which the beginning can is ``readable``: only a verification reads all of it, and
    ``file_count`` is what it announces. ``problems`` says what is missing or wrong.
    ``time``: when its data was captured, ISO 8601 in UTC. ``own_bytes``: the size of the files that no other readable
    backup names, which is what its deletion frees. ``run``: a scheduler's names of the run that made it.
    """

    backup_id: int | None
    state: str
    problems: tuple[str, ...] = ()
    layout: Layout = "backup_engine"
    time: str = ""
    sequence_number: int = 0
    file_count: int = 0
    total_bytes: int = 0
    own_bytes: int = 0
    db_id: str = ""
    hostname: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "problems": list(self.problems)}


def list_usage(
    filesystem: AbstractFileSystem,
    root: str,
    *,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> tuple[BackupUsage, ...]:
    """List the backups of a repository, the oldest first, with what they take; none when there is no repository.

    :raises AccessError, NotFoundError, InvalidArgumentError, TransferError: when the storage cannot be listed.
    :raises CancelledError: when ``stop`` was set.
    """
    storage = Storage(filesystem, root)
    with translating(storage.url):
        layout = read_layout(storage, options, stop)
        if layout == "directory":
            return (describe_directory(storage, options, stop),)
        if layout == "archive":
            return tuple(_describe_archive(found) for found in read_beginnings(storage, options, stop))
        contents = read_contents(storage, list_metas(storage, options, stop), options, stop)
        forget_deleted(contents, storage, options, stop)
        db_ids = _read_db_ids(contents, storage, options, stop)
    totals, own = _sum_bytes(contents)
    problems: dict[int, list[Problem]] = {backup_id: [] for backup_id in contents.remaining}
    for problem in contents.problems:
        for backup_id in problem.backup_ids:
            problems[backup_id].append(problem)
    return tuple(
        _describe(contents.infos[backup_id], found, totals[backup_id], own.get(backup_id, 0), db_ids.get(backup_id, ""))
        if backup_id in contents.infos
        else BackupUsage(backup_id, "unreadable", tuple(problem.got for problem in found))
        for backup_id, found in problems.items()
    )


def _describe(info: BackupInfo, problems: list[Problem], total_bytes: int, own_bytes: int, db_id: str) -> BackupUsage:
    run = (info.metadata or {}).get("run")
    texts = (f"{problem.file}: expected {problem.expected}, got {problem.got}" for problem in problems)
    return BackupUsage(
        backup_id=info.backup_id,
        state=gravest(problem.state for problem in problems).value,
        problems=tuple(texts),
        time=info.time.isoformat(timespec="seconds"),
        sequence_number=info.sequence_number,
        file_count=info.file_count,
        total_bytes=total_bytes,
        own_bytes=own_bytes,
        db_id=info.source.db_id or db_id,
        hostname=info.source.hostname,
        run=run if isinstance(run, dict) else {},
    )


def _sum_bytes(contents: Contents) -> tuple[dict[int, int], dict[int, int]]:
    """Size of each backup, and of the files that it alone names."""
    totals = {backup_id: info.total_bytes or 0 for backup_id, info in contents.infos.items()}
    own: dict[int, int] = {}
    unknown = sum(
        1 << index
        for index, backup_id in enumerate(contents.ids)
        if backup_id in contents.infos and contents.infos[backup_id].total_bytes is None
    )
    for file, bits in contents.named_by.items():
        owner, size = contents.owner(bits), contents.size(file)
        if owner is not None:
            own[owner] = own.get(owner, 0) + size
        if bits & unknown:
            for backup_id in contents.backup_ids(bits & unknown):
                totals[backup_id] += size
    return totals, own


def _read_db_ids(
    contents: Contents, storage: Storage, options: TransferOptions, stop: threading.Event | None
) -> dict[int, str]:
    """Database ids of backups that other programs made: from IDENTITY, of which equal ones are read once."""
    known: dict[tuple[object, int | None], str] = {}
    found = {}
    for backup_id, file in contents.identities.items():
        if contents.present.get(file.path) is None:
            continue
        key = file.path if file.crc32c is None else file.crc32c, file.size
        if key not in known:
            known[key] = read_identity(storage, file, options, stop)
        found[backup_id] = known[key]
    return found


def describe_directory(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> BackupUsage:
    """Describe a database that was uploaded as it is."""
    found = check_completeness(storage.path(""), filesystem=storage.own_file_system(), stop=stop)
    record = _read_record(storage, options, stop)
    return BackupUsage(
        backup_id=None,
        state=found.state.value,
        problems=found.problems,
        layout="directory",
        time=record.created if record else "",
        sequence_number=found.sequence_number,
        file_count=found.file_count,
        total_bytes=found.total_bytes,
        own_bytes=found.total_bytes,
        db_id=found.db_id,
        hostname=record.hostname if record else "",
        run=record.run if record else {},
    )


def _describe_archive(found: Beginning) -> BackupUsage:
    record = found.record
    return BackupUsage(
        backup_id=None,
        state="unreadable" if found.problem else "readable",
        problems=(found.problem,) if found.problem else (),
        layout="archive",
        time=record.created if record else "",
        sequence_number=record.sequence_number if record else 0,
        file_count=record.file_count if record else 0,
        total_bytes=found.archive.size,
        own_bytes=found.archive.size,
        db_id=record.db_id if record else "",
        hostname=record.hostname if record else "",
        run=record.run if record else {},
        name=found.archive.name,
    )


def _read_record(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> Checkpoint | None:
    """Read the record of a checkpoint that was uploaded as it is; the check has said what is wrong with it."""
    what = f"{storage.url}/{RECORD_NAME}"
    try:
        with translating(what):
            data = options.retry(lambda: storage.read(RECORD_NAME), storage, what, stop)
        return decode_checkpoint(data, what)
    except CancelledError:
        raise
    except RocksDBError:
        return None
