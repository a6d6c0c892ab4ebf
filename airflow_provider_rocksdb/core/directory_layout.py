"""Upload a checkpoint as it is: one directory, RocksDB's own names, CURRENT last.

``checkpoint.json`` goes first. It tells whose files are there, so that an upload that died can be taken up again: a
directory with the same record and no CURRENT. A file in it with the right size is then this checkpoint's, and whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME
from airflow_provider_rocksdb.core.errors import ExistsError, IncompleteError, TransferError
from airflow_provider_rocksdb.core.inventory import DatabaseFile, Inventory
from airflow_provider_rocksdb.core.storage import INCOMING, Storage, translating
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions, UploadItem, upload_files

_CURRENT = "CURRENT"


@dataclass(frozen=True)
class DirectoryResult:
    """An uploaded directory. Sizes in bytes; ``reused`` counts what an earlier try had sent."""

    directory: str
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


def upload_directory(
    inventory: Inventory,
    filesystem: AbstractFileSystem,
    root: str,
    *,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> DirectoryResult:
    """Upload a checkpoint into a directory of its own.

    :param root: the directory on ``filesystem``: empty or missing, or holding what an upload of this same checkpoint
        has left or completed.
    :param stop: set it to stop; there is no CURRENT then.
    :raises ExistsError: when something else is there.
    :raises IncompleteError: when the checkpoint is not what its inventory says.
    :raises AccessError, NotFoundError, NoSpaceError, InvalidArgumentError, TransferError: when the storage fails.
    :raises CancelledError: when ``stop`` was set.
    """
    began = time.monotonic()
    storage = Storage(filesystem, root)
    items = [_item(file) for file in (*inventory.files, *inventory.extras)]
    with translating(storage.url):
        present = _check_target(items, storage, options, stop)
        missing = [item for item in items if present.get(item.name) != item.size]
        options.retry(lambda: storage.make_folders(("",)), storage, storage.url, stop)
        for step in (RECORD_NAME, None, _CURRENT):
            if step == _CURRENT:
                _check_present(items, storage, options, stop)
            chosen = [item for item in missing if _step(item) == step]
            upload_files(chosen, storage, options=options, stop=stop)
            storage.sync_folders(("",))
        storage.remove_incoming()
    sent = sum(item.size for item in missing)
    total = sum(item.size for item in items)
    return DirectoryResult(
        directory=storage.url,
        db_id=inventory.db_id,
        sequence_number=inventory.sequence_number,
        file_count=len(items),
        total_bytes=total,
        uploaded_files=len(missing),
        uploaded_bytes=sent,
        reused_files=len(items) - len(missing),
        reused_bytes=total - sent,
        seconds=round(time.monotonic() - began, 3),
    )


def _item(file: DatabaseFile) -> UploadItem:
    return UploadItem(file.path, file.name, file.size, file.content)


def _step(item: UploadItem) -> str | None:
    return item.name if item.name in (RECORD_NAME, _CURRENT) else None


def _list(storage: Storage, options: TransferOptions, stop: threading.Event | None) -> dict[str, int | None]:
    return options.retry(lambda: storage.list(""), storage, storage.url, stop)


def _check_target(
    items: Sequence[UploadItem],
    storage: Storage,
    options: TransferOptions,
    stop: threading.Event | None,
) -> dict[str, int | None]:
    """Return what an earlier upload of this checkpoint has left: names and sizes.

    :raises ExistsError: when there is anything else.
    """
    present = _list(storage, options, stop)
    present.pop(INCOMING, None)
    if not present:
        return {}
    refusal = f"{storage.url}: is not empty, and not an unfinished upload of this checkpoint: "
    record = next((item for item in items if item.name == RECORD_NAME), None)
    if record is None or present.get(RECORD_NAME) != record.size:
        raise ExistsError(f"{refusal}no {RECORD_NAME} of it; name another directory")
    data = options.retry(lambda: storage.read(RECORD_NAME, record.size), storage, f"{storage.url}/{RECORD_NAME}", stop)
    with open(record.source, "rb") as file:
        if file.read() != data:
            raise ExistsError(f"{refusal}its {RECORD_NAME} is another's; name another directory")
    sizes = {item.name: item.size for item in items}
    foreign = sorted(set(present) - set(sizes))
    if foreign:
        raise ExistsError(f"{refusal}it holds {foreign[0]} (of {len(foreign)}); name another directory")
    if _CURRENT in present and present != sizes:
        raise ExistsError(f"{refusal}it has a CURRENT, and not all other files; name another directory")
    return present


def _check_present(
    items: Sequence[UploadItem], storage: Storage, options: TransferOptions, stop: threading.Event | None
) -> None:
    present = _list(storage, options, stop)
    wrong = [item for item in items if item.name != _CURRENT and present.get(item.name) != item.size]
    if wrong:
        first = wrong[0]
        raise TransferError(
            f"{storage.url}: {len(wrong)} files are not there as they were sent; no CURRENT was written: {first.name}: "
            f"expected {first.size} bytes, got {present.get(first.name, 'none')}"
        )
    if not any(item.name == _CURRENT for item in items):
        raise IncompleteError(f"{storage.url}: the checkpoint has no CURRENT; nothing that opens was uploaded")
