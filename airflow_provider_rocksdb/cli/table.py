"""Backups as a table for a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = ("ID", "TIME", "SEQUENCE", "FILES", "BYTES", "OWN BYTES", "STATE", "LAYOUT", "DB ID", "HOST", "RUN")
_NUMBERS = ("ID", "SEQUENCE", "FILES", "BYTES", "OWN BYTES")


def format_usage(backups: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return a table's lines: a row for each backup, and below it what is wrong with it; none for no backups.

    :param backups: each as ``BackupUsage.to_dict`` gives it.
    """
    if not backups:
        return ()
    rows = [_HEAD, *(_row(backup) for backup in backups)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [_format(row, widths) for row in rows[:1]]
    for row, backup in zip(rows[1:], backups, strict=True):
        lines += [_format(row, widths), *(f"  {problem}" for problem in backup["problems"])]
    return tuple(lines)


def _row(backup: Mapping[str, Any]) -> tuple[str, ...]:
    run = "/".join(str(backup["run"][name]) for name in ("dag_id", "run_id") if backup["run"].get(name))
    numbers = [backup[name] for name in ("sequence_number", "file_count", "total_bytes", "own_bytes")]
    return (
        backup["name"] or "-" if backup["backup_id"] is None else str(backup["backup_id"]),
        backup["time"] or "-",
        *("-" if backup["state"] == "unreadable" else str(number) for number in numbers),
        backup["state"],
        backup["layout"],
        backup["db_id"] or "-",
        backup["hostname"] or "-",
        run or "-",
    )


def _format(row: Sequence[str], widths: Sequence[int]) -> str:
    columns = zip(_HEAD, row, widths, strict=True)
    cells = (text.rjust(width) if name in _NUMBERS else text.ljust(width) for name, text, width in columns)
    return "  ".join(cells).rstrip()
