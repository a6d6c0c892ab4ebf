"""Wait until a checkpoint is whole, or until there is a backup."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_rocksdb.core.errors import CouldNotCheckError
from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator
from airflow_provider_rocksdb.triggers.rocksdb import RocksDBBackupTrigger, RocksDBCheckpointTrigger
from airflow_provider_rocksdb.utils.backup import look_for_backup, read_time
from airflow_provider_rocksdb.utils.checkpoint import check_checkpoint
from airflow_provider_rocksdb.utils.errors import retry_only_transient
from airflow_provider_rocksdb.utils.metrics import emit_age

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_rocksdb.core.completeness import Level

_GRACE_SECONDS = 300.0  # the trigger says itself that time is up, and why; this is for one that died


class _WaitingSensor(RocksDBBaseOperator, BaseSensorOperator):
    """Wait while something is incomplete; fail at once when it is corrupt, however softly the task may fail."""

    place_name: ClassVar[str]  # of the place, in the result
    complete: ClassVar[str]
    waiting: ClassVar[str]

    deferrable: bool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._final: str | None = None
        self._missing = ""

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        raise NotImplementedError

    def make_trigger(self, context: Context) -> BaseTrigger:
        """Make what waits in the triggerer."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Wait; return what was found."""
        with self._strictly(), self.stoppable():
            if not self.deferrable:
                return self._tell(super().execute(context), context)
            found = self.poke(context)
            if not found:
                self.defer(
                    timeout=timedelta(seconds=self.timeout + _GRACE_SECONDS),
                    trigger=self.make_trigger(context),
                    method_name="execute_complete",
                )
            return self._tell(found.xcom_value, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Take over from the trigger."""
        state, reason = event["state"], event["reason"]
        if state == "incomplete":
            self._missing = reason
            raise AirflowSensorTimeout(f"Sensor has timed out after {self.timeout:g} seconds.")
        return self._tell(self.judge(event["place"], state, reason, event["result"]).xcom_value, context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral."""
        with self._strictly(), retry_only_transient():
            return super().resume_execution(next_method, next_kwargs, context)

    def judge(self, place: str, state: str, reason: str, result: dict[str, Any]) -> PokeReturnValue:
        """Turn what was found into what a sensor does."""
        if state == "complete":
            self.log.info("%s %s", place, self.complete)
            return PokeReturnValue(is_done=True, xcom_value={**result, self.place_name: place})
        if state in ("corrupt", "refused"):
            self._final = f"{place} is corrupt: {reason}" if state == "corrupt" else reason
            raise AirflowFailException(self._final)
        if state == "incomplete":
            self._missing = reason
            self.log.info("%s %s: %s", place, self.waiting, reason)
            return PokeReturnValue(is_done=False)
        raise CouldNotCheckError(f"{place} could not be checked: {reason}")

    def _tell(self, result: Any, context: Context) -> Any:
        self.tell_backup(context, result.get("backup_id"))
        return result

    @contextlib.contextmanager
    def _strictly(self) -> Iterator[None]:
        """Let no soft failure make a skip of what is corrupt, and say in a time-out what was missing."""
        try:
            yield
        except AirflowSkipException:
            if self._final is not None:
                raise AirflowFailException(self._final) from None
            raise
        except AirflowSensorTimeout as error:
            raise AirflowSensorTimeout(f"{error} Still missing: {self._missing}") from None


class RocksDBCheckpointSensor(_WaitingSensor):
    """Wait until a checkpoint directory is a whole database, on this host or on a storage.

    What is missing or too small is waited for; the time-out says what it was. What is corrupt fails the task at once,
    without a retry, also under ``soft_fail`` and ``never_fail``. What could not be checked fails this try. The result
    is what the check found.

    A local path must be visible where the check runs: on the worker, or on the triggerer when ``deferrable``. For one
    that is not shared, use ``mode="reschedule"`` and the create task's ``queue``.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: the DB directory, from which the default place follows; default: that of the connection.
    :param checkpoint_dir: a path, a URL, or the result of the create task; default: the checkpoint made upstream in
        this run, else the run's own place beside the database.
    :param level: ``files``, ``checksums`` or ``blocks`` (local only).
    :param storage_conn_id: Airflow connection of the storage, for a URL.
    :param check_timeout_seconds: limit of one check at level ``blocks``.
    :param deferrable: wait in the triggerer.
    """

    template_fields: Sequence[str] = (*RocksDBBaseOperator.template_fields, "checkpoint_dir", "storage_conn_id")
    place_name = "checkpoint_dir"
    complete = "is a whole database"
    waiting = RocksDBCheckpointTrigger.waiting

    def __init__(
        self,
        *,
        checkpoint_dir: str | Mapping[str, Any] | None = None,
        level: Level = "files",
        storage_conn_id: str | None = None,
        check_timeout_seconds: float = 3600.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.checkpoint_dir = checkpoint_dir
        self.level = level
        self.storage_conn_id = storage_conn_id
        self.check_timeout_seconds = check_timeout_seconds
        self.deferrable = deferrable

    def poke(self, context: Context) -> PokeReturnValue:
        """Check once."""
        reference = self.find_checkpoint(self.checkpoint_dir, context)
        result = check_checkpoint(
            reference,
            self.storage_conn_id,
            level=self.level,
            timeout_seconds=self.check_timeout_seconds,
            stop=self._stop,
        )
        return self.judge(reference.checkpoint_dir, result.state.value, result.reason, result.to_dict())

    def make_trigger(self, context: Context) -> BaseTrigger:
        """Make what checks in the triggerer."""
        reference = self.find_checkpoint(self.checkpoint_dir, context)
        return RocksDBCheckpointTrigger(
            checkpoint_dir=reference.checkpoint_dir,
            hostname=reference.hostname,
            storage_conn_id=self.storage_conn_id,
            level=self.level,
            poke_interval=self.poke_interval,
            check_timeout_seconds=self.check_timeout_seconds,
            end_time=time.time() + self.timeout,
        )


class RocksDBBackupSensor(_WaitingSensor):
    """Wait until a backup repository has a complete backup: each of its files is there, with its size.

    That there is none, that it is too old, or another database's, and that files of it are missing, is waited for; the
    time-out says what there was. A damaged backup with none that is new enough before it fails the task at once,
    without a retry, also under ``soft_fail`` and ``never_fail``. What could not be checked fails this try. The result
    is the backup's id, time, sequence number and database.

    A backup's time is that of its checkpoint, else that of its meta. Of a storage, the credentials come from
    connections alone: what is deferred is stored in Airflow's database.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param backup_dir: path or URL of the backup repository; default: that of the connection.
    :param storage_conn_id: Airflow connection of the storage; default: that of the RocksDB connection.
    :param newer_than: a time as ISO 8601 (UTC where it names no zone), or a datetime: the backup must be newer, say
        than ``{{ dag_run.start_date }}``.
    :param max_age: how old the backup may be when it is looked at; both must hold where both are given.
    :param db_id: the database's id, where a backup of another one would not do.
    :param deferrable: wait in the triggerer.
    """

    template_fields: Sequence[str] = (
        *RocksDBBaseOperator.template_fields,
        "backup_dir",
        "storage_conn_id",
        "newer_than",
        "db_id",
    )
    place_name = "backup_dir"
    complete = "has a backup that is complete and new enough"
    waiting = RocksDBBackupTrigger.waiting

    def __init__(
        self,
        *,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        newer_than: str | datetime | None = None,
        max_age: timedelta | None = None,
        db_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_dir = backup_dir
        self.storage_conn_id = storage_conn_id
        self.newer_than = newer_than
        self.max_age = max_age
        self.db_id = db_id
        self.deferrable = deferrable

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        wanted = self._wanted()
        found = look_for_backup(**wanted, stop=self._stop)
        emit_age(self, context, found.time or self._time_of_newest(wanted))
        return self.judge(wanted["backup_dir"], found.state.value, found.reason, found.to_dict())

    def make_trigger(self, context: Context) -> BaseTrigger:  # noqa: ARG002 -- that of the other sensor needs it
        """Make what looks in the triggerer."""
        return RocksDBBackupTrigger(
            **self._wanted(), poke_interval=self.poke_interval, end_time=time.time() + self.timeout
        )

    def _time_of_newest(self, wanted: dict[str, Any]) -> str:
        """Return the time of the newest whole backup, which is too old; unknown for who waits for the next one."""
        if self.max_age is None:
            return ""
        return look_for_backup(**{**wanted, "newer_than": None, "max_age_seconds": None}, stop=self._stop).time

    def _wanted(self) -> dict[str, Any]:
        """Return what is waited for, as JSON-able values."""
        newer_than = read_time("newer_than", self.newer_than)
        return {
            "rocksdb_conn_id": self.rocksdb_conn_id,
            "backup_dir": self.backup_dir or self.hook.get_backup_dir(),
            "storage_conn_id": self.storage_conn_id,
            "newer_than": newer_than.isoformat() if newer_than is not None else None,
            "max_age_seconds": self.max_age.total_seconds() if self.max_age is not None else None,
            "db_id": self.db_id,
        }
