"""Restore a database from any storage that fsspec knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator, RocksDBPathsOperator, RocksDBTransferOperator
from airflow_provider_rocksdb.utils.backup import read_backup_id
from airflow_provider_rocksdb.utils.openlineage import Lineage, LineageMixin, database_data

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_LOGGED = ("db_dir", "file_count", "total_bytes", "seconds")


class FsspecToRocksDBOperator(LineageMixin, RocksDBPathsOperator, RocksDBTransferOperator):
    """Restore a database from a backup repository, whoever wrote it, from a directory with a database, or an archive.

    The database is there whole, or what was there before is untouched. The result is a small dict: which backup, what
    was fetched, what was taken over, and ``db_dir``.

    Directories, storage and rate: see :class:`.RocksDBPathsOperator` and :class:`.RocksDBTransferOperator`. ``db_dir``
    is where to; ``backup_dir`` is a repository, a directory with a database as it is, or an archive.

    :param backup_id: which backup; default: the newest valid one.
    :param replace: replace the database that is there, if nobody has it open; it is kept until the new one is whole.
    :param delta: with ``replace``: take over files whose checksum is right, instead of fetching them.
    :param in_place: with ``replace``: remove the old database first, where there is no room for two.
    """

    template_fields: Sequence[str] = (
        *RocksDBPathsOperator.template_fields,
        *RocksDBTransferOperator.template_fields[len(RocksDBBaseOperator.template_fields) :],
        "backup_id",
    )

    def __init__(
        self,
        *,
        backup_id: int | str | None = None,
        replace: bool = False,
        delta: bool = False,
        in_place: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.backup_id = backup_id
        self.replace = replace
        self.delta = delta
        self.in_place = in_place

    def execute(self, context: Context) -> dict[str, Any]:
        """Restore; return what was restored."""
        from airflow_provider_rocksdb.core.restore import restore_backup

        with self.stoppable() as stop:
            done = restore_backup(
                *self.get_storage(),
                self.get_paths(),
                backup_id=read_backup_id(self.backup_id),
                replace=self.replace,
                delta=self.delta,
                in_place=self.in_place,
                options=self.transfer_options(),
                stop=stop,
            ).to_dict()
        self.log.info("%s: %d files, %d bytes, in %.1f s", *(done[key] for key in _LOGGED))
        self.tell_backup(context, done["backup_id"])
        return self.keep_result(done)

    def get_lineage(self, done: Mapping[str, Any] | None) -> Lineage:
        """From the repository to the database."""
        source, target = self.get_repository_data(), database_data(self.get_paths().db_dir)
        if done is None:
            return Lineage((source.at(self.backup_id),), (target,))
        source = source.at(done["backup_id"]).moved(done["downloaded_bytes"], done["downloaded_files"])
        target = target.at(done["sequence_number"]).moved(done["total_bytes"], done["file_count"])
        return Lineage((source,), (target,))
