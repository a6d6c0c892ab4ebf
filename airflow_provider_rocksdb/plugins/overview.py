"""What the page says of each database; nothing is asked here: facts in, judgement out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from airflow_provider_rocksdb.core import BackupUsage
from airflow_provider_rocksdb.plugins.expectation import Expectation, expect
from airflow_provider_rocksdb.plugins.facts import Answer, Connection, Event, Schedule, Task, TaskKey, Verified
from airflow_provider_rocksdb.plugins.words import format_ago, format_span

State = Literal["failed", "late", "unknown", "ok"]
STATES: tuple[State, ...] = ("failed", "late", "unknown", "ok")  # the gravest first

NO_TIME = datetime.fromtimestamp(0, UTC)  # of a backup whose meta cannot be read
_GOOD = ("complete", "readable", "reported")  # an archive is never more than readable without reading all of it
_ENDED = ("success", "failed", "up_for_retry")
_COUNTED = ("backup", "verify")  # kinds of tasks whose failure is the database's


@dataclass(frozen=True)
class Backup:
    """A backup: what the storage says of it, and what the task that made it reported.

    ``state`` is as of ``list_usage``, or ``reported`` when the storage was not asked, or did not answer.
    """

    backup_id: int | None
    name: str
    url: str
    time: datetime
    state: str
    problems: tuple[str, ...] = ()
    total_bytes: int = 0
    sent_bytes: int | None = None
    own_bytes: int | None = None
    file_count: int = 0
    sequence_number: int = 0
    task: TaskKey | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against it."""
        return self.state in _GOOD

    @property
    def dedup_ratio(self) -> float | None:
        """How many times its size is of what was sent for it."""
        return self.total_bytes / self.sent_bytes if self.sent_bytes else None

    @property
    def label(self) -> str:
        """What to call it."""
        return (self.name or "The database as it is") if self.backup_id is None else f"Backup {self.backup_id}"


@dataclass(frozen=True)
class Database:
    """A database, as its repository and the tasks that use it show it."""

    url: str | None
    conn_ids: tuple[str, ...]
    db_dir: str
    state: State
    reason: str
    backups: tuple[Backup, ...]  # the newest first
    expectation: Expectation | None
    verification: Task | None  # the last that ended
    verified: Verified | None  # what it returned
    failures: tuple[Task, ...]  # the newest first
    events: tuple[Event, ...]  # the oldest first, also of backups that are gone
    storage: str  # what is to be said of the storage; empty when it answered

    @property
    def name(self) -> str:
        """What to call it."""
        if self.conn_ids:
            return self.conn_ids[0]
        return (self.url or "").rstrip("/").rpartition("/")[2] or self.url or "unknown"

    @property
    def named_by(self) -> set[str]:
        """Connections by which it is known: also those that the viewer may not read, which tasks name."""
        return {*self.conn_ids, *(event.text("rocksdb_conn_id") for event in self.events)}

    @property
    def last_good(self) -> Backup | None:
        """The newest backup that nothing speaks against."""
        return next((backup for backup in self.backups if backup.is_good), None)

    @property
    def dedup_ratio(self) -> float | None:
        """How many times the size of all reported backups is of what was sent for them."""
        sent = sum(event.number("uploaded_bytes") for event in self.events)
        return sum(event.number("total_bytes") for event in self.events) / sent if sent else None


def build_database(
    url: str | None,
    connections: Sequence[Connection],
    events: Sequence[Event],
    tasks: Sequence[Task],
    schedules: Mapping[str, Schedule],
    verified: Mapping[TaskKey, Verified],
    answer: Answer | None,
    now: datetime,
) -> Database:
    """Judge one database.

    :param events, tasks: of this repository, in any order.
    :param schedules: by DAG id.
    :param verified: what verifications returned, by task.
    :param answer: of its storage; None when it was not asked.
    """
    events = sorted(events, key=lambda event: event.time)
    tasks = sorted(tasks, key=lambda task: task.time, reverse=True)
    backups = _merge(url, events, answer)
    good = [backup for backup in backups if backup.is_good]
    schedule = _find_schedule(events, tasks, schedules)
    expectation = expect([backup.time for backup in reversed(good)], schedule)
    makers = {event.key.dag_id for event in events}
    state, reason = _judge(backups, tasks, makers, expectation, schedule, connections, answer, now)
    verification = last_verification(tasks)
    db_dirs = [event.text("db_dir") for event in reversed(events)] + [connection.db_dir for connection in connections]
    return Database(
        url=url,
        conn_ids=tuple(connection.conn_id for connection in connections) or _name_connection(url, tasks),
        db_dir=next((db_dir for db_dir in db_dirs if db_dir), ""),
        state=state,
        reason=reason,
        backups=backups,
        expectation=expectation,
        verification=verification,
        verified=verified.get(verification.key) if verification else None,
        failures=tuple(task for task in tasks if task.state in ("failed", "up_for_retry")),
        events=tuple(events),
        storage=_describe_storage(connections, answer),
    )


def _name_connection(url: str | None, tasks: Sequence[Task]) -> tuple[str, ...]:
    """Name what has neither a repository nor a connection that can be read after what its tasks name."""
    return () if url else tuple(task.conn_id for task in tasks[:1] if task.conn_id)


def last_verification(tasks: Sequence[Task]) -> Task | None:
    """Return the verification that ended last, of tasks of which the newest comes first."""
    return next((task for task in tasks if task.kind == "verify" and task.state in ("success", "failed")), None)


