"""Peers that are Python libraries: ``python -m benchmarks.theirs VERB ARGUMENT…``, each in a process of its own."""

from __future__ import annotations

import json
import sys
import time


def checkpoint(db_dir: str, checkpoint_dir: str) -> dict[str, float]:
    """Create a checkpoint with rocksdict; the opening of the database is not counted."""
    from rocksdict import Checkpoint, Rdict

    from benchmarks.databases import make_options

    database = Rdict(db_dir, make_options())
    began, cpu = time.perf_counter(), time.process_time()
    Checkpoint(database).create_checkpoint(checkpoint_dir)
    work = {"seconds": time.perf_counter() - began, "work_cpu_milliseconds": (time.process_time() - cpu) * 1000}
    database.close()
    return work


def put(checkpoint_dir: str, storage: str, root: str) -> dict[str, float]:
    """Upload a directory with fsspec."""
    import fsspec

    options = json.loads(storage)
    began = time.perf_counter()
    fsspec.filesystem(options.pop("protocol"), **options).put(f"{checkpoint_dir}/", f"{root}/", recursive=True)
    return {"seconds": time.perf_counter() - began}


def iterate(db_dir: str) -> dict[str, float]:
    """Read every key and value in a loop."""
    from rocksdict import AccessType, Rdict

    from benchmarks.databases import make_options

    began = time.perf_counter()
    database = Rdict(db_dir, make_options(), access_type=AccessType.read_only())
    for _ in database.items():
        pass
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    print(json.dumps({"checkpoint": checkpoint, "put": put, "iterate": iterate}[verb](*arguments)))
