"""What tasks of this provider have in common: the connection, a way to be stopped, directories, storage, uploading."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, AssetAlias, BaseOperator

from airflow_provider_rocksdb.assets.rocksdb import BACKUPS_ALIAS
from airflow_provider_rocksdb.core.errors import CancelledError, RocksDBError
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
from airflow_provider_rocksdb.hooks.storage import public_url
from airflow_provider_rocksdb.links.rocksdb import HAS_PAGE, RocksDBBackupLink
from airflow_provider_rocksdb.utils.asset_events import EMITS_THROUGH_ALIAS, emit_backup
from airflow_provider_rocksdb.utils.checkpoint import (
    CheckpointReference,
    default_checkpoint_dir,
    describe_run,
    find_created,
    read_reference,
)
from airflow_provider_rocksdb.utils.errors import retry_only_transient
from airflow_provider_rocksdb.utils.metrics import emit_upload, sent_bytes
from airflow_provider_rocksdb.utils.openlineage import repository_data

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from fsspec import AbstractFileSystem

    from airflow_provider_rocksdb.core.archive_layout import Compression
    from airflow_provider_rocksdb.core.completeness import Level
    from airflow_provider_rocksdb.core.paths import DatabasePaths
    from airflow_provider_rocksdb.core.transfer import TransferOptions
    from airflow_provider_rocksdb.core.upload import Layout
    from airflow_provider_rocksdb.utils.openlineage import Data


BACKUP_KEY = "rocksdb_backup"
"""Key of the XCom that says which repository, and which backup of it, a task is about."""


class RocksDBBaseOperator(BaseOperator):
    """Base of this provider's operators and sensors.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: the DB directory; default: that of the connection.
    """

    template_fields: Sequence[str] = ("rocksdb_conn_id", "db_dir")
    backup_dir: str | None  # where a task uses a repository
    operator_extra_links = (RocksDBBackupLink(),) if HAS_PAGE else ()
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

    def get_backup_url(self) -> str | None:
        """Return the repository's URL, without a connection id; None for a task that uses none.

        :raises InvalidArgumentError, AirflowNotFoundException: when nothing names one, or it carries credentials.
        """
        return public_url(self._get_backup_dir()) if hasattr(self, "backup_dir") else None

    def _get_backup_dir(self) -> str:
        return self.backup_dir or self.hook.get_backup_dir()

    def pre_execute(self, context: Any) -> None:
        """Tell which repository the task is about, before it works: also of a task that fails."""
        super().pre_execute(context)
        self.tell_backup(context)

    def tell_backup(self, context: Context, backup_id: int | None = None) -> None:
        """Push XCom ``rocksdb_backup``, which the task's links read: ``url``, ``rocksdb_conn_id``, ``backup_id``."""
        try:
            url = self.get_backup_url()
        except (RocksDBError, AirflowNotFoundException):  # execute says it
            url = None
        value = {"url": url, "rocksdb_conn_id": self.rocksdb_conn_id, "backup_id": backup_id}
        context["ti"].xcom_push(key=BACKUP_KEY, value=value)

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


