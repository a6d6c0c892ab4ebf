"""Directories that a restore fills, each built aside and exchanged when it is whole; what died halfway is undone.

======  =================  ======================================  =====================================
kind    built as           gets its name                           the old one until then, and after
======  =================  ======================================  =====================================
beside  ``<root>.tmp``     at once (``renameat2``)                 ``<root>``, then ``<root>.tmp``
inside  ``.restore.tmp/``  entry by entry, for a directory that    ``<root>``, then ``.restore.old/``
        in ``<root>``      cannot be renamed: a mount point
======  =================  ======================================  =====================================

``restore.json`` lies in every directory that is being built, empty at first. Before the exchange it gets its content:
a random id, all roots of the restore, the old directory's inode. So a later run knows what is litter of a dead one, and
what of an exchange must be undone. It is removed last.

An exchange of more than one rename is covered by a CURRENT that no RocksDB opens (:data:`BLOCKED`). It is in the DB
directory before anything else is exchanged, and the real one, ``.restore.current``, replaces it after everything else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Sequence

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import BusyError, ExistsError
from airflow_provider_rocksdb.core.ownership import Ownership
from airflow_provider_rocksdb.core.restore_record import RECORD_NAME, Record, read_record

logger = logging.getLogger(__name__)

STAGING_NAME, OLD_NAME = ".restore.tmp", ".restore.old"
BLOCKED = b"A restore did not finish. Run it again: it puts the old database back first.\n"
REAL_CURRENT_NAME = ".restore.current"
OURS = frozenset([RECORD_NAME, REAL_CURRENT_NAME, STAGING_NAME, OLD_NAME])
KEPT = frozenset(["LOCK", "lost+found", ".checkpoints", STAGING_NAME, OLD_NAME])  # of a directory filled inside

_CURRENT = "CURRENT"


class Place:
    """A directory that is replaced as a whole: what is common to both kinds.

    :param root: the directory's real path; it need not be there.
    :param staging: where its successor is built.
    """

    kind = ""

    def __init__(self, root: str, staging: str) -> None:
        self.root = root
        self.staging = staging
        self.ownership = Ownership.of(root)
        self.exists = False  # there, and locked
        self._was_there = os.path.isdir(root)
        self.is_exchanged = False
        self._is_ours = False  # the staging place: locked, and litter or new
        self._locks: list[int] = []

    def lock(self) -> None:
        """Lock the directory and the place where its successor is built, and clear that of what a dead run has left.

        :raises BusyError: when another run holds it.
        :raises ExistsError: when something else has its name.
        """
        self.ownership.make_directory(os.path.dirname(self.staging))
        while True:
            self.lock_root()
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.staging, 0o700)
            if self._lock(self.staging):
                break
            self.unlock()
        self._check_litter()
        self._is_ours = True
        _empty(self.staging)
        with open(os.path.join(self.staging, RECORD_NAME), "xb"):
            pass
        self.ownership.give(self._locks[-1], self.ownership.directory_mode)

    def lock_root(self) -> None:
        """Lock the directory itself, if it is there by now and not locked yet."""
        while not self.exists and os.path.lexists(self.root):
            self.exists = self._lock(self.root)

    def _lock(self, path: str) -> bool:
        """Take a directory's flock; False when it is another directory by now."""
        if os.path.islink(path) or not os.path.isdir(path):
            if not os.path.lexists(path):
                return False
            raise ExistsError(f"{path}: is in the way, and is not a directory; move it away")
        try:
            descriptor = durable.lock_directory(path)
        except FileNotFoundError:
            return False
        except BusyError:
            raise BusyError(f"{path}: locked, another run is restoring; wait for it, or stop it") from None
        if not os.path.isdir(path) or os.stat(path).st_ino != os.fstat(descriptor).st_ino:
            os.close(descriptor)
            return False
        self._locks.append(descriptor)
        return True

    def unlock(self) -> None:
        """Let go of all locks."""
        self.exists = False
        while self._locks:
            os.close(self._locks.pop())

    def _check_litter(self) -> None:
        raise NotImplementedError

    def exchange(self, run_id: str, roots: Sequence[tuple[str, str]]) -> None:
        """Give what was built its name; what had it is kept until :meth:`finish`."""
        raise NotImplementedError

    def undo(self, run_id: str) -> None:
        """Put everything back that :meth:`exchange` of that run has moved; again and again, if need be."""
        raise NotImplementedError

    def finish(self) -> None:
        """Remove what was replaced, and the record."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Remove what was built, as far as possible; what is left is known as litter.

        Nothing after an exchange that was not undone: the old directory may be in that place.
        """
        if self._is_ours and not self.is_exchanged:
            self._clear()

    def _clear(self) -> None:
        with contextlib.suppress(OSError):
            _empty(self.staging)
            os.rmdir(self.staging)


