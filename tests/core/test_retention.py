"""Retention in restic's words: its documentation's and tests' cases, and an independent statement of the rules."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.retention import (
    BackupTime,
    Duration,
    RetentionPlan,
    RetentionPolicy,
    parse_duration,
    plan_retention,
)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def backups(texts: list[str]) -> list[BackupTime]:
    return [BackupTime(number, time) for number, time in enumerate(sorted(at(text) for text in texts), 1)]


def kept_times(plan: RetentionPlan) -> list[str]:
    return [decision.time for decision in plan.decisions if decision.keep]


def count_reasons(plan: RetentionPlan) -> dict[str, int]:
    found: dict[str, int] = {}
    for decision in plan.decisions:
        for reason in decision.reasons:
            found[reason] = found.get(reason, 0) + 1
    return found


# restic, doc/060_forget.rst: the example of backups on weekdays, one of which is missing
FORTNIGHT = [
    *(f"2025-04-{day}T11:00" for day in (21, 22, 23, 24, 25, 28, 29)),
    *("2025-04-25T23:00", "2025-05-01T11:00", "2025-05-02T11:00", "2025-05-02T23:00"),
]

# restic, internal/data/snapshot_policy_test.go, TestApplyPolicy: its snapshots, to the second
_DAYS = {
    "08": (8, 10, 12, 13, 13, 15, 18, 20, 21, 22),
    "09": (1, 2, 5, 6, 8, 9, 10, 11, 20, 22),
    "10": (1, 2, 5, 6, 8, 9, 10, 11, 20, 22),
    "11": (8, 10, 12, 13, 13, 15, 18, 20, 21, 22),
}
RESTIC = [
    *(f"{year}-{month}-{day:02}T10:20:30" for year in (2014, 2015) for month, days in _DAYS.items() for day in days),
    *["2015-10-22T10:20:30"] * 4,
    *(f"2016-01-01T{clock}:03" for clock in ("01:02", "01:03", "07:08")),
    "2016-01-03T07:02:03",
    *(f"2016-01-04T{clock}:03" for clock in ("10:23", "11:23", "12:23", "12:24", "12:28", "12:30", "16:23")),
    *("2016-01-05T09:02:03", "2016-01-06T08:02:03", "2016-01-07T10:02:03", "2016-01-08T20:02:03"),
    *("2016-01-09T21:02:03", "2016-01-12T21:02:03", "2016-01-12T21:08:03", "2016-01-18T12:02:03"),
]


def test_documented_example() -> None:
    """Of restic's documentation: five days that have a backup reach back over the one that has none."""
    plan = plan_retention(backups(FORTNIGHT), RetentionPolicy(keep_daily=5))
    days = ["05-02T23", "05-01T11", "04-29T11", "04-28T11", "04-25T23"]
    assert kept_times(plan) == [f"2025-{day}:00:00Z" for day in days]
    assert len(plan.removed) == 6


@pytest.mark.parametrize(
    ("policy", "count", "oldest", "reasons"),
    [
        ({"keep_last": 10}, 10, "2016-01-04T12:30:03", {"last": 10}),
        ({"keep_last": 200}, 103, "2014-08-08T10:20:30", {"last": 103}),
        ({"keep_last": -1}, 103, "2014-08-08T10:20:30", {"last": 103}),
        ({"keep_hourly": 20}, 20, "2015-11-13T10:20:30", {"hourly": 20}),
        ({"keep_hourly": -1}, 90, "2014-08-08T10:20:30", {"hourly": 90}),
        ({"keep_last": 5, "keep_daily": 5}, 6, "2016-01-07T10:02:03", {"last": 5, "daily": 5}),
        ({"keep_daily": 3, "keep_weekly": 4}, 4, "2016-01-03T07:02:03", {"daily": 3, "weekly": 4}),
        (
            {"keep_daily": 7, "keep_weekly": 2, "keep_monthly": 3, "keep_yearly": 10},
            11,
            "2014-08-08T10:20:30",
            {"daily": 7, "weekly": 2, "monthly": 3, "yearly": 3, "oldest yearly": 1},
        ),
        (
            {"keep_daily": 3, "keep_weekly": 2, "keep_monthly": -1, "keep_yearly": -1},
            12,
            "2014-08-08T10:20:30",
            {"daily": 3, "weekly": 2, "monthly": 9, "oldest monthly": 1, "yearly": 3, "oldest yearly": 1},
        ),
        ({"keep_within": "1d"}, 1, "2016-01-18T12:02:03", {"within 1d": 1}),
        ({"keep_within": "1m"}, 19, "2016-01-01T01:02:03", {"within 1m": 19}),
        ({"keep_within": "1y1d1m"}, 63, "2015-08-08T10:20:30", {"within 1y1d1m": 63}),
        ({"keep_within": "13d23h"}, 9, "2016-01-04T16:23:03", {"within 13d23h": 9}),
        ({"keep_within": "1y2m3d3h"}, 68, "2014-11-15T10:20:30", {"within 1y2m3d3h": 68}),
    ],
)
def test_as_restic(policy: dict[str, Any], count: int, oldest: str, reasons: dict[str, int]) -> None:
    """Of restic's tests (internal/data/testdata): how many are kept, which is the oldest of them, and why."""
    plan = plan_retention(backups(RESTIC), RetentionPolicy(**policy))
    assert len(plan.kept) == count
    assert kept_times(plan)[-1] == f"{oldest}Z"
    assert count_reasons(plan) == reasons
    assert len(plan.kept) + len(plan.removed) == len(RESTIC)


