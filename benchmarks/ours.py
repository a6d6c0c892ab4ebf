"""What is measured of this package: ``python -m benchmarks.ours VERB ARGUMENT…``, each in a process of its own.

The last line of the output says how many seconds the work took, without the start of the interpreter, and what else is
known: for a checkpoint its rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import fsspec

from airflow_provider_rocksdb import core  # a verb loads what it needs


def checkpoint(db_dir: str, checkpoint_dir: str) -> dict[str, float]:
    """Create a live checkpoint."""
    create, paths = core.create_live_checkpoint, core.DatabasePaths(db_dir)  # loaded now
    began, cpu = time.perf_counter(), time.process_time()
    rounds = create(paths, checkpoint_dir).rounds
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "rounds": rounds, "work_cpu_milliseconds": cpu_seconds * 1000}


def checkpoints(db_dir: str, checkpoint_dir: str, seconds: str) -> dict[str, float]:
    """Create a live checkpoint every second, and delete it, for so long; medians of them."""
    end, made = time.monotonic() + float(seconds), []
    while time.monotonic() < end:
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        made.append(checkpoint(db_dir, checkpoint_dir))
        core.delete_checkpoint(checkpoint_dir)
    return {name: statistics.median(one[name] for one in made) for name in made[0]}


def upload(checkpoint_dir: str, storage: str, root: str, layout: str, workers: str) -> dict[str, float]:
    """Upload a checkpoint."""
    options = core.TransferOptions(max_workers=int(workers))
    done = core.upload_checkpoint(checkpoint_dir, _open(storage), root, layout=layout, options=options)  # type: ignore[arg-type]  # of a command line
    return {"sent_bytes": done.get("uploaded_bytes", done.get("archive_bytes", 0))}


def restore(storage: str, root: str, db_dir: str, workers: str) -> dict[str, float]:
    """Restore the newest backup."""
    core.restore_backup(
        _open(storage), root, core.DatabasePaths(db_dir), options=core.TransferOptions(max_workers=int(workers))
    )
    return {}


def verify(storage: str, root: str, workers: str) -> dict[str, float]:
    """Verify the newest backup's checksums."""
    options = core.TransferOptions(max_workers=int(workers))
    core.verify_backups(_open(storage), root, level="checksums", options=options).raise_for_state()
    return {}


def blocks(checkpoint_dir: str) -> dict[str, float]:
    """Read every block of a checkpoint."""
    answer = core.check_completeness(checkpoint_dir, level="blocks")
    if answer.reason:
        raise SystemExit(answer.reason)
    return {}


def _open(storage: str) -> Any:
    options = json.loads(storage)
    return fsspec.filesystem(options.pop("protocol"), **options)


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    began = time.perf_counter()
    verbs: dict[str, Callable[..., dict[str, float]]] = {
        "checkpoint": checkpoint,
        "checkpoints": checkpoints,
        "upload": upload,
        "restore": restore,
        "verify": verify,
        "blocks": blocks,
    }
    figures = verbs[verb](*arguments)
    print(json.dumps({"seconds": time.perf_counter() - began, **figures}))
