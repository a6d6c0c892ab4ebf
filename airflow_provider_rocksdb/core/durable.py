"""The one way to write a local file, and to link, clone or copy one.

A file gets its final name only when it is whole and on disk: temporary name, fsync, rename, fsync of the directory.
What we create has mode 0600, directories 0700.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Mapping

from airflow_provider_rocksdb.core.errors import (
    AccessError,
    BusyError,
    CancelledError,
    CorruptionError,
    ExistsError,
    NoSpaceError,
    RocksDBError,
)

COPY_CHUNK_BYTES = 4 * 1024 * 1024
_BLOCK_BYTES = 4096  # what file systems give at a time
_SMALL_FILE_BYTES = 256 * 1024 * 1024  # an OPTIONS file of 30,000 column families

_FICLONE = 0x40049409  # linux/fs.h
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
_FLOCK = struct.Struct("hhqqi")  # struct flock: type, whence, start, length, pid

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """Raise the operating system's refusals as this package's errors.

    :raises NoSpaceError: for ENOSPC and EDQUOT.
    :raises AccessError: for EACCES, EPERM and EROFS.
    """
    try:
        yield
    except RocksDBError:
        raise
    except OSError as error:
        where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name) or "a file"
        if error.errno in _NO_SPACE:
            raise NoSpaceError(f"{where}: {error.strerror}; free space there, or name another place") from error
        if error.errno in _NO_ACCESS:
            user = f"uid {os.geteuid()}"
            raise AccessError(
                f"{where}: {error.strerror} (as {user}); give this user access, or run as another"
            ) from error
        raise


class naming(contextlib.AbstractContextManager[None]):  # noqa: N801 -- as those of contextlib
    """Give errors of system calls that know only a descriptor the file's name."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self._path


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pread(descriptor: int, offset: int, length: int) -> bytes:
    """Bytes of an open file: ``length`` of them, or as many as are there."""
    parts = []
    while length > 0:
        part = os.pread(descriptor, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_regular(path: str, *, follow: bool = True, dir_fd: int | None = None) -> int:
    """Open a file for reading; never a FIFO, a device or a socket, which could keep the reader waiting or never end.

    :param follow: a symbolic link is what it leads to; else it is refused.
    :param dir_fd: an open directory that ``path`` is relative to.
    :raises CorruptionError: when it is not a regular file.
    :raises OSError: as ``open(2)``.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise
        raise CorruptionError(f"{path}: expected a regular file, got {os.strerror(error.errno)}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise CorruptionError(f"{path}: expected a regular file, got {stat.filemode(mode)}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_small_file(path: str) -> bytes:
    """Content of a small file in somebody else's directory.

    :raises AccessError: when it may not be read.
    :raises CorruptionError: when it is no regular file, or not a small one.
    :raises FileNotFoundError: when it is not there.
    """
    try:
        descriptor = open_regular(path)
    except PermissionError as error:
        raise AccessError(f"{path}: {error.strerror} (as uid {os.geteuid()}); give this user read access") from error
    try:
        size = os.fstat(descriptor).st_size
        if size > _SMALL_FILE_BYTES:
            raise CorruptionError(f"{path}: expected at most {_SMALL_FILE_BYTES} bytes, got {size}")
        with naming(path):
            return pread(descriptor, 0, size)
    finally:
        os.close(descriptor)


def create_file(path: str, data: bytes) -> None:
    """Write a new file under its name at once, durably but for its directory: inside a directory not yet visible.

    :raises FileExistsError: when the name is taken.
    """
    with NewFiles() as files:
        files.create(path, data)
        files.sync()


class NewFiles(contextlib.AbstractContextManager["NewFiles"]):
    """New files of a directory not yet visible that become durable together: a wait for the disk, not one for each.

    They stay open until then, so that no error of writing them out is lost.
    """

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def create(self, path: str, data: bytes) -> None:
        """Write a new file.

        :raises FileExistsError: when the name is taken.
        """
        descriptor = self._descriptors[path] = _open_new(path)
        with naming(path):
            _write_all(descriptor, data)

    def copy(self, source: int, path: str, length: int, *, stop: threading.Event | None = None) -> int:
        """Copy the first ``length`` bytes of an open file into a new one.

        :returns: the bytes copied, fewer than ``length`` when the source is shorter.
        :raises FileExistsError: when the name is taken.
        :raises CancelledError: when ``stop`` is set.
        """
        descriptor = self._descriptors[path] = _open_new(path)
        with naming(path):
            return _copy_bytes(source, descriptor, path, length, stop)

    def truncate(self, path: str, length: int) -> None:
        """Cut one of them."""
        with naming(path):
            os.ftruncate(self._descriptors[path], length)

    def discard(self, path: str) -> None:
        """Remove one of them."""
        os.close(self._descriptors.pop(path))
        os.unlink(path)

    def sync(self, directory: int | None = None) -> None:
        """Wait until all of them are on disk.

        :param directory: an open directory whose names are waited for first.
        """
        # an empty one has nothing but its name, for which RocksDB's copies do not wait either
        filled = {path: file for path, file in self._descriptors.items() if os.fstat(file).st_size}
        for descriptor in filled.values():
            # begins to write it out, and waits for nothing: the first fsync then commits what all of them need
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if directory is not None:
            os.fsync(directory)
        for path, descriptor in filled.items():
            with naming(path):
                os.fsync(descriptor)


def _open_new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_file(path: str, data: bytes, *, exclusive: bool = False) -> None:
    """Write a whole file: it is there with all of ``data``, or not at all.

    :param exclusive: refuse to replace a file of that name, also one that appears meanwhile.
    :raises ExistsError: with ``exclusive``, when the name is taken.
    """
    directory = os.path.dirname(path) or "."
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp")
    try:
        create_file(temporary, data)
        if exclusive:
            os.link(temporary, path)
            os.unlink(temporary)
        else:
            os.replace(temporary, path)
    except FileExistsError:
        os.unlink(temporary)
        raise ExistsError(f"{path}: is already there, and must not be replaced") from None
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    fsync_directory(directory)


def link_file(source: int, name: str, target: int) -> int:
    """Hard-link ``name`` of an open directory, or what it points to when it is a symbolic link, into another one.

    :returns: its size in bytes.
    :raises OSError: as ``linkat(2)``.
    """
    # with a directory descriptor, and only then, CPython asks for AT_SYMLINK_FOLLOW
    os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=True)
    return os.stat(name, dir_fd=target).st_size


def clone_file(source: int, target: str) -> bool:
    """Share the blocks of an open file with a new one (reflink); False where the file system cannot.

    :raises OSError: when the target cannot be created.
    """
    descriptor = _open_new(target)
    try:
        fcntl.ioctl(descriptor, _FICLONE, source)
        os.fsync(descriptor)
    except OSError as error:
        os.unlink(target)
        if error.errno in _NO_CLONE:
            return False
        raise
    finally:
        os.close(descriptor)
    return True


def copy_range(
    source: int,
    target: str,
    length: int,
    *,
    stop: threading.Event | None = None,
    on_chunk: Callable[[bytes], None] | None = None,
) -> int:
    """Copy the first ``length`` bytes of an open file into a new one, durably but for its directory.

    :returns: the bytes copied, fewer than ``length`` when the source is shorter.
    :raises CancelledError: when ``stop`` is set.
    :raises OSError: as the system calls; a half-written target is removed.
    """
    descriptor = _open_new(target)
    try:
        with naming(target):
            copied = _copy_bytes(source, descriptor, target, length, stop, on_chunk)
            os.fsync(descriptor)
    except BaseException:
        os.unlink(target)
        raise
    finally:
        os.close(descriptor)
    return copied


def _copy_bytes(
    source: int,
    descriptor: int,
    target: str,
    length: int,
    stop: threading.Event | None = None,
    on_chunk: Callable[[bytes], None] | None = None,
) -> int:
    copied = 0
    while copied < length:
        if stop is not None and stop.is_set():
            raise CancelledError(f"{target}: stopped after {copied} of {length} bytes")
        chunk = os.pread(source, min(COPY_CHUNK_BYTES, length - copied), copied)
        if not chunk:
            break
        if on_chunk is not None:
            on_chunk(chunk)
        _write_all(descriptor, chunk)
        copied += len(chunk)
    return copied


def exchange_directories(first: str, second: str) -> None:
    """Swap two directories' names: atomically (``renameat2``), or by renames where the file system cannot.

    :raises RocksDBError: when the second of the plain renames fails; the message says where both are then.
    """
    status = _libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if status == 0:
        return
    code = ctypes.get_errno()
    if code not in _NO_EXCHANGE:
        raise OSError(code, os.strerror(code), first, None, second)
    aside = f"{second}.{secrets.token_hex(6)}.old"
    os.rename(second, aside)
    try:
        os.rename(first, second)
    except OSError as error:
        os.rename(aside, second)
        raise RocksDBError(f"{second}: could not be replaced by {first}: {error}; both are as they were") from error
    os.rename(aside, first)


def require_space(directory: str, needed_bytes: int) -> None:
    """Check the free space before something is copied.

    :raises NoSpaceError: with the bytes needed and available.
    """
    available = shutil.disk_usage(directory).free
    if needed_bytes > available:
        raise NoSpaceError(
            f"{directory}: {needed_bytes} bytes are needed, {available} are available; free "
            f"{needed_bytes - available} bytes or name a place on another file system"
        )


def require_space_for(sizes: Mapping[str, int], freed: Mapping[int, int], way_out: str) -> None:
    """Check the free space for new files, on every file system that gets some.

    :param sizes: of the files, by path; their directories are there.
    :param freed: bytes that will be free before, by device.
    :param way_out: what else the caller can offer, for the message.
    :raises NoSpaceError: with the bytes needed and available.
    """
    needed: dict[int, int] = {}
    directories: dict[int, str] = {}
    for path, size in sizes.items():
        directory = os.path.dirname(path)
        device = os.stat(directory).st_dev
        directories.setdefault(device, directory)
        needed[device] = needed.get(device, 0) + -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
    for device, directory in directories.items():
        available = shutil.disk_usage(directory).free + freed.get(device, 0)
        if needed[device] > available:
            raise NoSpaceError(
                f"{directory}: {needed[device]} bytes are needed, {available} are available; free "
                f"{needed[device] - available} bytes, or name a place on another file system{way_out}"
            )


def lock_directory(path: str) -> int:
    """Take the flock of a directory; return the descriptor that holds it.

    :raises BusyError: when another run holds it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyError(
            f"{path}: locked, another run is building, replacing or deleting it; wait for it, or stop it"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_owner(path: str) -> int | None:
    """Process id that holds RocksDB's lock on a LOCK file; None: nobody; 0: somebody this process cannot see.

    Takes no lock. Where this process itself has the file open it is not opened again: closing it would release the
    lock of the RocksDB in here (POSIX record locks).
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    for name in os.listdir("/proc/self/fd"):
        try:
            own = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if (own.st_dev, own.st_ino) == (status.st_dev, status.st_ino):
            return os.getpid()
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # whatever it is
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    lock_type, _, _, _, pid = _FLOCK.unpack(answer[: _FLOCK.size])
    return None if lock_type == fcntl.F_UNLCK else max(pid, 0)