def test_every_day_for_many_years() -> None:
    """Of restic's documentation: 7 dailies, and of weeks, months and years those that are not among them already."""
    first = datetime(1990, 1, 1, 11, tzinfo=UTC)
    daily = [BackupTime(day + 1, int((first + timedelta(days=day)).timestamp())) for day in range(30 * 365)]
    policy = RetentionPolicy(keep_daily=7, keep_weekly=5, keep_monthly=12, keep_yearly=75)
    plan = plan_retention(daily, policy)
    assert count_reasons(plan) == {"daily": 7, "weekly": 5, "monthly": 12, "yearly": 30, "oldest yearly": 1}


PERIODS: dict[str, Callable[[int], Any]] = {
    "keep_hourly": lambda time: time // 3600,
    "keep_daily": lambda time: time // 86400,
    "keep_weekly": lambda time: (time // 86400 + 3) // 7,  # 1970 began on a Thursday
    "keep_monthly": lambda time: time_struct(time)[:2],
    "keep_yearly": lambda time: time_struct(time)[:1],
}


def time_struct(seconds: int) -> Any:
    return time.gmtime(seconds)


def kept_by(rule: str, count: int, found: list[BackupTime]) -> set[int]:
    """State one rule: which of the backups it keeps."""
    by_age = sorted(found, key=lambda backup: (backup.timestamp, backup.backup_id))
    if rule == "keep_last":
        return {
            backup.backup_id for backup in (by_age if count < 0 else by_age[len(by_age) - min(count, len(by_age)) :])
        }
    newest_in = {PERIODS[rule](backup.timestamp): backup.backup_id for backup in by_age}
    chosen = sorted(newest_in, reverse=True)[: None if count < 0 else count]
    kept = {newest_in[period] for period in chosen}
    unused = count < 0 or count > len(newest_in)
    return kept | {by_age[0].backup_id} if unused and by_age else kept


SECONDS = st.one_of(
    st.integers(0, 2**32),
    st.integers(1_700_000_000, 1_700_000_000 + 40 * 86400),
    st.integers(1_704_000_000, 1_704_000_000 + 5 * 3600),
)
COUNTS = st.integers(-1, 6)


@given(
    times=st.lists(SECONDS, max_size=30),
    counts=st.fixed_dictionaries(dict.fromkeys(("keep_last", *PERIODS), COUNTS)),
    days=st.integers(0, 60),
    hours=st.integers(0, 30),
    random=st.randoms(use_true_random=False),
)
def test_against_the_rules(times: list[int], counts: dict[str, int], days: int, hours: int, random: Any) -> None:
    """A backup is kept when a rule, stated apart from the others, keeps it; the order of the input does not matter."""
    within = "".join(f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h")) if number)
    if not within and not any(counts.values()):
        return
    found = [BackupTime(number, seconds) for number, seconds in enumerate(times, 1)]
    random.shuffle(found)
    expected = set().union(*(kept_by(rule, count, found) for rule, count in counts.items() if count))
    if within and found:
        limit = max(times) - days * 86400 - hours * 3600
        expected |= {backup.backup_id for backup in found if backup.timestamp > limit}
    plan = plan_retention(found, RetentionPolicy(**counts, keep_within=within or None))
    assert set(plan.kept) == expected | {len(found)} - {0}  # the one made last
    assert sorted((*plan.kept, *plan.removed)) == sorted(backup.backup_id for backup in found)
    assert not found or plan.decisions[0].keep


def test_periods_are_those_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two backups on both sides of midnight UTC are of two days, in whatever time zone the answer is computed."""
    both = backups(["2025-03-01T23:59:59", "2025-03-02T00:00:00"])
    for zone in ("UTC", "Pacific/Auckland", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        plan = plan_retention(both, RetentionPolicy(keep_daily=2))
        assert kept_times(plan) == ["2025-03-02T00:00:00Z", "2025-03-01T23:59:59Z"]
        assert count_reasons(plan) == {"daily": 2}
    monkeypatch.undo()
    time.tzset()
    assert os.environ.get("TZ") != "America/Los_Angeles"


def test_weeks_begin_on_monday() -> None:
    """Sunday and the Monday after it are two weeks, also over the end of a year."""
    plan = plan_retention(backups(["2024-12-29T12:00", "2024-12-30T12:00", "2025-01-05T12:00"]), weekly(2))
    assert kept_times(plan) == ["2025-01-05T12:00:00Z", "2024-12-29T12:00:00Z"]


def weekly(count: int) -> RetentionPolicy:
    return RetentionPolicy(keep_weekly=count)


def test_backups_of_the_future() -> None:
    """A backup later than now is kept, and keep_within does not count from it."""
    found = backups(["2025-01-01T00:00", "2025-01-09T00:00", "2025-01-10T00:00", "2031-01-01T00:00"])
    policy = RetentionPolicy(keep_within="2d")
    assert plan_retention(found, policy, now=at("2025-01-11T00:00")).kept == (4, 3, 2)
    assert plan_retention(found, policy).kept == (4,)
    assert plan_retention(found[3:], policy, now=at("2025-01-11T00:00")).kept == (4,)


def test_clock_that_was_ahead() -> None:
    """The backup made last is kept also when the clock was ahead at the ones before it, which seem to be newer."""
    found = [BackupTime(1, at("2025-05-01T11:00")), BackupTime(2, at("2036-01-01T11:00"))]
    found += [BackupTime(3, at("2036-01-02T11:00")), BackupTime(4, at("2025-05-02T11:00"))]
    for policy in (RetentionPolicy(keep_last=1), RetentionPolicy(keep_daily=1)):
        plan = plan_retention(found, policy, at("2025-05-02T11:01"))
        assert plan.kept == (3, 4)
        assert {decision.backup_id: decision.reasons for decision in plan.decisions}[4] == ("made last",)


def test_impossible_times() -> None:
    """A meta that tells a time beyond the calendar's end, or the year 1, breaks nothing."""
    found = [BackupTime(1, 0), BackupTime(2, 2**63 - 1), BackupTime(3, 2**63 - 2)]
    assert plan_retention(found, RetentionPolicy(keep_last=1)).kept == (2, 3)
    assert plan_retention(found, RetentionPolicy(keep_within="999999y")).kept == (2, 3, 1)


def test_equal_times() -> None:
    """Of two backups of the same second, the one with the larger id is the newer."""
    assert plan_retention([BackupTime(2, 5), BackupTime(10, 5)], RetentionPolicy(keep_last=1)).kept == (10,)


def test_no_backups() -> None:
    """Of no backups, none is kept or removed."""
    assert plan_retention([], RetentionPolicy(keep_last=1)).decisions == ()


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("2y5m7d3h", Duration(2, 5, 7, 3)),
        ("1y1d1m", Duration(1, 1, 1)),
        ("36h", Duration(hours=36)),
        ("0y7d", Duration(days=7)),
    ],
)
def test_durations(text: str, duration: Duration) -> None:
    """Years, months, days and hours, in any order; written back, they mean the same."""
    assert parse_duration(text) == duration
    assert parse_duration(str(duration)) == duration


