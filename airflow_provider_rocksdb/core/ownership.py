"""Owner and modes of what a restore creates: the database belongs to the service, whoever restored it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from airflow_provider_rocksdb.core import durable


@dataclass(frozen=True)
class Ownership:
    """Owner and modes of what a restore creates: those of the directory that it replaces, else of its parent.

    RocksDB itself creates files 0644. Here they get the mode of the replaced CURRENT, and 0600 where there was none.
    """

    uid: int
    gid: int
    file_mode: int = 0o600
    directory_mode: int = 0o700

    @classmethod
    def of(cls, root: str) -> Ownership:
        """Find out for a directory that may not be there yet."""
        if os.path.isdir(root):
            status, file_mode = os.stat(root), 0o600
            with contextlib.suppress(FileNotFoundError):
                file_mode |= os.stat(os.path.join(root, "CURRENT")).st_mode & 0o666
            return cls(status.st_uid, status.st_gid, file_mode, (status.st_mode & 0o777) | 0o700)
        parent = os.path.dirname(root)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        status = os.stat(parent)
        return cls(status.st_uid, status.st_gid)

    def give(self, descriptor: int, mode: int) -> None:
        """Give an open file or directory this owner, as far as this process may, and a mode."""
        if os.geteuid() == 0:
            os.fchown(descriptor, self.uid, self.gid)
        os.fchmod(descriptor, mode)

    def create_file(self, path: str) -> int:
        """Create a new file; return its descriptor, for writing."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.give(descriptor, self.file_mode)
        return descriptor

    def write_file(self, path: str, data: bytes) -> None:
        """Create a new file with this content, on disk but for its name."""
        with durable.named_errors(), os.fdopen(self.create_file(path), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def make_directory(self, path: str) -> None:
        """Create a directory, and the parents that it lacks, all with this owner."""
        if os.path.isdir(path):
            return
        self.make_directory(os.path.dirname(path))
        os.mkdir(path, 0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self.give(descriptor, self.directory_mode)
        finally:
            os.close(descriptor)
        durable.fsync_directory(os.path.dirname(path))
