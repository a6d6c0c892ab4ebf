"""What the metas of a repository name, and what lies there that none of them names; nothing is written.

Only files that BackupEngine or we write are ever said to be unreferenced: anything else in a folder is somebody else's.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from airflow_provider_rocksdb.core.errors import NotFoundError, RocksDBError
from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_id
from airflow_provider_rocksdb.core.format.filename import parse_file_name
from airflow_provider_rocksdb.core.inventory import EXTRAS
from airflow_provider_rocksdb.core.parallel import run_parallel
from airflow_provider_rocksdb.core.repository_layout import (
    CLAIM_PREFIX,
    MARKS,
    META,
    OLD_SHARED,
    PRIVATE,
    SHARED,
    highest_backup_id,
    is_temporary,
    private_folder,
)
from airflow_provider_rocksdb.core.repository_listing import read_meta
from airflow_provider_rocksdb.core.storage import INCOMING, Entry, Storage
from airflow_provider_rocksdb.core.transfer import TransferOptions

_SHARED_NAME = re.compile(r"\.?[0-9]{6,20}(_[!-~]*)?\.(sst|ldb|blob)(\.tmp)?")  # with BackupEngine's temporary ones


_FLAT = (SHARED, OLD_SHARED, META, MARKS, INCOMING)


@dataclass(frozen=True)
class KnownMeta:
    """A readable meta: its backup's time, in seconds since 1970, and the bit by which its files know it."""

    timestamp: int
    bit: int


@dataclass(frozen=True)
class Unreferenced:
    """An object, or a backup's own folder, that no meta names: its files, their bytes, the time of the last write.

    ``modified`` is None when the store does not tell.
    """

    path: str
    files: tuple[str, ...]
    bytes: int
    modified: float | None


class Metas:
    """The metas of a repository, each read once; :meth:`read` again sees those that came since.

    Of each path it is kept which metas name it, as bits: a thousand metas that name the same files take no more memory
    than one, but for a thousand bits a file.
    """

    def __init__(self, storage: Storage, options: TransferOptions, stop: threading.Event | None) -> None:
        self._storage = storage
        self._options = options
        self._stop = stop
        self._lock = threading.Lock()
        self._named_by: dict[str, int] = {}
        self._bits = 0  # given out so far; a meta that is read again has a new one
        self._seen: dict[int, Entry] = {}
        self.readable: dict[int, KnownMeta] = {}
        self.unreadable: dict[int, str] = {}
        self.names: tuple[str, ...] = ()

    def read(self) -> None:
        """List ``meta/`` and read what is new; what has vanished since it was read stays known.

        :raises TransferError, AccessError, …: when it cannot be listed.
        """
        entries = self._list()
        new = {backup_id: entry for backup_id, entry in entries.items() if self._seen.get(backup_id) != entry}

        def read(backup_id: int) -> KnownMeta:
            found = read_meta(self._storage, backup_id, new[backup_id].size or 0, self._options, self._stop)
            with self._lock:
                bit, named_by = 1 << self._bits, self._named_by
                self._bits += 1
                for file in found.meta.files:
                    named_by[file.path] = named_by.get(file.path, 0) | bit
            return KnownMeta(found.meta.timestamp, bit)

        outcome = run_parallel(read, sorted(new), max_workers=self._options.max_workers, stop=self._stop)
        gone: set[int] = set()
        if any(isinstance(error, NotFoundError) for error in outcome.failures.values()):
            gone = set(outcome.failures) - set(self._list())
        for backup_id, error in outcome.failures.items():
            if not isinstance(error, RocksDBError):
                raise error
            if backup_id not in gone:
                self.unreadable[backup_id] = str(error)
        for backup_id in outcome.results:
            self.unreadable.pop(backup_id, None)
        self.readable |= outcome.results
        self._seen |= new

    def forget(self, backup_id: int) -> None:
        """Let a meta that was deleted name nothing any more, and read whatever takes its place."""
        self.readable.pop(backup_id, None)
        self._seen.pop(backup_id, None)
        self.names = tuple(name for name in self.names if name != str(backup_id))

    def find_referenced(self) -> set[str]:
        """Paths that readable metas name, and the folders of their backups."""
        readable = sum(meta.bit for meta in self.readable.values())
        named = {path for path, bits in self._named_by.items() if bits & readable}
        return named | {private_folder(backup_id) for backup_id in self.readable}

    def _list(self) -> dict[int, Entry]:
        entries = _list_entries(self._storage, META, self._options, self._stop)
        self.names = tuple(name for name in entries if not is_temporary(META, name))
        found = {decode_backup_id(name): entry for name, entry in entries.items() if entry.size is not None}
        return {backup_id: entry for backup_id, entry in found.items() if backup_id is not None}