@pytest.mark.parametrize(
    "text", ["", "1", "d", "1w", "1d1d", "-1d", "1.5d", "0d", "1 d", "1d ", "1D", "\uff19d", "1d1"]
)
def test_no_durations(text: str) -> None:
    """Anything else is refused, and so is a duration of nothing."""
    with pytest.raises(InvalidArgumentError, match="2y5m7d3h"):
        parse_duration(text)


def test_months_of_different_lengths() -> None:
    """A month before a 31st is counted as Go's AddDate does: the days that a month lacks are those of the next."""
    assert Duration(months=1).before(datetime(2025, 3, 31, 5, tzinfo=UTC)) == datetime(2025, 3, 3, 5, tzinfo=UTC)
    assert Duration(years=1).before(datetime(2024, 2, 29, tzinfo=UTC)) == datetime(2023, 3, 1, tzinfo=UTC)
    assert Duration(months=13, days=1).before(datetime(2025, 1, 1, tzinfo=UTC)) == datetime(2023, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "policy",
    [{}, {"keep_last": 0}, {"keep_within": ""}, {"keep_last": -2}, {"keep_daily": "7"}, {"keep_last": True}],
)
def test_refused_policies(policy: dict[str, Any]) -> None:
    """A policy that would keep nothing is refused, and so is one that makes no sense."""
    with pytest.raises(InvalidArgumentError, match="keep"):
        RetentionPolicy(**policy)


def test_policy_and_decision_as_text() -> None:
    """A policy reads as its rules, and a decision goes into JSON with what happens and why."""
    policy = RetentionPolicy(keep_last=2, keep_within="7d")
    assert str(policy) == "keep_last 2, keep_within 7d"
    decisions = plan_retention(
        backups(["2025-01-01T00:00", "2025-02-01T00:00"]), RetentionPolicy(keep_last=1)
    ).decisions
    assert [decision.to_dict() for decision in decisions] == [
        {"backup_id": 2, "time": "2025-02-01T00:00:00Z", "action": "keep", "reasons": ["last"]},
        {"backup_id": 1, "time": "2025-01-01T00:00:00Z", "action": "remove", "reasons": []},
    ]
