"""What a driver of a file system can do atomically, and how it is asked to.

``mv`` of fsspec's base class copies and removes; so it does not count. A driver that renames says so by a method of its
own, and two of them hide it:

===========  ===========================================================================================
webdav4      its ``mv`` copies and removes single files too; its client's ``move`` is WebDAV's MOVE
sshfs        only the coroutine ``_mv`` renames (``posix-rename@openssh.com``); where the server has not
             got that, it runs ``cp`` there; and only ``_rmdir`` removes a folder: its ``rmdir`` does nothing
===========  ===========================================================================================

Every call on a network ends in a limited time. These drivers do that by themselves: s3fs (5 s to connect, 15 s without
a byte), adlfs (20 and 60), ftp (30). The others get limits from here: gcsfs waits for ever; so does sshfs for an SFTP
server that hangs while its SSH server goes on answering, and asyncssh has no option for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.registry import get_filesystem_class

Move = Callable[[AbstractFileSystem, str, str], None]

_CONNECT_SECONDS = 20
SILENCE_SECONDS = 60
MAX_PARTS = 9000  # of one upload; S3 allows 10,000
_TIMES = ("mtime", "LastModified", "last_modified", "modified", "modify", "updated", "created")
_S3FS_RETRIES = 5  # unless somebody has set another number
_AZURE_RETRIES = 3  # likewise
_TIMEOUTS: dict[str, dict[str, int]] = {
    "GCSFileSystem": {"requests_timeout": 300},  # for a whole request: a part of 8 MiB on a slow line
    "SFTPFileSystem": {"timeout": _CONNECT_SECONDS},
    "SSHFileSystem": {"connect_timeout": _CONNECT_SECONDS, "login_timeout": SILENCE_SECONDS, "keepalive_interval": 15},
    "WebdavFileSystem": {"timeout": SILENCE_SECONDS},  # httpx has 5 s, in which a large file is not put away
}


def default_timeouts(scheme: str) -> dict[str, int]:
    """Return the options that limit how long a scheme's driver waits, where it has no limits by itself.

    :raises ImportError: when the driver is not installed.
    """
    try:
        kind = get_filesystem_class(scheme)
    except ValueError:
        return {}  # not fsspec's; perhaps Airflow's
    return next((dict(_TIMEOUTS[base.__name__]) for base in kind.__mro__ if base.__name__ in _TIMEOUTS), {})


def limit_waiting(filesystem: Any) -> None:
    """Limit how long a file system waits for an answer, and how often it asks again, where its driver does not.

    What a user has set is left alone. s3fs tries five times what botocore has tried five times, and Azure's client four
    times, with pauses of 15 s and more; callers try again, too.
    """
    if _is_one_of(filesystem, "SFTPFileSystem"):
        with contextlib.suppress(Exception):  # a connection that is closed already says so at its next use
            channel = filesystem.ftp.get_channel()
            if channel.gettimeout() is None:
                channel.settimeout(SILENCE_SECONDS)
    elif is_s3(filesystem):
        filesystem.retries = 1 if filesystem.retries == _S3FS_RETRIES else filesystem.retries
    elif _is_one_of(filesystem, "AzureBlobFileSystem"):
        policy = filesystem.service_client._config.retry_policy
        policy.total_retries = 0 if policy.total_retries == _AZURE_RETRIES else policy.total_retries
    elif _is_one_of(filesystem, "SSHFileSystem") and "_maybe_new_channel" not in vars(filesystem._pool):
        filesystem._pool._maybe_new_channel = partial(_make_channel, filesystem._pool._maybe_new_channel)


def is_s3(filesystem: Any) -> bool:
    """Whether it is S3 by s3fs."""
    return _is_one_of(filesystem, "S3FileSystem")


def limit_options(filesystem: Any) -> dict[str, int]:
    """Return options for another file system like this one, so that connecting has a limit, too."""
    paramiko = _is_one_of(filesystem, "SFTPFileSystem")
    return {"timeout": _CONNECT_SECONDS, "channel_timeout": SILENCE_SECONDS} if paramiko else {}


def _is_one_of(filesystem: Any, name: str) -> bool:
    return any(base.__name__ == name for base in type(filesystem).__mro__)


async def _make_channel(make: Callable[[], Awaitable[Any]]) -> Any:
    """Open a channel of sshfs, on which no request waits when none has been answered for some time.

    :raises TimeoutError: when it cannot be opened in that time.
    """
    channel = await asyncio.wait_for(make(), SILENCE_SECONDS)
    if channel is None:
        return None
    request, answered = channel._handler._make_request, 0

    async def limited(*arguments: Any) -> Any:
        nonlocal answered
        task = asyncio.ensure_future(request(*arguments))
        try:
            while True:
                before = answered
                if (await asyncio.wait({task}, timeout=SILENCE_SECONDS))[0]:
                    answered += 1
                    return task.result()
                if answered == before:
                    raise TimeoutError(f"the SFTP server has answered nothing for {SILENCE_SECONDS} s")
        finally:
            task.cancel()

    channel._handler._make_request = limited
    return channel


def find_move(kind: type[AbstractFileSystem]) -> Move | None:
    """Return how a kind of file system renames a file, perhaps over another one; None where it cannot."""
    if any(base.__name__ == "WebdavFileSystem" for base in kind.__mro__):
        return _move_by_webdav
    if issubclass(kind, AsyncFileSystem):
        return _move_by_coroutine if hasattr(kind, "_mv") else None
    return _move if kind.mv is not AbstractFileSystem.mv else None


def find_create_condition(kind: type[AbstractFileSystem]) -> dict[str, Any] | None:
    """Return the arguments with which ``pipe_file`` creates an object and never replaces one; None: it has none."""
    method = getattr(kind, "_pipe_file" if issubclass(kind, AsyncFileSystem) else "pipe_file")
    parameters = inspect.signature(method).parameters
    if "mode" in parameters:
        return {"mode": "create"}
    return {"overwrite": False} if "overwrite" in parameters else None


def find_read_options(kind: type[AbstractFileSystem]) -> dict[str, Any]:
    """Return the arguments with which s3fs's ``cat_file`` reads by one request: by itself, it asks for the size first.

    Its older versions do not, and have none.
    """
    return {"max_concurrency": 1} if "max_concurrency" in inspect.signature(kind._cat_file).parameters else {}


def read_time(entry: Mapping[str, Any]) -> float | None:
    """Time of the last write in what a driver lists, by each driver's name for it."""
    value = next((entry[name] for name in _TIMES if entry.get(name)), None)
    if isinstance(value, str):
        try:
            value = datetime.strptime(value[:14], "%Y%m%d%H%M%S")  # noqa: DTZ007 -- FTP's (RFC 3659), in UTC
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None


