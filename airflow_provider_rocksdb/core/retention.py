"""Which backups to keep, in restic's words: backups and a policy -> keep, remove, and the reason for each.

The rules are those of restic's ``forget`` (``internal/data/snapshot_policy.go``, ``ApplyPolicy``):

- backups are looked at from the newest to the oldest; a later rule is not told what an earlier one has kept
- ``keep_last`` n: the newest n
- ``keep_hourly``, ``_daily``, ``_weekly``, ``_monthly``, ``_yearly`` n: the newest of each period, for the newest n
  periods that have one; weeks are those of ISO 8601, from Monday on
- a rule that has not used up its count when it comes to the oldest backup keeps that, too
- ``keep_within``: all that are younger than the newest one less this duration
- -1 stands for "without limit"

Periods are those of **UTC**, so that the answer does not depend on where it is computed.

Not restic's: the backup with the largest id, which was made last, is always kept. Its time is not the latest when a
clock was ahead before: without this it would be deleted as soon as it is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from airflow_provider_rocksdb.core.errors import InvalidArgumentError

UNLIMITED = -1

_LAST_SECOND = 253402300799  # of the year 9999: a meta may say more
_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"([0-9]{1,6}[ymdh])+")
_UNITS = {"y": "years", "m": "months", "d": "days", "h": "hours"}


class Duration(NamedTuple):
    """A duration as restic writes it: ``2y5m7d3h`` is two years, five months, seven days and three hours."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __str__(self) -> str:
        return "".join(f"{number}{unit}" for number, unit in zip(self, "ymdh", strict=True) if number)

    def before(self, time: datetime) -> datetime:
        """Return the time so long before ``time``; a 31st that the month has not is counted on into the next."""
        years, month = divmod(time.year * 12 + time.month - 1 - self.years * 12 - self.months, 12)
        try:
            first = time.replace(year=years, month=month + 1, day=1)
            return first + timedelta(days=time.day - 1 - self.days, hours=-self.hours)
        except (ValueError, OverflowError):
            return _FIRST


def parse_duration(text: str) -> Duration:
    """Read a duration such as ``2y5m7d3h``: numbers of years, months, days and hours, each at most once.

    :raises InvalidArgumentError: when it is none, or zero.
    """
    parts = [(_UNITS[part[-1]], int(part[:-1])) for part in re.findall(r"[0-9]+[ymdh]", text)]
    duration = Duration(**dict(parts))
    if not _DURATION.fullmatch(text) or len(dict(parts)) != len(parts) or not any(duration):
        raise InvalidArgumentError(f"duration {text!r}: expected one like 2y5m7d3h (years, months, days, hours)")
    return duration


@dataclass(frozen=True)
class RetentionPolicy:
    """How many backups to keep, by rule; 0 or None: the rule keeps none, -1: it keeps all that it finds.

    A backup is kept when any rule keeps it. See the head of this module.

    :raises InvalidArgumentError: when no rule keeps anything, or one makes no sense.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: str | None = None

    def __post_init__(self) -> None:
        for name in _COUNTED:
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < UNLIMITED:
                raise InvalidArgumentError(f"{name}: expected a number from 0, or -1 for no limit, got {count!r}")
        if self.keep_within:
            parse_duration(self.keep_within)
        elif not any(getattr(self, name) for name in _COUNTED):
            raise InvalidArgumentError(f"this policy would keep no backup; give at least one of {', '.join(RULES)}")

    @classmethod
    def of(cls, rules: Mapping[str, Any]) -> RetentionPolicy:
        """Read a policy's rules by their names.

        :raises InvalidArgumentError: also when a name is none.
        """
        unknown = sorted(set(rules) - set(RULES))
        if unknown:
            raise InvalidArgumentError(f"retention: unknown {', '.join(unknown)}; known are {', '.join(RULES)}")
        return cls(**rules)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if value)


class BackupTime(NamedTuple):
    """A backup and its time, in seconds since 1970."""

    backup_id: int
    timestamp: int


@dataclass(frozen=True)
class Decision:
    """What happens to a backup: the rules that keep it, or none; ``time`` in ISO 8601, UTC."""

    backup_id: int
    time: str
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "backup_id": self.backup_id,
            "time": self.time,
            "action": "keep" if self.keep else "remove",
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class RetentionPlan:
    """What a policy says of each backup, the newest first."""

    decisions: tuple[Decision, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Ids of the backups that stay, the newest first."""
        return tuple(decision.backup_id for decision in self.decisions if decision.keep)

    @property
    def removed(self) -> tuple[int, ...]:
        """Ids of the backups that go, the newest first."""
        return tuple(decision.backup_id for decision in self.decisions if not decision.keep)


def plan_retention(backups: Iterable[BackupTime], policy: RetentionPolicy, now: float | None = None) -> RetentionPlan:
    """Say of each backup whether a policy keeps it, and by which rules.

    The newest is always kept, and so is the one with the largest id. Of equal times, the larger id is the newer.

    :param now: seconds since 1970; ``keep_within`` counts from the newest backup that is not later than this.
    """
    newest_first = sorted(backups, key=lambda backup: (backup.timestamp, backup.backup_id), reverse=True)
    times = [datetime.fromtimestamp(min(backup.timestamp, _LAST_SECOND), UTC) for backup in newest_first]
    reasons: list[list[str]] = [[] for _ in newest_first]
    if policy.keep_within:
        past = [time for time, backup in zip(times, newest_first, strict=True) if now is None or backup.timestamp < now]
        limit = parse_duration(policy.keep_within).before(past[0]) if past else _FIRST
        for index, time in enumerate(times):
            if time > limit:
                reasons[index].append(f"within {policy.keep_within}")
    for name, period in _PERIODS.items():
        _keep_newest_of_each(times, reasons, name, period, getattr(policy, name))
    last = max(range(len(times)), key=lambda index: newest_first[index].backup_id, default=None)
    if last is not None and not reasons[last]:
        reasons[last].append("made last")
    return RetentionPlan(
        tuple(
            Decision(backup.backup_id, time.strftime("%Y-%m-%dT%H:%M:%SZ"), tuple(why))
            for backup, time, why in zip(newest_first, times, reasons, strict=True)
        )
    )


_Period = Callable[[datetime, int], tuple[int, ...]]
_PERIODS: dict[str, _Period] = {
    "keep_last": lambda _, index: (index,),
    "keep_hourly": lambda time, _: (time.year, time.month, time.day, time.hour),
    "keep_daily": lambda time, _: (time.year, time.month, time.day),
    "keep_weekly": lambda time, _: time.isocalendar()[:2],
    "keep_monthly": lambda time, _: (time.year, time.month),
    "keep_yearly": lambda time, _: (time.year,),
}
_COUNTED = tuple(_PERIODS)
RULES = (*_COUNTED, "keep_within")


def _keep_newest_of_each(
    times: list[datetime], reasons: list[list[str]], name: str, period: _Period, count: int
) -> None:
    word = name.removeprefix("keep_")
    seen: tuple[int, ...] | None = None
    for index, time in enumerate(times):
        if not count:
            return
        found = period(time, index)
        is_oldest = index == len(times) - 1
        if found != seen or is_oldest:
            reasons[index].append(word if found != seen else f"oldest {word}")
            seen = found
            count -= count > 0
