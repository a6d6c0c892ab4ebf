"""Peak memory of a process that transfers large files: a script for a child process, and its caller."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

TRANSFER = """
import re, sys

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1]) * 1024

began = peak()  # of the bare interpreter: what is imported counts
import json, os, time
import fsspec
from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.archive_reader import check_archive
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import UploadItem, upload_files

what, directory, protocol, storage_options, place, settings = json.loads(sys.argv[1])
filesystem = fsspec.filesystem(protocol, **storage_options)
names = sorted(os.listdir(directory))
sizes = {name: os.path.getsize(f"{directory}/{name}") for name in names}
started = time.monotonic()
if what == "check":
    check_archive(filesystem, place)
elif what == "files":
    storage = Storage(filesystem, place)
    storage.make_folders(("",))
    upload_files([UploadItem(f"{directory}/{name}", name, sizes[name]) for name in names], storage)
else:
    kinds = {"CURRENT": FileType.CURRENT}
    files = tuple(
        DatabaseFile(name, f"{directory}/{name}", sizes[name], kinds.get(name, FileType.TABLE)) for name in names
    )
    upload_archive(Inventory(directory, "id", 7, files, (), None), filesystem, place, **settings)
print(json.dumps({"peak_bytes": peak() - began, "bytes": sum(sizes.values()), "seconds": time.monotonic() - started}))
"""


def make_files(directory: Path, count: int, size: int, *, random: bool = False) -> None:
    """Make SST files, and a CURRENT.

    :param random: with content that nothing compresses; else with none, so that they take no room.
    """
    directory.mkdir()
    for number in range(count):
        with (directory / f"{number:06d}.sst").open("wb") as file:
            for _ in range(size >> 20 if random else 0):
                file.write(os.urandom(1 << 20))
            file.truncate(size)
    (directory / "CURRENT").write_bytes(b"MANIFEST-000099\n")


def measure(
    what: str, directory: Path, protocol: str, storage_options: Mapping[str, Any], place: str, **settings: Any
) -> dict[str, Any]:
    """Transfer a directory in a fresh process; return its ``peak_bytes`` of memory above its start, and seconds.

    :param what: upload ``files`` into a folder, upload an ``archive``, or ``check`` an archive
    """
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            TRANSFER,
            json.dumps([what, str(directory), protocol, storage_options, place, settings]),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextlib.contextmanager
def s3_sink() -> Iterator[dict[str, Any]]:
    """Run an S3 server that forgets content; yield storage options for it."""
    with subprocess.Popen([sys.executable, ROOT / "tests" / "s3_sink.py"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            client = {"region_name": "us-east-1"}
            yield {"key": "x", "secret": "y", "endpoint_url": f"http://127.0.0.1:{port}", "client_kwargs": client}
        finally:
            server.kill()