def has_own_find(kind: type[AbstractFileSystem]) -> bool:
    """Whether a kind of file system lists trees itself, and not folder by folder."""
    if issubclass(kind, AsyncFileSystem):
        return kind._find is not AsyncFileSystem._find
    return kind.find is not AbstractFileSystem.find


def discard(file: Any) -> None:
    """Close a half-written file without completing it: a buffered one would else upload what it has."""
    if hasattr(file, "discard"):
        with contextlib.suppress(Exception):
            file.discard()
        with contextlib.suppress(Exception):
            file.closed = True
    if not getattr(file, "closed", True):
        with contextlib.suppress(Exception):
            file.close()


def make_folder(filesystem: AbstractFileSystem, path: str) -> None:
    """Create a folder and its parents; what fails is said as the server says it, which no ``makedirs`` does."""
    if filesystem.isdir(path):
        return
    parent = filesystem._parent(path)
    if parent not in ("", "/", path):
        make_folder(filesystem, parent)
    try:
        filesystem.mkdir(path, create_parents=False)
    except Exception:
        filesystem.invalidate_cache()
        if not filesystem.isdir(path):  # nobody else has made it meanwhile
            raise


def remove_folder(filesystem: AbstractFileSystem, path: str) -> None:
    """Remove an empty folder."""
    if type(filesystem).rmdir is AbstractFileSystem.rmdir and hasattr(filesystem, "_rmdir"):
        sync(filesystem.loop, filesystem._rmdir, path)
    else:
        filesystem.rmdir(path)


def _move(filesystem: AbstractFileSystem, source: str, target: str) -> None:
    filesystem.mv(source, target)


def _move_by_webdav(filesystem: Any, source: str, target: str) -> None:
    filesystem.client.move(source, target, overwrite=True)


def _move_by_coroutine(filesystem: Any, source: str, target: str) -> None:
    sync(filesystem.loop, filesystem._mv, source, target)
