"""Checkpoints of a RocksDB database; its backup in one task; its backups verified and pruned."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rocksdb.core.errors import CouldNotCheckError, InvalidArgumentError
from airflow_provider_rocksdb.operators.base import (
    RocksDBBaseOperator,
    RocksDBPathsOperator,
    RocksDBStorageOperator,
    RocksDBTransferOperator,
    RocksDBUploadOperator,
)
from airflow_provider_rocksdb.utils.backup import read_backup_id
from airflow_provider_rocksdb.utils.checkpoint import default_checkpoint_dir, describe_run
from airflow_provider_rocksdb.utils.metrics import counting_failures, emit_checkpoint
from airflow_provider_rocksdb.utils.openlineage import Lineage, LineageMixin, checkpoint_data, database_data

if TYPE_CHECKING:
    import threading

    from airflow.providers.common.compat.sdk import Context
    from fsspec import AbstractFileSystem

    from airflow_provider_rocksdb.core.prune_result import PruneResult
    from airflow_provider_rocksdb.core.retention import RetentionPolicy
    from airflow_provider_rocksdb.core.verify import VerifyLevel
    from airflow_provider_rocksdb.hooks.rocksdb import Mode

_MAX_LISTED = 200  # items of a list in an XCom


class RocksDBCreateCheckpointOperator(LineageMixin, RocksDBPathsOperator):
    """Create a checkpoint: an openable directory of hard links and copies, of a database that may be running.

    The result is a small dict: ``checkpoint_dir``, ``hostname``, ``db_id``, ``sequence_number``, ``file_count``,
    ``total_bytes``, ``copied_bytes``, ``rounds``, ``seconds``, ``damage`` and more; also as single XComs
    (``create.output["checkpoint_dir"]``). Give the whole of it (``create.output``) to the other tasks: it names the
    host, and is None, not an error, when this task failed.

    A retry replaces the checkpoint that an earlier try of the same task in the same run made.

    Directories of the database: see :class:`.RocksDBPathsOperator`.

    :param checkpoint_dir: to be created, on the database's file system; default:
        ``<db_dir>.checkpoints/<DAG id>__<run id>``, with ``__<map index>`` for a mapped task (with ``allow_inside``:
        ``<db_dir>/.checkpoints/…``).
    :param mode: ``live`` takes no lock and opens nothing; ``exclusive`` opens a database whose owner is stopped.
    :param replace: replace any checkpoint of that name that this provider made.
    :param allow_copy: copy what can be neither linked nor cloned, which takes the database's size in space.
    :param allow_inside: accept a place inside the DB directory, for one that is a mount root.
    :param timeout_seconds: give up when the database could not be captured by then.
    """

    template_fields: Sequence[str] = (*RocksDBPathsOperator.template_fields, "checkpoint_dir")

    def __init__(
        self,
        *,
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
        self.checkpoint_dir = checkpoint_dir
        self.mode = mode
        self.replace = replace
        self.allow_copy = allow_copy
        self.allow_inside = allow_inside
        self.timeout_seconds = timeout_seconds

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the checkpoint; return its summary."""
        from airflow_provider_rocksdb.core.checkpoint_record import same_run

        with self.stoppable() as stop:
            paths = self.get_paths()
            place = self.checkpoint_dir or default_checkpoint_dir(paths.db_dir, context, inside=self.allow_inside)
            self.log.info("Creating a checkpoint of %s at %s", paths.db_dir, place)
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
        emit_checkpoint(self, context, checkpoint.summary())
        return self.keep_result(checkpoint.summary())

    def get_lineage(self, done: Mapping[str, Any] | None) -> Lineage:
        """From the database to the checkpoint."""
        source = database_data(self.get_paths().db_dir)
        place = self.checkpoint_dir if done is None else done["checkpoint_dir"]
        target = () if place is None else (checkpoint_data(place),)
        if done is None:
            return Lineage((source,), target)
        version, files = done["sequence_number"], done["file_count"]
        outputs = tuple(data.at(version).moved(done["total_bytes"], files) for data in target)
        return Lineage((source.at(version).moved(done["total_bytes"], files),), outputs)


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


