"""Create a checkpoint of a RocksDB database, and delete it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator
from airflow_provider_rocksdb.utils.checkpoint import default_checkpoint_dir, describe_run

if TYPE_CHECKING:
    import threading

    from airflow.providers.common.compat.sdk import Context
    from fsspec import AbstractFileSystem

    from airflow_provider_rocksdb.core.completeness import Level
    from airflow_provider_rocksdb.core.upload import Layout
    from airflow_provider_rocksdb.hooks.rocksdb import Mode


class RocksDBCreateCheckpointOperator(RocksDBBaseOperator):
    """Create a checkpoint: an openable directory of hard links and copies, of a database that may be running.

    The result is a small dict: ``checkpoint_dir``, ``hostname``, ``db_id``, ``sequence_number``, ``file_count``,
    ``total_bytes``, ``copied_bytes``, ``rounds``, ``seconds``, ``damage`` and more; also as single XComs
    (``create.output["checkpoint_dir"]``). Give the whole of it (``create.output``) to the other tasks: it names the
    host, and is None, not an error, when this task failed.

    A retry replaces the checkpoint that an earlier try of the same task in the same run made.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: the DB directory. When it is given, no directory is taken from the connection.
    :param wal_dir: RocksDB's ``wal_dir``, where it is not what OPTIONS says.
    :param db_paths: RocksDB's ``db_paths``, all of them, in their order.
    :param cf_paths: RocksDB's ``cf_paths`` by column family name.
    :param checkpoint_dir: to be created, on the database's file system; default:
        ``<db_dir>.checkpoints/<DAG id>__<run id>``, with ``__<map index>`` for a mapped task (with ``allow_inside``:
        ``<db_dir>/.checkpoints/…``).
    :param mode: ``live`` takes no lock and opens nothing; ``exclusive`` opens a database whose owner is stopped.
    :param replace: replace any checkpoint of that name that this provider made.
    :param allow_copy: copy what can be neither linked nor cloned, which takes the database's size in space.
    :param allow_inside: accept a place inside the DB directory, for one that is a mount root.
    :param timeout_seconds: give up when the database could not be captured by then.
    """

    template_fields: Sequence[str] = (
        *RocksDBBaseOperator.template_fields,
        "wal_dir",
        "db_paths",
        "cf_paths",
        "checkpoint_dir",
    )

    def __init__(
        self,
        *,
        wal_dir: str | None = None,
        db_paths: Sequence[str] | None = None,
        cf_paths: Mapping[str, Sequence[str]] | None = None,
        checkpoint_dir: str | None = None,
        mode: Mode = "live",
        replace: bool = False,
        allow_copy: bool = False,
        allow_inside: bool = False,
        timeout_seconds: float = 300.0,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.wal_dir = wal_dir
        self.db_paths = db_paths
        self.cf_paths = cf_paths
        self.checkpoint_dir = checkpoint_dir
        self.mode = mode
        self.replace = replace
        self.allow_copy = allow_copy
        self.allow_inside = allow_inside
        self.timeout_seconds = timeout_seconds

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the checkpoint; return its summary."""
        from airflow_provider_rocksdb.core.checkpoint import same_run

        with self.stoppable() as stop:
            paths = self.hook.get_paths(
                db_dir=self.db_dir, wal_dir=self.wal_dir, db_paths=self.db_paths, cf_paths=self.cf_paths
            )
            place = self.checkpoint_dir or default_checkpoint_dir(paths.db_dir, context, inside=self.allow_inside)
            run = describe_run(context)
            checkpoint = self.hook.create_checkpoint(
                place,
                paths=paths,
                mode=self.mode,
                replace=self.replace or same_run(place, run),
                allow_copy=self.allow_copy,
                allow_inside=self.allow_inside,
                timeout_seconds=self.timeout_seconds,
                run=run,
                stop=stop,
            )
        return checkpoint.summary()


