"""Which backups have come since the last look, whoever made them. Nothing is written.

A look returns what it has seen, as JSON-able values, and the next one is given it: of each meta its size and the
store's time, and timestamp and sequence number of the newest. Ids say little: a backup that is slow comes after one
with a higher id, and RocksDB gives the id of a deleted newest backup again. So a meta is new when its id was not there,
or when another meta is there under its id, and newer than all before; one that was only written again is not.

Where nothing at all is listed, what was seen is kept: a file system that is not mounted looks like that, too.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_id
from airflow_provider_rocksdb.core.inspection import State, gravest
from airflow_provider_rocksdb.core.repository_contents import Contents, forget_deleted, read_contents
from airflow_provider_rocksdb.core.repository_layout import META
from airflow_provider_rocksdb.core.repository_listing import BackupInfo, read_identity
from airflow_provider_rocksdb.core.storage import Entry, Storage, translating
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions


@dataclass(frozen=True)
class NewBackup:
    """A backup all of whose files are there. ``time`` as ISO 8601, UTC; of another program's, only some is known."""

    backup_id: int
    time: str
    db_id: str
    sequence_number: int
    file_count: int
    total_bytes: int
    hostname: str
    db_dir: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class NewBackups:
    """Answer of a look: the new backups by id; ``seen`` for the next look.

    ``waiting``: of those that are not complete yet, or could not be checked, what is wrong, by id; the next look looks
    again. ``passed_over``: of those that never will be told, why.
    """

    backups: tuple[NewBackup, ...]
    seen: dict[str, Any]
    waiting: dict[int, str]
    passed_over: dict[int, str]


@dataclass(frozen=True)
class Wanted:
    """Which backups are told: ``limit`` is the time that a backup must be newer than."""

    limit: datetime | None = None
    db_id: str | None = None

    def refuse(self, info: BackupInfo, db_id: str) -> str:
        """Say why a backup is not wanted; nothing when it is."""
        if self.limit is not None and info.time <= self.limit:
            return f"is of {info.time.isoformat(timespec='seconds')}"
        return "" if self.db_id in (None, db_id) else f"is of database {db_id or '(not known)'}"


def find_new_backups(
    filesystem: AbstractFileSystem,
    root: str,
    seen: Mapping[str, Any] | None,
    *,
    newer_than: datetime | None = None,
    max_age: timedelta | None = None,
    db_id: str | None = None,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> NewBackups:
    """Look which backups are complete that were not there, or not complete, at the look before.

    :param seen: what that look returned; None: there was none, and whatever is complete now is not new.
    :param newer_than: a backup must be newer than this, or is passed over; as for ``max_age`` and ``db_id``.
    :raises AccessError, NotFoundError, InvalidArgumentError, TransferError: when the storage cannot be listed.
    :raises CancelledError: when ``stop`` was set.
    """
    storage = Storage(filesystem, root)
    what = f"{storage.url}/{META}"
    with translating(what):
        entries = options.retry(lambda: storage.list_entries(META), storage, what, stop)
    metas = {backup_id: entry for name, entry in entries.items() if (backup_id := _backup_id(name, entry)) is not None}
    marks = {str(backup_id): f"{entry.size}@{entry.modified}" for backup_id, entry in metas.items()}
    if seen is not None and not metas:
        return NewBackups((), dict(seen), {}, {})
    before = seen or {"metas": {name: marks[name] for name in marks if int(name) != max(metas)}, "newest": [0, 0]}
    different = {i: metas[i].size or 0 for i in metas if before["metas"].get(str(i)) != marks[str(i)]}
    contents = read_contents(storage, different, options, stop)
    forget_deleted(contents, storage, options, stop)
    limits = [newer_than, None if max_age is None else datetime.now(UTC) - max_age]
    wanted = Wanted(max((limit for limit in limits if limit is not None), default=None), db_id)
    found = _Look(storage, contents, before, wanted, options, stop).judge(marks)
    return found if seen is not None else replace(found, backups=())


class _Look:
    """What was found, and what it is compared with."""

    def __init__(
        self,
        storage: Storage,
        contents: Contents,
        seen: Mapping[str, Any],
        wanted: Wanted,
        options: TransferOptions,
        stop: threading.Event | None,
    ) -> None:
        self.storage = storage
        self.contents = contents
        self.seen = seen
        self.wanted = wanted
        self.options = options
        self.stop = stop
        self.waiting: dict[int, str] = {}
        self.passed_over: dict[int, str] = {}

    def judge(self, marks: dict[str, str]) -> NewBackups:
        """Tell of each meta that is different whether it is a new backup."""
        found = [new for backup_id in self.contents.remaining if (new := self._look_at(backup_id)) is not None]
        for name in map(str, self.waiting):  # as it was before, so that it is different again at the next look
            marks.pop(name)
            if name in self.seen["metas"]:
                marks[name] = self.seen["metas"][name]
        ages = [_age(info) for backup_id, info in self.contents.infos.items() if backup_id not in self.waiting]
        seen = {"metas": marks, "newest": max([self.seen["newest"], *ages])}
        return NewBackups(tuple(found), seen, self.waiting, self.passed_over)

    def _look_at(self, backup_id: int) -> NewBackup | None:
        problems = [problem for problem in self.contents.problems if backup_id in problem.backup_ids]
        state = gravest(problem.state for problem in problems)
        if state is State.CORRUPT:
            self.passed_over[backup_id] = str(next(problem for problem in problems if problem.state is state))
            return None
        if problems:
            self.waiting[backup_id] = str(problems[0])
            return None
        info = self.contents.infos[backup_id]
        if str(backup_id) in self.seen["metas"] and _age(info) <= self.seen["newest"]:
            return None  # written again
        db_id = self._read_db_id(info)
        if refused := self.wanted.refuse(info, db_id):
            self.passed_over[backup_id] = refused
            return None
        return NewBackup(
            backup_id=backup_id,
            time=info.time.isoformat(timespec="seconds"),
            db_id=db_id,
            sequence_number=info.sequence_number,
            file_count=info.file_count,
            total_bytes=self._total_bytes(info),
            hostname=info.source.hostname,
            db_dir=info.source.db_dir,
        )

    def _read_db_id(self, info: BackupInfo) -> str:
        identity = self.contents.identities.get(info.backup_id)
        return info.source.db_id or (read_identity(self.storage, identity, self.options, self.stop) if identity else "")

    def _total_bytes(self, info: BackupInfo) -> int:
        if info.total_bytes is not None:
            return info.total_bytes
        bit = 1 << self.contents.ids.index(info.backup_id)
        return sum(self.contents.size(file) for file, bits in self.contents.named_by.items() if bits & bit)


def _backup_id(name: str, entry: Entry) -> int | None:
    return None if entry.size is None else decode_backup_id(name)


def _age(info: BackupInfo) -> list[int]:
    return [info.timestamp, info.sequence_number]