class BesidePlace(Place):
    """A directory that is replaced by one rename."""

    kind = "beside"

    def __init__(self, root: str) -> None:
        super().__init__(root, root + ".tmp")

    def _check_litter(self) -> None:
        names = os.listdir(self.staging)
        if not names or RECORD_NAME in names:
            return
        record = read_record(self.root)  # of a run that died after its exchange: the old directory is under that name
        if record is None or record.old != _identity(self.staging):
            raise ExistsError(
                f"{self.staging}: is in the way, and is not what a restore that died has left (no {RECORD_NAME}); move "
                "it away"
            )

    def exchange(self, run_id: str, roots: Sequence[tuple[str, str]]) -> None:
        """Exchange the two directories."""
        record = Record(run_id, tuple(roots), _identity(self.root) if self.exists else None)
        durable.write_file(os.path.join(self.staging, RECORD_NAME), record.encode())
        self.is_exchanged = True
        self._swap()

    def undo(self, run_id: str) -> None:
        """Exchange them back."""
        record = read_record(self.root)
        if record is not None and record.id == run_id:
            self._swap(back=True)
        self.is_exchanged = False

    def _swap(self, *, back: bool = False) -> None:
        if os.path.isdir(self.staging) and os.path.isdir(self.root):
            durable.exchange_directories(self.staging, self.root)
        else:
            os.rename(*((self.root, self.staging) if back else (self.staging, self.root)))
        durable.fsync_directory(os.path.dirname(self.root))

    def finish(self) -> None:
        """Remove the old directory, then the record."""
        self._clear()
        if os.path.lexists(self.staging):
            logger.warning("%s: what was replaced could not be removed; the next restore removes it", self.staging)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.root, RECORD_NAME))
        durable.fsync_directory(self.root)


class InsidePlace(Place):
    """A directory that stays, and whose entries are replaced.

    :param kept: names in it that stay where they are, beside :data:`KEPT`.
    """

    kind = "inside"

    def __init__(self, root: str, kept: Iterable[str] = ()) -> None:
        super().__init__(root, os.path.join(root, STAGING_NAME))
        self.old = os.path.join(root, OLD_NAME)
        self.kept = KEPT | set(kept)

    def _check_litter(self) -> None:
        if not os.path.lexists(self.old):
            return
        if os.path.lexists(os.path.join(self.old, _CURRENT)) and is_blocked(self.root):
            raise ExistsError(
                f"{self.old}: holds the old database, and how it got there cannot be told (no {RECORD_NAME}); move its "
                f"files back to {self.root}, CURRENT last"
            )
        shutil.rmtree(self.old)

    def old_names(self) -> list[str]:
        """Entries that are to be replaced."""
        return sorted(set(os.listdir(self.root)) - self.kept)

    def exchange(self, run_id: str, roots: Sequence[tuple[str, str]]) -> None:
        """Move the old entries away and the new ones up; a DB directory's CURRENT is blocked first."""
        new = sorted(set(os.listdir(self.staging)) - {RECORD_NAME})
        old = self.old_names()
        record = Record(run_id, tuple(roots), None, tuple(new), tuple(old))
        durable.write_file(os.path.join(self.staging, RECORD_NAME), record.encode())
        self.is_exchanged = True
        os.mkdir(self.old, 0o700)
        if _CURRENT in new:
            if _CURRENT in old:
                copy = os.path.join(self.staging, REAL_CURRENT_NAME + ".old")
                with open(self._path(_CURRENT), "rb") as file:
                    self.ownership.write_file(copy, file.read())
                os.rename(copy, os.path.join(self.old, _CURRENT))  # whole from the first: undo puts it back
            durable.fsync_directory(self.old)
            os.replace(os.path.join(self.staging, _CURRENT), self._path(_CURRENT))
            durable.fsync_directory(self.root)
        for name in old:
            if name != _CURRENT:
                os.rename(self._path(name), os.path.join(self.old, name))
        for name in new:
            if name != _CURRENT:
                os.rename(os.path.join(self.staging, name), self._path(name))
        durable.fsync_directory(self.root)

    def undo(self, run_id: str) -> None:
        """Move the new entries down and the old ones back, CURRENT last."""
        record = read_record(self.staging)
        if record is None or record.id != run_id:
            self.is_exchanged = False
            return
        for name in record.new_names:
            staged = os.path.join(self.staging, name)
            if name != _CURRENT and not os.path.lexists(staged) and os.path.lexists(self._path(name)):
                os.rename(self._path(name), staged)
        for name in sorted(record.old_names, key=lambda name: name == _CURRENT):
            if os.path.lexists(os.path.join(self.old, name)):
                durable.fsync_directory(self.root)
                os.replace(os.path.join(self.old, name), self._path(name))
        if _CURRENT in record.new_names and _CURRENT not in record.old_names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(_CURRENT))
        durable.fsync_directory(self.root)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.old)
        self.is_exchanged = False

    def reclaimable_bytes(self) -> int:
        """Bytes that :meth:`empty` frees: what other names are linked to stays."""
        found = 0
        for name in self.old_names():
            for directory, _, names in os.walk(self._path(name)) if os.path.isdir(self._path(name)) else ():
                found += sum(_single_bytes(os.path.join(directory, inner)) for inner in names)
            found += _single_bytes(self._path(name))
        return found

    def empty(self) -> None:
        """Remove the old entries for good, to make room; a DB directory's CURRENT is blocked first, and stays so."""
        if os.path.lexists(self._path(_CURRENT)):
            blocked = os.path.join(self.staging, REAL_CURRENT_NAME)
            self.ownership.write_file(blocked, BLOCKED)
            os.replace(blocked, self._path(_CURRENT))
            durable.fsync_directory(self.root)
        for name in self.old_names():
            if name != _CURRENT:
                _remove(self._path(name))

    def abandon(self) -> None:
        """Remove what was built, and the directory itself if it was made for it."""
        super().abandon()
        if self._is_ours and not self._was_there and not self.is_exchanged:
            with contextlib.suppress(OSError):
                os.rmdir(self.root)

    def finish(self) -> None:
        """Remove the old entries and the place where the new ones were built."""
        shutil.rmtree(self.old, ignore_errors=True)
        self._clear()
        durable.fsync_directory(self.root)

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name)


