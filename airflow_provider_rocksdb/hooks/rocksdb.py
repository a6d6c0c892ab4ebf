"""A connection of type ``rocksdb``: where a database lies, and where its backups go."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.get_provider_info import CONNECTION_FIELDS, HIDDEN_FIELDS, help_text

if TYPE_CHECKING:
    import threading

    from fsspec import AbstractFileSystem

    from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint
    from airflow_provider_rocksdb.core.reading import DatabaseReader

Mode = Literal["live", "exclusive"]

_READING_TIMEOUT_SECONDS = 3600.0
_ENDS_PATH = str.maketrans({char: quote(char) for char in "%?#"})  # in a path, these are letters like others


class RocksDBHook(BaseHook):
    """Where a database and its backups are; makes checkpoints of it.

    The connection has everything in its extra, and nothing else is read of it. All fields may be left out: what a task
    is given itself counts more. The same as JSON, as the environment variable ``AIRFLOW_CONN_ROCKSDB_ORDERS`` has it
    for the connection ``rocksdb_orders``::

        {"conn_type": "rocksdb", "extra": {"db_dir": "/var/lib/orders/db", "backup_dir": "s3://backups/orders",
         "storage_conn_id": "aws_default"}}

    ``db_dir``
        the DB directory, where CURRENT lies, as the workers see it.
    ``wal_dir``
        RocksDB's ``wal_dir``, where it is not what the OPTIONS file says.
    ``db_paths``
        RocksDB's ``db_paths``, all, in their order: a list, or text with commas.
    ``cf_paths``
        RocksDB's ``cf_paths``: an object of column family to list of directories, or its JSON as text.
    ``backup_dir``
        path or URL of the backup repository.
    ``storage_conn_id``
        the Airflow connection with the credentials for it.

    :param rocksdb_conn_id: the connection. That named ``rocksdb_default`` need not exist when nothing is asked of it.
    :param database: an ``Rdict`` that the caller's own program has open, for checkpoints in mode ``exclusive``.
    """

    conn_name_attr = "rocksdb_conn_id"
    default_conn_name = "rocksdb_default"
    conn_type = "rocksdb"
    hook_name = "RocksDB"

    def __init__(self, rocksdb_conn_id: str = default_conn_name, database: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rocksdb_conn_id = rocksdb_conn_id
        self.database = database

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection form's fields, for Airflow versions that do not read them from the metadata."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import StringField

        return {
            name: StringField(label, description=help_text(name), widget=BS3TextFieldWidget())
            for name, (label, _, _) in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the connection form looks, for the same versions."""
        examples = {name: example for name, (_, _, example) in CONNECTION_FIELDS.items()}
        return {"hidden_fields": list(HIDDEN_FIELDS), "relabeling": {}, "placeholders": examples}

    def get_paths(
        self,
        *,
        db_dir: str | None = None,
        wal_dir: str | None = None,
        db_paths: str | Sequence[str] | None = None,
        cf_paths: str | Mapping[str, Sequence[str]] | None = None,
    ) -> DatabasePaths:
        """Return the database's directories: those given, else those of the connection.

        With a ``db_dir`` given, the connection's other directories are not used: they may be another database's.

        :raises InvalidArgumentError: when there is no DB directory, or a value has the wrong form.
        """
        settings = {} if db_dir else self._read_settings(required=True)
        db_dir = db_dir or settings.get("db_dir")
        if not db_dir:
            raise InvalidArgumentError(
                f"connection {self.rocksdb_conn_id!r} has no db_dir; name it there or to the task"
            )
        return DatabasePaths(
            db_dir=db_dir,
            wal_dir=wal_dir or settings.get("wal_dir") or None,
            db_paths=_read_list("db_paths", db_paths or settings.get("db_paths") or ()),
            cf_paths=_read_cf_paths(cf_paths or settings.get("cf_paths") or {}),
        )

    def get_backup_dir(self) -> str:
        """Return the backup repository's path or URL.

        :raises InvalidArgumentError: when the connection has none.
        """
        backup_dir = self._read_settings(required=True).get("backup_dir")
        if not backup_dir:
            raise InvalidArgumentError(
                f"connection {self.rocksdb_conn_id!r} has no backup_dir; name it there or to the task"
            )
        return str(backup_dir)

    def get_storage(
        self,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> tuple[AbstractFileSystem, str]:
        """Return the file system of the backup repository, and the path on it: by what is given, else the connection.

        :raises InvalidArgumentError, AirflowNotFoundException: as :func:`.storage.resolve_storage`.
        """
        from airflow_provider_rocksdb.hooks.storage import is_url, resolve_storage

        place = backup_dir or self.get_backup_dir()
        if not storage_conn_id and not storage_options and is_url(place):
            storage_conn_id = self._read_settings(required=False).get("storage_conn_id")
        return resolve_storage(place, storage_conn_id or None, storage_options)

    def create_checkpoint(
        self,
        checkpoint_dir: str,
        *,
        paths: DatabasePaths | None = None,
        mode: Mode = "live",
        replace: bool = False,
        allow_copy: bool = False,
        allow_inside: bool = False,
        timeout_seconds: float = 300.0,
        run: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
    ) -> Checkpoint:
        """Create a checkpoint; parameters and errors as of ``create_live_checkpoint``, ``create_exclusive_checkpoint``.

        Called in a task of any kind, it tells Airflow's hook lineage of the database and of the checkpoint.

        :raises InvalidArgumentError: for an unknown mode.
        """
        paths = paths or self.get_paths()
        if mode == "exclusive":
            from airflow_provider_rocksdb.core.database import create_exclusive_checkpoint

            checkpoint = create_exclusive_checkpoint(
                paths, checkpoint_dir, database=self.database, replace=replace, allow_inside=allow_inside, run=run
            )
        elif mode == "live":
            from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint

            checkpoint = create_live_checkpoint(
                paths,
                checkpoint_dir,
                replace=replace,
                allow_copy=allow_copy,
                allow_inside=allow_inside,
                timeout_seconds=timeout_seconds,
                run=run,
                stop=stop,
            )
        else:
            raise InvalidArgumentError(f"mode {mode!r}: expected 'live' or 'exclusive'")
        collector, host = _lineage(), checkpoint.hostname
        collector.add_input_asset(self, uri=_local_uri("rocksdb", host, paths.db_dir))
        collector.add_output_asset(self, uri=_local_uri("file", host, checkpoint.checkpoint_dir))
        return checkpoint

    @contextlib.contextmanager
    def open_checkpoint(
        self,
        checkpoint_dir: str,
        *,
        scratch_dir: str | None = None,
        timeout_seconds: float = _READING_TIMEOUT_SECONDS,
    ) -> Iterator[DatabaseReader]:
        """Read a checkpoint, raw and in batches; parameters and errors as of :func:`.core.reading.open_checkpoint`."""
        from airflow_provider_rocksdb.core.reading import open_checkpoint

        with open_checkpoint(checkpoint_dir, scratch_dir=scratch_dir, timeout_seconds=timeout_seconds) as reader:
            uri = _local_uri("file", socket.gethostname(), checkpoint_dir)
            _lineage().add_input_asset(self, uri=uri)
            yield reader

    @contextlib.contextmanager
    def open_backup(
        self,
        backup_id: int | None = None,
        *,
        backup_dir: str | None = None,
        storage_conn_id: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        scratch_dir: str | None = None,
        timeout_seconds: float = _READING_TIMEOUT_SECONDS,
    ) -> Iterator[DatabaseReader]:
        """Restore a backup into a scratch directory and read that, raw and in batches.

        Where it is: as :meth:`get_storage`; other parameters and errors as of :func:`.core.reading.open_backup`.
        """
        from airflow_provider_rocksdb.core.reading import open_backup
        from airflow_provider_rocksdb.hooks.storage import public_url

        filesystem, root = self.get_storage(backup_dir, storage_conn_id, storage_options)
        with open_backup(
            filesystem, root, backup_id=backup_id, scratch_dir=scratch_dir, timeout_seconds=timeout_seconds
        ) as reader:
            uri = public_url(backup_dir or self.get_backup_dir())
            _lineage().add_input_asset(self, uri=uri.rstrip("/"))
            yield reader

    def test_connection(self) -> tuple[bool, str]:
        """Look at the database, without a lock and without opening it, and at the backup repository, for 10 s at most.

        Returns whether all that is named is well, and a line of each: state, size, column families and last sequence
        number of the database; the newest whole backup and its age.
        """
        from airflow_provider_rocksdb.utils.connection_test import check_connection

        return check_connection(self)

    def read_settings(self) -> dict[str, Any]:
        """Return the connection's extra.

        :raises AirflowNotFoundException: when there is no such connection.
        :raises InvalidArgumentError: when the extra has keys that mean nothing here.
        """
        return self._read_settings(required=True)

    def _read_settings(self, *, required: bool) -> dict[str, Any]:
        """Read the connection's extra.

        :raises AirflowNotFoundException: when there is no such connection, unless it is the default and not required.
        :raises InvalidArgumentError: when the extra has keys that mean nothing here.
        """
        try:
            connection = self.get_connection(self.rocksdb_conn_id)
        except AirflowNotFoundException:
            if required or self.rocksdb_conn_id != self.default_conn_name:
                raise
            return {}
        extra = {key.removeprefix("extra__rocksdb__"): value for key, value in connection.extra_dejson.items()}
        unknown = sorted(set(extra) - set(CONNECTION_FIELDS))
        if unknown:
            raise InvalidArgumentError(
                f"connection {self.rocksdb_conn_id!r}: unknown {', '.join(unknown)} in its extra; known are "
                f"{', '.join(CONNECTION_FIELDS)}"
            )
        return extra


def _lineage() -> Any:
    """Return the collector of what a task reads and writes, by Airflow 3's names of its methods also on Airflow 2."""
    return get_hook_lineage_collector()  # type: ignore[no-untyped-call]


def _local_uri(scheme: str, host: str, path: str) -> str:
    return f"{scheme}://{host}{os.path.abspath(path).translate(_ENDS_PATH)}"


def _read_list(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InvalidArgumentError(f"{name}: expected a list of directories, got {value!r}")


def _read_cf_paths(value: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidArgumentError(f"cf_paths: expected a JSON object, got {value!r}: {error}") from None
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"cf_paths: expected an object of column family to directories, got {value!r}")
    return {str(family): _read_list(f"cf_paths of {family!r}", paths) for family, paths in value.items()}
