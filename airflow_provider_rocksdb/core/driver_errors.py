"""What the drivers of file systems raise, told apart: each has classes and texts of its own.

====================  ==================================================================================
driver                a refusal
====================  ==================================================================================
local, s3fs           PermissionError, EROFS; missing credentials by class
adlfs                 ClientAuthenticationError, or HttpResponseError with ``status_code`` 401 or 403
gcsfs                 HttpError with ``code`` 401; for 403 an OSError whose text begins with "Forbidden"
webdav4               HTTPError with ``status_code`` 401 or 403; ForbiddenOperation
paramiko, sshfs       AuthenticationException, PermissionDenied, SFTPPermissionDenied, host keys by class
ftplib                error_perm "530 …", and "550 …" with a text that says so
====================  ==================================================================================
"""

from __future__ import annotations

import ftplib
import re
from typing import Any

# of these drivers, what is not PermissionError's subclass: by name, for no driver is imported here
_REFUSALS = {
    "AuthenticationException",
    "BadHostKeyException",
    "ClientAuthenticationError",
    "DefaultCredentialsError",
    "ForbiddenOperation",
    "HostKeyNotVerifiable",
    "NoCredentialsError",
    "PartialCredentialsError",
    "PermissionDenied",
    "RefreshError",
    "SFTPPermissionDenied",
    "SFTPWriteProtect",
}
_MISSING = {"ResourceNotFound", "ResourceNotFoundError", "SFTPNoSuchFile", "SFTPNoSuchPath"}
_FULL = {"InsufficientStorage", "SFTPNoSpaceOnFilesystem", "SFTPQuotaExceeded"}
_DENIED = (401, 403)
_READ_ONLY = re.compile("read.only file ?system")  # EROFS, and what SFTP and FTP servers make of it
FTP_NOT_THERE = ("550", "551")  # 550 is also "no access", for which RFC 959 has no code; 551 is rclone's
_FTP_NOT_LOGGED_IN = ("530", "532")
_FTP_FULL = ("452", "552")


def is_refusal(error: BaseException) -> bool:
    """Whether somebody is not allowed to do this, or not who he says."""
    if isinstance(error, PermissionError) or _is_one_of(error, _REFUSALS) or _status(error) in _DENIED:
        return True
    text = str(error).lower()
    if _READ_ONLY.search(text):
        return True
    if isinstance(error, ftplib.error_perm):
        return text.startswith(_FTP_NOT_LOGGED_IN) or "permission" in text or "denied" in text
    return isinstance(error, OSError) and error.errno is None and text.startswith("forbidden: ")


def is_missing(error: BaseException) -> bool:
    """Whether something is not there that must be."""
    if isinstance(error, FileNotFoundError) or _is_one_of(error, _MISSING):
        return True
    return isinstance(error, ftplib.error_perm) and str(error).startswith(FTP_NOT_THERE)


def is_full(error: BaseException) -> bool:
    """Whether there is no room."""
    return _is_one_of(error, _FULL) or (isinstance(error, ftplib.Error) and str(error).startswith(_FTP_FULL))


def _is_one_of(error: BaseException, names: set[str]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """HTTP status, as each client calls it."""
    holders: list[Any] = [error, getattr(error, "response", None)]
    for holder in holders:
        for name in ("status_code", "code", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
                return int(value)
    return None
