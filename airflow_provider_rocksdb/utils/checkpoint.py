"""Which checkpoint a task means: the one named to it, the one that a task before it made, or the run's own place.

The run's own place is ``<db_dir>.checkpoints/<DAG id>__<run id>``, with ``__<map index>`` for a mapped task: the same
for every task of the run and for every try, so that a retry finds, and a teardown deletes, what a dead try has left.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_rocksdb.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    import threading

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_rocksdb.core.completeness import Completeness, Level

_MAX_NAME_LENGTH = 200  # of 255 bytes; ".tmp" and the map index come on top


class CheckpointReference(NamedTuple):
    """A checkpoint directory (path or URL), and the host that made it where that is known."""

    checkpoint_dir: str
    hostname: str | None = None


def read_reference(value: Any) -> CheckpointReference | None:
    """Read what a task was given as ``checkpoint_dir``; None when it says nothing.

    :param value: a path, a URL, a create task's result, or the text that a template makes of one of these.
    :raises InvalidArgumentError: when it is none of them.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise InvalidArgumentError(
                f"checkpoint_dir: {value!r} is neither a path nor a create task's result"
            ) from None
    if value is None or value in ("", "None"):
        return None
    if isinstance(value, str):
        return CheckpointReference(value)
    if isinstance(value, Mapping) and isinstance(value.get("checkpoint_dir"), str):
        hostname = value.get("hostname")
        return CheckpointReference(value["checkpoint_dir"], hostname if isinstance(hostname, str) else None)
    raise InvalidArgumentError(
        f"checkpoint_dir: expected a path, a URL or a create task's result, got {type(value).__name__}: {value!r}"
    )


def find_created(task: BaseOperator, context: Context) -> CheckpointReference | None:
    """Find the checkpoint that a create task somewhere upstream made in this run, in the same map index or in none.

    :raises InvalidArgumentError: when several did.
    """
    from airflow_provider_rocksdb.operators.rocksdb import RocksDBCreateCheckpointOperator

    ti = context["ti"]
    found = {}
    for upstream in task.get_flat_relatives(upstream=True):
        if not issubclass(upstream.operator_class, RocksDBCreateCheckpointOperator):
            continue
        for map_index in dict.fromkeys((ti.map_index, -1)):
            result = ti.xcom_pull(task_ids=upstream.task_id, map_indexes=map_index)
            if result is not None:
                found[upstream.task_id] = read_reference(result)
                break
    if len(found) > 1:
        raise InvalidArgumentError(
            f"several tasks upstream made a checkpoint: {', '.join(sorted(found))}; name one by checkpoint_dir"
        )
    return next(iter(found.values()), None)


def default_checkpoint_dir(db_dir: str, context: Context, *, inside: bool = False) -> str:
    """Return the run's own place for a checkpoint: on the database's file system, where a symbolic link leads to it.

    :param inside: in the DB directory, for one that is a mount root; else beside it.
    """
    db_dir = os.path.realpath(db_dir)
    parent = os.path.join(db_dir, ".checkpoints") if inside else f"{db_dir}.checkpoints"
    ti = context["ti"]
    name = _safe_name(f"{ti.dag_id}__{ti.run_id}")
    return os.path.join(parent, name if ti.map_index in (None, -1) else f"{name}__{ti.map_index}")


def _safe_name(name: str) -> str:
    """Make a file name of an identifier; different ones stay different."""
    plain = name.replace(":", "-")
    safe = re.sub(r"[^A-Za-z0-9._+=~-]", "_", plain)[:_MAX_NAME_LENGTH]
    if safe != plain or safe.startswith(".") or safe.endswith(".tmp"):
        safe = f"{safe.lstrip('.')}__{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return safe


def describe_run(context: Context) -> dict[str, str]:
    """Return the names of the task instance, the same on every try."""
    ti = context["ti"]
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": str(ti.map_index)}


def check_checkpoint(
    reference: CheckpointReference,
    storage_conn_id: str | None,
    *,
    level: Level,
    timeout_seconds: float,
    stop: threading.Event | None = None,
) -> Completeness:
    """Check a checkpoint, on this host or on a storage.

    :raises NotFoundError: when the host that made it is known, and it cannot be seen from here.
    """
    from airflow_provider_rocksdb.core.checkpoint import require_checkpoint_here
    from airflow_provider_rocksdb.core.completeness import check_completeness
    from airflow_provider_rocksdb.hooks.storage import is_url, resolve_storage

    checkpoint_dir, hostname = reference
    if is_url(checkpoint_dir):
        filesystem, path = resolve_storage(checkpoint_dir, storage_conn_id)
        return check_completeness(path, filesystem=filesystem, level=level, timeout_seconds=timeout_seconds, stop=stop)
    if hostname is not None:
        require_checkpoint_here(checkpoint_dir, hostname)
    return check_completeness(checkpoint_dir, level=level, timeout_seconds=timeout_seconds, stop=stop)