class RocksDBPathsOperator(RocksDBBaseOperator):
    """Base of tasks that need every directory of a database.

    :param db_dir: the DB directory. When it is given, no directory is taken from the connection.
    :param wal_dir: RocksDB's ``wal_dir``, where it is not what OPTIONS says.
    :param db_paths: RocksDB's ``db_paths``, all of them, in their order.
    :param cf_paths: RocksDB's ``cf_paths`` by column family name.
    """

    template_fields: Sequence[str] = (*RocksDBBaseOperator.template_fields, "wal_dir", "db_paths", "cf_paths")

    def __init__(
        self,
        *,
        wal_dir: str | None = None,
        db_paths: Sequence[str] | None = None,
        cf_paths: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wal_dir = wal_dir
        self.db_paths = db_paths
        self.cf_paths = cf_paths

    def get_paths(self) -> DatabasePaths:
        """Return the directories that were given, else those of the connection.

        :raises InvalidArgumentError: when there is no DB directory, or a value has the wrong form.
        """
        return self.hook.get_paths(
            db_dir=self.db_dir, wal_dir=self.wal_dir, db_paths=self.db_paths, cf_paths=self.cf_paths
        )


class RocksDBStorageOperator(RocksDBBaseOperator):
    """Base of tasks that use a backup repository.

    :param backup_dir: path or URL of the backup repository; default: that of the connection.
    :param storage_conn_id: Airflow connection of the storage; default: that of the RocksDB connection.
    :param storage_options: arguments of the fsspec file system, instead of a storage connection. They are part of the
        DAG's code: put secrets into a connection.
    """

    template_fields: Sequence[str] = (*RocksDBBaseOperator.template_fields, "backup_dir", "storage_conn_id")

    def __init__(
        self,
        *,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_dir = backup_dir
        self.storage_conn_id = storage_conn_id
        self.storage_options = storage_options

    def get_storage(self) -> tuple[AbstractFileSystem, str]:
        """Return the file system of the repository, and the path on it.

        :raises InvalidArgumentError, AirflowNotFoundException: as :func:`.hooks.storage.resolve_storage`.
        """
        return self.hook.get_storage(self.backup_dir, self.storage_conn_id, self.storage_options)

    def get_repository_data(self) -> Data:
        """Return the repository as OpenLineage names it.

        :raises InvalidArgumentError, AirflowNotFoundException: when nothing names one, or it carries credentials.
        """
        return repository_data(self._get_backup_dir())


class RocksDBTransferOperator(RocksDBStorageOperator):
    """Base of tasks that move files to or from a backup repository.

    :param max_workers: files moved at a time.
    :param max_bytes_per_second: limit of the rate of all files together.
    """

    def __init__(self, *, max_workers: int = 4, max_bytes_per_second: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_workers = max_workers
        self.max_bytes_per_second = max_bytes_per_second

    def transfer_options(self) -> TransferOptions:
        """Return these for the core.

        :raises InvalidArgumentError: for numbers that make no sense.
        """
        from airflow_provider_rocksdb.core.transfer import TransferOptions

        return TransferOptions(max_workers=self.max_workers, max_bytes_per_second=self.max_bytes_per_second)


class RocksDBUploadOperator(RocksDBTransferOperator):
    """Base of tasks that upload a checkpoint.

    :param layout: ``backup_engine`` (a repository, incremental), ``directory`` (the checkpoint as it is; give each run
        a directory of its own) or ``archive`` (one compressed stream; ``backup_dir`` is its folder, or its name).
    :param level: how far the checkpoint is checked first: ``files``, ``checksums`` or ``blocks``.
    :param allow_other_source: accept a repository that belongs to another database, host or path.
    :param compression: of an archive: ``zstd``, ``gzip`` or ``none``; default: what its name says, else ``zstd``.
    :param compression_level: 1 to 19 for zstd, 1 to 9 for gzip.
    :param compression_threads: threads that zstd compresses with.
    """

    def __init__(
        self,
        *,
        layout: Layout = "backup_engine",
        level: Level = "files",
        allow_other_source: bool = False,
        compression: Compression | None = None,
        compression_level: int | None = None,
        compression_threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if EMITS_THROUGH_ALIAS:
            self.outlets = [*self.outlets, AssetAlias(BACKUPS_ALIAS)]
        self.layout = layout
        self.level = level
        self.allow_other_source = allow_other_source
        self.compression = compression
        self.compression_level = compression_level
        self.compression_threads = compression_threads

    def upload(
        self, checkpoint_dir: str, storage: tuple[AbstractFileSystem, str], context: Context, stop: threading.Event
    ) -> dict[str, Any]:
        """Check a checkpoint and upload it; return what was sent. The event of it goes out when the task succeeds."""
        from airflow_provider_rocksdb.core.progress import format_bytes
        from airflow_provider_rocksdb.core.upload import upload_checkpoint

        self.log.info("Checking the checkpoint at level %s, then uploading what is new to %s", self.level, storage[1])
        done = upload_checkpoint(
            checkpoint_dir,
            *storage,
            layout=self.layout,
            level=self.level,
            app_metadata=describe_run(context),
            allow_other_source=self.allow_other_source,
            compression=self.compression,
            compression_level=self.compression_level,
            compression_threads=self.compression_threads,
            options=self.transfer_options(),
            stop=stop,
        )
        self.log.info(
            "%s holds %d files, %s, up to sequence number %d; %s of it were sent, in %.1f s",
            f"Backup {done['backup_id']}" if done.get("backup_id") else storage[1],
            done["file_count"],
            format_bytes(done["total_bytes"]),
            done["sequence_number"],
            format_bytes(sent_bytes(done)),
            done["seconds"],
        )
        self.tell_backup(context, done.get("backup_id"))
        emit_backup(self, context, checkpoint_dir, done, layout=self.layout, backup_dir=self._get_backup_dir())
        emit_upload(self, context, done)
        return done

    def get_backup_data(self, done: Mapping[str, Any] | None) -> Data:
        """Return the repository as OpenLineage names it, with what an upload has sent."""
        data = self.get_repository_data()
        if done is None:
            return data
        name = done.get("backup_id") or os.path.basename(done.get("archive", "")) or done["sequence_number"]
        return data.at(name).moved(sent_bytes(done), done.get("uploaded_files", 0 if done.get("reused") else 1))
