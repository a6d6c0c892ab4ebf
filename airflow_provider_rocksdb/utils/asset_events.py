"""The asset event of a backup: one for each backup of a task that succeeds, and none of a failed one.

Airflow takes events from tasks that succeed alone. The event is that of the repository's asset: of the one that the
task names in its outlets, else of the one that the deployment knows by this URI, else of a new one. It goes through the
alias ``rocksdb_backups``, which reaches both who waits for this asset and who waits for any backup. On Airflow 2 there
is an event where the task names the repository in its outlets, and no other.
"""

from __future__ import annotations

import os
import posixpath
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_rocksdb.assets.rocksdb import BACKUPS_ALIAS, create_repository_asset
from airflow_provider_rocksdb.hooks.storage import public_url
from airflow_provider_rocksdb.utils.metrics import sent_bytes

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rocksdb.core.upload import Layout
    from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator

EMITS_THROUGH_ALIAS = hasattr(Asset, "ref")
"""Whether a task may emit events of assets that its DAG does not name: Airflow 2 fails a task for an alias that it does
not know, such as that of a mapped task."""


def emit_backup(
    task: RocksDBBaseOperator,
    context: Context,
    checkpoint_dir: str,
    done: Mapping[str, Any],
    *,
    layout: Layout,
    backup_dir: str,
) -> None:
    """Have Airflow emit the event of a backup when the task succeeds.

    :param checkpoint_dir: what was uploaded.
    :param done: result of the upload.
    :param backup_dir: where to, as the task was given it.
    """
    extra = _describe(done, layout, public_url(backup_dir))
    extra |= {"rocksdb_conn_id": task.rocksdb_conn_id, **_read_source(checkpoint_dir)}
    try:
        repository = create_repository_asset(backup_dir=backup_dir)
    except ValueError as error:  # the backup is there, and no retry would make a better one
        task.log.warning("No asset event: Airflow takes no asset of this repository: %s", error)
        return
    declared = [outlet for outlet in task.outlets if getattr(outlet, "uri", None) == repository.uri]
    if not EMITS_THROUGH_ALIAS:
        for outlet in declared:
            context["outlet_events"][outlet].extra = extra
        return
    task.outlets = [outlet for outlet in task.outlets if outlet not in declared]  # each would be an event of its own
    events = context["outlet_events"][AssetAlias(BACKUPS_ALIAS)]
    if declared:
        events.add(declared[0], extra=extra)
        return
    from airflow.sdk.exceptions import AirflowRuntimeError

    try:
        events.add(Asset.ref(uri=repository.uri), extra=extra)  # type: ignore[arg-type]  # the protocol knows less
    except AirflowRuntimeError:  # there is none yet
        events.add(repository, extra=extra)


def _describe(done: Mapping[str, Any], layout: Layout, url: str) -> dict[str, Any]:
    """Tell of a backup what its consumers need: small, JSON-able, and without anything that is secret."""
    from airflow_provider_rocksdb.core.archive_layout import compression_of

    if layout == "archive" and compression_of(url) is None:
        url = f"{url.rstrip('/')}/{posixpath.basename(done['archive'])}"
    return {
        "backup_id": done.get("backup_id"),
        "url": url,
        "layout": layout,
        **{name: done[name] for name in ("db_id", "sequence_number", "total_bytes", "file_count", "seconds")},
        "uploaded_bytes": sent_bytes(done),
    }


def _read_source(checkpoint_dir: str) -> dict[str, Any]:
    """Tell whose checkpoint it is: of a DB directory at rest that it is one, here."""
    from airflow_provider_rocksdb.core.checkpoint_record import read_own_checkpoint

    checkpoint = read_own_checkpoint(checkpoint_dir)
    if checkpoint is None:
        return {"db_dir": os.path.abspath(checkpoint_dir), "hostname": socket.gethostname()}
    return {"db_dir": checkpoint.source.get("db_dir"), "hostname": checkpoint.hostname}