class Objects:
    """What lies in a repository's folders, as listed once."""

    def __init__(self, storage: Storage, options: TransferOptions, stop: threading.Event | None) -> None:
        """List the folders.

        :raises TransferError, AccessError, …: when one cannot be listed.
        """
        self._storage = storage
        self._options = options
        self._stop = stop
        folders = (PRIVATE, *_FLAT)
        self.unlisted: dict[str, str] = {}  # folders that nobody could look into, and why
        self._entries = {folder: _list_entries(storage, folder, options, stop) for folder in folders}

    def count_shared(self, referenced: Collection[str]) -> tuple[int, int]:
        """Count the shared files among ``referenced`` that are there, and their bytes."""
        sizes = [
            entry.size
            for folder in (SHARED, OLD_SHARED)
            for name, entry in self._entries[folder].items()
            if entry.size is not None and f"{folder}/{name}" in referenced
        ]
        return len(sizes), sum(sizes)

    def find_unreferenced(self, referenced: Collection[str], meta_names: Iterable[str]) -> dict[str, Unreferenced]:
        """Return what no meta names, by path.

        :param referenced: paths that are named, of files or of backups' own folders.
        :param meta_names: what ``meta/`` holds, readable or not: what belongs to these ids is no litter.
        """
        found = {
            f"{folder}/{name}": Unreferenced(f"{folder}/{name}", (f"{folder}/{name}",), entry.size, entry.modified)
            for folder in _FLAT
            for name, entry in self._entries[folder].items()
            if entry.size is not None and _is_known(folder, name) and f"{folder}/{name}" not in referenced
        }
        gone = [backup_id for backup_id in self._gone_ids(meta_names) if private_folder(backup_id) not in referenced]
        workers = self._options.max_workers
        outcome = run_parallel(self._look_into_private, gone, max_workers=workers, stop=self._stop)
        for backup_id, error in outcome.failures.items():
            if not isinstance(error, Exception):
                raise error
            self.unlisted[private_folder(backup_id)] = f"cannot be listed: {type(error).__name__}: {error}"
        return found | {folder.path: folder for folder in outcome.results.values() if folder is not None}

    def _gone_ids(self, meta_names: Iterable[str]) -> list[int]:
        """Ids that have a folder of their own and no meta; but the highest, so that no id is ever given out twice."""
        names = set(meta_names)
        ids = [decode_backup_id(name) for name, entry in self._entries[PRIVATE].items() if entry.size is None]
        taken = {highest_backup_id([name]) for name in names} | {highest_backup_id([*names, *self._entries[PRIVATE]])}
        return sorted(backup_id for backup_id in ids if backup_id is not None and backup_id not in taken)

    def _look_into_private(self, backup_id: int) -> Unreferenced | None:
        """Describe a folder; None when there is only somebody else's in it."""
        folder = private_folder(backup_id)
        entries = _list_entries(self._storage, folder, self._options, self._stop)
        files = {name: e for name, e in entries.items() if e.size is not None and _is_known(folder, name)}
        if entries and not files:
            return None
        times = [entry.modified for entry in files.values()] or [self._entries[PRIVATE][str(backup_id)].modified]
        known = [time for time in times if time is not None]
        return Unreferenced(
            folder,
            tuple(f"{folder}/{name}" for name in sorted(files)),
            sum(entry.size or 0 for entry in files.values()),
            max(known) if len(known) == len(times) else None,
        )


def _is_known(folder: str, name: str) -> bool:
    """Whether a file is one that BackupEngine or we have put there."""
    if is_temporary(folder, name):
        return True
    if folder in (SHARED, OLD_SHARED):
        return bool(_SHARED_NAME.fullmatch(name))
    if folder in _FLAT:
        return False
    return parse_file_name(name) is not None or name in EXTRAS or name.startswith(CLAIM_PREFIX)


def _list_entries(
    storage: Storage, folder: str, options: TransferOptions, stop: threading.Event | None
) -> dict[str, Entry]:
    return options.retry(lambda: storage.list_entries(folder), storage, f"{storage.url}/{folder}", stop)
