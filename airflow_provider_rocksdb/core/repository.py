"""Create a backup in RocksDB's BackupEngine directory, on any fsspec file system.

In this order, so that a run that dies at any moment leaves no backup, and nothing that harms one:

1. list what is there, and what a prune has marked; read the newest meta: is the repository this database's?
2. claim an id: ``private/<id>/claim.<random>``, then list that folder; anything else in it → the next id
3. shared files that are not there with their size; then the backup's own files
4. see to it that no prune deletes what the meta will name (:mod:`.repository_marks`); list again: every file must be
   there, with its size; what a prune has deleted meanwhile is sent again
5. ``meta/<id>``, created exclusively and read back

What does not need another's answer is asked at once, where a file system can: far away, a backup with little that is
new takes as long as the questions that wait for one another.

A shared file has its final name only when it is whole. So its being there with its size is all that the next backup, or
the next try, needs to know; that is both the increment and the resume.
"""

from __future__ import annotations

import json
import math
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb import __version__
from airflow_provider_rocksdb.core.errors import (
    BusyError,
    CorruptionError,
    NotSupportedError,
    RepositoryMismatchError,
    TransferError,
)
from airflow_provider_rocksdb.core.format.backup_meta import BackupFile, BackupMeta, encode_backup_meta
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory
from airflow_provider_rocksdb.core.parallel import run_briefly, run_together
from airflow_provider_rocksdb.core.repository_files import (
    SharedFiles,
    find_checksums,
    find_session_ids,
    is_shared,
    name_shared_files,
)
from airflow_provider_rocksdb.core.repository_layout import (
    CLAIM_PREFIX,
    META,
    PRIVATE,
    SHARED,
    BackupRecord,
    FileKey,
    Source,
    meta_name,
    next_backup_id,
    private_folder,
    remembered_checksums,
)
from airflow_provider_rocksdb.core.repository_listing import (
    BackupInfo,
    ReadMeta,
    find_metas,
    list_backups,
    read_meta,
    read_source,
)
from airflow_provider_rocksdb.core.repository_marks import LastLook
from airflow_provider_rocksdb.core.retry import check_stop, wait
from airflow_provider_rocksdb.core.storage import Storage, require_all, translating
from airflow_provider_rocksdb.core.transfer import (
    DEFAULT_OPTIONS,
    TransferOptions,
    UploadItem,
    upload_files,
)

__all__ = ["BackupInfo", "BackupResult", "create_backup", "list_backups"]

_CLAIM_TRIES = 20
_CLAIM_PAUSE_SECONDS = 1.0
_LAST_LOOKS = 3
_FREE_SECONDS = 2.0  # for which it is believed that a name that was free still is; a store asked with a condition knows


@dataclass(frozen=True)
class BackupResult:
    """A new backup. Sizes in bytes; ``uploaded`` counts all files sent but the meta, ``reused`` those already there."""

    backup_id: int
    backup_dir: str
    db_id: str
    sequence_number: int
    file_count: int
    total_bytes: int
    uploaded_files: int
    uploaded_bytes: int
    reused_files: int
    reused_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


