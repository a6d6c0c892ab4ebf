"""Find a complete backup that is new enough.

Backups are looked at from the newest id on, until one is complete, or is too old: ids grow with time. What was passed
over on the way (incomplete, damaged, another database's) is told. A backup's time is that of its checkpoint, where its
maker has told it, else that of its meta. Nothing is written.

Of a folder of archives each one's beginning is read: an archive gets its name only when it is whole.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.archive_listing import read_beginnings
from airflow_provider_rocksdb.core.errors import CancelledError, InvalidArgumentError, NotFoundError, RocksDBError
from airflow_provider_rocksdb.core.inspection import State, gravest
from airflow_provider_rocksdb.core.repository_contents import explain, read_contents
from airflow_provider_rocksdb.core.repository_layout import Layout
from airflow_provider_rocksdb.core.repository_listing import (
    describe_meta,
    list_metas,
    read_layout,
    read_meta,
    read_source,
)
from airflow_provider_rocksdb.core.repository_usage import describe_directory
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions

_SHOWN = 3


@dataclass(frozen=True)
class FoundBackup:
    """Answer of a search: ``complete``, and the backup; or why there is none, and what would have been wanted.

    ``backup_id`` is None for the layouts ``directory`` and ``archive``; ``name`` is an archive's. ``time`` as ISO 8601,
    UTC. ``passed_over``: why newer ones were not taken.
    """

    state: State
    reason: str = ""
    layout: Layout = "backup_engine"
    backup_id: int | None = None
    time: str = ""
    sequence_number: int = 0
    db_id: str = ""
    hostname: str = ""
    passed_over: tuple[str, ...] = ()
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "state": self.state.value, "passed_over": list(self.passed_over)}


def find_backup(
    filesystem: AbstractFileSystem,
    root: str,
    *,
    newer_than: datetime | None = None,
    max_age: timedelta | None = None,
    db_id: str | None = None,
    now: datetime | None = None,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> FoundBackup:
    """Find the newest backup all of whose files are there with their sizes.

    :param newer_than: it must be newer than this.
    :param max_age: it must be at most that old; both hold where both are given.
    :param db_id: it must be of this database.
    :param now: to count ``max_age`` from; default: this moment.
    :raises InvalidArgumentError: for a time without a time zone.
    :raises CancelledError: when ``stop`` was set.
    """
    if newer_than is not None and newer_than.tzinfo is None:
        raise InvalidArgumentError(f"newer_than: expected a time with a time zone, got {newer_than.isoformat()}")
    limits, wanted = [], "a complete backup"
    if newer_than is not None:
        limits.append(newer_than)
        wanted += f" newer than {newer_than.isoformat()}"
    if max_age is not None:
        limits.append((now or datetime.now(UTC)) - max_age)
        wanted += f" not older than {max_age}"
    if db_id is not None:
        wanted += f" of database {db_id}"
    search = _Search(Storage(filesystem, root), wanted, max(limits, default=None), db_id, options, stop)
    try:
        return search.run()
    except CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever a storage driver raises, it was not checked
        state, words = explain(error, search.storage.url)
        return FoundBackup(state, words)


@dataclass
class _Search:
    storage: Storage
    wanted: str
    limit: datetime | None
    db_id: str | None
    options: TransferOptions
    stop: threading.Event | None
    passed_over: list[tuple[State, str]] = field(default_factory=list)

    def run(self) -> FoundBackup:
        looks = {"directory": self._look_at_directory, "archive": self._look_at_archives}
        found = looks.get(read_layout(self.storage, self.options, self.stop), self._look_at_backups)()
        return found or self._none()

    def _look_at_backups(self) -> FoundBackup | None:
        sizes = list_metas(self.storage, self.options, self.stop)
        for backup_id in sorted(sizes, reverse=True):
            try:
                found, is_old = self._look_at(backup_id, sizes[backup_id])
            except CancelledError:
                raise
            except NotFoundError:
                continue  # deleted meanwhile
            except RocksDBError as error:
                state, words = explain(error, "")
                self.passed_over.append((state, f"backup {backup_id}: {words}"))
                continue
            if found is not None or is_old:
                return found
        return None

    def _look_at(self, backup_id: int, size: int) -> tuple[FoundBackup | None, bool]:
        """Return a backup that is what is wanted, else whether it, and so every one before it, is too old."""
        backup = read_meta(self.storage, backup_id, size, self.options, self.stop)
        info = describe_meta(backup)
        if not self._is_new(f"backup {backup_id}", info.time):
            return None, True
        source = read_source(self.storage, backup, self.options, self.stop)
        if not self._is_of_database(f"backup {backup_id}", source.db_id):
            return None, False
        problems = read_contents(self.storage, {backup_id: size}, self.options, self.stop).problems
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            self.passed_over.append((gravest(problem.state for problem in problems), f"{problems[0]}{more}"))
            return None, False
        found = FoundBackup(
            State.COMPLETE,
            backup_id=backup_id,
            time=info.time.isoformat(timespec="seconds"),
            sequence_number=info.sequence_number,
            db_id=source.db_id,
            hostname=source.hostname,
            passed_over=tuple(text for _, text in self.passed_over),
        )
        return found, False

    def _look_at_directory(self) -> FoundBackup | None:
        found = describe_directory(self.storage, self.options, self.stop)
        if found.state != State.COMPLETE.value:
            self.passed_over.append((State(found.state), found.problems[0]))
        elif self._is_new("it", _read_time(found.time)) and self._is_of_database("it", found.db_id):
            return FoundBackup(
                State.COMPLETE,
                layout="directory",
                time=found.time,
                sequence_number=found.sequence_number,
                db_id=found.db_id,
                hostname=found.hostname,
            )
        return None

    def _look_at_archives(self) -> FoundBackup | None:
        for beginning in reversed(read_beginnings(self.storage, self.options, self.stop)):
            name, record = beginning.archive.name, beginning.record
            if beginning.problem:
                self.passed_over.append((beginning.state, beginning.problem))
            elif self._is_new(name, _read_time(record.created if record else "")) and self._is_of_database(
                name, record.db_id if record else ""
            ):
                return FoundBackup(
                    State.COMPLETE,
                    layout="archive",
                    time=record.created if record else "",
                    sequence_number=record.sequence_number if record else 0,
                    db_id=record.db_id if record else "",
                    hostname=record.hostname if record else "",
                    passed_over=tuple(text for _, text in self.passed_over),
                    name=name,
                )
        return None

    def _is_new(self, what: str, time: datetime | None) -> bool:
        if self.limit is None or (time is not None and time > self.limit):
            return True
        if time is None:
            self.passed_over.append((State.COULD_NOT_CHECK, f"{what} has no record that would tell its time"))
        else:
            self.passed_over.append((State.INCOMPLETE, f"{what} is of {time.isoformat(timespec='seconds')}"))
        return False

    def _is_of_database(self, what: str, db_id: str) -> bool:
        if self.db_id in (None, db_id):
            return True
        self.passed_over.append((State.INCOMPLETE, f"{what} is of database {db_id or '(not known)'}"))
        return False

    def _none(self) -> FoundBackup:
        texts = tuple(text for _, text in self.passed_over)
        state = gravest(state for state, _ in self.passed_over) if texts else State.INCOMPLETE
        seen = "; ".join(texts[:_SHOWN]) + (f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")
        return FoundBackup(state, f"{self.wanted}: {seen or 'there is none at all'}", passed_over=texts)


def _read_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
