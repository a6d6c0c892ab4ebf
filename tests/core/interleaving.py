"""Backups and prunes that run at the same time, handed over step by step on a store in memory, with a clock to set.

Each actor runs the real code in a thread, and stops before each request to the store until it is given its turn; only
one of them ever runs. Killed, it gets no further request through. Waiting is a request that does nothing.

Clocks: the store's, which also measures elapsed time everywhere, and each actor's own time of day, which may be off.
What :mod:`repository_marks` assumes of the world is kept: a delete, or the write of a meta, that an actor has decided
upon takes effect within 500 s. Anything else may take for ever.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core import prune, repository, repository_marks
from airflow_provider_rocksdb.core.errors import RocksDBError
from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_meta
from airflow_provider_rocksdb.core.format.filename import FileType
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory
from airflow_provider_rocksdb.core.prune import prune_backups
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.retention import RetentionPolicy
from tests.core.repositories import ONCE

ROOT = "/r"
GRACE = 86400.0
_BOUND = 500.0
_local = threading.local()


class Killed(BaseException):
    """The actor's process is dead."""


@dataclass
class Stored:
    data: bytes
    modified: float


class Actor:
    """A backup or a prune in a thread of its own."""

    def __init__(self, world: World, name: str, work: Callable[[AbstractFileSystem], Any], skew: float) -> None:
        self.world, self.name, self.skew = world, name, skew
        self.pending, self.since = "start", world.now
        self.is_done = self.is_killed = False
        self.result: Any = None
        self.steps = 0
        self._turn, self._parked = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        self._parked.acquire()

    def _run(self, work: Callable[[AbstractFileSystem], Any]) -> None:
        _local.actor = self
        try:
            self.gate("begin")
            self.result = work(SteppedFileSystem(actor=self))
        except (RocksDBError, Killed) as error:
            self.result = error
        except BaseException as error:  # noqa: BLE001 -- shown by the check
            self.result = error
            self.world.surprises.append(error)
        self.is_done = True
        self._parked.release()

    def gate(self, request: str) -> None:
        """Stop here until it is this actor's turn."""
        if self.is_killed:
            raise Killed
        self.pending, self.since = request, self.world.now
        self._parked.release()
        self._turn.acquire()
        if self.is_killed:
            raise Killed

    def step(self) -> None:
        """Let it do what it stopped before, up to the next request."""
        if not self.is_done:
            self.steps += 1
            self._turn.release()
            self._parked.acquire()

    def kill(self) -> None:
        self.is_killed = True
        while not self.is_done:
            self.step()
        self._thread.join()

    def finish(self) -> None:
        """Let it run to its end; time passes while it waits."""
        while not self.is_done:
            if self.pending == "wait":
                self.world.advance(30)
            self.step()
        self._thread.join()


