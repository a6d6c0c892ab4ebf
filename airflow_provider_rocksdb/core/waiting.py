"""How long a driver waits for a server that does not answer, and how often it asks again by itself.

===========  ===================================================  ================================================
driver       by itself                                            here
===========  ===================================================  ================================================
s3fs         15 s for an answer, 5 tries of botocore's, and those  those of botocore's; the caller has its own
             5 times
paramiko     without end; an hour for a new channel               ``SECONDS`` for both
sshfs        without end                                          as it is
FTP          30 s (``timeout``)                                   as it is
WebDAV       5 s (``timeout``)                                    as it is
===========  ===================================================  ================================================

What a user has set is left alone.
"""

from __future__ import annotations

import contextlib
from typing import Any

SECONDS = 60.0

_SFTP = ("sftp", "ssh")
_S3FS_RETRIES = 5


def limit_waiting(filesystem: Any) -> None:
    """Give a file system that waits without end, or asks too often, a limit."""
    if _has_protocol(filesystem, _SFTP) and hasattr(filesystem, "ftp"):
        with contextlib.suppress(Exception):  # a connection that is closed already says so at its next use
            channel = filesystem.ftp.get_channel()
            if channel.gettimeout() is None:
                channel.settimeout(SECONDS)
    if _has_protocol(filesystem, ("s3",)) and getattr(filesystem, "retries", None) == _S3FS_RETRIES:
        filesystem.retries = 1


def limit_options(filesystem: Any) -> dict[str, Any]:
    """Return options for another file system like this one, so that connecting has a limit, too."""
    if _has_protocol(filesystem, _SFTP) and hasattr(filesystem, "ssh_kwargs"):
        return {"timeout": SECONDS, "channel_timeout": SECONDS}
    return {}


def _has_protocol(filesystem: Any, names: tuple[str, ...]) -> bool:
    protocol = filesystem.protocol
    return bool({protocol} & set(names)) if isinstance(protocol, str) else bool(set(protocol) & set(names))