def plan_places(db_dir: str, others: Iterable[str], *, inside: bool) -> list[Place]:
    """Tell which directories are replaced, and how: the DB directory first, none within another but mount points.

    :param db_dir, others: real paths.
    :param inside: build everything inside, also where a rename would do.
    """
    mounts = read_mount_points()
    roots: list[str] = []
    for directory in sorted({db_dir, *others}, key=lambda path: (path != db_dir, len(path))):
        parent = max((root for root in roots if contains(root, directory)), key=len, default=None)
        if parent is None or any(m != parent and contains(parent, m) and contains(m, directory) for m in mounts):
            roots.append(directory)
    places: list[Place] = []
    for root in roots:
        if inside or any(contains(root, mount) for mount in mounts):
            kept = [os.path.relpath(other, root).partition("/")[0] for other in roots if contains(root, other)]
            places.append(InsidePlace(root, set(kept) - {"."}))
        else:
            places.append(BesidePlace(root))
    return places


def undo_unfinished(db_dir: str) -> bool:
    """Put back what a run that died in the middle of an exchange has moved; True when there was such a one.

    :raises BusyError: when that run is not dead.
    """
    if not is_blocked(db_dir):
        return False
    descriptor = durable.lock_directory(db_dir)
    try:
        record = read_record(os.path.join(db_dir, STAGING_NAME)) or read_record(db_dir)
        if record is None:  # of a restore in place, which has emptied the directory first
            return False
        for root, kind in reversed(record.roots):
            place = InsidePlace(root) if kind == InsidePlace.kind else BesidePlace(root)
            place.undo(record.id)
    finally:
        os.close(descriptor)
    return True


def is_blocked(db_dir: str) -> bool:
    """Whether a DB directory's CURRENT is the one that no RocksDB opens."""
    try:
        with open(os.path.join(db_dir, _CURRENT), "rb") as file:
            return file.read(len(BLOCKED) + 1) == BLOCKED
    except FileNotFoundError:
        return False


def read_mount_points() -> list[str]:
    """Mount points that this process sees."""
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    for code, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        fields = [field.replace(code, character) for field in fields]
    return [os.fsdecode(field) for field in fields]


def contains(parent: str, child: str) -> bool:
    """Whether a path is, or lies below, another."""
    return child == parent or child.startswith(parent.rstrip("/") + "/")


def _single_bytes(path: str) -> int:
    status = os.lstat(path)
    return status.st_blocks * 512 if status.st_nlink == 1 and stat.S_ISREG(status.st_mode) else 0


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _empty(directory: str) -> None:
    """Remove what is in a directory, the record last: when this dies, the rest is still known as litter."""
    names = os.listdir(directory)
    for name in sorted(names, key=lambda name: name == RECORD_NAME):
        _remove(os.path.join(directory, name))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
