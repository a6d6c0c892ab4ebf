"""What every task of this provider has: the connection, the checkpoint it means, and a way to be stopped."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_rocksdb.core.errors import CancelledError
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
from airflow_provider_rocksdb.utils.checkpoint import (
    CheckpointReference,
    default_checkpoint_dir,
    find_created,
    read_reference,
)
from airflow_provider_rocksdb.utils.errors import retry_only_transient

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class RocksDBBaseOperator(BaseOperator):
    """Base of this provider's operators and sensors.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: the DB directory; default: that of the connection.
    """

    template_fields: Sequence[str] = ("rocksdb_conn_id", "db_dir")
    ui_color = "#dfe8d8"

    def __init__(
        self, *, rocksdb_conn_id: str = RocksDBHook.default_conn_name, db_dir: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rocksdb_conn_id = rocksdb_conn_id
        self.db_dir = db_dir
        self._stop: threading.Event | None = None

    @property
    def hook(self) -> RocksDBHook:
        """The connection."""
        return RocksDBHook(self.rocksdb_conn_id)

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[threading.Event]:
        """Give the work an event that :meth:`on_kill` sets; a killed task fails, whatever the work made of it.

        Permanent errors of the core leave as AirflowFailException.

        :raises CancelledError: when the task was killed meanwhile.
        """
        stop = self._stop = threading.Event()
        try:
            with retry_only_transient():
                yield stop
                if stop.is_set():
                    raise CancelledError(f"task {self.task_id} was killed")
        finally:
            self._stop = None  # an event can be neither copied nor serialized

    def on_kill(self) -> None:
        """Ask the work to stop; it fails at its next step."""
        if self._stop is not None:
            self._stop.set()

    def find_checkpoint(self, given: Any, context: Context) -> CheckpointReference:
        """Return the checkpoint that is meant: the one given, else made upstream in this run, else the run's own place.

        :raises InvalidArgumentError: when what was given means nothing, or nothing says which checkpoint.
        """
        reference = read_reference(given) or find_created(self, context)
        if reference is None:
            db_dir = self.hook.get_paths(db_dir=self.db_dir).db_dir
            reference = CheckpointReference(default_checkpoint_dir(db_dir, context))
        return reference
