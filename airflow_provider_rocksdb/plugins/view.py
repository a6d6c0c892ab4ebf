"""A judged database as the templates show it: words, and numbers to draw."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow_provider_rocksdb.core.progress import format_bytes
from airflow_provider_rocksdb.plugins.chart import Point
from airflow_provider_rocksdb.plugins.facts import Event, Task
from airflow_provider_rocksdb.plugins.overview import NO_TIME, Backup, Database, State, count_states, restore_command
from airflow_provider_rocksdb.plugins.words import format_ago, format_every, format_span, format_time

STATE_WORDS: dict[State, str] = {"failed": "Failed", "late": "Late", "unknown": "Unknown", "ok": "OK"}
_CHARTED = 60
_LISTED_BACKUPS = 100
_LISTED_FAILURES = 10
_BACKUP_STATES = {
    "complete": ("ok", "Complete"),
    "readable": ("ok", "Readable"),
    "reported": ("told", "Reported"),
    "could_not_check": ("unknown", "Could not check"),
    "incomplete": ("failed", "Incomplete"),
    "corrupt": ("failed", "Corrupt"),
    "unreadable": ("failed", "Unreadable"),
}
_KIND_WORDS = {"verify": "Verification", "prune": "Prune", "restore": "Restore", "check": "Check", "backup": "Backup"}


def describe_overview(databases: Sequence[Database], now: datetime) -> dict[str, Any]:
    """Return what the page of all databases shows."""
    counts = count_states(databases)
    return {
        "now": format_time(now),
        "state": next(iter(counts), "unknown"),
        "verdict": _give_verdict(counts, len(databases)),
        "counts": [{"state": state, "word": STATE_WORDS[state], "count": count} for state, count in counts.items()],
        "databases": [_describe(database, now) for database in databases],
    }


def describe_database(database: Database, backup: str, now: datetime) -> dict[str, Any]:
    """Return what the page of one database shows.

    :param backup: id of the backup whose restore command is shown; else that of the last good one.
    """
    chosen = next((item for item in database.backups if str(item.backup_id) == backup), None)
    shown = chosen or database.last_good
    return {
        "now": format_time(now),
        "is_only": False,
        "database": _describe(database, now),
        "storage": database.storage,
        "backups": [
            _describe_backup(item, database, item is chosen, now) for item in database.backups[:_LISTED_BACKUPS]
        ],
        "more_backups": len(database.backups) - _LISTED_BACKUPS,
        "missing": backup if backup and chosen is None else "",
        "restore": None
        if shown is None
        else {"label": shown.label, "command": restore_command(shown, database.db_dir), "is_good": shown.is_good},
        "charts": _describe_charts(database.events[-_CHARTED:]),
        "failures": [_describe_failure(task, now) for task in database.failures[:_LISTED_FAILURES]],
    }


def _give_verdict(counts: dict[State, int], total: int) -> str:
    if not total:
        return "No database is known yet"
    if set(counts) == {"ok"}:
        return "All is well" if total > 1 else "The database is backed up"
    bad = total - counts.get("ok", 0)
    return f"{bad} of {total} databases {'needs' if bad == 1 else 'need'} attention"


def _describe(database: Database, now: datetime) -> dict[str, Any]:
    last, verification, newest = database.last_good, database.verification, next(iter(database.backups), None)
    ratio = database.dedup_ratio
    return {
        "state": database.state,
        "word": STATE_WORDS[database.state],
        "name": database.name,
        "url": database.url or "",
        "conn_id": database.conn_ids[0] if database.conn_ids else "",
        "db_dir": database.db_dir,
        "reason": database.reason,
        "last_label": last.label if last else "Not known" if database.storage else "None yet",
        "is_known": not database.storage,
        "last_ago": format_ago(last.time, now) if last else "",
        "last_time": format_time(last.time) if last else "",
        "expected": database.expectation.words if database.expectation else "",
        "expected_short": format_every(database.expectation.interval) if database.expectation else "",
        "late_after": format_span(database.expectation.interval * 1.5) if database.expectation else "",
        "verification": _describe_verification(verification, database, now),
        "size": format_bytes(newest.total_bytes) if newest else "",
        "sent": format_bytes(newest.sent_bytes) if newest and newest.sent_bytes is not None else "",
        "ratio": f"{ratio:.1f}" if ratio else "",
        "count": len(database.backups),
    }


def _describe_verification(task: Task | None, database: Database, now: datetime) -> dict[str, Any]:
    if task is None:
        return {"state": "none", "word": "Never", "ago": "", "detail": "no task has verified a backup", "path": ""}
    verified = database.verified
    if task.state == "failed":
        return {
            "state": "failed",
            "word": "Failed",
            "ago": format_ago(task.time, now),
            "detail": task.reason,
            "path": task.key.path,
        }
    level = verified.level if verified else ""
    numbers = verified.backup_ids if verified else ()
    which = f"backup {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} backups" if numbers else ""
    return {
        "state": "ok",
        "word": "Passed",
        "ago": format_ago(task.time, now),
        "detail": ", ".join(part for part in (f"level {level}" if level else "", which) if part),
        "path": task.key.path,
    }


def _describe_backup(backup: Backup, database: Database, is_chosen: bool, now: datetime) -> dict[str, Any]:
    state, word = _BACKUP_STATES.get(backup.state, ("unknown", backup.state))
    ratio = backup.dedup_ratio
    return {
        "id": backup.backup_id,
        "label": backup.label,
        "is_chosen": is_chosen,
        "state": state,
        "word": word,
        "problems": backup.problems[:5],
        "time": "" if backup.time == NO_TIME else format_time(backup.time),
        "ago": "unknown" if backup.time == NO_TIME else format_ago(backup.time, now),
        "size": format_bytes(backup.total_bytes),
        "sent": "" if backup.sent_bytes is None else format_bytes(backup.sent_bytes),
        "own": "" if backup.own_bytes is None else format_bytes(backup.own_bytes),
        "ratio": f"{ratio:.1f}" if ratio else "",
        "files": backup.file_count,
        "sequence_number": backup.sequence_number,
        "command": restore_command(backup, database.db_dir),
        "path": backup.task.path if backup.task else "",
        "run": f"{backup.task.dag_id}" if backup.task else "",
    }


def _describe_failure(task: Task, now: datetime) -> dict[str, Any]:
    return {
        "kind": _KIND_WORDS.get(task.kind, "Task"),
        "is_final": task.state == "failed",
        "task_id": task.key.task_id,
        "dag_id": task.key.dag_id,
        "ago": format_ago(task.time, now),
        "time": format_time(task.time),
        "reason": task.reason or "The task could not say why: its log does.",
        "path": task.key.path,
    }


def _describe_charts(events: Sequence[Event]) -> dict[str, Any] | None:
    if not events:
        return None
    sizes = [event.number("total_bytes") for event in events]
    sent = [event.number("uploaded_bytes") for event in events]
    rows = [_describe_event(event) for event in events]
    return {
        "first": rows[0]["time"],
        "last": rows[-1]["time"],
        "max_size": format_bytes(max(sizes)),
        "max_sent": format_bytes(max(sent)),
        "last_size": rows[-1]["size"],
        "last_sent": rows[-1]["sent"],
        "size_points": [Point(size, _point_at(row, row["size"])) for size, row in zip(sizes, rows, strict=True)],
        "sent_points": [
            Point(size, _point_at(row, f"{row['sent']} sent")) for size, row in zip(sent, rows, strict=True)
        ],
        "rows": rows,
    }


def _describe_event(event: Event) -> dict[str, str]:
    backup_id = event.extra.get("backup_id")
    return {
        "label": f"Backup {backup_id}" if backup_id else event.url.rpartition("/")[2],
        "time": format_time(event.time),
        "size": format_bytes(event.number("total_bytes")),
        "sent": format_bytes(event.number("uploaded_bytes")),
    }


def _point_at(row: dict[str, str], words: str) -> str:
    return f"{row['label']}, {row['time']}: {words}"
