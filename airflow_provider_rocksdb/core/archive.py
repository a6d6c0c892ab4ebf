"""Upload a checkpoint as one archive: a compressed tar stream, straight to an fsspec file system.

Nothing is written here first. Files are read one after the other, compressed (by zstd in threads) and sent in parts, so
that memory holds a few chunks and parts, however large the database is. A storage that fails is sent all of it again.
The archive has its name only when it is whole; an upload that was killed leaves at most a file in ``incoming/``, which
the next upload of the same archive removes. What is in it says :mod:`.archive_layout`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import google_crc32c
from fsspec import AbstractFileSystem

from airflow_provider_rocksdb import __version__
from airflow_provider_rocksdb.core import archive_layout as layout
from airflow_provider_rocksdb.core.archive_layout import ArchiveFile, ArchiveRecord, Compression
from airflow_provider_rocksdb.core.archive_reader import archive_url, check_archive, open_folder, read_checkpoint_record
from airflow_provider_rocksdb.core.checkpoint_record import RECORD_NAME, decode_checkpoint
from airflow_provider_rocksdb.core.compression import check_compression, open_compressor
from airflow_provider_rocksdb.core.errors import (
    CorruptionError,
    ExistsError,
    IncompleteError,
    InvalidArgumentError,
    TransferError,
)
from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.core.storage import Storage, translating
from airflow_provider_rocksdb.core.transfer import (
    DEFAULT_OPTIONS,
    Meter,
    TransferOptions,
    UploadItem,
    read_chunks,
)
from airflow_provider_rocksdb.core.write_behind import write_behind


@dataclass(frozen=True)
class ArchiveResult:
    """An archive. Sizes in bytes; ``reused``: an earlier try of this same upload had completed it."""

    archive: str
    db_id: str
    sequence_number: int
    file_count: int
    total_bytes: int
    archive_bytes: int
    reused: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)


def name_archive(inventory: Inventory, place: str, compression: Compression | None = None) -> str:
    """Return the path of an archive: ``place`` itself where that is an archive's name, else a new name in that folder.

    The new name is ``<DB directory's name>-<time of the checkpoint, UTC>``: sorted by name is sorted by time, and every
    try to upload the same checkpoint has the same name. A directory that is no checkpoint has its newest file's time.

    :param compression: default: what ``place`` says, else zstd.
    :raises InvalidArgumentError: when ``place`` says another.
    """
    named = layout.compression_of(place)
    if named is not None:
        if compression not in (None, named):
            raise InvalidArgumentError(f"{place}: an archive of this name has compression {named}, not {compression}")
        return place
    if compression is not None and compression not in layout.ENDINGS:
        raise InvalidArgumentError(f"compression {compression!r}: expected one of {', '.join(layout.ENDINGS)}")
    checkpoint = inventory.checkpoint
    db_dir = str(checkpoint.source.get("db_dir", "")) if checkpoint else inventory.directory
    stem = re.sub(r"[^A-Za-z0-9._+=~-]", "_", os.path.basename(db_dir.rstrip("/"))).lstrip(".") or "db"
    taken = datetime.fromtimestamp(_time_taken(inventory), UTC)
    time_text = f"{taken:%Y%m%dT%H%M%S}.{taken.microsecond // 1000:03d}Z"
    return f"{place.rstrip('/')}/{stem}-{time_text}{layout.ENDINGS[compression or 'zstd']}"


def upload_archive(
    inventory: Inventory,
    filesystem: AbstractFileSystem,
    path: str,
    *,
    level: int | None = None,
    threads: int | None = None,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> ArchiveResult:
    """Upload a checkpoint as one archive.

    :param path: of the archive on ``filesystem``; its ending says how it is compressed: ``.tar.zst``, ``.tar.gz`` or
        ``.tar``.
    :param level: of compression: 1 to 19 for zstd (default 3), 1 to 9 for gzip (default 6).
    :param threads: that zstd compresses with; default: one for each processor, at most 4.
    :param options: ``max_workers`` has no meaning here; the rate is limited, and ``attempts`` are made, of the archive.
    :param stop: set it to stop within a chunk; there is no archive then.
    :raises ExistsError: when the name is taken. But an archive of this same checkpoint is taken as done, once it was
        read and found whole; and what the same run of a scheduler made of an earlier checkpoint is replaced.
    :raises IncompleteError: when the checkpoint is not what its inventory says.
    :raises InvalidArgumentError: for a wrong name, level or number of threads, and when zstd is not installed.
    :raises AccessError, NotFoundError, NoSpaceError, TransferError: when the storage fails.
    :raises CancelledError: when ``stop`` was set.
    """
    began = time.monotonic()
    compression = layout.require_compression(path)
    check_compression(compression, level, threads)
    storage, name = open_folder(filesystem, path)
    upload = _Upload(inventory, storage, name, options, stop)
    with translating(upload.url):
        reused = options.retry(lambda: upload.attempt(compression, level, threads), storage, upload.url, stop)
    return ArchiveResult(
        archive=upload.url,
        db_id=inventory.db_id,
        sequence_number=inventory.sequence_number,
        file_count=len(upload.items),
        total_bytes=sum(item.size for item in upload.items),
        archive_bytes=upload.archive_bytes,
        reused=reused,
        seconds=round(time.monotonic() - began, 3),
    )


class _Upload:
    """One call of :func:`upload_archive`."""

    def __init__(
        self, inventory: Inventory, storage: Storage, name: str, options: TransferOptions, stop: threading.Event | None
    ) -> None:
        self.url = archive_url(storage, name)
        self.items = _list_items(inventory)
        self.archive_bytes = 0
        self._inventory = inventory
        self._storage = storage
        self._name = name
        self._options = options
        self._stop = stop
        self._mtime = int(_time_taken(inventory))
        self._meter = self._begin()
        self._appeared = f"{self.url}: another run made it meanwhile; name another archive, or delete it"

    def _begin(self) -> Meter:
        return Meter((item.size for item in self.items), self._storage, self._options, self._stop)

    def attempt(self, compression: Compression, level: int | None, threads: int | None) -> bool:
        """Send all of it; return whether it was there already."""
        may_replace = False
        size = self._storage.size(self._name)
        if size is not None:
            may_replace = self._judge_present()
            if not may_replace:
                self.archive_bytes = size
                self._storage.remove_incoming(f"{self._name}.")
                return True
        self._storage.make_folders(("",))
        temporary = self._storage.temporary_name(self._name)
        self._meter = self._begin()
        self._send(temporary, compression, level, threads, may_replace=may_replace)
        self._storage.sync_folders(("",))
        self._storage.remove_incoming(f"{self._name}.")
        self._meter.tell()
        return False

    def _judge_present(self) -> bool:
        """Whether what has the archive's name may be replaced; if not, it is this archive, whole.

        :raises ExistsError: when it is another's.
        """
        refusal = f"{self.url}: is already there, and is not this checkpoint's; name another archive, or delete it"
        ours = next((item for item in self.items if item.name == RECORD_NAME), None)
        if ours is None:
            raise ExistsError(f"{self.url}: is already there; name another archive, or delete it")
        content = b"".join(read_chunks(ours, self._meter.chunk_bytes))
        try:
            found = read_checkpoint_record(self._storage, self._name, self._options, self._stop)
            if found is None:
                raise ExistsError(refusal)
            if found != content:
                run = decode_checkpoint(found, self.url).run
                if run and run == decode_checkpoint(content, ours.source).run:
                    return True
                raise ExistsError(refusal)
        except CorruptionError as error:
            raise ExistsError(f"{refusal} ({error})") from error
        try:
            check_archive(
                self._storage.filesystem, self._storage.path(self._name), options=self._options, stop=self._stop
            )
        except CorruptionError:
            return True
        return False

    def _send(
        self, temporary: str, compression: Compression, level: int | None, threads: int | None, *, may_replace: bool
    ) -> None:
        compressor = open_compressor(compression, level, threads)
        stream_bytes = layout.stream_bytes([item.size for item in self.items], layout.max_record_bytes(len(self.items)))
        most = stream_bytes + stream_bytes // 64 + 1024 * 1024  # zstd and gzip add less to random bytes
        written = 0
        with self._storage.open_writer(temporary, most, check_stop=self._meter.check_stop) as file:
            with write_behind(file) as write:
                for piece in self._iter_stream():
                    written += self._write(write, compressor.compress(piece))
                written += self._write(write, compressor.flush())
            unseen = temporary == self._name and self._storage.hides_unfinished
            if unseen and not may_replace and self._storage.size(self._name) is not None:
                raise ExistsError(self._appeared)
        self._check_size(temporary, written)
        if temporary != self._name:
            try:
                self._storage.rename(temporary, self._name, replace=may_replace)
            except FileExistsError:
                self._storage.remove([temporary])
                raise ExistsError(self._appeared) from None
        self.archive_bytes = written

    def _write(self, write: Callable[[bytes], None], compressed: bytes) -> int:
        self._meter.throttle(len(compressed))
        write(compressed)
        return len(compressed)

    def _iter_stream(self) -> Iterator[bytes]:
        """Yield the tar stream."""
        files = []
        length = 0
        for item in self.items:
            crc = 0
            yield layout.encode_header(item.name, item.size, self._mtime)
            for chunk in read_chunks(item, self._meter.chunk_bytes):
                crc = google_crc32c.extend(crc, chunk)
                self._meter.count(len(chunk))
                self._meter.tell_when_due()
                yield chunk
            yield bytes(layout.padding(item.size))
            length += layout.BLOCK_BYTES + item.size + layout.padding(item.size)
            files.append(ArchiveFile(item.name, item.size, crc))
            self._meter.count_file()
        inventory = self._inventory
        data = ArchiveRecord(__version__, inventory.db_id, inventory.sequence_number, tuple(files)).encode()
        yield layout.encode_header(layout.LIST_NAME, len(data), self._mtime)
        yield data + bytes(layout.padding(len(data)))
        yield layout.encode_end(length + layout.BLOCK_BYTES + len(data) + layout.padding(len(data)))

    def _check_size(self, name: str, written: int) -> None:
        size = self._storage.size(name)
        if size != written:
            self._storage.remove([name])
            raise TransferError(
                f"{self.url}: {written} bytes were sent, {size or 'none'} are there; nothing was committed"
            )


def _list_items(inventory: Inventory) -> list[UploadItem]:
    """Members in their order.

    :raises IncompleteError: when there is no CURRENT.
    :raises InvalidArgumentError: when an archive cannot have such files.
    """
    files = sorted((*inventory.files, *inventory.extras), key=lambda file: layout.member_order(file.name))
    wrong = [file.name for file in files if not layout.is_member_name(file.name)]
    if wrong:
        raise InvalidArgumentError(f"{inventory.directory}: {wrong[0]!r} (of {len(wrong)}) cannot be in an archive")
    if len(files) > layout.MAX_MEMBERS:
        raise InvalidArgumentError(
            f"{inventory.directory}: {len(files)} files; an archive has {layout.MAX_MEMBERS} at most"
        )
    if not any(file.name == "CURRENT" for file in files):
        raise IncompleteError(f"{inventory.directory}: has no CURRENT; nothing that opens could be uploaded")
    return [UploadItem(file.path, file.name, file.size, file.content) for file in files]


def _time_taken(inventory: Inventory) -> float:
    """Seconds since 1970: when the checkpoint was made, or when a directory at rest was last written."""
    if inventory.checkpoint is not None:
        try:
            return max(0.0, datetime.fromisoformat(inventory.checkpoint.created).timestamp())
        except ValueError:
            raise CorruptionError(f"{inventory.directory}: {RECORD_NAME}: created: not a time") from None
    try:
        return max(os.stat(file.path).st_mtime for file in inventory.files)
    except FileNotFoundError as error:
        raise IncompleteError(f"{error.filename}: is missing") from None