class RocksDBBackupOperator(LineageMixin, RocksDBPathsOperator, RocksDBUploadOperator):
    """Back up a database in one task on one host: checkpoint, check, upload, prune, and no checkpoint stays.

    For workers that share no disk: each database's worker does it all. A retry sends what the tries before it have not.
    The checkpoint is deleted however the task ends; what a worker killed with -9 leaves, the next run deletes.

    The result is that of the upload, with the checkpoint's summary as ``checkpoint``, and what was pruned as ``prune``.
    A meta that the prune cannot read fails the task at its end, without a retry: backup and result are there, but no
    asset event, which Airflow takes from tasks that succeed alone.
    Directories, storage and layout: see :class:`.RocksDBPathsOperator` and :class:`.RocksDBUploadOperator`.

    :param mode: as of :class:`RocksDBCreateCheckpointOperator`; so are ``allow_copy``, ``allow_inside`` and
        ``timeout_seconds``.
    :param retention: rules of :class:`RocksDBPruneBackupsOperator`, such as ``{"keep_daily": 7, "keep_weekly": 5}``;
        None: nothing is deleted.
    :param grace_seconds: of the prune: how long an object must have been seen unreferenced before it is deleted.
    """

    template_fields: Sequence[str] = (
        *RocksDBPathsOperator.template_fields,
        *RocksDBUploadOperator.template_fields[len(RocksDBBaseOperator.template_fields) :],
    )

    def __init__(
        self,
        *,
        mode: Mode = "live",
        allow_copy: bool = False,
        allow_inside: bool = False,
        timeout_seconds: float = 300.0,
        retention: Mapping[str, Any] | None = None,
        grace_seconds: float = 86400.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mode = mode
        self.allow_copy = allow_copy
        self.allow_inside = allow_inside
        self.timeout_seconds = timeout_seconds
        self.retention = retention
        self.grace_seconds = grace_seconds

    def execute(self, context: Context) -> dict[str, Any]:
        """Back up; return what was sent."""
        from airflow_provider_rocksdb.core.temporary_checkpoint import temporary_checkpoint_dir

        with self.stoppable() as stop:
            policy = self._read_policy()
            paths, storage = self.get_paths(), self.get_storage()
            self.log.info("Backing up %s to %s", paths.db_dir, storage[1])
            with temporary_checkpoint_dir(paths.db_dir, inside=self.allow_inside) as checkpoint_dir:
                checkpoint = self.hook.create_checkpoint(
                    checkpoint_dir,
                    paths=paths,
                    mode=self.mode,
                    allow_copy=self.allow_copy,
                    allow_inside=self.allow_inside,
                    timeout_seconds=self.timeout_seconds,
                    run=describe_run(context),
                    stop=stop,
                )
                emit_checkpoint(self, context, checkpoint.summary())
                done = self.upload(checkpoint_dir, storage, context, stop)
            pruned = None if policy is None else self._prune(storage, policy, stop)
        cut = {} if pruned is None else pruned.to_dict(limit=_MAX_LISTED)
        result = self.keep_result({**done, "checkpoint": checkpoint.summary(), "prune": cut})
        if pruned is not None and pruned.unreadable:
            self._fail_but_tell(pruned, result, context)
        return result

    def get_lineage(self, done: Mapping[str, Any] | None) -> Lineage:
        """From the database to the repository."""
        source = database_data(self.get_paths().db_dir)
        if done is not None:
            made = done["checkpoint"]
            source = source.at(made["sequence_number"]).moved(made["total_bytes"], made["file_count"])
        return Lineage((source,), (self.get_backup_data(done),))

    def _read_policy(self) -> RetentionPolicy | None:
        from airflow_provider_rocksdb.core.retention import RetentionPolicy

        if self.retention is None:
            return None
        if self.layout != "backup_engine":
            raise InvalidArgumentError(f"retention: goes with layout backup_engine, and not with {self.layout}")
        return RetentionPolicy.of(self.retention)

    def _prune(
        self, storage: tuple[AbstractFileSystem, str], policy: RetentionPolicy, stop: threading.Event
    ) -> PruneResult:
        from airflow_provider_rocksdb.core.prune import prune_backups

        result = prune_backups(*storage, policy, grace_seconds=self.grace_seconds, stop=stop)
        for line in result.lines():
            self.log.info("%s", line)
        return result

    def _fail_but_tell(self, pruned: PruneResult, result: dict[str, Any], context: Context) -> None:
        """Fail for metas that cannot be read, at once: the backup is there, and a retry would make another."""
        context["ti"].xcom_push(key="return_value", value=result)
        try:
            pruned.raise_for_unreadable()
        except CouldNotCheckError as error:
            raise AirflowFailException(f"backup {result['backup_id']} was made; {error}") from error


class RocksDBVerifyBackupOperator(LineageMixin, RocksDBTransferOperator):
    """Verify the newest backup of a repository, one, or all: by a listing, by reading, or by a restore drill.

    The task fails when anything is missing, wrong, or could not be checked, and when there is no backup; every problem
    is in the log, and the first ten are in the error. What could not be checked is tried again, damage is not. The
    result says what was verified, and how much was read of it (``read_files``, ``read_bytes``, ``read_share``).

    Storage and rate: see :class:`.RocksDBTransferOperator`. What the other layouts left there is verified, too: a
    database as it is, or an archive, which every level reads from end to end; of a folder of archives the newest.

    :param backup_id: which backup; default: the newest.
    :param all_backups: verify every backup.
    :param level: ``files`` (names and sizes), ``checksums`` (read everything, compare CRC32C) or ``restore`` (restore
        each backup into a scratch directory and read every block of it).
    :param sample_percent: at level ``checksums``, how much of all files to read, each day another part: a daily 5 reads
        everything in 20 days.
    :param scratch_dir: where level ``restore`` restores, which takes the size of the database; default: the
        directory of temporary files.
    :param check_timeout_seconds: limit for reading the blocks of one restored backup.
    """

    template_fields: Sequence[str] = (*RocksDBTransferOperator.template_fields, "backup_id", "scratch_dir")

    def __init__(
        self,
        *,
        backup_id: int | str | None = None,
        all_backups: bool = False,
        level: VerifyLevel = "files",
        sample_percent: float | None = None,
        scratch_dir: str | None = None,
        check_timeout_seconds: float = 3600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_id = backup_id
        self.all_backups = all_backups
        self.level = level
        self.sample_percent = sample_percent
        self.scratch_dir = scratch_dir
        self.check_timeout_seconds = check_timeout_seconds

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify; return what was verified, and how much was read."""
        from airflow_provider_rocksdb.core.verify import verify_backups

        with self.stoppable() as stop, counting_failures(self, context):
            filesystem, root = self.get_storage()
            self.log.info("Verifying %s at level %s", root, self.level)
            report = verify_backups(
                filesystem,
                root,
                backup_id=read_backup_id(self.backup_id),
                all_backups=self.all_backups,
                level=self.level,
                sample_percent=self.sample_percent,
                scratch_dir=self.scratch_dir,
                timeout_seconds=self.check_timeout_seconds,
                options=self.transfer_options(),
                stop=stop,
            )
            self.tell_backup(context, report.backup_ids[0] if len(report.backup_ids) == 1 else None)
            self.keep_result({**report.to_dict(), "reason": report.reason})
            for problem in report.problems:
                self.log.error("%s", problem)
            report.raise_for_state()
        self.log.info("%s: %s", report.backup_dir, report.summary)
        return report.to_dict()

    def get_lineage(self, done: Mapping[str, Any] | None) -> Lineage:
        """From the repository, and what was found there."""
        data = self.get_repository_data()
        if done is not None:
            ids = done["backup_ids"]
            data = data.at(ids[0] if len(ids) == 1 else None).moved(done["read_bytes"], done["read_files"])
            data = replace(data, problem=done["reason"])
        return Lineage((data,))


class RocksDBPruneBackupsOperator(RocksDBStorageOperator):
    """Delete backups by policy, and in time what only they needed: objects wait for a grace period first.

    The rules are restic's; a backup is kept when any of them keeps it, and the newest always. The plan, with a reason
    for each backup, is logged and returned, the newest backups of it; what could not be deleted is, too, and is tried
    again by the next run. A meta that cannot be read fails the task, after everything else that it may do is done.

    Storage: see :class:`.RocksDBStorageOperator`.

    :param keep_last: keep the newest so many backups; -1: all.
    :param keep_hourly: keep the newest backup of each hour (UTC), for so many hours that have one; so for
        ``keep_daily``, ``keep_weekly`` (from Monday), ``keep_monthly`` and ``keep_yearly``.
    :param keep_within: keep all that are younger than the newest less this, such as ``2y5m7d3h``.
    :param grace_seconds: how long an object must have been seen unreferenced before it is deleted.
    :param plan_only: only say what would be done (a dry run).
    """

    template_fields: Sequence[str] = (*RocksDBStorageOperator.template_fields, "keep_within")

    def __init__(
        self,
        *,
        keep_last: int = 0,
        keep_hourly: int = 0,
        keep_daily: int = 0,
        keep_weekly: int = 0,
        keep_monthly: int = 0,
        keep_yearly: int = 0,
        keep_within: str | None = None,
        grace_seconds: float = 86400.0,
        plan_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keep_last = keep_last
        self.keep_hourly = keep_hourly
        self.keep_daily = keep_daily
        self.keep_weekly = keep_weekly
        self.keep_monthly = keep_monthly
        self.keep_yearly = keep_yearly
        self.keep_within = keep_within
        self.grace_seconds = grace_seconds
        self.plan_only = plan_only

    def execute(self, context: Context) -> dict[str, Any]:
        """Prune; return the plan and what was done, of each list the first items."""
        from airflow_provider_rocksdb.core.prune import prune_backups
        from airflow_provider_rocksdb.core.retention import RULES, RetentionPolicy

        with self.stoppable() as stop:
            policy = RetentionPolicy(**{rule: getattr(self, rule) for rule in RULES})
            result = prune_backups(
                *self.get_storage(), policy, dry_run=self.plan_only, grace_seconds=self.grace_seconds, stop=stop
            )
            self.log.info("Policy: %s\n%s", policy, "\n".join(result.lines()))
            summary = result.to_dict(limit=_MAX_LISTED)
            if result.unreadable:  # the task fails, and what it did should be known
                context["ti"].xcom_push(key="return_value", value=summary)
                result.raise_for_unreadable()
        return summary
