"""Upload a checkpoint to any storage that fsspec knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator
from airflow_provider_rocksdb.utils.checkpoint import describe_run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rocksdb.core.archive_layout import Compression
    from airflow_provider_rocksdb.core.completeness import Level
    from airflow_provider_rocksdb.core.upload import Layout


class RocksDBToFsspecOperator(RocksDBBaseOperator):
    """Upload a checkpoint to a backup repository, which stock RocksDB can restore; only what is new is sent.

    The checkpoint is checked first; what is not complete is not uploaded. The result is a small dict: what was sent,
    what the repository already had, and the new backup's id.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: the DB directory, from which the default place of the checkpoint follows.
    :param checkpoint_dir: a path, or the result of the create task; default: the checkpoint made upstream in this run,
        else the run's own place beside the database.
    :param backup_dir: path or URL of the backup repository; default: that of the connection. With layout ``archive`` a
        folder, or the archive's own name, which ends in ``.tar.zst``, ``.tar.gz`` or ``.tar``.
    :param storage_conn_id: Airflow connection of the storage; default: that of the RocksDB connection.
    :param storage_options: arguments of the fsspec file system, instead of a storage connection. They are part of the
        DAG's code: put secrets into a connection.
    :param layout: ``backup_engine`` (a repository, incremental), ``directory`` (the checkpoint as it is; give each
        run a directory of its own) or ``archive`` (one compressed file, ``<DB directory's name>-<time, UTC>.tar.zst``
        in the folder).
    :param level: how far the checkpoint is checked first: ``files``, ``checksums`` or ``blocks``.
    :param max_workers: files sent at a time; an archive is one.
    :param max_bytes_per_second: limit of the upload's rate.
    :param allow_other_source: accept a repository that belongs to another database, host or path.
    :param compression: of an archive: ``zstd``, ``gzip`` or ``none``; default: what its name says, else ``zstd``.
    :param compression_level: 1 to 19 for zstd (default 3), 1 to 9 for gzip (default 6).
    :param compression_threads: that zstd compresses with; default: one for each processor, at most 4.
    """

    template_fields: Sequence[str] = (
        *RocksDBBaseOperator.template_fields,
        "checkpoint_dir",
        "backup_dir",
        "storage_conn_id",
    )

    def __init__(
        self,
        *,
        checkpoint_dir: str | Mapping[str, Any] | None = None,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        layout: Layout = "backup_engine",
        level: Level = "files",
        max_workers: int = 4,
        max_bytes_per_second: int | None = None,
        allow_other_source: bool = False,
        compression: Compression | None = None,
        compression_level: int | None = None,
        compression_threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.checkpoint_dir = checkpoint_dir
        self.backup_dir = backup_dir
        self.storage_conn_id = storage_conn_id
        self.storage_options = storage_options
        self.layout = layout
        self.level = level
        self.max_workers = max_workers
        self.max_bytes_per_second = max_bytes_per_second
        self.allow_other_source = allow_other_source
        self.compression = compression
        self.compression_level = compression_level
        self.compression_threads = compression_threads

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the checkpoint and upload it; return what was sent."""
        from airflow_provider_rocksdb.core.checkpoint import require_checkpoint_here
        from airflow_provider_rocksdb.core.transfer import TransferOptions
        from airflow_provider_rocksdb.core.upload import upload_checkpoint

        with self.stoppable() as stop:
            checkpoint_dir, hostname = self.find_checkpoint(self.checkpoint_dir, context)
            require_checkpoint_here(checkpoint_dir, hostname)
            filesystem, root = self.hook.get_storage(self.backup_dir, self.storage_conn_id, self.storage_options)
            return upload_checkpoint(
                checkpoint_dir,
                filesystem,
                root,
                layout=self.layout,
                level=self.level,
                app_metadata=describe_run(context),
                allow_other_source=self.allow_other_source,
                compression=self.compression,
                compression_level=self.compression_level,
                compression_threads=self.compression_threads,
                options=TransferOptions(max_workers=self.max_workers, max_bytes_per_second=self.max_bytes_per_second),
                stop=stop,
            )
