"""A checkpoint directory of ours: how it is built, and when it may be deleted.

``checkpoint.json`` lies in every checkpoint that this package makes: where it comes from, every file with its size and
how it got there, the WALs. A checkpoint is built as ``<checkpoint_dir>.tmp`` under a flock on that directory, and gets
its name when it is whole and on disk. An unlocked ``.tmp`` with our record in it, or marked as unfinished, is litter of
a run that died.

The mark is the first file in the directory, and goes when all of it is on disk, the record's content, too. The names
are waited for before any content, and file systems keep the order in which they were made (ext4, XFS and btrfs do): so
whatever a power cut leaves is known as litter. Where one did not, the next run would refuse it, not delete it. A mark
that such a cut brings back into a checkpoint that has its name is an empty file, and nothing minds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.checkpoint_record import (
    RECORD_NAME,
    Checkpoint,
    is_unchanged,
    read_checkpoint,
)
from airflow_provider_rocksdb.core.errors import (
    BusyError,
    CorruptionError,
    ExistsError,
    InvalidArgumentError,
    NotFoundError,
)
from airflow_provider_rocksdb.core.paths import DatabasePaths

_UNFINISHED = f".{RECORD_NAME}.unfinished"


@dataclass
class Building:
    """A checkpoint being built in ``directory``; set ``checkpoint`` when every other file is there.

    :param descriptor: the open directory.
    :param files: what is created in these is durable when the checkpoint gets its name.
    """

    directory: str
    descriptor: int
    files: durable.NewFiles
    checkpoint: Checkpoint | None = None
    current: bytes = b""

    def path(self, name: str) -> str:
        """Path of a file in it."""
        return f"{self.directory}/{name}"

    def names(self) -> list[str]:
        """Names of what the caller has put there."""
        return sorted(set(os.listdir(self.directory)) - {RECORD_NAME, _UNFINISHED})


@contextlib.contextmanager
def building(
    checkpoint_dir: str, paths: DatabasePaths, *, replace: bool, force: bool, allow_inside: bool
) -> Iterator[Building]:
    """Build a checkpoint: yield its temporary directory, and give it its name when the block ends well.

    The caller fills the directory, fsyncs what it writes outside of ``files``, and sets ``checkpoint`` and ``current``
    (CURRENT's content); those two files are written here, last.

    :raises ExistsError: when the name is taken, and may not be replaced.
    :raises InvalidArgumentError: when the place is unsafe.
    :raises BusyError: when another run is building the same checkpoint.
    """
    checkpoint_dir = os.path.abspath(checkpoint_dir)
    _check_place(checkpoint_dir, paths, allow_inside=allow_inside)
    _check_replaceable(checkpoint_dir, replace=replace, force=force)
    parent = os.path.dirname(checkpoint_dir)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    temporary = checkpoint_dir + ".tmp"
    descriptor = _lock_temporary(temporary, force=force)
    try:
        _create_empty(descriptor, _UNFINISHED)
        with durable.NewFiles() as files:
            work = Building(temporary, descriptor, files)
            yield work
            if work.checkpoint is None:
                raise AssertionError("the block must set the checkpoint")
            files.create(work.path(RECORD_NAME), work.checkpoint.to_json())
            files.create(work.path("CURRENT"), work.current)
            files.sync(descriptor)
        os.unlink(_UNFINISHED, dir_fd=descriptor)
        # locked until it is gone: under the temporary name it would be another run's litter
        with _locked_old(checkpoint_dir) as old:
            _check_replaceable(checkpoint_dir, replace=replace, force=force)
            if old is not None:
                _check_content(old, checkpoint_dir, force=force)
                durable.exchange_directories(temporary, checkpoint_dir)
                durable.fsync_directory(parent)
                _remove_tree(old, temporary)
            else:
                os.rename(temporary, checkpoint_dir)
        durable.fsync_directory(parent)
    except BaseException:
        _remove_tree(descriptor, temporary)
        raise
    finally:
        os.close(descriptor)


def _lock_temporary(temporary: str, *, force: bool) -> int:
    """Create the temporary directory, or clear what a dead run left there, and lock it."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(temporary, 0o700)
        try:
            descriptor = durable.lock_directory(temporary)
        except FileNotFoundError:
            continue
        except NotADirectoryError:  # a link is none either
            raise ExistsError(f"{temporary}: is in the way, and is not a directory; move it away") from None
        try:
            if _is_same(descriptor, temporary):
                names = os.listdir(descriptor)
                if names:
                    _check_litter(descriptor, names, temporary, force=force)
                    _empty(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextlib.contextmanager
def _locked_old(checkpoint_dir: str) -> Iterator[int | None]:
    """Hold the flock of a checkpoint that is there, while it is replaced or deleted; yield the descriptor, if any.

    :raises BusyError: when another run is doing that.
    """
    while True:
        try:
            descriptor = durable.lock_directory(checkpoint_dir)
        except FileNotFoundError:
            yield None
            return
        try:
            if _is_same(descriptor, checkpoint_dir):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_same(descriptor: int, path: str) -> bool:
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _check_litter(descriptor: int, names: list[str], temporary: str, *, force: bool) -> None:
    if "LOCK" not in names and (_UNFINISHED in names or (RECORD_NAME in names and _has_own_record(temporary))):
        return
    if force:  # a foreign checkpoint that a run was replacing by force when it died
        _check_content(descriptor, temporary, force=True)
        return
    raise ExistsError(
        f"{temporary}: is in the way, and is not what a run that died has left (no {RECORD_NAME}, or a database's "
        "LOCK in it); move it away"
    )


def _has_own_record(directory: str) -> bool:
    """Whether what is called like our record is one, or the empty one of a checkpoint being built."""
    try:
        read_checkpoint(directory)
    except CorruptionError:
        return False
    return True


def _create_record(directory: int) -> None:
    """Create an empty record in a directory, by which it is known as litter."""
    _create_empty(directory, RECORD_NAME)
    os.fsync(directory)


def _create_empty(directory: int, name: str) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory))


