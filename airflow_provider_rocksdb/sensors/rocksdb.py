"""Wait until a checkpoint is whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

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
from airflow_provider_rocksdb.triggers.rocksdb import RocksDBCheckpointTrigger
from airflow_provider_rocksdb.utils.checkpoint import CheckpointReference, check_checkpoint
from airflow_provider_rocksdb.utils.errors import retry_only_transient

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rocksdb.core.completeness import Level

_GRACE_SECONDS = 300.0  # the trigger says itself that time is up, and why; this is for one that died


class RocksDBCheckpointSensor(RocksDBBaseOperator, BaseSensorOperator):
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
        self._final: str | None = None
        self._missing = ""

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
        return self._judge(reference.checkpoint_dir, result.state.value, result.reason, result.to_dict())

    def execute(self, context: Context) -> Any:
        """Wait; return what the check found."""
        with self._strictly(), self.stoppable():
            if not self.deferrable:
                return super().execute(context)
            found = self.poke(context)
            if not found:
                self._defer(self.find_checkpoint(self.checkpoint_dir, context))
            return found.xcom_value

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:  # noqa: ARG002 -- Airflow's signature
        """Take over from the trigger."""
        checkpoint_dir, state, reason = event["checkpoint_dir"], event["state"], event["reason"]
        if state == "incomplete":
            self._missing = reason
            raise AirflowSensorTimeout(f"Sensor has timed out after {self.timeout:g} seconds.")
        return self._judge(checkpoint_dir, state, reason, event["result"]).xcom_value

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral."""
        with self._strictly(), retry_only_transient():
            return super().resume_execution(next_method, next_kwargs, context)

    def _defer(self, reference: CheckpointReference) -> None:
        self.defer(
            timeout=timedelta(seconds=self.timeout + _GRACE_SECONDS),
            trigger=RocksDBCheckpointTrigger(
                checkpoint_dir=reference.checkpoint_dir,
                hostname=reference.hostname,
                storage_conn_id=self.storage_conn_id,
                level=self.level,
                poke_interval=self.poke_interval,
                check_timeout_seconds=self.check_timeout_seconds,
                end_time=time.time() + self.timeout,
            ),
            method_name="execute_complete",
        )

    def _judge(self, checkpoint_dir: str, state: str, reason: str, result: dict[str, Any]) -> PokeReturnValue:
        """Turn what a check found into what a sensor does."""
        if state == "complete":
            self.log.info("%s is a whole database", checkpoint_dir)
            return PokeReturnValue(is_done=True, xcom_value={**result, "checkpoint_dir": checkpoint_dir})
        if state in ("corrupt", "refused"):
            self._final = f"{checkpoint_dir} is corrupt: {reason}" if state == "corrupt" else reason
            raise AirflowFailException(self._final)
        if state == "incomplete":
            self._missing = reason
            self.log.info("%s is not whole yet: %s", checkpoint_dir, reason)
            return PokeReturnValue(is_done=False)
        raise CouldNotCheckError(f"{checkpoint_dir} could not be checked: {reason}")

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
