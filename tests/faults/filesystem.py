"""A file system in memory that fails by a seeded schedule, and counts what is asked of it.

Two kinds of store, each with its own weaknesses:

* ``object store``: an object is there when its last byte is; no rename; create-if-absent;
* ``server``: what was written before a failure stays under its name; a rename refuses a name that is taken.

Which request fails, and how, depends on the seed, the request, its path and how often that was asked: not on which
thread came first. Times are the store's own, a second for each write.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fsspec import AbstractFileSystem

Kind = Literal["object store", "server"]
Fault = Literal["before", "after", "slow down", "stall", "cut", "short"]

_FAULTS: tuple[Fault, ...] = ("before", "after", "slow down", "stall", "cut", "short")
_RANDOM_PART = re.compile(r"[0-9a-f]{12,}")
_FIRST_TIME = 1_700_000_000.0


class StalledError(TimeoutError):
    """What a driver with a time-out raises when its server does not answer."""


@dataclass
class Schedule:
    """How often requests fail, each for itself; or all of them from one on, for some time.

    :param rate: share of the requests that fail.
    :param outage: first and last number of the requests that all fail.
    """

    seed: int
    rate: float = 0.0
    faults: tuple[Fault, ...] = _FAULTS
    outage: tuple[int, int] = (0, 0)
    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    on_request: Any = None
    _asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def draw(cls, seed: int) -> Schedule:
        """Draw one: mostly single faults, some outages, from one that is soon over to one without end."""
        numbers = random.Random(seed)  # noqa: S311 -- no secret
        rate = numbers.choice([0.0, 0.02, 0.1, 0.3, 0.6])
        first = numbers.randrange(1, 40)
        outage = (
            (first, first + numbers.choice([3, 10, 40, 10**9, 10**9]))
            if rate == 0 or numbers.random() < 0.2
            else (0, 0)
        )
        return cls(seed, rate, outage=outage)

    def ask(self, request: str, path: str) -> Fault | None:
        """Count a request; return how it is to fail, if it is."""
        path = _RANDOM_PART.sub("*", path)
        with self._mutex:
            self.requests[request] += 1
            self._asked[request, path] += 1
            asked, number = self._asked[request, path], self.requests.total()
            if self.on_request is not None:
                self.on_request(number)
            digest = hashlib.sha256(f"{self.seed} {request} {path} {asked}".encode()).digest()
            fault: Fault | None = None
            if self.outage[0] <= number <= self.outage[1]:
                fault = "before"
            elif int.from_bytes(digest[:4], "big") < self.rate * 2**32:
                fault = self.faults[digest[4] % len(self.faults)]
            if fault is not None:
                self.failed[fault] += 1
            return fault


@dataclass
class Objects:
    """What a store holds, whoever looks at it: content and time of the last write, by path."""

    contents: dict[str, bytes] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    clock: float = _FIRST_TIME

    def copy(self) -> Objects:
        return Objects(dict(self.contents), dict(self.times), self.clock)

    def put(self, path: str, data: bytes) -> None:
        self.clock += 1.0
        self.contents[path] = data
        self.times[path] = self.clock

    def remove(self, path: str) -> None:
        if path not in self.contents:
            raise FileNotFoundError(path)
        del self.contents[path], self.times[path]


class FaultyFileSystem(AbstractFileSystem):
    """One client of a store."""

    cachable = False
    root_marker = ""

    def __init__(self, objects: Objects, schedule: Schedule, kind: Kind, **settings: Any) -> None:
        super().__init__(objects, schedule, kind, **settings)
        self.objects = objects
        self.schedule = schedule
        self.kind = kind
        self.protocol = "s3" if kind == "object store" else "faulty"  # type: ignore[misc]  # by instance here

    @contextlib.contextmanager
    def _request(self, request: str, path: str) -> Iterator[Fault | None]:
        fault = self.schedule.ask(request, path)
        if fault == "before":
            raise ConnectionResetError(f"{request} {path}: reset by peer")
        if fault == "slow down":
            raise OSError(f"{request} {path}: SlowDown: please reduce your request rate")
        if fault == "stall":
            raise StalledError(f"{request} {path}: no answer")
        yield fault
        if fault == "after":
            raise ConnectionResetError(f"{request} {path}: done, and the answer was lost")

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path.rpartition("://")[2].strip("/")

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        with self._request("ls", path):
            found: dict[str, dict[str, Any]] = {}
            below = f"{path}/" if path else ""
            for name, data in list(self.objects.contents.items()):
                if name.startswith(below):
                    first, slash, _ = name.removeprefix(below).partition("/")
                    entry = {"name": below + first, "type": "directory", "size": None}
                    if not slash:
                        entry |= {"type": "file", "size": len(data), "mtime": self.objects.times[name]}
                    found[first] = entry
            if not found:
                raise FileNotFoundError(path)
        return list(found.values()) if detail else [entry["name"] for entry in found.values()]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        with self._request("info", path):
            data = self.objects.contents.get(path)
            if data is not None:
                return {"name": path, "type": "file", "size": len(data), "mtime": self.objects.times[path]}
            if any(name.startswith(f"{path}/") for name in list(self.objects.contents)):
                return {"name": path, "type": "directory", "size": None}
            raise FileNotFoundError(path)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        with self._request("get", path) as fault:
            if path not in self.objects.contents:
                raise FileNotFoundError(path)
            data = self.objects.contents[path][start:end]
            return _damage(data, fault, path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        with self._request("put", path) as fault:
            self._put(path, value, fault, mode)

    def _put(self, path: str, value: bytes, fault: Fault | None, mode: str = "overwrite") -> None:
        if mode == "create" and path in self.objects.contents:
            raise FileExistsError(path)
        if fault in ("cut", "short"):
            if self.kind == "server":
                self.objects.put(path, value[: len(value) // 2])
            raise ConnectionResetError(f"put {path}: reset half-way")
        self.objects.put(path, bytes(value))

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        with self._request("delete", path):
            if path in self.objects.contents or self.kind == "server":
                self.objects.remove(path)

    _rm = rm_file

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        with self._request("mv", path2):
            if path2 in self.objects.contents:
                raise OSError(f"mv {path2}: Failure")  # as SFTP says it
            data = self.objects.contents.get(path1)
            if data is None:
                raise FileNotFoundError(path1)
            modified = self.objects.times[path1]
            self.objects.remove(path1)
            self.objects.contents[path2], self.objects.times[path2] = data, modified

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        with self._request("mkdir", path):
            pass

    def rmdir(self, path: str) -> None:
        with self._request("rmdir", path):
            pass

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        return _Reader(self.cat_file(path)) if mode == "rb" else _Writer(self, path)

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return self._open(path, mode)


def _damage(data: bytes, fault: Fault | None, path: str) -> bytes:
    if fault == "cut":
        raise ConnectionResetError(f"get {path}: reset half-way")
    return data[: len(data) // 2] if fault == "short" else data


class _Reader(io.BytesIO):
    pass


class _Writer(io.BytesIO):
    """A file being written: sent when it is closed."""

    def __init__(self, filesystem: FaultyFileSystem, path: str) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._path = path
        self._gone = False

    def discard(self) -> None:
        self._gone = True

    def close(self) -> None:
        if not self.closed and not self._gone:
            data = self.getvalue()
            self._gone = True
            with self._filesystem._request("put", self._path) as fault:
                self._filesystem._put(self._path, data, fault)
        super().close()
