"""Archives as backups: which lie in a folder, and what the beginning of each tells.

Only what an archive begins with is read here: what it is worth shows when all of it is read, by
:func:`.archive_reader.check_archive`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_provider_rocksdb.core.archive_layout import compression_of
from airflow_provider_rocksdb.core.archive_reader import archive_url, open_folder, read_checkpoint_record
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint, decode_checkpoint
from airflow_provider_rocksdb.core.errors import CancelledError, NotFoundError
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.parallel import run_parallel
from airflow_provider_rocksdb.core.repository_contents import explain
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions

_READERS = 8


@dataclass(frozen=True)
class FoundArchive:
    """An archive: its name in ``folder``, and its size in bytes."""

    folder: Storage
    name: str
    size: int

    @property
    def path(self) -> str:
        """Its path on the folder's file system."""
        return self.folder.path(self.name)


@dataclass(frozen=True)
class Beginning:
    """What an archive begins with: the checkpoint's record, None where it has none; ``problem``: why it is no archive.

    ``state``: complete as far as that goes. ``record.files`` are what was announced, not what was seen.
    """

    archive: FoundArchive
    record: Checkpoint | None
    state: State = State.COMPLETE
    problem: str = ""


def find_archives(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> tuple[FoundArchive, ...]:
    """Return the archive that ``storage`` stands for, or those that lie in it, the one written last at the end.

    :raises NotFoundError: when it stands for one that is not there.
    """
    if compression_of(storage.root) is None:
        entries = options.retry(lambda: storage.list_entries(""), storage, storage.url, stop)
        found = [(entry.modified or 0.0, name, entry.size) for name, entry in entries.items()]
        return tuple(
            FoundArchive(storage, name, size)
            for _, name, size in sorted(found, key=lambda item: item[:2])
            if size is not None and compression_of(name) is not None
        )
    folder, name = open_folder(storage.filesystem, storage.root)
    size = options.retry(lambda: folder.size(name), storage, storage.url, stop)
    if size is None:
        raise NotFoundError(f"{storage.url}: no such archive")
    return (FoundArchive(folder, name, size),)


def read_beginnings(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> tuple[Beginning, ...]:
    """Read what each of the archives of :func:`find_archives` begins with, in their order.

    :raises NotFoundError: as :func:`find_archives`.
    :raises CancelledError: when ``stop`` was set.
    """

    def read(archive: FoundArchive) -> Beginning:
        try:
            data = read_checkpoint_record(archive.folder, archive.name, options, stop)
            record = None if data is None else decode_checkpoint(data, archive_url(archive.folder, archive.name))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever a storage driver raises, it was not checked
            state, words = explain(error, archive_url(archive.folder, archive.name))
            return Beginning(archive, None, state, words)
        return Beginning(archive, record)

    archives = {archive.name: archive for archive in find_archives(storage, options, stop)}
    outcome = run_parallel(lambda name: read(archives[name]), archives, max_workers=_READERS, stop=stop)
    for error in outcome.failures.values():
        raise error
    return tuple(outcome.results[name] for name in archives)