class SteppedFileSystem(AbstractFileSystem):
    """An actor's way to the store: each call is a step."""

    protocol = "memory"  # an object store, for what it can do
    cachable = False

    def __init__(self, actor: Actor, **settings: Any) -> None:
        super().__init__(**settings)
        self.actor = actor

    @property
    def files(self) -> dict[str, Stored]:
        return self.actor.world.files

    def _put(self, path: str, data: bytes) -> None:
        self.files[path] = Stored(data, self.actor.world.store_time)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[dict[str, Any]]:
        self.actor.gate("list")
        found: dict[str, dict[str, Any]] = {}
        for name, file in self.files.items():
            if name.startswith(f"{path}/"):
                head, slash, _ = name.removeprefix(f"{path}/").partition("/")
                entry = {"type": "directory"} if slash else {"type": "file", "mtime": file.modified}
                found[head] = {"name": f"{path}/{head}", "size": 0 if slash else len(file.data), **entry}
        return list(found.values())

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self.actor.gate("read")
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path].data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self.actor.gate("create" if mode == "create" else "write")
        if mode == "create" and path in self.files:
            raise FileExistsError(path)
        self._put(path, value)

    def rm_file(self, path: str) -> None:
        self.actor.gate("delete")
        if self.files.pop(path, None) is None:
            raise FileNotFoundError(path)

    def open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        filesystem = self

        class Writer(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    filesystem.actor.gate("write")
                    filesystem._put(path, self.getvalue())
                super().close()

            def discard(self) -> None:
                super().close()

        return Writer()


class Clock:
    """Stands in for the module ``time`` where actors tell the time of day."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time(self) -> float:
        return self._world.now + (_local.actor.skew if hasattr(_local, "actor") else 0)

    def monotonic(self) -> float:
        return self._world.now


@dataclass
class World:
    """The store, the clock, and who works there."""

    sources: dict[str, Path]
    now: float = 1_700_000_000.0
    resolution: float = 1.0
    files: dict[str, Stored] = field(default_factory=dict)
    actors: list[Actor] = field(default_factory=list)
    surprises: list[BaseException] = field(default_factory=list)

    @property
    def store_time(self) -> float:
        return self.now // self.resolution * self.resolution

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put this world's clock in place of the real ones."""

        def wait(seconds: float, stop: Any) -> None:
            _local.actor.gate("wait")

        for module in (prune, repository):
            patch.setattr(module, "time", Clock(self))
        for module in (prune, repository_marks):
            patch.setattr(module, "elapsed", lambda: self.now)
        for module in (repository, repository_marks):
            patch.setattr(module, "wait", wait)

    def backup(self, blobs: str) -> Actor:
        """Start a backup of some of the files that there are, named by letters."""
        files = [
            *(
                DatabaseFile(self.sources[b].name, str(self.sources[b]), self.sources[b].stat().st_size, FileType.BLOB)
                for b in blobs
            ),
            DatabaseFile("CURRENT", "", 5, FileType.CURRENT, b"%5d" % (len(self.actors) % 99999)),
        ]
        inventory = Inventory("/db", "db", 1, tuple(files), (), None)
        return self._start(f"backup {blobs}", lambda fs: create_backup(inventory, fs, ROOT, options=ONCE), 0.0)

    def prune(self, keep_last: int = 1, skew: float = 0.0) -> Actor:
        """Start a prune whose host's time of day is off by some seconds."""
        policy = RetentionPolicy(keep_last=keep_last)
        work = lambda fs: prune_backups(fs, ROOT, policy, grace_seconds=GRACE, options=ONCE)  # noqa: E731
        return self._start("prune", work, skew)

    def _start(self, name: str, work: Callable[[AbstractFileSystem], Any], skew: float) -> Actor:
        actor = Actor(self, name, work, skew)
        self.actors.append(actor)
        return actor

    @property
    def running(self) -> list[Actor]:
        return [actor for actor in self.actors if not actor.is_done]

    def advance(self, seconds: float) -> None:
        """Let time pass; what an actor has decided to delete or to commit happens in time."""
        while seconds > 0:
            guarded = [actor for actor in self.running if actor.pending in ("delete", "create")]
            late = [actor for actor in guarded if self.now - actor.since >= _BOUND]
            for actor in late:
                actor.step()
            if not late:
                hop = min([seconds, *(_BOUND - (self.now - actor.since) for actor in guarded)])
                self.now += hop
                seconds -= hop

    def copy(self) -> World:
        """Return a world with the same store and clock, and nobody in it."""
        return World(self.sources, self.now, self.resolution, dict(self.files))

    def kill_all(self) -> None:
        for actor in self.running:
            actor.kill()

    def backups(self) -> dict[int, set[str]]:
        """Return the paths that each committed backup names."""
        return {
            int(path.rpartition("/")[2]): {file.path for file in decode_backup_meta(stored.data).files}
            for path, stored in self.files.items()
            if path.startswith(f"{ROOT}/meta/")
        }

    def check(self) -> None:
        """Every committed backup has all its objects, with the right content; nobody met an unforeseen error."""
        assert not self.surprises, self.surprises
        for path, meta in list(self.files.items()):
            if not path.startswith(f"{ROOT}/meta/"):
                continue
            for file in decode_backup_meta(meta.data).files:
                stored = self.files.get(f"{ROOT}/{file.path}")
                assert stored is not None, f"{path} names {file.path}, which is not there"
                assert google_crc32c.value(stored.data) == file.crc32c, f"{path} names {file.path}, which is another"

    def unreferenced(self) -> set[str]:
        """Paths that no backup names."""
        named = {f"{ROOT}/{path}" for paths in self.backups().values() for path in paths}
        return {path for path in self.files if path not in named and not path.startswith(f"{ROOT}/meta/")}
