"""Times and durations as a person reads them."""

from __future__ import annotations

from datetime import datetime, timedelta

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_ENOUGH = {"day": 5, "hour": 5, "minute": 2, "second": 1}  # so many need no smaller unit beside them


def format_span(span: timedelta) -> str:
    """Return a length of time in its two largest units: ``1 day 4 hours``, ``12 minutes``."""
    seconds = max(round(span.total_seconds()), 0)
    if seconds == 0:
        return "0 seconds"
    parts: list[str] = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
            if len(parts) == 2 or count >= _ENOUGH[unit]:
                break
        elif parts:
            break
    return " ".join(parts)


def format_every(span: timedelta) -> str:
    """Return an interval: ``every hour``, ``every 1 hour 30 minutes``."""
    words = format_span(span)
    return f"every {words.removeprefix('1 ') if words.count(' ') == 1 else words}"


def format_ago(time: datetime, now: datetime) -> str:
    """Return how long ago that was; from a minute on without seconds."""
    seconds = int((now - time).total_seconds())
    if seconds < 1:
        return "just now"
    return f"{format_span(timedelta(seconds=seconds if seconds < 60 else seconds // 60 * 60))} ago"


def format_time(time: datetime) -> str:
    """Return a time in UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")
