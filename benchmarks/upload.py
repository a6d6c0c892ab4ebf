"""Uploads of a checkpoint of 1 GiB to an S3 server on this host, beside its peers: prints a table.

    python -m benchmarks.upload [MEBIBYTES [ROUNDS [DIRECTORY]]]

The checkpoint is a real one, its SST files from 64 KiB to 32 MiB. The server is rclone's, on this disk. Each upload
is a process of its own, its start included, and the rounds take turns, so that all meet the same machine: seconds are
the best of the rounds, memory is the largest resident set. The second upload is of a checkpoint with 5 % new data; it
finds what the first one left there. ``rclone sync`` is for the second what ``rclone copy`` is for the first;
``fs.put`` of s3fs has nothing of that kind and sends everything again, as an archive does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rocksdict import DBCompressionType, Options, Rdict

from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.programs import find_program
from tests.servers import serve

ROOT = Path(__file__).parent.parent
USER, SECRET = "somebody", "not-a-secret"
VALUE_BYTES = 16 * 1024

OURS = """
import json, sys
import fsspec
from airflow_provider_rocksdb.core.upload import upload_checkpoint
directory, root, layout, options = sys.argv[1:]
upload_checkpoint(directory, fsspec.filesystem("s3", **json.loads(options)), root, layout=layout)
"""
PUT = """
import json, sys
import fsspec
directory, root, _, options = sys.argv[1:]
fsspec.filesystem("s3", **json.loads(options)).put(directory + "/", root + "/", recursive=True)
"""


@dataclass
class Measured:
    """What an upload took in each round: seconds (wall, CPU) of the first and of the second, and MiB of memory."""

    first: list[tuple[float, float]] = field(default_factory=list)
    second: list[tuple[float, float]] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)


def fill(database: Rdict, mebibytes: int, first_key: int) -> None:
    """Write that much that nothing compresses; flush so that SST files of many sizes come out."""
    written, flush_at = 0, 64 * 1024
    for number in range(mebibytes * 2**20 // VALUE_BYTES):
        database[b"%012d" % (first_key + number)] = os.urandom(VALUE_BYTES)
        written += VALUE_BYTES
        if written >= flush_at:
            database.flush()
            written, flush_at = 0, flush_at * 2 if flush_at < 2**25 else 64 * 1024


def make_checkpoints(directory: Path, mebibytes: int) -> list[str]:
    """Make a database, a checkpoint of it, and another one after 5 % more."""
    options = Options(raw_mode=True)
    options.set_disable_auto_compactions(True)
    options.set_compression_type(DBCompressionType.none())
    options.set_level_zero_slowdown_writes_trigger(10_000)
    options.set_level_zero_stop_writes_trigger(10_000)
    database = Rdict(str(directory / "db"), options)
    made = []
    for name, first_key, size in (("1", 0, mebibytes), ("2", 10**9, max(1, mebibytes // 20))):
        fill(database, size, first_key)
        create_live_checkpoint(DatabasePaths(str(directory / "db")), str(directory / name))
        made.append(str(directory / name))
    database.close()
    return made


def run(command: list[str], env: dict[str, str]) -> tuple[tuple[float, float], float]:
    """Run a program; return its seconds (wall, CPU), and the MiB it had in memory."""
    began = time.monotonic()
    child = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command[:2])
    return (time.monotonic() - began, usage.ru_utime + usage.ru_stime), usage.ru_maxrss / 1024


def list_uploads(port: int) -> Iterator[tuple[str, Callable[[int, str, str], list[str]], dict[str, str]]]:
    """Yield each upload: its name, its command by round (0 or 1), directory and place, and its environment."""
    endpoint = f"http://127.0.0.1:{port}"
    options = {"key": USER, "secret": SECRET, "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}

    def python(code: str, layout: str = "") -> Callable[[int, str, str], list[str]]:
        return lambda _, *places: [sys.executable, "-c", code, *places, layout, json.dumps(options)]

    for layout in ("backup_engine", "directory", "archive"):
        yield f"ours, {layout}", python(OURS, layout), {"PYTHONPATH": str(ROOT)}
    rclone = {
        "RCLONE_CONFIG": "",
        "RCLONE_CONFIG_THERE_TYPE": "s3",
        "RCLONE_CONFIG_THERE_PROVIDER": "Rclone",
        "RCLONE_CONFIG_THERE_ENDPOINT": endpoint,
        "RCLONE_CONFIG_THERE_ACCESS_KEY_ID": USER,
        "RCLONE_CONFIG_THERE_SECRET_ACCESS_KEY": SECRET,
        "RCLONE_CONFIG_THERE_REGION": "us-east-1",
    }
    program = str(find_program("rclone"))
    yield (
        "rclone copy, sync",
        lambda number, directory, place: [program, ("copy", "sync")[number], directory, f"there:{place}"],
        rclone,
    )
    yield "s3fs put", python(PUT), {}


def measure_round(measured: dict[str, Measured], checkpoints: list[str], buckets: Path, port: int) -> None:
    """Do every upload once, each into a bucket of its own, which goes afterwards."""
    for upload, (name, command, env) in enumerate(list_uploads(port)):
        bucket = buckets / f"bucket-{upload}"
        bucket.mkdir()
        result = measured.setdefault(name, Measured())
        for number, seconds in enumerate((result.first, result.second)):
            # layout directory takes an empty place for every checkpoint; the others go on in the same
            place = f"{bucket.name}/{number if name.endswith('directory') else 'there'}"
            took, mebibytes = run(command(number, checkpoints[number], place), env)
            seconds.append(took)
            result.mebibytes.append(mebibytes)
        shutil.rmtree(bucket)


def print_table(measured: dict[str, Measured]) -> None:
    """Print best times, their ratios to rclone's, CPU time, and memory."""
    peer = measured["rclone copy, sync"]
    print(f"{'':22} {'first upload':^21} {'second upload':^21}")
    print(f"{'':22} {'s':>7} {'ratio':>6} {'CPU s':>6} {'s':>7} {'ratio':>6} {'CPU s':>6} {'MiB':>5}")
    for name, result in measured.items():
        cells = []
        for times, peers in ((result.first, peer.first), (result.second, peer.second)):
            (wall, cpu), (peer_wall, _) = min(times), min(peers)
            cells.append(f"{wall:7.1f} {wall / peer_wall:6.2f} {cpu:6.1f}")
        print(f"{name:22} {' '.join(cells)} {max(result.mebibytes):5.0f}", flush=True)


def main() -> None:
    """Make the checkpoints, start the server, measure, print."""
    given = dict(enumerate(sys.argv[1:]))
    mebibytes, rounds, place = int(given.get(0, 1024)), int(given.get(1, 3)), given.get(2)
    with tempfile.TemporaryDirectory(dir=place) as text:
        directory = Path(text)
        checkpoints = make_checkpoints(directory, mebibytes)
        for checkpoint in checkpoints:
            sizes = sorted(path.stat().st_size for path in Path(checkpoint).iterdir())
            print(f"checkpoint: {len(sizes)} files, {sum(sizes) >> 20} MiB, the largest {sizes[-1] >> 20} MiB")
        buckets = directory / "buckets"
        buckets.mkdir()
        measured: dict[str, Measured] = {}
        with serve("s3", buckets, "--auth-key", f"{USER},{SECRET}", "--vfs-cache-mode", "off") as port:
            for _ in range(rounds):
                measure_round(measured, checkpoints, buckets, port)
    print_table(measured)


if __name__ == "__main__":
    main()