def _empty(directory: int) -> None:
    """Remove what is in a directory, record and mark last: when this dies, too, the rest is still known as litter.

    By its descriptor alone: whatever takes its name meanwhile is not touched.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink("LOCK", dir_fd=directory)
    names = os.listdir(directory)
    if names and RECORD_NAME not in names and _UNFINISHED not in names:
        _create_record(directory)
        names.append(RECORD_NAME)
    for name in sorted(names, key=lambda name: (name == _UNFINISHED, name == RECORD_NAME)):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _remove_tree(descriptor: int, path: str) -> None:
    """Remove a directory as far as possible, if that is its name still; what is left is known as litter."""
    with contextlib.suppress(OSError):
        if _is_same(descriptor, path):
            _empty(descriptor)
            os.rmdir(path)


def _check_place(checkpoint_dir: str, paths: DatabasePaths, *, allow_inside: bool) -> None:
    target = os.path.realpath(checkpoint_dir)
    for directory in paths.all_dirs():
        source = os.path.realpath(directory)
        if _contains(target, source):
            raise InvalidArgumentError(f"{checkpoint_dir}: is the database's directory {directory}, or a parent of it")
        if _contains(source, target) and not allow_inside:
            raise InvalidArgumentError(
                f"{checkpoint_dir}: lies inside the database's directory {directory}; name a place beside it on the "
                "same file system, or allow this one expressly (allow_inside)"
            )


def _contains(parent: str, child: str) -> bool:
    return child == parent or child.startswith(parent.rstrip("/") + "/")


def _check_replaceable(checkpoint_dir: str, *, replace: bool, force: bool) -> None:
    if not os.path.lexists(checkpoint_dir):
        return
    if not replace:
        raise ExistsError(f"{checkpoint_dir}: is already there; delete it, name another place, or allow replace")
    check_deletable(checkpoint_dir, force=force)


def check_deletable(checkpoint_dir: str, *, force: bool = False) -> None:
    """Check that a directory is a checkpoint that may go: with our record, and as that record says.

    :param force: accept a checkpoint without our record; never one with a LOCK, which is a database.
    :raises InvalidArgumentError: when it may not; the message says why.
    :raises BusyError: when a process has it open.
    """
    path = os.path.abspath(checkpoint_dir)
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):  # a link is none either
            raise InvalidArgumentError(f"{checkpoint_dir}: is not deleted: it is not a directory") from None
        try:
            _check_content(descriptor, checkpoint_dir, force=force)
            return
        except InvalidArgumentError:
            if _is_same(descriptor, path):
                raise  # else another run has replaced it meanwhile, and this one was being removed
        finally:
            os.close(descriptor)


def _check_content(descriptor: int, checkpoint_dir: str, *, force: bool) -> None:
    """Check an open directory: what has its name meanwhile does not matter."""
    path = f"/proc/self/fd/{descriptor}"
    refusal = f"{checkpoint_dir}: is not deleted: "
    real, home = os.path.realpath(path), os.path.realpath(os.path.expanduser("~"))
    if real in ("/", home) or _contains(real, os.getcwd()):
        raise InvalidArgumentError(f"{refusal}it is the root, a home or the working directory, or a parent of it")
    owner = durable.lock_owner(os.path.join(path, "LOCK"))
    if owner is not None:
        raise BusyError(f"{refusal}process {owner or '(not visible here)'} has it open as a database")
    names = set(os.listdir(descriptor))
    if any(os.path.isdir(os.path.join(path, name)) for name in names):
        raise InvalidArgumentError(f"{refusal}it has subdirectories, which no checkpoint has")
    checkpoint = read_checkpoint(path)
    if checkpoint is None or not is_unchanged(path, checkpoint):
        missing = (
            f"no {RECORD_NAME}" if checkpoint is None else f"CURRENT or MANIFEST are not those of its {RECORD_NAME}"
        )
        if "LOCK" in names:
            raise InvalidArgumentError(f"{refusal}{missing}, and a LOCK: a program has used it as a database")
        if not force:
            raise InvalidArgumentError(f"{refusal}{missing}: it was not made here, or was changed since (force)")
        if "CURRENT" not in names:
            raise InvalidArgumentError(f"{refusal}{missing} and no CURRENT: it is not a checkpoint at all")


def delete_checkpoint(checkpoint_dir: str, *, force: bool = False) -> bool:
    """Delete a checkpoint of ours, and what a dead run has left of it. Its name is gone first, at once.

    :param force: delete a checkpoint that has no record of ours, too.
    :returns: whether there was anything.
    :raises InvalidArgumentError: when the directory may not be deleted; nothing was touched.
    :raises BusyError: when it is being built or is open as a database.
    """
    path = os.path.abspath(checkpoint_dir)
    temporary = path + ".tmp"
    found = False
    with durable.named_errors():
        if os.path.lexists(temporary):
            descriptor = _lock_temporary(temporary, force=force)
            found = True
            _remove_tree(descriptor, temporary)
            os.close(descriptor)
        if os.path.lexists(path):
            check_deletable(path, force=force)
            with _locked_old(path) as descriptor_of_old:
                if descriptor_of_old is not None:
                    _delete(descriptor_of_old, path, temporary, force=force)
                    found = True
    return found


def _delete(descriptor: int, path: str, temporary: str, *, force: bool) -> None:
    _check_content(descriptor, path, force=force)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("LOCK", dir_fd=descriptor)
    with contextlib.suppress(FileExistsError):
        _create_record(descriptor)
    try:
        os.rename(path, temporary)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise BusyError(
            f"{temporary}: another run is building a checkpoint of that name; wait for it, or stop it"
        ) from None
    if not _is_same(descriptor, temporary):
        os.rename(temporary, path)
        raise BusyError(f"{path}: was replaced by something else while it was being deleted; that was not touched")
    _empty(descriptor)
    os.rmdir(temporary)


def require_checkpoint_here(checkpoint_dir: str, made_on: str | None = None) -> None:
    """Check that a checkpoint directory can be seen from this host.

    :param made_on: the host that made it, when known.
    :raises NotFoundError: naming both hosts.
    """
    if os.path.isdir(checkpoint_dir):
        return
    here = socket.gethostname()
    if made_on is None or made_on == here:
        raise NotFoundError(f"{checkpoint_dir}: no such directory on host {here}")
    raise NotFoundError(
        f"{checkpoint_dir}: was made on host {made_on}, and is not visible on host {here}; run both tasks on the same "
        "worker (the same queue), or put the checkpoint on storage that both hosts mount"
    )
