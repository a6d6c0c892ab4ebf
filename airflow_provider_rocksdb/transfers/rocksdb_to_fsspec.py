"""Upload a checkpoint to any storage that fsspec knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.operators.base import RocksDBUploadOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class RocksDBToFsspecOperator(RocksDBUploadOperator):
    """Upload a checkpoint to a backup repository, which stock RocksDB can restore; only what is new is sent.

    The checkpoint is checked first; what is not complete is not uploaded. The result is a small dict: what was sent,
    what the repository already had, and the new backup's id.

    Storage, layout and rate: see :class:`.RocksDBUploadOperator`.

    :param db_dir: the DB directory, from which the default place of the checkpoint follows.
    :param checkpoint_dir: a path, or the result of the create task; default: the checkpoint made upstream in this run,
        else the run's own place beside the database.
    """

    template_fields: Sequence[str] = (*RocksDBUploadOperator.template_fields, "checkpoint_dir")

    def __init__(self, *, checkpoint_dir: str | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.checkpoint_dir = checkpoint_dir

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the checkpoint and upload it; return what was sent."""
        from airflow_provider_rocksdb.core.checkpoint import require_checkpoint_here

        with self.stoppable() as stop:
            checkpoint_dir, hostname = self.find_checkpoint(self.checkpoint_dir, context)
            require_checkpoint_here(checkpoint_dir, hostname)
            return self.upload(checkpoint_dir, self.get_storage(), context, stop)
