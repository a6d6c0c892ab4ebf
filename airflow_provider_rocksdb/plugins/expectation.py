"""How old the last good backup of a database may be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from airflow_provider_rocksdb.plugins.facts import Schedule
from airflow_provider_rocksdb.plugins.words import format_every

_MIN_BACKUPS = 3  # of which the usual interval is taken
_MAX_INTERVALS = 10


@dataclass(frozen=True)
class Expectation:
    """A next backup is due at ``due``, ``interval`` after the one before; it is late half an interval later.

    The half is for the time that a backup takes. ``source`` says where the interval comes from.
    """

    interval: timedelta
    due: datetime
    source: str

    @property
    def late_at(self) -> datetime:
        """From when on the last backup is too old."""
        return self.due + self.interval / 2

    @property
    def words(self) -> str:
        """The expectation in a sentence."""
        return f"expected {format_every(self.interval)}, {self.source}"


def expect(times: Sequence[datetime], schedule: Schedule | None) -> Expectation | None:
    """Say when the next backup is due; None when there is no schedule, and too few backups to tell.

    :param times: of the good backups, the oldest first.
    :param schedule: of the DAG that makes them.
    """
    if not times:
        return None
    last = times[-1]
    following = schedule.following(last) if schedule is not None else ()
    if schedule is not None and len(following) > 1:
        source = f"by the schedule of DAG {schedule.dag_id} ({schedule.summary})"
        return Expectation(following[1] - following[0], following[0], source)
    if len(times) < _MIN_BACKUPS:
        return None
    gaps = [(after - before).total_seconds() for before, after in pairwise(times)][-_MAX_INTERVALS:]
    interval = timedelta(seconds=statistics.median(gaps))
    return Expectation(interval, last + interval, "the median of the last intervals between backups")
