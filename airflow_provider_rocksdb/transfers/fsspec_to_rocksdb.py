"""Restore a database from any storage that fsspec knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator
from airflow_provider_rocksdb.utils.backup import read_backup_id

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class FsspecToRocksDBOperator(RocksDBBaseOperator):
    """Restore a database from a backup repository, whoever wrote it, from a directory with a database, or an archive.

    The database is there whole, or what was there before is untouched. The result is a small dict: which backup, what
    was fetched, what was taken over, and ``db_dir``.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: where to; default: that of the connection.
    :param wal_dir: RocksDB's ``wal_dir`` of the restored database; default: that of the connection, unless ``db_dir``
        is given.
    :param db_paths: RocksDB's ``db_paths``, likewise.
    :param cf_paths: RocksDB's ``cf_paths`` by column family, likewise.
    :param backup_dir: path or URL of the repository, directory or archive; default: that of the connection.
    :param storage_conn_id: Airflow connection of the storage; default: that of the RocksDB connection.
    :param storage_options: arguments of the fsspec file system, instead of a storage connection. They are part of the
        DAG's code: put secrets into a connection.
    :param backup_id: which backup; default: the newest valid one.
    :param replace: replace the database that is there, if nobody has it open; it is kept until the new one is whole.
    :param delta: with ``replace``: take over files whose checksum is right, instead of fetching them.
    :param in_place: with ``replace``: remove the old database first, where there is no room for two.
    :param max_workers: files fetched at a time.
    :param max_bytes_per_second: limit of the download's rate.
    """

    template_fields: Sequence[str] = (
        *RocksDBBaseOperator.template_fields,
        "wal_dir",
        "db_paths",
        "cf_paths",
        "backup_dir",
        "storage_conn_id",
        "backup_id",
    )

    def __init__(
        self,
        *,
        wal_dir: str | None = None,
        db_paths: Sequence[str] | None = None,
        cf_paths: Mapping[str, Sequence[str]] | None = None,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        backup_id: int | str | None = None,
        replace: bool = False,
        delta: bool = False,
        in_place: bool = False,
        max_workers: int = 4,
        max_bytes_per_second: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.wal_dir = wal_dir
        self.db_paths = db_paths
        self.cf_paths = cf_paths
        self.backup_dir = backup_dir
        self.storage_conn_id = storage_conn_id
        self.storage_options = storage_options
        self.backup_id = backup_id
        self.replace = replace
        self.delta = delta
        self.in_place = in_place
        self.max_workers = max_workers
        self.max_bytes_per_second = max_bytes_per_second

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 -- Airflow calls it so
        """Restore; return what was restored."""
        from airflow_provider_rocksdb.core.restore import restore_backup
        from airflow_provider_rocksdb.core.transfer import TransferOptions

        with self.stoppable() as stop:
            paths = self.hook.get_paths(
                db_dir=self.db_dir, wal_dir=self.wal_dir, db_paths=self.db_paths, cf_paths=self.cf_paths
            )
            filesystem, root = self.hook.get_storage(self.backup_dir, self.storage_conn_id, self.storage_options)
            return restore_backup(
                filesystem,
                root,
                paths,
                backup_id=read_backup_id(self.backup_id),
                replace=self.replace,
                delta=self.delta,
                in_place=self.in_place,
                options=TransferOptions(max_workers=self.max_workers, max_bytes_per_second=self.max_bytes_per_second),
                stop=stop,
            ).to_dict()
