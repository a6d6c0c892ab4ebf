"""Hosts that are Linux namespaces: each with a host name, processes and a disk of its own; the network is shared.

A host's disk is a directory that only its processes see at the mount point, which is the same path on every host.
Killing what :meth:`Host.start` returns kills every process that came of it, as when a machine or a container dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import find_program

_ENTER = 'mount --bind "$1" "$2" && hostname "$3" && shift 3 && exec "$@"'


@dataclass(frozen=True)
class Host:
    """A host; ``disk`` is what it sees at ``mount``."""

    name: str
    disk: Path
    mount: Path

    def start(self, *command: str | Path, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a program on it."""
        self.disk.mkdir(exist_ok=True)
        self.mount.mkdir(exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [*_unshare(), "sh", "-c", _ENTER, "sh", self.disk, self.mount, self.name, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                cwd=self.disk,
            )

    @contextlib.contextmanager
    def running(self, *command: str | Path, log: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program on it for the length of the block."""
        process = self.start(*command, log=log, env=env)
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill what :meth:`Host.start` returned with SIGKILL, and with it all processes that came of it."""
    process.kill()
    process.wait()


def send_signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the program that :meth:`Host.start` has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), number)


def require_namespaces() -> None:
    """Skip the test where this user may not make namespaces (in CI, that is a failure)."""
    if subprocess.run([*_unshare(), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make namespaces (unshare)")


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [find_program("unshare"), *user, "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
