"""A directory of files, local or on an fsspec file system: list it, read from it. Nothing is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from airflow_provider_rocksdb.core import durable, ftp
from airflow_provider_rocksdb.core.drivers import limit_waiting
from airflow_provider_rocksdb.core.format.log_format import Pread

_T = TypeVar("_T")


class Directory(Protocol):
    """What a check needs of a directory. Every method raises OSError (FileNotFoundError…) as the file system does."""

    @property
    def name(self) -> str:
        """Where it is, for messages."""

    def list(self) -> dict[str, int]:
        """Names of the files in it, with their sizes in bytes."""

    def read(self, name: str) -> bytes:
        """Whole content of a small file."""

    def pread(self, name: str, use: Callable[[Pread], _T]) -> _T:
        """Call ``use`` with a function that reads ``(offset, length)`` of a file."""


@dataclass(frozen=True)
class LocalDirectory:
    """A directory on this host; symbolic links are followed, and only regular files count."""

    name: str

    def identity(self) -> object:
        """Device and inode, by which a directory that was replaced is told; None when it cannot be seen."""
        try:
            status = os.stat(self.name)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def list(self) -> dict[str, int]:
        """Names and sizes."""
        sizes: dict[str, int] = {}
        with os.scandir(self.name) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except FileNotFoundError:  # removed meanwhile, or a link that leads nowhere
                    continue
                if stat.S_ISREG(status.st_mode):
                    sizes[entry.name] = status.st_size
        return sizes

    def read(self, name: str) -> bytes:
        """Whole content."""
        return durable.read_small_file(os.path.join(self.name, name))

    def pread(self, name: str, use: Callable[[Pread], _T]) -> _T:
        """Call ``use`` with a reader."""
        descriptor = durable.open_regular(os.path.join(self.name, name))
        try:
            return use(lambda offset, length: durable.pread(descriptor, offset, length))
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class RemoteDirectory:
    """A directory on an fsspec file system; ``name`` is a path that this file system understands."""

    name: str
    filesystem: Any

    def __post_init__(self) -> None:
        limit_waiting(self.filesystem)

    def list(self) -> dict[str, int]:
        """Names and sizes, from one listing, never a cached one."""
        self.filesystem.invalidate_cache()
        entries = self.filesystem.ls(self.name, detail=True)
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"])
            for entry in entries
            if (entry["type"] == "file" or entry.get("islink")) and entry.get("size") is not None
        }

    def read(self, name: str) -> bytes:
        """Whole content."""
        content: bytes = self.filesystem.cat_file(f"{self.name.rstrip('/')}/{name}")
        return content

    def pread(self, name: str, use: Callable[[Pread], _T]) -> _T:
        """Call ``use`` with a reader."""
        path = f"{self.name.rstrip('/')}/{name}"
        if ftp.is_ftp(self.filesystem):
            return use(partial(ftp.read_range, self.filesystem, path))
        with self.filesystem.open(path, "rb") as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                content: bytes = file.read(length)
                return content

            return use(read)