def restore_command(backup: Backup, db_dir: str) -> str:
    """Return the shell command that restores a backup beside the database, which may be running."""
    command = ["python", "-m", "airflow_provider_rocksdb", "restore", backup.url, f"{db_dir or 'DB_DIR'}.restored"]
    if backup.backup_id is not None:
        command += ["--backup-id", str(backup.backup_id)]
    return shlex.join(command)


def _merge(url: str | None, events: Sequence[Event], answer: Answer | None) -> tuple[Backup, ...]:
    """Take what the storage has, if it answered, with what was reported of it; else what was reported."""
    reported = {event.extra.get("backup_id") or event.url: event for event in events}
    if answer is None or answer.problem:
        return tuple(_from_event(event) for event in reversed(reported.values()))
    backups = [_from_usage(usage, _join(url or "", usage.name), reported) for usage in answer.backups]
    return tuple(sorted(backups, key=lambda backup: (backup.backup_id or 0, backup.time), reverse=True))


def _join(url: str, name: str) -> str:
    return f"{url.rstrip('/')}/{name}" if name else url


def _from_event(event: Event) -> Backup:
    backup_id = event.extra.get("backup_id")
    return Backup(
        backup_id=backup_id if isinstance(backup_id, int) else None,
        name=event.url.rstrip("/").rpartition("/")[2],
        url=event.url,
        time=event.time,
        state="reported",
        total_bytes=event.number("total_bytes"),
        sent_bytes=event.number("uploaded_bytes"),
        file_count=event.number("file_count"),
        sequence_number=event.number("sequence_number"),
        task=event.key,
    )


def _from_usage(usage: BackupUsage, url: str, reported: Mapping[object, Event]) -> Backup:
    event = reported.get(usage.backup_id or url)
    time = datetime.fromisoformat(usage.time) if usage.time else event.time if event else NO_TIME
    return Backup(
        backup_id=usage.backup_id,
        name=usage.name,
        url=url,
        time=time,
        state=usage.state,
        problems=usage.problems,
        total_bytes=usage.total_bytes,
        sent_bytes=event.number("uploaded_bytes") if event else None,
        own_bytes=usage.own_bytes,
        file_count=usage.file_count,
        sequence_number=usage.sequence_number,
        task=event.key if event else None,
    )


def _find_schedule(
    events: Sequence[Event], tasks: Sequence[Task], schedules: Mapping[str, Schedule]
) -> Schedule | None:
    """Return the schedule of the DAG that made the last backup, else of the one that tried last."""
    dag_ids = [event.key.dag_id for event in reversed(events)]
    dag_ids += [task.key.dag_id for task in tasks if task.kind == "backup"]
    return schedules.get(dag_ids[0]) if dag_ids else None


def _judge(
    backups: Sequence[Backup],
    tasks: Sequence[Task],
    makers: set[str],
    expectation: Expectation | None,
    schedule: Schedule | None,
    connections: Sequence[Connection],
    answer: Answer | None,
    now: datetime,
) -> tuple[State, str]:
    """Say in which state a database's backups are, and why: the gravest that holds."""
    newest, good = next(iter(backups), None), next((backup for backup in backups if backup.is_good), None)
    failure = _current_failure(tasks, makers, good)
    if failure is not None:
        return "failed", failure
    if newest is not None and not newest.is_good and newest.state != "could_not_check":
        return "failed", f"{newest.label} is {newest.state}: {'; '.join(newest.problems[:3])}"
    paused = f"; DAG {schedule.dag_id} is paused" if schedule is not None and schedule.is_paused else ""
    if good is not None and expectation is not None and now > expectation.late_at:
        late = format_span(now - expectation.due)
        return "late", f"The next backup was due {late} ago; {expectation.words}{paused}"
    if answer is not None and answer.problem:
        return "unknown", f"The storage cannot be read: {answer.problem}"
    problem = next((connection.problem for connection in connections if connection.problem), "")
    if newest is not None and not newest.is_good:
        return "unknown", f"{newest.label} could not be checked: {'; '.join(newest.problems[:3])}"
    if good is None:
        return "unknown", problem or f"No backup yet{paused}"
    if expectation is None:
        return "ok", f"Backed up {format_ago(good.time, now)}; nothing says when the next one is due{paused}"
    return "ok", f"Backed up {format_ago(good.time, now)}; {expectation.words}"


def _current_failure(tasks: Sequence[Task], makers: set[str], good: Backup | None) -> str | None:
    """Return what failed last, of tasks that count, unless it has succeeded since; of backups, unless there is one."""
    seen = set()
    for task in tasks:
        kind = "backup" if task.kind == "check" and task.key.dag_id in makers else task.kind
        if kind not in _COUNTED or task.state not in _ENDED:
            continue
        step = (kind, task.key.dag_id, task.key.task_id, task.key.map_index)
        if step in seen:
            continue
        seen.add(step)
        if kind == "backup" and good is not None and good.time > task.time:
            continue
        if task.state in ("failed", "up_for_retry"):
            ended = "failed" if task.state == "failed" else "failed and will be tried again"
            return f"Task {task.key.task_id} of DAG {task.key.dag_id} {ended}{': ' if task.reason else ''}{task.reason}"
    return None


def _describe_storage(connections: Sequence[Connection], answer: Answer | None) -> str:
    if answer is not None:
        return f"The storage cannot be read: {answer.problem}" if answer.problem else ""
    if not connections:
        return "No connection that you may read names this repository, so its storage was not asked."
    return ""


def count_states(databases: Sequence[Database]) -> dict[State, int]:
    """How many databases are in each state, the gravest first; without states that none is in."""
    counts = {state: sum(database.state == state for database in databases) for state in STATES}
    return {state: count for state, count in counts.items() if count}
