"""Metrics of backups, through Airflow's Stats: to StatsD, Datadog or OpenTelemetry, as Airflow is set up.

========================================  =======  ===========  ========================================================
name                                      kind     unit         when
========================================  =======  ===========  ========================================================
``rocksdb.checkpoint.duration``           timer    ms           a checkpoint was created
``rocksdb.checkpoint.copied_bytes``       gauge    bytes        the same: what was written, not linked or cloned
``rocksdb.upload.duration``               timer    ms           an upload was done
``rocksdb.upload.bytes``                  gauge    bytes        the same: what was sent
``rocksdb.upload.bytes_per_second``       gauge    bytes/s      the same, when anything was sent
``rocksdb.backup.age``                    gauge    s            a backup sensor looked: age of the newest whole backup
``rocksdb.verification.failures``         counter               a verification found damage, or could not be made
========================================  =======  ===========  ========================================================

Tags: ``dag_id`` and ``task_id``, as Airflow's own metrics have them, and ``conn_id``. Plain StatsD has no tags: there
all databases share one name, unless ``[metrics] statsd_influxdb_enabled`` or ``statsd_datadog_enabled`` is set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_rocksdb.core.errors import CancelledError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator


def sent_bytes(done: Mapping[str, Any]) -> int:
    """Bytes that an upload has sent, of its result; none where an earlier try had completed the same archive."""
    if "uploaded_bytes" in done:
        return int(done["uploaded_bytes"])
    return 0 if done["reused"] else int(done["archive_bytes"])


def emit_checkpoint(task: RocksDBBaseOperator, context: Context, summary: Mapping[str, Any]) -> None:
    """Tell of a checkpoint that was created."""
    tags = _tags(task, context)
    Stats.timing("rocksdb.checkpoint.duration", timedelta(seconds=summary["seconds"]), tags=tags)
    Stats.gauge("rocksdb.checkpoint.copied_bytes", summary["copied_bytes"], tags=tags)


def emit_upload(task: RocksDBBaseOperator, context: Context, done: Mapping[str, Any]) -> None:
    """Tell of an upload that was done, in whatever layout."""
    tags, seconds, sent = _tags(task, context), done["seconds"], sent_bytes(done)
    Stats.timing("rocksdb.upload.duration", timedelta(seconds=seconds), tags=tags)
    Stats.gauge("rocksdb.upload.bytes", sent, tags=tags)
    if sent and seconds:
        Stats.gauge("rocksdb.upload.bytes_per_second", round(sent / seconds), tags=tags)


def emit_age(task: RocksDBBaseOperator, context: Context, time: str) -> None:
    """Tell how old a backup is.

    :param time: its time as ISO 8601; empty, or none that says its zone: unknown, and nothing is told.
    """
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(time)
    except (ValueError, TypeError):
        return
    Stats.gauge("rocksdb.backup.age", round(age.total_seconds()), tags=_tags(task, context))


@contextlib.contextmanager
def counting_failures(task: RocksDBBaseOperator, context: Context) -> Iterator[None]:
    """Count a verification that fails: whatever it raises, unless it was stopped."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, CancelledError):
            Stats.incr("rocksdb.verification.failures", tags=_tags(task, context))
        raise


def _tags(task: RocksDBBaseOperator, context: Context) -> dict[str, str]:
    ti = context["ti"]
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "conn_id": task.rocksdb_conn_id}
