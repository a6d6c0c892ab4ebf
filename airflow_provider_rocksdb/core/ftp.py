"""Files on FTP as plain streams: one RETR or STOR for each, from its beginning, or an offset, to its end.

fsspec's own file object ends a transfer with ABOR after every block and waits for two answers, which not every server
gives, and writes large files with REST and STOR, which not every server takes. A stream asks for neither.
"""

from __future__ import annotations

import contextlib
import ftplib
import ssl
from collections.abc import Iterator
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.ftp import FTPFileSystem

from airflow_provider_rocksdb.core.driver_errors import FTP_NOT_THERE, is_refusal


def is_ftp(filesystem: AbstractFileSystem) -> bool:
    """Whether files are to be opened here."""
    return isinstance(filesystem, FTPFileSystem)


class Stream:
    """One transfer. It must be closed before anything else is asked over the connection."""

    def __init__(self, ftp: ftplib.FTP, command: str, offset: int | None = None) -> None:
        self._ftp = ftp
        ftp.voidcmd("TYPE I")
        self._socket = ftp.transfercmd(command, offset or None)
        self._file = self._socket.makefile("rb")

    def read(self, length: int = -1) -> bytes:
        """Return so many bytes, or fewer at the end."""
        return self._file.read(length)

    def write(self, data: Any) -> int:
        """Send all of it."""
        self._socket.sendall(data)
        return len(data)

    def close(self) -> None:
        """End the transfer; the server must say that all went well."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.unwrap()
        self._close_socket()
        self._ftp.voidresp()

    def discard(self) -> None:
        """End the transfer early; whatever the server says is right."""
        self._close_socket()
        with contextlib.suppress(ftplib.Error, EOFError):
            self._ftp.voidresp()

    def _close_socket(self) -> None:
        self._file.close()
        self._socket.close()


def open_stream(filesystem: FTPFileSystem, path: str, *, offset: int | None = None, write: bool = False) -> Stream:
    """Open a file for reading from ``offset`` on, or for writing anew.

    :raises FileNotFoundError: when there is none to read.
    """
    path = filesystem._strip_protocol(path)
    try:
        return Stream(filesystem.ftp, f"{'STOR' if write else 'RETR'} {path}", offset)
    except ftplib.error_perm as error:
        if not write and str(error).startswith(FTP_NOT_THERE):
            raise FileNotFoundError(path) from error
        raise


@contextlib.contextmanager
def open_reader(filesystem: FTPFileSystem, path: str, offset: int = 0) -> Iterator[Stream]:
    """Open a file for reading it once, from ``offset`` on, as far as the caller likes."""
    stream = open_stream(filesystem, path, offset=offset)
    try:
        yield stream
    finally:
        stream.discard()


def read_range(filesystem: FTPFileSystem, path: str, offset: int, length: int) -> bytes:
    """Read a part of a file."""
    with open_reader(filesystem, path, offset) as stream:
        return stream.read(length)


def find_failure(error: BaseException) -> BaseException | None:
    """Return why a file "is not there": what the server said, unless that was just this. None: it is not there.

    fsspec's driver turns whatever goes wrong with a listing into FileNotFoundError.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ftplib.Error) and (is_refusal(seen) or not str(seen).startswith(FTP_NOT_THERE)):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
