"""Which backup a task means, a look whether it is there, and a look which are new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from airflow_provider_rocksdb.core.freshness import FoundBackup
    from airflow_provider_rocksdb.core.new_backups import NewBackups


def read_time(name: str, value: Any) -> datetime | None:
    """Read a time that a task was given; one without a time zone is in UTC, as Airflow's own are.

    :raises InvalidArgumentError: when it is not one: also for what an empty template makes of it.
    """
    if value is None:
        return None
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
    except (ValueError, AttributeError):
        raise InvalidArgumentError(f"{name}: expected a time as ISO 8601, got {value!r}") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def read_backup_id(value: Any) -> int | None:
    """Read a backup id that a task was given: a number, or the text that a template makes of one.

    :raises InvalidArgumentError: when it is not one: also for what an empty template makes of it.
    """
    from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_id

    if value is None:
        return None
    backup_id = decode_backup_id(str(value).strip())
    if backup_id is None:
        raise InvalidArgumentError(f"backup_id: expected a number from 1 on, got {value!r}")
    return backup_id


def look_for_backup(
    *,
    rocksdb_conn_id: str,
    backup_dir: str,
    storage_conn_id: str | None,
    newer_than: str | None,
    max_age_seconds: float | None,
    db_id: str | None,
    stop: threading.Event | None,
) -> FoundBackup:
    """Look once.

    :raises InvalidArgumentError, AirflowNotFoundException: when the storage cannot be resolved.
    """
    from airflow_provider_rocksdb.core.freshness import find_backup

    filesystem, root = RocksDBHook(rocksdb_conn_id).get_storage(backup_dir, storage_conn_id)
    return find_backup(
        filesystem,
        root,
        newer_than=read_time("newer_than", newer_than),
        max_age=None if max_age_seconds is None else timedelta(seconds=max_age_seconds),
        db_id=db_id,
        stop=stop,
    )


def look_for_new_backups(
    seen: Mapping[str, Any] | None,
    *,
    rocksdb_conn_id: str,
    backup_dir: str | None,
    storage_conn_id: str | None,
    newer_than: str | None,
    max_age_seconds: float | None,
    db_id: str | None,
    stop: threading.Event | None,
) -> NewBackups:
    """Look once which backups are new: see :func:`.find_new_backups`.

    :raises InvalidArgumentError, AirflowNotFoundException: when the storage cannot be resolved.
    """
    from airflow_provider_rocksdb.core.new_backups import find_new_backups

    filesystem, root = RocksDBHook(rocksdb_conn_id).get_storage(backup_dir, storage_conn_id)
    return find_new_backups(
        filesystem,
        root,
        seen,
        newer_than=read_time("newer_than", newer_than),
        max_age=None if max_age_seconds is None else timedelta(seconds=max_age_seconds),
        db_id=db_id,
        stop=stop,
    )
