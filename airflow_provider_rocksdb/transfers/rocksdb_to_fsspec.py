"""Upload a checkpoint to any storage that fsspec knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.operators.base import RocksDBUploadOperator
from airflow_provider_rocksdb.utils.checkpoint import CheckpointReference, read_reference
from airflow_provider_rocksdb.utils.openlineage import Lineage, LineageMixin, checkpoint_data

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rocksdb.utils.openlineage import Data


class RocksDBToFsspecOperator(LineageMixin, RocksDBUploadOperator):
    """Upload a checkpoint to a backup repository, which stock RocksDB can restore; only what is new is sent.

    The checkpoint is checked first; what is not complete is not uploaded. The result is a small dict: what was sent,
    what the repository already had, and the new backup's id.

    Storage, layout and rate: see :class:`.RocksDBUploadOperator`.

    :param db_dir: the DB directory, from which the default place of the checkpoint follows.
    :param checkpoint_dir: a path, or the result of the create task; default: the checkpoint made upstream in this run,
        else the run's own place beside the database.
    """

    _found: CheckpointReference | None = None
    template_fields: Sequence[str] = (*RocksDBUploadOperator.template_fields, "checkpoint_dir")

    def __init__(self, *, checkpoint_dir: str | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.checkpoint_dir = checkpoint_dir

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the checkpoint and upload it; return what was sent."""
        from airflow_provider_rocksdb.core.checkpoint import require_checkpoint_here

        with self.stoppable() as stop:
            self._found = checkpoint_dir, hostname = self.find_checkpoint(self.checkpoint_dir, context)
            require_checkpoint_here(checkpoint_dir, hostname)
            return self.keep_result(self.upload(checkpoint_dir, self.get_storage(), context, stop))

    def get_lineage(self, done: Mapping[str, Any] | None) -> Lineage:
        """From the checkpoint, as far as it is known, to the repository."""
        found = self._found or read_reference(self.checkpoint_dir)
        source: tuple[Data, ...] = () if found is None else (checkpoint_data(*found),)
        if done is not None:
            sizes = done["total_bytes"], done["file_count"]
            source = tuple(data.at(done["sequence_number"]).moved(*sizes) for data in source)
        return Lineage(source, (self.get_backup_data(done),))
