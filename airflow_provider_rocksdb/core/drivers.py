"""What a driver of a file system can do atomically, and how it is asked to.

``mv`` of fsspec's base class copies and removes; so it does not count. A driver that renames says so by a method of its
own, and two of them hide it:

===========  ===========================================================================================
webdav4      its ``mv`` copies and removes single files too; its client's ``move`` is WebDAV's MOVE
sshfs        only the coroutine ``_mv`` renames (``posix-rename@openssh.com``); where the server has not
             got that, it runs ``cp`` there; and only ``_rmdir`` removes a folder: its ``rmdir`` does nothing
===========  ===========================================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem, sync

Move = Callable[[AbstractFileSystem, str, str], None]


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