def create_backup(
    inventory: Inventory,
    filesystem: AbstractFileSystem,
    root: str,
    *,
    app_metadata: Mapping[str, Any] | None = None,
    allow_other_source: bool = False,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> BackupResult:
    """Back up a checkpoint; stock RocksDB can restore it. What the repository already has is not sent again.

    :param root: the backup repository's directory on ``filesystem``; created if it is missing, but never a bucket.
    :param app_metadata: what to remember with the backup, beside what is known anyway: JSON-able values.
    :param allow_other_source: accept a repository that belongs to another database, host or path, or is ahead of this.
    :param stop: set it to stop; nothing is committed then.
    :raises RepositoryMismatchError: when the repository is another database's, and that was not allowed.
    :raises IncompleteError, CorruptionError: when the checkpoint is not what its inventory says, or a file is damaged.
    :raises BusyError: when another run, or BackupEngine, took the id meanwhile.
    :raises AccessError, NotFoundError, NoSpaceError, InvalidArgumentError, TransferError: when the storage fails.
    :raises CancelledError: when ``stop`` was set.
    """
    storage = Storage(filesystem, root)
    with translating(storage.url):
        return _Backup(inventory, storage, options, stop).create(app_metadata or {}, allow_other_source)


class _Backup:
    """One call of :func:`create_backup`."""

    def __init__(
        self, inventory: Inventory, storage: Storage, options: TransferOptions, stop: threading.Event | None
    ) -> None:
        self.inventory = inventory
        self.storage = storage
        self.options = options
        self.stop = stop
        self.began = time.monotonic()
        self.source = _read_source(inventory)
        self.claim = secrets.token_hex(8)
        self.last_look = LastLook(storage, self.claim, options, stop)
        self.backup_id = 0
        self.newest: ReadMeta | None = None
        self.taken: list[str] = []  # names in meta/ and private/
        self.seen_free = -math.inf  # when nobody had the meta's name, by the monotonic clock
        self.present: dict[str, int | None] = {}  # shared files: path -> size
        self.shared = SharedFiles((), {})
        self.crcs: dict[str, int] = {}  # path -> CRC32C
        self.written: list[str] = []  # what is this run's alone
        self.uploaded: list[UploadItem] = []

    def create(self, app_metadata: Mapping[str, Any], allow_other_source: bool) -> BackupResult:
        self._look_around()
        if self.newest is not None and not allow_other_source:
            self._check_source(self.newest)
        self._record(app_metadata, {}).encode()  # before anything is written
        try:
            self._at_once(self._claim, self._name_shared)
            shared = self.shared
            own = [self._own_item(file) for file in self.inventory.files if not is_shared(file)]
            extras = [self._own_item(file) for file in self.inventory.extras]
            new = [item for item in shared.items if self.present.get(item.name) != item.size]
            self._upload([*new, *own, *extras])
            reused = [item for item in shared.items if item.name not in self.crcs]
            self.crcs |= find_checksums(reused, self.newest, self.options, self.stop)
            self._secure([*shared.items, *own, *extras])
            meta = self._meta([*shared.items, *own], self._record(app_metadata, shared.mtimes_ns))
            check_stop(self.stop)
        except TransferError:
            raise  # the storage does not answer: cleaning up would only take long
        except BaseException:
            run_briefly(self._clear_away)
            raise
        self._commit(encode_backup_meta(meta))
        self.last_look.end()
        return self._result(meta)

    def _at_once(self, *calls: Callable[[], object]) -> None:
        run_together(*calls, at_once=self.storage.overlaps, stop=self.stop)

    def _list(self, folder: str) -> dict[str, int | None]:
        return self.options.retry(
            lambda: self.storage.list(folder), self.storage, f"{self.storage.url}/{folder}", self.stop
        )

    def _look_around(self) -> None:
        """Learn what is there; a storage that lets nobody in is asked for ``meta/`` alone."""
        metas = self._list(META)

        def list_private() -> None:
            self.taken = [*metas, *self._list(PRIVATE)]

        def list_shared() -> None:
            self.present = {f"{SHARED}/{name}": size for name, size in self._list(SHARED).items()}

        self._at_once(lambda: self._read_newest(find_metas(metas)), list_private, list_shared, self.last_look.look)

    def _read_newest(self, sizes: Mapping[int, int]) -> None:
        """Read the newest meta that can be read; what cannot is left alone."""
        for backup_id in sorted(sizes, reverse=True):
            try:
                self.newest = read_meta(self.storage, backup_id, sizes[backup_id], self.options, self.stop)
            except (CorruptionError, NotSupportedError):
                continue
            return

    def _check_source(self, newest: ReadMeta) -> None:
        found = read_source(self.storage, newest, self.options, self.stop)
        problem = ""
        if found.db_id and self.source.db_id and found.db_id != self.source.db_id:
            problem = "belongs to another database"
        elif found.hostname and (found.hostname, found.db_dir) != (self.source.hostname, self.source.db_dir):
            problem = "was filled from another place, of which this may be a clone"
        elif newest.meta.sequence_number > self.inventory.sequence_number:
            problem = (
                f"is ahead: its sequence number is {newest.meta.sequence_number}, this checkpoint's is "
                f"{self.inventory.sequence_number}"
            )
        if problem:
            raise RepositoryMismatchError(
                f"{self.storage.url}: {problem}: backup {newest.backup_id} is of {found}, this is {self.source}; name "
                "another repository, or allow it (allow_other_source)"
            )

    def _claim_name(self) -> str:
        return f"{private_folder(self.backup_id)}/{CLAIM_PREFIX}{self.claim}"

    def _claim(self) -> None:
        """Find an id that nobody else uses; two runs that meet both give way, for random times.

        What was there when this run began will do to choose one: the claim tells whether it was chosen well.
        """
        content = json.dumps({"hostname": socket.gethostname(), "pid": os.getpid()}).encode() + b"\n"
        for _ in range(_CLAIM_TRIES):
            check_stop(self.stop)
            self.backup_id = next_backup_id(self.taken)
            folder, name = private_folder(self.backup_id), self._claim_name()
            self.written = [name]

            def write(folder: str = folder, name: str = name) -> None:
                self.storage.make_folders((META, SHARED, folder))
                self.storage.write(name, content)

            self.options.retry(write, self.storage, f"{self.storage.url}/{name}", self.stop)
            if set(self._list(folder)) == {CLAIM_PREFIX + self.claim}:
                return
            self.storage.remove([name])
            wait(random.uniform(0, _CLAIM_PAUSE_SECONDS), self.stop)  # noqa: S311 -- no secret
            self.taken = [*self._list(META), *self._list(PRIVATE)]
        raise BusyError(f"{self.storage.url}: {_CLAIM_TRIES} times another run claimed the same backup id; try later")

    def _name_shared(self) -> None:
        files = [file for file in self.inventory.files if is_shared(file)]
        known = find_session_ids(self.inventory.files, self.present)
        self.shared = name_shared_files(files, known, self._remembered(), self.options, self.stop)

    def _remembered(self) -> Mapping[FileKey, int]:
        newest = self.newest
        if newest is None or newest.record is None or newest.record.source != self.source:
            return {}
        return remembered_checksums(newest.meta, newest.record)

    def _own_item(self, file: DatabaseFile) -> UploadItem:
        return UploadItem(file.path, f"{private_folder(self.backup_id)}/{file.name}", file.size, file.content)

    def _upload(self, items: list[UploadItem]) -> None:
        self.written += [item.name for item in items if item.name.startswith(f"{PRIVATE}/")]
        self.crcs |= upload_files(items, self.storage, options=self.options, stop=self.stop).crc32c
        self.uploaded += items

    def _secure(self, items: Sequence[UploadItem]) -> None:
        """See to it that everything that was sent or reused is there, and stays until the meta names it."""
        paths = {private_folder(self.backup_id), *(item.name for item in items)}
        for _ in range(_LAST_LOOKS):
            self.last_look.begin(paths)
            wrong = self._find_wrong(items)
            if not wrong and self.last_look.is_fresh:
                return
            missing = [item for item in items if item.name in wrong and item.name.startswith(f"{SHARED}/")]
            if len(missing) < len(wrong):
                break  # its own files are this run's alone: something else is wrong than a prune
            self._upload(missing)
        texts = [f"{name}: {text}" for name, text in wrong.items()] or ["the storage takes too long to tell"]
        more = f" and {len(texts) - 20} more" if len(texts) > 20 else ""
        raise TransferError(
            f"{self.storage.url}: {len(wrong)} files are not there as they were sent or found before; nothing was "
            f"committed: {'; '.join(texts[:20])}{more}"
        )

    def _find_wrong(self, items: Iterable[UploadItem]) -> dict[str, str]:
        """Compare the storage's own listing with what must be there; return what differs, and how.

        :raises BusyError: when another program has removed this run's claim.
        """
        folders = (SHARED, private_folder(self.backup_id))
        self.storage.sync_folders(folders)
        sizes: dict[str, int | None] = {}
        began = time.monotonic()

        def look(folder: str) -> None:
            sizes.update({f"{folder}/{name}": size for name, size in self._list(folder).items()})

        self._at_once(*(partial(look, folder) for folder in (*folders, META)))
        self.seen_free = began if meta_name(self.backup_id) not in sizes else -math.inf
        if self._claim_name() not in sizes:
            raise BusyError(f"{self.storage.url}/{self._claim_name()}: was removed by another program; try again")
        return {
            item.name: f"expected {item.size} bytes, got {sizes.get(item.name, 'none')}"
            for item in items
            if sizes.get(item.name) != item.size
        }

    def _record(self, app_metadata: Mapping[str, Any], mtimes_ns: dict[int, int]) -> BackupRecord:
        checkpoint = self.inventory.checkpoint
        return BackupRecord(
            provider_version=__version__,
            source=self.source,
            paths=dict(checkpoint.source) if checkpoint else {},
            checkpoint_time=checkpoint.created if checkpoint else datetime.now(UTC).isoformat(timespec="milliseconds"),
            checkpoint_mode=checkpoint.mode if checkpoint else "",
            run={**(checkpoint.run if checkpoint else {}), **app_metadata},
            claim=self.claim,
            mtimes_ns=mtimes_ns,
        )

    def _meta(self, items: Iterable[UploadItem], record: BackupRecord) -> BackupMeta:
        files = tuple(BackupFile(item.name, self.crcs[item.name], item.size) for item in items)
        return BackupMeta(int(time.time()), self.inventory.sequence_number, record.encode(), files)

    def _commit(self, data: bytes) -> None:
        """Write the meta; after that, and only after that, there is a backup."""
        name = meta_name(self.backup_id)
        what = f"{self.storage.url}/{name}"
        failure: Exception | None = None

        def write() -> None:
            is_free = time.monotonic() - self.seen_free < _FREE_SECONDS
            self.storage.create(name, data, is_free=is_free, require=self._require_fresh)

        def check() -> None:
            try:
                found = self.options.retry(lambda: self._read_back(name, data), self.storage, what)
            except FileNotFoundError:
                raise failure or TransferError(f"{what}: was written, and is not there") from failure
            if found != data:
                raise BusyError(f"{what}: another run, or BackupEngine, took this id meanwhile; try again") from failure

        def remove_claim() -> None:
            self.storage.remove([self._claim_name()])

        try:
            self.options.retry(write, self.storage, what, self.stop)
        except (FileExistsError, TransferError) as error:
            failure = error  # perhaps it was written, and only the answer was lost
        run_together(check, remove_claim, at_once=self.storage.overlaps and failure is None)

    def _require_fresh(self) -> None:
        """Check that no prune can have deleted anything since it was seen that everything is there.

        :raises TransferError: when that was too long ago.
        """
        if not self.last_look.is_fresh:
            raise TransferError(f"{self.storage.url}: took too long to commit; nothing was committed: try again")

    def _clear_away(self) -> None:
        self.storage.remove(self.written)
        self.last_look.end()

    def _read_back(self, name: str, data: bytes) -> bytes:
        found = self.storage.read(name)
        if data.startswith(found):  # the beginning of another run's would differ: each has its own claim in it
            require_all(name, len(found), len(data))
        return found

    def _result(self, meta: BackupMeta) -> BackupResult:
        uploaded = {item.name for item in self.uploaded}
        reused = [file.size or 0 for file in meta.files if file.path not in uploaded]
        return BackupResult(
            backup_id=self.backup_id,
            backup_dir=self.storage.url,
            db_id=self.inventory.db_id,
            sequence_number=self.inventory.sequence_number,
            file_count=len(meta.files),
            total_bytes=sum(file.size or 0 for file in meta.files),
            uploaded_files=len(uploaded),
            uploaded_bytes=sum(item.size for item in self.uploaded),
            reused_files=len(reused),
            reused_bytes=sum(reused),
            seconds=round(time.monotonic() - self.began, 3),
        )


def _read_source(inventory: Inventory) -> Source:
    checkpoint = inventory.checkpoint
    if checkpoint is None:
        return Source(inventory.db_id, socket.gethostname(), inventory.directory)
    return Source(inventory.db_id, checkpoint.hostname, str(checkpoint.source.get("db_dir", "")))
