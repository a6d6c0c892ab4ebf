"""Peers that are Python libraries: ``python -m benchmarks.theirs VERB ARGUMENT…``, each in a process of its own.

And what no Python can do without: the system calls of a checkpoint, with no thought given to what they are for.
"""

from __future__ import annotations

import fcntl
import json
import os
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


def system_calls(db_dir: str, checkpoint_dir: str) -> dict[str, float]:
    """Make a copy of a stopped database by the system calls that a live checkpoint makes, and by nothing else."""
    began = time.perf_counter()
    names = os.listdir(db_dir)
    temporary = checkpoint_dir + ".tmp"
    os.mkdir(temporary)
    here, there = (os.open(directory, os.O_RDONLY | os.O_DIRECTORY) for directory in (temporary, db_dir))
    fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.listdir(here)
    os.close(os.open("unfinished", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=here))
    own = {
        name: _read(there, name) for name in names if not name.endswith(".sst") and not name.startswith(("LOCK", "LOG"))
    }
    record = []
    for name in names:
        if name.endswith(".sst") or name.startswith(("IDENTITY", "OPTIONS")):
            own.pop(name, None)
            os.link(name, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=True)
            record.append((name, os.stat(name, dir_fd=here).st_size))
    os.listdir(db_dir)
    _read(there, "CURRENT")
    own["record"] = json.dumps(record).encode()
    written = []
    for name, data in own.items():
        written.append(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=here))
        os.write(written[-1], data)
    filled = [descriptor for descriptor in written if os.fstat(descriptor).st_size]
    for descriptor in filled:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    for descriptor in (here, *filled):
        os.fsync(descriptor)
    for descriptor in written:
        os.close(descriptor)
    os.unlink("unfinished", dir_fd=here)
    os.rename(temporary, checkpoint_dir)
    parent = os.open(os.path.dirname(checkpoint_dir), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(parent)
    for descriptor in (parent, here, there):
        os.close(descriptor)
    return {"seconds": time.perf_counter() - began}


def _read(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    return data


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
    verbs = {"checkpoint": checkpoint, "system_calls": system_calls, "put": put, "iterate": iterate}
    print(json.dumps(verbs[verb](*arguments)))
