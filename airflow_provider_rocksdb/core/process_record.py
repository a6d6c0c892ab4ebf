"""Which process did something, written down so that another on the same host can tell whether it is gone.

A pid alone proves nothing: another host, or another container of this one, counts its own. So the kernel's boot id and
the pid namespace belong to it, and the process's start time, for a pid is used again.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from typing import Any

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_START_TIME = 19  # proc_pid_stat(5): field 22; the first after the name, which ends with the last ")", is field 3


@dataclass(frozen=True)
class ProcessRecord:
    """A process. ``start_time`` in ticks since ``boot_id`` began; ``namespace``: of its pid. Empty: not known."""

    hostname: str
    pid: int
    start_time: str
    boot_id: str
    namespace: str

    @classmethod
    def of_this(cls) -> ProcessRecord:
        """Describe the calling process."""
        return cls(socket.gethostname(), os.getpid(), _start_time(os.getpid()) or "", *_where())

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def is_gone(self) -> bool:
        """Whether this very process is known not to run any more; False as long as that cannot be told."""
        if not self.start_time or not all(_where()) or (self.boot_id, self.namespace) != _where():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is another user's
        return _start_time(self.pid) not in (None, self.start_time)


def decode_process(data: bytes) -> ProcessRecord | None:
    """Read such a record; None for anything else."""
    try:
        values: dict[str, Any] = json.loads(data)
        record = ProcessRecord(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (record.hostname, record.start_time, record.boot_id, record.namespace)
    is_pid = type(record.pid) is int and 0 < record.pid < 1 << 31
    return record if is_pid and all(type(text) is str for text in texts) else None


def _where() -> tuple[str, str]:
    """Boot id and pid namespace of the calling process; empty where there is no such thing."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return os.fsdecode(file.read().strip()), os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", ""


def _start_time(pid: int) -> str | None:
    """Start time of a process; None where it cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[_START_TIME].decode()
    except (OSError, IndexError):
        return None
