"""A new file on any fsspec file system that has its name only when it is whole."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.archive_reader import archive_url, open_folder
from airflow_provider_rocksdb.core.storage import translating
from airflow_provider_rocksdb.core.transfer import write_all

_SIZE_HINT_BYTES = 0  # not known: parts of 8 MiB, of which a store takes 10,000


@contextlib.contextmanager
def open_output(filesystem: AbstractFileSystem, path: str) -> Iterator[io.RawIOBase]:
    """Open a file for writing it from its beginning to its end; it replaces one of that name when the block ends well.

    Unless it does, nothing stays, and what had the name has it still. A process that is killed leaves at most a file in
    the folder ``incoming/`` beside it, which the next that writes the same file removes. At most 78 GiB go into an
    object store.

    :raises AccessError, NotFoundError, NoSpaceError, TransferError: when the storage fails.
    """
    storage, name = open_folder(filesystem, path)
    url = archive_url(storage, name)
    temporary = storage.temporary_name(name)
    try:
        with contextlib.ExitStack() as stack:
            with translating(url):  # but not what the block raises
                storage.make_folders(("",))
                file = stack.enter_context(storage.open_writer(temporary, _SIZE_HINT_BYTES))
            yield _Output(file, url)
        with translating(url):
            if temporary != name:
                storage.rename(temporary, name)
            storage.sync_folders(("",))
    finally:
        storage.remove_incoming(f"{name}.")


class _Output(io.RawIOBase):
    """A file that takes all that it is given, or raises; it is closed by who opened it."""

    def __init__(self, file: Any, url: str) -> None:
        super().__init__()
        self._file = file
        self._url = url
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        chunk = bytes(data)
        with translating(self._url):
            write_all(self._file, chunk)
        self._position += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._position
