"""What the page is made of, as its sources tell it: Airflow's database, and the storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from airflow_provider_rocksdb.core import BackupUsage

Kind = Literal["backup", "check", "verify", "prune", "restore", "other"]

KINDS: Mapping[str, Kind] = {
    "RocksDBBackupOperator": "backup",
    "RocksDBCreateCheckpointOperator": "backup",
    "RocksDBToFsspecOperator": "backup",
    "RocksDBCheckpointSensor": "check",
    "RocksDBVerifyBackupOperator": "verify",
    "RocksDBPruneBackupsOperator": "prune",
    "FsspecToRocksDBOperator": "restore",
}


@dataclass(frozen=True)
class TaskKey:
    """A task instance, and where Airflow's UI shows it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def path(self) -> str:
        """Path of its log in the UI, relative to the UI's root."""
        parts = f"dags/{quote(self.dag_id, '')}/runs/{quote(self.run_id, '')}/tasks/{quote(self.task_id, '')}"
        return parts if self.map_index < 0 else f"{parts}/mapped/{self.map_index}"


@dataclass(frozen=True)
class Task:
    """How a task instance of this provider ended. ``reason``: why it failed, if it could say so."""

    key: TaskKey
    kind: Kind
    state: str
    time: datetime
    url: str | None = None
    conn_id: str | None = None
    backup_id: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Event:
    """A backup that a task has made, as its asset event tells; ``extra`` holds what was measured."""

    key: TaskKey
    time: datetime
    url: str
    extra: Mapping[str, Any]

    def number(self, name: str) -> int:
        """Return one of its measures; 0 when it is not there."""
        value = self.extra.get(name)
        return int(value) if isinstance(value, int | float) else 0

    def text(self, name: str) -> str:
        """Return one of its texts; empty when it is not there."""
        value = self.extra.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True)
class Connection:
    """A connection of type ``rocksdb`` that the viewer may read; ``problem``: why it names no repository."""

    conn_id: str
    db_dir: str = ""
    url: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Schedule:
    """When a DAG runs by itself: ``following`` gives the next two times after one; none where there is no telling."""

    dag_id: str
    summary: str
    is_paused: bool
    following: Callable[[datetime], Sequence[datetime]]


@dataclass(frozen=True)
class Answer:
    """What a storage answered: ``backups``, or the ``problem``."""

    backups: tuple[BackupUsage, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Verified:
    """A verification that succeeded: at which level, of which backups."""

    key: TaskKey
    level: str
    backup_ids: tuple[int, ...]
