"""What the page says of a database, from facts alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_rocksdb.core import BackupUsage
from airflow_provider_rocksdb.plugins.expectation import expect
from airflow_provider_rocksdb.plugins.facts import Answer, Connection, Event, Schedule, Task, TaskKey, Verified
from airflow_provider_rocksdb.plugins.overview import Database, build_database, count_states, restore_command
from airflow_provider_rocksdb.plugins.places import sort_facts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
URL = "s3://backups/orders"
CONNECTION = Connection("orders", "/var/lib/orders", URL)


def key(run: int, task_id: str = "backup", dag_id: str = "nightly") -> TaskKey:
    return TaskKey(dag_id, f"run-{run}", task_id)


def event(backup_id: int, hours_ago: float, **extra: Any) -> Event:
    measured = {"backup_id": backup_id, "url": URL, "total_bytes": 1000, "uploaded_bytes": 100, **extra}
    return Event(key(backup_id), NOW - hours_ago * HOUR, URL, {"layout": "backup_engine", **measured})


def task(state: str, hours_ago: float, task_id: str = "backup", kind: Any = "backup", reason: str = "") -> Task:
    made = key(round(hours_ago), task_id)
    return Task(made, kind, state, NOW - hours_ago * HOUR, url=URL, conn_id="orders", reason=reason)


def usage(backup_id: int, hours_ago: float, state: str = "complete", *problems: str) -> BackupUsage:
    time = (NOW - hours_ago * HOUR).isoformat()
    return BackupUsage(backup_id, state, problems, time=time, total_bytes=1000, own_bytes=10)


def schedule(*hours_ago: float, is_paused: bool = False) -> dict[str, Schedule]:
    times = sorted(NOW - hours * HOUR for hours in hours_ago)

    def follow(after: datetime) -> list[datetime]:
        return [time for time in times if time > after][:2]

    return {"nightly": Schedule("nightly", "0 2 * * *", is_paused, follow)}


def daily(hours_ago: float, *, is_paused: bool = False) -> dict[str, Schedule]:
    return schedule(*(hours_ago + 24 * day for day in range(-9, 9)), is_paused=is_paused)


def judge(
    events: Sequence[Event] = (),
    tasks: Sequence[Task] = (),
    schedules: dict[str, Schedule] | None = None,
    answer: Answer | None = None,
    connections: Sequence[Connection] = (CONNECTION,),
    verified: dict[TaskKey, Verified] | None = None,
) -> Database:
    return build_database(URL, connections, events, tasks, schedules or {}, verified or {}, answer, NOW)


def test_ok() -> None:
    """A backup younger than the schedule asks for is fine, and the reason tells its age and the schedule."""
    database = judge([event(1, 30), event(2, 6)], [task("success", 6)], daily(6))
    assert database.state == "ok"
    assert database.reason == "Backed up 6 hours ago; expected every day, by the schedule of DAG nightly (0 2 * * *)"


@pytest.mark.parametrize(("hours", "state"), [(35.9, "ok"), (36.1, "late")])
def test_late(hours: float, state: str) -> None:
    """A backup is late from half an interval after the next one was due."""
    database = judge([event(1, hours)], [], daily(hours))
    assert database.state == state


def test_late_says_paused() -> None:
    """A database whose DAG is paused is late, and the reason says that it is paused."""
    database = judge([event(1, 50)], [], daily(50, is_paused=True))
    assert (database.state, database.reason.partition(";")[0]) == ("late", "The next backup was due 1 day 2 hours ago")
    assert database.reason.endswith("; DAG nightly is paused")


def test_uneven_schedule() -> None:
    """What is due is the next time of the schedule itself: after a Friday's backup, on Monday."""
    database = judge([event(1, 60)], [], schedule(84, 60, -12, -36))
    assert database.state == "ok"
    assert database.expectation is not None
    assert database.expectation.due == NOW + 12 * HOUR


def test_median() -> None:
    """Without a schedule, the next backup is due after the median interval of the last ones."""
    times = [NOW - hours * HOUR for hours in (100, 10, 8, 6, 5)]
    expectation = expect(times, None)
    assert expectation is not None
    assert (expectation.interval, expectation.due) == (2 * HOUR, NOW - 3 * HOUR)


def test_nothing_to_expect() -> None:
    """Two backups and no schedule say nothing of a third: no backup is called late for that."""
    database = judge([event(1, 999), event(2, 998)])
    assert (database.state, database.expectation) == ("ok", None)
    assert "nothing says when the next one is due" in database.reason


def test_failed() -> None:
    """A backup task that failed after the last good backup makes the database failed, with the task's reason."""
    database = judge([event(1, 30)], [task("failed", 6, reason="disk is full"), task("success", 30)], daily(6))
    assert database.state == "failed"
    assert database.reason == "Task backup of DAG nightly failed: disk is full"
    assert [failure.reason for failure in database.failures] == ["disk is full"]


def test_failed_but_done_since() -> None:
    """A failure before the last good backup is listed, and does not make the database failed."""
    database = judge([event(2, 6)], [task("success", 6), task("failed", 30)], daily(6))
    assert (database.state, len(database.failures)) == ("ok", 1)


