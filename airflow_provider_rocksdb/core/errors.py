"""Every error that this package raises on purpose.

::

    RocksDBError
    ├── CorruptionError (ValueError)            bytes are not what their format says
    ├── NotSupportedError (ValueError)          legal RocksDB that this package cannot back up or read
    ├── InvalidArgumentError (ValueError)       the caller asked for something impossible or unsafe
    ├── NotADatabaseError (ValueError)          the directory holds no RocksDB database
    ├── IncompleteError (ValueError)            something a whole database needs is not there (yet)
    ├── CouldNotCheckError (RuntimeError)       a check could not be made; never a success
    ├── RepositoryMismatchError (ValueError)    the backup repository belongs to another database
    ├── NotFoundError (FileNotFoundError)
    ├── ExistsError (FileExistsError)
    ├── AccessError (PermissionError)
    ├── CrossDeviceError (OSError)              hard links cannot reach the target's file system
    ├── NoSpaceError (OSError)                  transient
    ├── BusyError (BlockingIOError)             transient: another run, or the owner, holds the lock
    ├── CheckpointTimeoutError (TimeoutError)   transient: the database moved on faster than it could be captured
    ├── TransferError (OSError)                 transient: storage kept failing
    └── CancelledError (RuntimeError)           the caller asked to stop

``transient`` says whether the same call may succeed later without anybody changing anything: a scheduler should spend
its retries on those alone.
"""

from __future__ import annotations

from typing import ClassVar


class RocksDBError(Exception):
    """Root of every error that this package raises on purpose."""

    transient: ClassVar[bool] = False


class CorruptionError(RocksDBError, ValueError):
    """Bytes are not what their format says: damage, truncation or hostile input."""


class NotSupportedError(RocksDBError, ValueError):
    """Legal RocksDB that this package cannot back up or read."""


class InvalidArgumentError(RocksDBError, ValueError):
    """The caller asked for something impossible or unsafe."""


class NotADatabaseError(RocksDBError, ValueError):
    """The directory holds no RocksDB database."""


class IncompleteError(RocksDBError, ValueError):
    """Something that a whole database needs is not there, or not there yet."""


class CouldNotCheckError(RocksDBError, RuntimeError):
    """A check could not be made. This is never a success."""


class RepositoryMismatchError(RocksDBError, ValueError):
    """The backup repository belongs to another database, or to another course of this one."""


class NotFoundError(RocksDBError, FileNotFoundError):
    """A file or directory that must be there is not."""


class ExistsError(RocksDBError, FileExistsError):
    """The target is already there, and nobody allowed to replace it."""


class AccessError(RocksDBError, PermissionError):
    """The operating system or the storage refuses access."""


class CrossDeviceError(RocksDBError, OSError):
    """Neither a hard link nor a reflink reaches from the source to the target."""


class NoSpaceError(RocksDBError, OSError):
    """The target's file system has too little free space."""

    transient = True


class BusyError(RocksDBError, BlockingIOError):
    """Somebody else holds the lock: another run, or the process that has the database open."""

    transient = True


class CheckpointTimeoutError(RocksDBError, TimeoutError):
    """The database moved on faster than it could be captured within the time limit."""

    transient = True


class TransferError(RocksDBError, OSError):
    """Storage kept failing after every retry."""

    transient = True


class CancelledError(RocksDBError, RuntimeError):
    """The caller asked to stop; nothing was committed."""