class RocksDBDeleteCheckpointOperator(RocksDBBaseOperator):
    """Delete a checkpoint that this provider made, and what a killed task has left of it.

    That there is none is no error: ``create >> upload >> delete.as_teardown(setups=create)`` also cleans up
    after a create task that failed. That the checkpoint lies on another host is an error, which names both.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: the DB directory, from which the default place follows; default: that of the connection.
    :param checkpoint_dir: a path, or the result of the create task; default: the checkpoint made upstream in this run,
        else the run's own place beside the database.
    :param force: delete a checkpoint that this provider did not make, too; never a database.
    """

    template_fields: Sequence[str] = (*RocksDBBaseOperator.template_fields, "checkpoint_dir")

    def __init__(
        self, *, checkpoint_dir: str | Mapping[str, Any] | None = None, force: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.checkpoint_dir = checkpoint_dir
        self.force = force

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the checkpoint; return which, and whether there was one."""
        from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint, require_checkpoint_here

        with self.stoppable():
            checkpoint_dir, hostname = self.find_checkpoint(self.checkpoint_dir, context)
            if hostname not in (None, socket.gethostname()):
                require_checkpoint_here(checkpoint_dir, hostname)
            deleted = delete_checkpoint(checkpoint_dir, force=self.force)
        self.log.info("%s %s", "Deleted" if deleted else "Nothing to delete at", checkpoint_dir)
        return {"checkpoint_dir": checkpoint_dir, "deleted": deleted}


class RocksDBBackupOperator(RocksDBBaseOperator):
    """Back up a database in one task on one host: checkpoint, check, upload, and the checkpoint deleted at the end.

    For workers that share no disk: each database's worker does it all. A retry sends what the tries before it have not.
    The checkpoint is deleted however the task ends; what a worker killed with -9 leaves, the next run deletes.

    The result is that of the upload, with the checkpoint's summary as ``checkpoint``.

    :param rocksdb_conn_id: connection of type ``rocksdb``.
    :param db_dir: the DB directory. When it is given, no directory is taken from the connection.
    :param wal_dir: as of :class:`RocksDBCreateCheckpointOperator`; so are ``db_paths``, ``cf_paths``, ``mode``,
        ``allow_copy``, ``allow_inside`` and ``timeout_seconds``.
    :param backup_dir: as of :class:`.RocksDBToFsspecOperator`; so are ``storage_conn_id``, ``storage_options``,
        ``layout``, ``level``, ``max_workers``, ``max_bytes_per_second`` and ``allow_other_source``.
    """

    template_fields: Sequence[str] = (
        *RocksDBBaseOperator.template_fields,
        "wal_dir",
        "db_paths",
        "cf_paths",
        "backup_dir",
        "storage_conn_id",
    )

    def __init__(
        self,
        *,
        wal_dir: str | None = None,
        db_paths: Sequence[str] | None = None,
        cf_paths: Mapping[str, Sequence[str]] | None = None,
        mode: Mode = "live",
        allow_copy: bool = False,
        allow_inside: bool = False,
        timeout_seconds: float = 300.0,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        layout: Layout = "backup_engine",
        level: Level = "files",
        max_workers: int = 4,
        max_bytes_per_second: int | None = None,
        allow_other_source: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wal_dir = wal_dir
        self.db_paths = db_paths
        self.cf_paths = cf_paths
        self.mode = mode
        self.allow_copy = allow_copy
        self.allow_inside = allow_inside
        self.timeout_seconds = timeout_seconds
        self.backup_dir = backup_dir
        self.storage_conn_id = storage_conn_id
        self.storage_options = storage_options
        self.layout = layout
        self.level = level
        self.max_workers = max_workers
        self.max_bytes_per_second = max_bytes_per_second
        self.allow_other_source = allow_other_source

    def execute(self, context: Context) -> dict[str, Any]:
        """Back up; return what was sent."""
        from airflow_provider_rocksdb.core.temporary_checkpoint import temporary_checkpoint_dir

        with self.stoppable() as stop:
            hook = self.hook
            paths = hook.get_paths(
                db_dir=self.db_dir, wal_dir=self.wal_dir, db_paths=self.db_paths, cf_paths=self.cf_paths
            )
            storage = hook.get_storage(self.backup_dir, self.storage_conn_id, self.storage_options)
            with temporary_checkpoint_dir(paths.db_dir, inside=self.allow_inside) as checkpoint_dir:
                checkpoint = hook.create_checkpoint(
                    checkpoint_dir,
                    paths=paths,
                    mode=self.mode,
                    allow_copy=self.allow_copy,
                    allow_inside=self.allow_inside,
                    timeout_seconds=self.timeout_seconds,
                    run=describe_run(context),
                    stop=stop,
                )
                return self._upload(checkpoint_dir, storage, context, stop) | {"checkpoint": checkpoint.summary()}

    def _upload(
        self, checkpoint_dir: str, storage: tuple[AbstractFileSystem, str], context: Context, stop: threading.Event
    ) -> dict[str, Any]:
        from airflow_provider_rocksdb.core.transfer import TransferOptions
        from airflow_provider_rocksdb.core.upload import upload_checkpoint

        return upload_checkpoint(
            checkpoint_dir,
            *storage,
            layout=self.layout,
            level=self.level,
            app_metadata=describe_run(context),
            allow_other_source=self.allow_other_source,
            options=TransferOptions(max_workers=self.max_workers, max_bytes_per_second=self.max_bytes_per_second),
            stop=stop,
        )
