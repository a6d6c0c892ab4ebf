"""The S3 server of the benchmarks (rclone's, on the last core), and the programs that send to it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.harness import Sample
from tests.programs import find_program
from tests.servers import serve

USER, SECRET, REGION = "somebody", "not-a-secret", "us-east-1"


@dataclass(frozen=True)
class S3:
    """An S3 server: its port (or a proxy's before it), and the directory with its buckets."""

    port: int
    buckets: Path

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> str:
        """What fsspec needs, as JSON."""
        client = {"region_name": REGION}
        options = {"protocol": "s3", "key": USER, "secret": SECRET, "endpoint_url": self.endpoint}
        return json.dumps({**options, "client_kwargs": client})

    @property
    def env(self) -> dict[str, str]:
        """What rclone (as ``there:``) and s5cmd need."""
        return {
            "RCLONE_CONFIG": "",
            "RCLONE_CONFIG_THERE_TYPE": "s3",
            "RCLONE_CONFIG_THERE_PROVIDER": "Rclone",
            "RCLONE_CONFIG_THERE_ENDPOINT": self.endpoint,
            "RCLONE_CONFIG_THERE_ACCESS_KEY_ID": USER,
            "RCLONE_CONFIG_THERE_SECRET_ACCESS_KEY": SECRET,
            "RCLONE_CONFIG_THERE_REGION": REGION,
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "S3_ENDPOINT_URL": self.endpoint,
            "RESTIC_REPOSITORY": f"s3:{self.endpoint}/bucket/restic",
            "RESTIC_PASSWORD": SECRET,
        }


@contextlib.contextmanager
def s3_server(directory: Path, *options: str) -> Iterator[S3]:
    """Run the server, its buckets in ``directory``, on the machine's last core.

    It hashes no object for a listing: S3 knows each ETag, rclone's server would read all that is there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # what starts now stays there
    with contextlib.ExitStack() as stack:
        try:
            arguments = ("--auth-key", f"{USER},{SECRET}", "--vfs-cache-mode", "off", "--no-checksum")
            arguments += ("--etag-hash", "", *options)
            port = stack.enter_context(serve("s3", directory, *arguments))
        finally:
            os.sched_setaffinity(0, cores)
        yield S3(port, directory)


def count_server(contender: Callable[[], Sample]) -> Callable[[], Sample]:
    """Add the CPU seconds of the server, which runs already, to what is known of a run: its core can be the limit."""

    def count() -> float:
        (server,) = (child for child in psutil.Process().children() if child.cmdline()[1:3] == ["serve", "s3"])
        times = server.cpu_times()
        return float(times.user + times.system)

    def measure() -> Sample:
        before = count()
        sample = contender()
        return replace(sample, figures={**sample.figures, "server_cpu_seconds": count() - before})

    return measure


def rclone(verb: str, source: str, target: str, workers: int) -> list[str]:
    """Return rclone's command for one place to another; ``there:`` is the server."""
    return [find_program("rclone"), verb, source, target, "--transfers", str(workers), "--checkers", str(workers)]


def restic(verb: str, *arguments: str, cache: Path, workers: int) -> list[str]:
    """Return restic's command; what it remembers of a repository lies in ``cache``."""
    limits = ["--cache-dir", str(cache), "--option", f"s3.connections={workers}"]
    return [find_program("restic"), verb, "--quiet", *limits, *arguments]


def s5cmd(source: str, target: str, workers: int) -> list[str]:
    """Return s5cmd's command for one place to another, at most so many requests at a time."""
    program = Path(sys.executable).parent / "s5cmd"
    return [str(program), "--numworkers", str(workers), "cp", "--concurrency", "1", source, target]