def test_failed_verification() -> None:
    """A verification that failed counts until one succeeds, although backups go on."""
    bad = task("failed", 5, "verify", "verify", "000012.sst: wrong CRC")
    database = judge([event(2, 4)], [bad, task("success", 4)], daily(4))
    assert (database.state, database.verification) == ("failed", bad)
    good = task("success", 3, "verify", "verify")
    assert judge([event(2, 4)], [bad, good, task("success", 4)], daily(4)).state == "ok"


def test_check_counts_where_backups_are_made() -> None:
    """A sensor that fails in the DAG that makes backups is the database's failure; elsewhere it is only listed."""
    check = task("failed", 2, "whole", "check", "corrupt")
    assert judge([event(1, 26)], [check], daily(2)).state == "failed"
    elsewhere = replace(check, key=key(1, "whole", "restore_drill"))
    assert judge([event(1, 20)], [elsewhere], daily(20)).state == "ok"


def test_corrupt_newest() -> None:
    """A newest backup that the storage shows as damaged makes the database failed; an older one does not."""
    damaged = Answer((usage(1, 30), usage(2, 6, "incomplete", "shared_checksum/000009.sst: missing")))
    database = judge([event(1, 30), event(2, 6)], [], daily(6), damaged)
    assert database.state == "failed"
    assert database.reason == "Backup 2 is incomplete: shared_checksum/000009.sst: missing"
    assert database.last_good is not None
    assert database.last_good.backup_id == 1
    older = Answer((usage(1, 30, "corrupt", "x"), usage(2, 6)))
    assert judge([event(1, 30), event(2, 6)], [], daily(6), older).state == "ok"


def test_could_not_check() -> None:
    """A newest backup that could not be checked is never OK, whatever lies before it."""
    answer = Answer((usage(1, 30), usage(2, 6, "could_not_check", "shared_checksum: 503")))
    database = judge([event(1, 30), event(2, 6)], [], daily(6), answer)
    assert (database.state, database.reason) == ("unknown", "Backup 2 could not be checked: shared_checksum: 503")


def test_failed_until_done() -> None:
    """A failure counts while the next try is running."""
    tasks = [task("running", 0), task("failed", 6, reason="disk is full")]
    assert judge([event(1, 30)], tasks, daily(6)).state == "failed"


def test_archives() -> None:
    """An archive in the storage is that of the event with its URL, and its command names it."""
    name = "orders-20260301.tar.zst"
    made = Event(key(1), NOW, f"{URL}/{name}", {"layout": "archive", "uploaded_bytes": 50})
    found = BackupUsage(None, "readable", layout="archive", time=NOW.isoformat(), total_bytes=100, name=name)
    (backup,) = judge([made], answer=Answer((found,))).backups
    assert (backup.label, backup.sent_bytes, backup.task) == (name, 50, key(1))
    assert restore_command(backup, "/srv/orders").endswith(f"restore {URL}/{name} /srv/orders.restored")


def test_unreachable() -> None:
    """A storage that cannot be read is never OK: what was reported is shown, and the state is unknown."""
    database = judge([event(1, 6)], [], daily(6), Answer(problem="it did not answer within 3 seconds"))
    assert database.state == "unknown"
    assert [backup.state for backup in database.backups] == ["reported"]


def test_late_goes_before_unreachable() -> None:
    """An old backup is late, whether or not the storage answers."""
    assert judge([event(1, 90)], [], daily(90), Answer(problem="x")).state == "late"


def test_no_backup() -> None:
    """Without any backup the state is unknown; a connection that names no repository says so."""
    assert judge(answer=Answer()).reason == "No backup yet"
    nameless = Connection("orders", problem="Connection orders names no backup repository")
    assert judge(connections=[nameless]).reason == "Connection orders names no backup repository"


def test_storage_is_the_truth() -> None:
    """The list is what the storage holds; what was sent for it comes from the event; pruned ones are in the chart."""
    database = judge([event(1, 30), event(2, 6)], [], {}, Answer((usage(2, 6), usage(3, 1))))
    assert [(backup.backup_id, backup.sent_bytes) for backup in database.backups] == [(3, None), (2, 100)]
    assert [made.extra["backup_id"] for made in database.events] == [1, 2]
    assert database.dedup_ratio == 10
    assert database.backups[1].dedup_ratio == 10


def test_restore_command() -> None:
    """The command survives a shell: a directory with a quote and a space is one word; it never names the database."""
    database = judge([event(7, 1, db_dir="/srv/it's here")])
    words = shlex.split(restore_command(database.backups[0], database.db_dir))
    assert words[3:] == ["restore", URL, "/srv/it's here.restored", "--backup-id", "7"]


def test_sorting() -> None:
    """Tasks without a URL go to their connection's repository; archives to the folder that they lie in."""
    archive = Event(key(1, dag_id="other"), NOW, "s3://backups/orders/a.tar.zst", {"layout": "archive"})
    silent = replace(task("failed", 1), url=None)
    stray = replace(silent, conn_id="gone")
    found = sort_facts([CONNECTION], [archive], [silent, stray])
    assert found == {(URL, ""): ([CONNECTION], [archive], [silent]), (None, "gone"): ([], [], [stray])}


def test_counts() -> None:
    """States are counted with the gravest first."""
    good, late = judge([event(1, 1)]), judge([event(1, 90)], [], daily(90))
    assert list(count_states([good, late, good]).items()) == [("late", 1), ("ok", 2)]
