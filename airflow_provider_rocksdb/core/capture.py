"""Getting a running database's files into a checkpoint directory: SST and blob files by link, WALs by copy."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import stat
import threading
import time
from collections.abc import Iterable, Mapping

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.checkpoint_record import CheckpointFile
from airflow_provider_rocksdb.core.errors import AccessError, CancelledError, CorruptionError, CrossDeviceError
from airflow_provider_rocksdb.core.format.filename import (
    FileType,
    leveldb_table_file_name,
    wal_file_name,
)
from airflow_provider_rocksdb.core.live_database import ARCHIVE_DIR, LiveFile, MovedOn
from airflow_provider_rocksdb.core.wal import WalContent, find_gap, find_stale_ends, read_wal_file

_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP)
_SPARE_DESCRIPTORS = 64
_DAMAGE_TRIES = 3
_DAMAGE_PAUSE_SECONDS = 0.05

_log = logging.getLogger(__name__)


class _OpenDirectories(dict[str, int]):
    """Descriptors of directories by path, each opened when it is first asked for."""

    def __missing__(self, path: str) -> int:
        try:
            descriptor = self[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError as error:
            raise AccessError(f"{path}: {error.strerror} (as uid {os.geteuid()})") from error
        return descriptor


class FileCapture:
    """SST and blob files of a Version, linked into a directory; what is there stays for the next round.

    A file that can be neither linked nor cloned is pinned by an open descriptor, and copied in :meth:`finish`.

    :param here: the open directory.
    """

    def __init__(
        self, directory: str, here: int, db_dir: str, *, allow_copy: bool, stop: threading.Event | None
    ) -> None:
        self._directory = directory
        self._here = here
        self._db_dir = db_dir
        self._allow_copy = allow_copy
        self._stop = stop
        self._sources = _OpenDirectories()
        self._done: dict[str, CheckpointFile] = {}  # by RocksDB's name; here an SST may be called .ldb
        self._pinned: dict[str, int] = {}  # name here -> descriptor of a file to be copied

    def close(self) -> None:
        """Let go of everything open."""
        for descriptor in (*self._sources.values(), *self._pinned.values()):
            os.close(descriptor)
        self._sources.clear()
        self._pinned.clear()

    def capture(self, files: Iterable[LiveFile]) -> None:
        """Link, clone or pin each file that is not here yet.

        :raises FileNotFoundError: when one is missing: the database has moved on, or is damaged.
        :raises CorruptionError: when one has not the size that the MANIFEST gives.
        :raises CrossDeviceError: when one can be neither linked nor cloned, and copying is not allowed.
        """
        for file in files:
            name = file.name
            if name in self._done:
                continue
            if self._stop is not None and self._stop.is_set():
                raise CancelledError(f"{self._directory}: stopped while linking; nothing is left")
            try:
                done = self._capture(file, name)
            except FileNotFoundError:
                done = self._capture_ldb(file)
            self._done[name] = done
            if done.size != file.size:
                path = f"{file.directory}/{done.name}"
                raise CorruptionError(f"{path}: damaged: expected {file.size} bytes (MANIFEST), got {done.size}")

    def _capture_ldb(self, file: LiveFile) -> CheckpointFile:
        if file.type is FileType.TABLE:
            with contextlib.suppress(FileNotFoundError):
                return self._capture(file, leveldb_table_file_name(int(file.name.partition(".")[0])))
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.join(file.directory, file.name))

    def _capture(self, file: LiveFile, name: str) -> CheckpointFile:
        source = self._sources[file.directory]
        try:
            return CheckpointFile(name, durable.link_file(source, name, self._here), "link")
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            reason = error
        descriptor = durable.open_regular(name, dir_fd=source)
        try:
            size = os.fstat(descriptor).st_size
            if durable.clone_file(descriptor, f"{self._directory}/{name}"):
                return CheckpointFile(name, size, "reflink")
            if not self._allow_copy:
                raise self._cannot_link(f"{file.directory}/{name}", reason)
            self._pin(name, descriptor)
            descriptor = -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return CheckpointFile(name, size, "copy")

    def link(self, directory: str, name: str) -> CheckpointFile | None:
        """Link another file of the database; None where that cannot be, or it is gone."""
        try:
            return CheckpointFile(name, durable.link_file(self._sources[directory], name, self._here), "link")
        except OSError:
            return None

    def _cannot_link(self, path: str, reason: OSError) -> CrossDeviceError:
        devices = [os.stat(place).st_dev for place in (path, self._directory)]
        if reason.errno == errno.EXDEV:
            cause = (
                "different file systems, or different mounts of one; name a place beside the database, or inside it "
                "where it is itself a mount point (allow_inside)"
            )
        elif reason.errno == errno.EMLINK:
            cause = "the file has as many links as its file system allows; delete old checkpoints"
        else:
            cause = (
                f"uid {os.geteuid()} may not link it: where fs.protected_hardlinks is 1, the default, only the file's "
                "owner can, or who may write it; run as the database's user"
            )
        return CrossDeviceError(
            f"{path} (device {devices[0]:#x}) cannot be linked into {self._directory} (device {devices[1]:#x}): "
            f"{reason.strerror}: {cause}; or allow copies (allow_copy)"
        )

    def _pin(self, name: str, descriptor: int) -> None:
        _allow_descriptors(len(self._pinned) + _SPARE_DESCRIPTORS)
        self._pinned[name] = descriptor

    def finish(self, live: set[str]) -> None:
        """Drop what is not live any more, and copy what is pinned.

        :param live: RocksDB's names of the files that belong to the Version.
        :raises NoSpaceError: when the copies do not fit; checked before the first of them.
        """
        for rocksdb_name in set(self._done) - live:
            done = self._done.pop(rocksdb_name)
            if done.kind == "copy":
                os.close(self._pinned.pop(done.name))
            else:
                os.unlink(os.path.join(self._directory, done.name))
        if self._pinned:
            needed = sum(done.size for done in self._done.values() if done.kind == "copy")
            durable.require_space(self._directory, needed)
            _log.info("Copying %d files, %d bytes, that cannot be linked", len(self._pinned), needed)
        for name in list(self._pinned):
            descriptor = self._pinned.pop(name)
            try:
                size = os.fstat(descriptor).st_size
                durable.copy_range(descriptor, os.path.join(self._directory, name), size, stop=self._stop)
            finally:
                os.close(descriptor)

    def result(self) -> list[CheckpointFile]:
        """Files that are here now."""
        return list(self._done.values())


def _allow_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and needed > soft - _SPARE_DESCRIPTORS:
        if hard != resource.RLIM_INFINITY and needed > hard - _SPARE_DESCRIPTORS:
            raise CrossDeviceError(
                f"{needed} files must stay open until they are copied, the limit is {hard} (RLIMIT_NOFILE); raise it, "
                "or name a place on the database's file system, where files can be linked"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * needed + 2 * _SPARE_DESCRIPTORS, hard), hard))


class WalCapture:
    """WALs that a Version needs: opened with their sizes noted, then copied up to those sizes.

    :param files: what the copies become durable with.
    """

    def __init__(self, directory: str, files: durable.NewFiles, *, stop: threading.Event | None) -> None:
        self._directory = directory
        self._files = files
        self._stop = stop
        self._pinned: list[tuple[int, str, int, int]] = []  # number, path, descriptor, noted size; newest first
        self._targets: set[str] = set()  # copies that are here, whole or not
        self.copied: list[WalContent] = []
        self.damage: list[str] = []

    def close(self) -> None:
        """Let go of everything open."""
        for _, _, descriptor, _ in self._pinned:
            os.close(descriptor)
        self._pinned.clear()

    def pin(self, paths: Mapping[int, str]) -> None:
        """Open WALs, the newest first: the one below is whole once a newer one holds anything.

        :raises FileNotFoundError: when one is gone, from the archive, too.
        """
        self.close()
        for number in sorted(paths, reverse=True):
            path, descriptor = _open_wal(paths[number])
            _allow_descriptors(len(self._pinned) + _SPARE_DESCRIPTORS)
            self._pinned.append((number, path, descriptor, os.fstat(descriptor).st_size))

    def copy(self) -> None:
        """Copy the pinned WALs, newest first, and check what was copied.

        :raises MovedOn: when one was recycled, or cut by a recovery, while it was copied.
        :raises NoSpaceError: when they do not fit; checked before the first of them.
        """
        self._remove_copies()
        durable.require_space(self._directory, sum(size for *_, size in self._pinned))
        self.copied = []
        while self._pinned:
            self.copied.append(self._copy(*self._pinned[0]))
            os.close(self._pinned.pop(0)[2])  # its copy stays open
        self.copied.reverse()
        self.damage = [content.damage for content in self.copied if content.damage]
        gap = find_gap(self.copied)
        if gap is not None:
            self.damage.append(gap)

    def _remove_copies(self) -> None:
        for target in self._targets:
            self._files.discard(target)
        self._targets.clear()

    def _copy(self, number: int, path: str, descriptor: int, size: int) -> WalContent:
        target = os.path.join(self._directory, wal_file_name(number))
        for attempt in range(_DAMAGE_TRIES):
            if attempt:  # a write in place (a recycled WAL) may have been seen half done
                time.sleep(_DAMAGE_PAUSE_SECONDS)
                self._files.discard(target)
            copied = self._files.copy(descriptor, target, size, stop=self._stop)
            self._targets.add(target)
            if copied < size:
                raise MovedOn(f"{path} was cut while it was copied")
            content = read_wal_file(number, target)
            if content.damage is None:
                break
        if (content.recyclable or not content.records) and _is_elsewhere(path, descriptor):
            raise MovedOn(f"{path} may have been recycled while it was copied")
        return content

    def cut(self) -> list[CheckpointFile]:
        """Cut the newest WAL, and recycled ones before it, at their last whole record, and return all WALs.

        So the checkpoint opens under ``kAbsoluteConsistency``, too. A damaged one stays as it is. The newest is the one
        that holds anything; behind it stand those that hold nothing yet.
        """
        last = max((index for index, wal in enumerate(self.copied) if wal.records or wal.torn), default=0)
        sizes = {wal.number: wal.size for wal in self.copied}
        for wal in (*find_stale_ends(self.copied), *self.copied[last:]):
            if wal.damage is None and wal.end < wal.size:
                self._files.truncate(os.path.join(self._directory, wal_file_name(wal.number)), wal.end)
                sizes[wal.number] = wal.end
        return [CheckpointFile(wal_file_name(number), size, "written") for number, size in sizes.items()]


def _open_wal(path: str) -> tuple[str, int]:
    """Open a WAL, also one that has moved into the archive meanwhile; return where it is and its descriptor."""
    try:
        return path, durable.open_regular(path)
    except FileNotFoundError as error:
        archived = os.path.join(os.path.dirname(path), ARCHIVE_DIR, os.path.basename(path))
        try:
            return archived, durable.open_regular(archived)
        except FileNotFoundError:
            raise error from None


def _is_elsewhere(path: str, descriptor: int) -> bool:
    """Whether the name no longer leads to the open file, and the archive does not either."""
    opened = os.fstat(descriptor)
    archived = os.path.join(os.path.dirname(path), ARCHIVE_DIR, os.path.basename(path))
    for name in (path, archived):
        try:
            named = os.stat(name)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(named.st_mode) and (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino):
            return False
    return True
