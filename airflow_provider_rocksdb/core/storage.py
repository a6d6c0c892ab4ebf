"""A directory on an fsspec file system, as a backup writes it: an object gets its name only when it is whole.

========================  ==============================================================================
file system               how a file gets its final name
========================  ==============================================================================
local                     temporary name in ``incoming/``, fsync, rename, fsync of the directory
object stores             at once: a store shows an object when its last byte is there, or not at all
others that can rename    temporary name in ``incoming/``, then a rename (:mod:`.drivers`)
others, memory            at once; what is left of a failed write is removed, and sizes are compared later
========================  ==============================================================================

========================  ==============================================================================
file system               how a name is created that nobody may have yet (``meta/<id>``)
========================  ==============================================================================
local                     hard link to a whole file: atomic
S3, Azure, Google         on the condition that there is none: atomic; a store that ignores it is looked at first
others                    looked at first, then written; of two who meet, he who reads back his own has won
========================  ==============================================================================

``incoming/`` is a folder of its own in the root, which RocksDB's BackupEngine leaves alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fsspec import AbstractFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_rocksdb.core import (
    durable,
    ftp,
    local_storage,
    object_stream,
    s3_download,
    s3_session,
    s3_upload,
)
from airflow_provider_rocksdb.core.driver_errors import is_full, is_missing, is_refusal
from airflow_provider_rocksdb.core.drivers import (
    MAX_PARTS,
    discard,
    find_create_condition,
    find_move,
    find_read_options,
    has_own_find,
    is_s3,
    limit_options,
    limit_waiting,
    make_folder,
    read_time,
    remove_folder,
)
from airflow_provider_rocksdb.core.errors import (
    AccessError,
    InvalidArgumentError,
    NoSpaceError,
    NotFoundError,
    RocksDBError,
)

INCOMING = "incoming"

_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "memory"}
_PART_BYTES = 8 * 1024 * 1024
_PREFETCHED_REQUESTS = 64  # of 32 KiB each
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_WRONG_USE = (ValueError, TypeError, ImportError)
# A driver that was not made through fsspec's registry may have no name of its own.
_NAMELESS = {"SSHFileSystem": "sftp"}


class Entry(NamedTuple):
    """A name in a folder: size in bytes, None for a folder; when it was written, in seconds since 1970 by the store."""

    size: int | None
    modified: float | None


class Storage:
    """The directory ``root`` on a file system. Paths given to its methods are relative to it.

    Errors are those of the file system; :func:`translate_error` gives them this package's names.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        """Look at what the file system can do; nothing is read or written.

        :raises InvalidArgumentError: for a file system that only coroutines can use.
        """
        root = filesystem._strip_protocol(root)
        while isinstance(filesystem, DirFileSystem):
            root = filesystem._join(root)
            filesystem = filesystem.fs
        if getattr(filesystem, "asynchronous", False):
            raise InvalidArgumentError(f"{root}: the file system was made with asynchronous=True; make it without")
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self._prefix = f"{self.root}/" if self.root or root.startswith("/") else ""
        protocol = _NAMELESS.get(type(filesystem).__name__, filesystem.protocol)
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._is_ssh = bool(self._protocols & {"sftp", "ssh"})
        self.is_local = isinstance(filesystem, LocalFileSystem)
        self._is_object_store = bool(self._protocols & _OBJECT_STORES)
        self._move = None if self._is_object_store else find_move(type(filesystem))
        self.renames = self.is_local or self._move is not None
        self.overlaps = filesystem.async_impl and not self._is_ssh  # threads share it, and its connections
        self.sends_files = is_s3(filesystem)
        self.lists_trees = has_own_find(type(filesystem))
        limit_waiting(filesystem)
        self._read_options: dict[str, Any] = {}
        if self.sends_files:
            self._read_options = find_read_options(type(filesystem))
            s3_session.quicken(filesystem)
        self._own = threading.local()
        self._own.filesystem = filesystem  # for this thread, which has brought it

    @property
    def url(self) -> str:
        """Where it is, for messages and results."""
        if self.is_local:
            return self.root or "/"
        return str(self.filesystem.unstrip_protocol(self.root or "/")).replace("abstract://", "sftp://", 1)

    @property
    def hides_unfinished(self) -> bool:
        """Whether a file that is still being written cannot be seen under its name."""
        return self._is_object_store and not isinstance(self.filesystem, MemoryFileSystem)

    def path(self, name: str) -> str:
        """Path of a file or folder in it, on the file system; of itself, for an empty name."""
        return self._prefix + name if name else self.root or self._prefix

    def list(self, folder: str) -> dict[str, int | None]:
        """Names in a folder with sizes in bytes, None for folders; empty when the folder is not there."""
        return {name: entry.size for name, entry in self.list_entries(folder).items()}

    def list_entries(self, folder: str) -> dict[str, Entry]:
        """Names in a folder, as :meth:`list`, with times where the store tells them."""
        if self.is_local:
            return self._list_local(folder)
        filesystem, path = self.own_file_system(), self.path(folder)
        filesystem.invalidate_cache()
        try:
            with _telling_missing():
                entries = filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        found = {}
        for entry in entries:
            name = entry["name"].rstrip("/")
            if name.strip("/") != path.strip("/"):  # the folder's own marker object
                is_file = entry["type"] == "file" and entry.get("size") is not None
                found[name.rpartition("/")[2]] = Entry(int(entry["size"]) if is_file else None, read_time(entry))
        return found

    def _list_local(self, folder: str) -> dict[str, Entry]:
        try:
            return {
                name: Entry(status.st_size if stat.S_ISREG(status.st_mode) else None, status.st_mtime)
                for name, status in local_storage.iter_folder(self.path(folder))
            }
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def list_tree(self, folder: str) -> dict[str, int | None]:
        """Files below a folder, at any depth, with sizes in bytes; where ``lists_trees``, as cheaply as one folder.

        Names are relative to the root. Empty when the folder is not there.
        """
        filesystem, path = self.own_file_system(), self.path(folder)
        filesystem.invalidate_cache()
        try:
            with _telling_missing():
                entries = filesystem.find(path, detail=True)
        except FileNotFoundError:
            return {}
        below = path.strip("/") + "/"
        names = ((entry["name"].strip("/"), entry.get("size")) for entry in entries.values())
        return {f"{folder}/{name.removeprefix(below)}": size for name, size in names if name.startswith(below)}

    def read(self, name: str, size: int | None = None) -> bytes:
        """Whole content of a file; the caller knows that it is small.

        :param size: in bytes, as far as it is known.
        :raises OSError: when less came.
        """
        with _telling_missing():
            data: bytes = self.own_file_system().cat_file(self.path(name), **self._read_options)
        require_all(self.path(name), len(data), size)
        return data

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None when there is nothing of that name."""
        filesystem = self.own_file_system()
        filesystem.invalidate_cache()
        try:
            with _telling_missing():
                return int(filesystem.info(self.path(name))["size"] or 0)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def open_reader(self, name: str, size: int, offset: int = 0) -> Iterator[Any]:
        """Open a file for reading it once, from ``offset`` on; holds a part or two of 8 MiB in memory.

        :param size: of the file in bytes, as far as it is known.
        """
        path = self.path(name)
        if self.is_local:
            with open(path, "rb", buffering=0) as local:
                local.seek(offset)
                yield local
            return
        filesystem = self.own_file_system()
        if self.sends_files:
            with s3_download.open_reader(filesystem, path, offset) as reader:
                yield reader
            return
        if ftp.is_ftp(filesystem):
            with ftp.open_reader(filesystem, path, offset) as stream:
                yield stream
            return
        if self._is_ssh:
            file = filesystem.open(path, "rb")
            file.seek(offset)
            if hasattr(file, "prefetch"):
                file.prefetch(size, max_concurrent_requests=_PREFETCHED_REQUESTS)
        elif offset == 0:
            with object_stream.open_reader(filesystem, path, _PART_BYTES) as stream:
                yield stream
            return
        else:
            file = filesystem.open(path, "rb", block_size=_PART_BYTES)
            file.seek(offset)
        with file:
            yield file

    def make_folders(self, folders: Iterable[str]) -> None:
        """Create folders where the file system has such things."""
        for folder in (*folders, *((INCOMING,) if self.renames else ())):
            if self.is_local:
                local_storage.make_folders(self.path(folder))
            elif not self._is_object_store:
                make_folder(self.own_file_system(), self.path(folder))

    def sync_folders(self, folders: Iterable[str]) -> None:
        """Make the names in local folders durable."""
        if self.is_local:
            for folder in folders:
                durable.fsync_directory(self.path(folder))

    def temporary_name(self, name: str) -> str:
        """Name under which a file is to be written before it gets its own."""
        return f"{INCOMING}/{name.rpartition('/')[2]}.{secrets.token_hex(6)}" if self.renames else name

    def own_file_system(self) -> AbstractFileSystem:
        """Return the file system for the calling thread.

        One that is asynchronous is shared, unless it lives from one connection; others are not thread-safe.
        """
        if self.overlaps or isinstance(self.filesystem, MemoryFileSystem):
            return self.filesystem
        if not hasattr(self._own, "filesystem"):
            given = self.filesystem
            options = {**limit_options(given), **given.storage_options, "skip_instance_cache": True}
            own = type(given)(*given.storage_args, **options)
            limit_waiting(own)
            self._own.filesystem = own
        return self._own.filesystem

    def drop_file_system(self) -> None:
        """Have the calling thread make itself a new file system: the connection of this one may be broken."""
        if hasattr(self._own, "filesystem"):
            del self._own.filesystem

    @contextlib.contextmanager
    def open_writer(self, name: str, size: int, *, check_stop: Callable[[], None] = lambda: None) -> Iterator[Any]:
        """Open a file for writing; unless the block ends well, nothing stays of it.

        Holds a few parts of 8 MiB in memory (larger ones for files above 70 GB).

        :param size: of the file to be written, in bytes: parts must be large enough for it.
        :param check_stop: raises when the caller shall not wait any longer; S3 alone is asked to let go then.
        """
        path = self.path(name)
        if self.is_local:
            with local_storage.open_new(path) as file:
                yield file
            return
        filesystem = self.own_file_system()
        if self.sends_files:
            with s3_upload.open_writer(filesystem, path, _part_bytes(size), check_stop) as writer:
                yield writer
            return
        if ftp.is_ftp(filesystem):
            file = ftp.open_stream(filesystem, path, write=True)
        elif self._is_ssh:
            file = filesystem.open(path, "wb")
            if hasattr(file, "set_pipelined"):
                file.set_pipelined(True)
        else:
            file = filesystem.open(path, "wb", block_size=_part_bytes(size))
        try:
            yield file
            file.close()
        except BaseException:
            discard(file)
            if not self.hides_unfinished:
                with contextlib.suppress(Exception):
                    filesystem.rm_file(path)
            raise

    def send_file(self, name: str, file: s3_upload.LocalFile, meter: s3_upload.Meter) -> int:
        """Store a local file, where this ``sends_files``; return its CRC32C (:func:`.s3_upload.send_file`)."""
        return s3_upload.send_file(self.filesystem, self.path(name), file, meter)

    def rename(self, temporary: str, name: str, *, replace: bool = True) -> None:
        """Give a whole file its name.

        :param replace: in place of a file that has it; else as atomically as the file system can tell.
        :raises FileExistsError: when the name is taken and may not be replaced.
        """
        source, target = self.path(temporary), self.path(name)
        if not replace and self.is_local and local_storage.link(source, target):
            return
        if not replace and self.size(name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        if self.is_local:
            os.replace(source, target)
            return
        filesystem, move = self.own_file_system(), self._move
        assert move is not None, "only what renames has temporary names"  # noqa: S101 -- for the type checker
        try:
            move(filesystem, source, target)
        except Exception:
            is_there = self.size(name) is not None
            if is_there and self.size(temporary) is None:
                return  # it was done, and only the answer was lost
            if not replace or not is_there:
                raise
            filesystem.rm_file(target)
            move(filesystem, source, target)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, in place of one that is there."""
        if self.is_local:
            durable.write_file(self.path(name), data)
        elif not self.renames:
            self.own_file_system().pipe_file(self.path(name), data)
        else:
            temporary = self.temporary_name(name)
            with self.open_writer(temporary, len(data)) as file:
                file.write(data)
            self.rename(temporary, name)

    def create(
        self, name: str, data: bytes, *, is_free: bool = False, require: Callable[[], None] = lambda: None
    ) -> None:
        """Write a small file unless its name is taken, as atomically as the file system can.

        The caller reads it back: some stores ignore the condition, and others cannot express it.

        :param is_free: the caller has just seen that nobody has the name; a store that knows conditions is not asked.
        :param require: called right before the request that writes; may raise.
        :raises FileExistsError: when the name is taken.
        """
        path = self.path(name)
        if self.is_local:
            require()
            local_storage.create(path, data)
            return
        filesystem = self.own_file_system()
        condition = find_create_condition(type(filesystem)) if self._is_object_store else None
        if not (is_free and condition) and self.size(name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        require()
        if condition is not None:
            try:
                filesystem.pipe_file(path, data, **condition)
            except (NotImplementedError, OSError) as error:
                if not isinstance(error, NotImplementedError) and error.errno != errno.ENOSYS:
                    raise
            else:
                return
        self.write(name, data)

    def delete(self, name: str) -> None:
        """Delete a file; that it is not there is no error."""
        filesystem = self.own_file_system()
        try:
            filesystem.rm_file(self.path(name))
        except Exception as error:
            if not is_missing(error) or ftp.find_failure(error):
                raise

    def remove(self, names: Iterable[str]) -> None:
        """Remove files as far as that is possible and allowed; folders that are empty then go too.

        A storage that does not answer is asked once.
        """
        folders = set()
        for name in names:
            folders.add(name.rpartition("/")[0])
            try:
                self.own_file_system().rm_file(self.path(name))
            except Exception as error:  # noqa: BLE001 -- what is left is known as litter
                if translate_error(error, name) is None:
                    return
        for folder in folders:
            self.remove_folder(folder)

    def remove_incoming(self, prefix: str = "") -> None:
        """Remove what writers that died have left in ``incoming/``, and that folder, as far as that is possible."""
        if self.renames:
            with contextlib.suppress(Exception):
                self.remove([f"{INCOMING}/{name}" for name in self.list(INCOMING) if name.startswith(prefix)])
            self.remove_folder(INCOMING)

    def remove_folder(self, folder: str) -> None:
        """Remove a folder if it is there and empty, as far as that is allowed."""
        if not self._is_object_store:
            with contextlib.suppress(Exception):
                remove_folder(self.own_file_system(), self.path(folder))


def translate_error(error: BaseException, where: str) -> RocksDBError | None:
    """Return this package's error for what a file system raised, or None for a failure that another try may mend."""
    text = f"{where}: {type(error).__name__}: {error}"
    if isinstance(error, RocksDBError):
        return error
    if is_refusal(error):
        return AccessError(f"{text}; give this user, or these credentials, access")
    if is_missing(error) or isinstance(error, NotADirectoryError):
        return NotFoundError(f"{text}; does the bucket or directory exist?")
    if (isinstance(error, OSError) and error.errno in _NO_SPACE) or is_full(error):
        return NoSpaceError(f"{text}; free space there")
    if isinstance(error, (NotImplementedError, IsADirectoryError, *_WRONG_USE)):
        return InvalidArgumentError(f"{text}; the file system cannot do this as it is set up")
    return None


@contextlib.contextmanager
def translating(where: str) -> Iterator[None]:
    """Raise this package's error for a permanent one of the file system; let others through."""
    try:
        yield
    except Exception as error:
        named = translate_error(error, where)
        if named is None or named is error:
            raise
        raise named from error


@contextlib.contextmanager
def _telling_missing() -> Iterator[None]:
    """Raise FileNotFoundError for what is not there, and for nothing else, by whatever class a driver says it."""
    try:
        yield
    except Exception as error:
        if not is_missing(error) or is_refusal(error):
            raise
        failure = ftp.find_failure(error)
        if failure is not None:
            raise failure from None
        if isinstance(error, FileNotFoundError):
            raise
        raise FileNotFoundError(errno.ENOENT, str(error)) from error


def require_all(where: str, got: int, size: int | None) -> None:
    """Check that reading did not end early, as a connection may without an error.

    :raises OSError: so that it is tried again.
    """
    if size is not None and got < size:
        raise OSError(f"{where}: ended after {got} of {size} bytes")


def _part_bytes(size: int) -> int:
    mebibytes = -(-size // MAX_PARTS // 2**20)
    return max(_PART_BYTES, mebibytes * 2**20)
