"""What a repository holds, in few requests: which backups name which objects, and which objects are there.

One listing of ``meta/``, one read for each meta, then one listing of each folder that they name: ``shared_checksum/``,
``shared/``, and ``private/`` as one tree where the storage lists trees, else each ``private/<id>/``. Metas are read
before objects are listed, and a backup is deleted meta first: so a backup of which objects are missing may be one
that was deleted meanwhile, and ``meta/`` is listed once more to tell.

Memory goes with the number of objects and of backups, not with their product: a thousand backups that name the same
hundred thousand objects are a thousand bits for each of these.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from airflow_provider_rocksdb.core.errors import (
    CancelledError,
    CorruptionError,
    IncompleteError,
    NotFoundError,
    RocksDBError,
)
from airflow_provider_rocksdb.core.format.backup_meta import BackupFile
from airflow_provider_rocksdb.core.format.filename import FileType, parse_file_name
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.parallel import run_parallel
from airflow_provider_rocksdb.core.repository_layout import PRIVATE, meta_name, read_shared_name
from airflow_provider_rocksdb.core.repository_listing import BackupInfo, ReadMeta, describe_meta, list_metas, read_meta
from airflow_provider_rocksdb.core.storage import Storage, translate_error
from airflow_provider_rocksdb.core.transfer import TransferOptions
from airflow_provider_rocksdb.core.verify_report import Problem

_READERS = 8


@dataclass
class Contents:
    """What was found. ``named_by``: for each file that metas name, the set of these backups, as bits of ``ids``."""

    ids: tuple[int, ...] = ()
    infos: dict[int, BackupInfo] = field(default_factory=dict)  # of the metas that could be read
    named_by: dict[BackupFile, int] = field(default_factory=dict)
    identities: dict[int, BackupFile] = field(default_factory=dict)  # of backups without our record
    present: dict[str, int | None] = field(default_factory=dict)  # path -> size, None for what is no file
    problems: list[Problem] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)

    def backup_ids(self, bits: int) -> tuple[int, ...]:
        """Ids of a set of backups."""
        return tuple(self.ids[index] for index in _iter_bits(bits))

    def owner(self, bits: int) -> int | None:
        """Id of the only backup of a set; None when there are several."""
        return None if bits & (bits - 1) else self.ids[bits.bit_length() - 1]

    def size(self, file: BackupFile) -> int:
        """Size of a file: what its meta says, else its name, else the listing; 0 when nothing does."""
        expected = expected_size(file)
        return self.present.get(file.path) or 0 if expected is None else expected

    @property
    def remaining(self) -> tuple[int, ...]:
        """Ids of the backups that were not deleted meanwhile."""
        return tuple(backup_id for backup_id in self.ids if backup_id not in self.deleted)

    def forget(self, backup_ids: set[int]) -> None:
        """Leave backups out that are not there any more, with their problems."""
        self.deleted |= backup_ids
        kept = sum(1 << index for index, backup_id in enumerate(self.ids) if backup_id not in backup_ids)
        self.named_by = {file: bits & kept for file, bits in self.named_by.items() if bits & kept}
        self.problems = [left for problem in self.problems if (left := _without(problem, backup_ids)) is not None]


def expected_size(file: BackupFile) -> int | None:
    """Size that a file must have, where its meta or its name tells."""
    return read_shared_name(file.path)[1] if file.size is None else file.size


def expected_checksum(file: BackupFile) -> int | None:
    """CRC32C that a file must have, where its meta or its name tells."""
    return read_shared_name(file.path)[0] if file.crc32c is None else file.crc32c


def read_contents(
    storage: Storage,
    sizes: dict[int, int],
    options: TransferOptions,
    stop: threading.Event | None,
) -> Contents:
    """Read metas, list what they name, and compare names and sizes.

    :param sizes: of the metas, in bytes, by backup id: see :func:`.repository_listing.list_metas`.
    :raises CancelledError: when ``stop`` was set.
    """
    contents = Contents(ids=tuple(sorted(sizes)))
    _read_metas(contents, storage, sizes, options, stop)
    unlisted = _list_objects(contents, storage, options, stop)
    for file, bits in contents.named_by.items():
        problem = _compare(contents, file, bits, unlisted)
        if problem is not None:
            contents.problems.append(problem)
    return contents


def forget_deleted(
    contents: Contents, storage: Storage, options: TransferOptions, stop: threading.Event | None
) -> None:
    """Look which backups with problems are still there: one that was deleted meanwhile has none.

    :raises RocksDBError, OSError: when the storage cannot be listed.
    """
    hurt = {backup_id for problem in contents.problems for backup_id in problem.backup_ids}
    if hurt:
        contents.forget(hurt - set(list_metas(storage, options, stop)))


def explain(error: BaseException, where: str) -> tuple[State, str]:
    """Tell what an error of a look at the storage means for the answer, and its words."""
    named = translate_error(error, where) or error
    words = str(named) if isinstance(named, RocksDBError) else f"{type(named).__name__}: {named}"
    match named:
        case NotFoundError():
            return State.INCOMPLETE, "nothing"
        case IncompleteError():
            return State.INCOMPLETE, words
        case CorruptionError():
            return State.CORRUPT, words
        case _:
            return State.COULD_NOT_CHECK, words


def _read_metas(
    contents: Contents,
    storage: Storage,
    sizes: dict[int, int],
    options: TransferOptions,
    stop: threading.Event | None,
) -> None:
    lock = threading.Lock()
    bits = {backup_id: 1 << index for index, backup_id in enumerate(contents.ids)}

    def read(backup_id: int) -> None:
        try:
            backup = read_meta(storage, backup_id, sizes[backup_id], options, stop)
        except CancelledError:
            raise
        except RocksDBError as error:
            state, got = explain(error, "")
            problem = Problem(state, (backup_id,), meta_name(backup_id), "a backup's meta", got)
            with lock:
                contents.problems.append(problem)
            return
        with lock:
            _add_meta(contents, backup, bits[backup_id])

    outcome = run_parallel(read, contents.ids, max_workers=_READERS, stop=stop)
    for error in outcome.failures.values():
        raise error


def _add_meta(contents: Contents, backup: ReadMeta, bit: int) -> None:
    backup_id, named_by, own = backup.backup_id, contents.named_by, []
    for file in backup.meta.files:
        named_by[file] = named_by.get(file, 0) | bit
        if file.path.startswith(f"{PRIVATE}/"):
            own.append(file)
    if backup.record is None:
        contents.identities.update((backup_id, file) for file in own if file.name == "IDENTITY")
    parsed = [parse_file_name(file.name) for file in own]
    for wanted, name in ((FileType.CURRENT, "CURRENT"), (FileType.DESCRIPTOR, "a MANIFEST")):
        if not any(file is not None and file.type is wanted for file in parsed):
            got = f"{len(own)} files of its own, and none of them is one"
            contents.problems.append(Problem(State.CORRUPT, (backup_id,), meta_name(backup_id), name, got))
    contents.infos[backup_id] = describe_meta(backup)


def _list_objects(
    contents: Contents, storage: Storage, options: TransferOptions, stop: threading.Event | None
) -> set[str]:
    """List the folders that metas name; return those that could not be."""
    folders: dict[str, int] = {}
    for file, bits in contents.named_by.items():
        folder = file.path.rpartition("/")[0]
        folders[folder] = folders.get(folder, 0) | bits
    private = [folder for folder in folders if folder.startswith(f"{PRIVATE}/")]
    as_tree = storage.lists_trees and len(private) > 1
    wanted = [*(folder for folder in folders if not as_tree or folder not in private), *([PRIVATE] if as_tree else [])]

    def read(folder: str) -> dict[str, int | None]:
        def look() -> dict[str, int | None]:
            if as_tree and folder == PRIVATE:
                return storage.list_tree(folder)
            return {f"{folder}/{name}": size for name, size in storage.list(folder).items()}

        return options.retry(look, storage, f"{storage.url}/{folder}", stop)

    outcome = run_parallel(read, wanted, max_workers=_READERS, stop=stop)
    for found in outcome.results.values():
        contents.present.update(found)
    unlisted: set[str] = set()
    for folder, error in outcome.failures.items():
        covered = private if as_tree and folder == PRIVATE else [folder]
        bits = functools.reduce(operator.or_, (folders[name] for name in covered))
        got = explain(error, f"{storage.url}/{folder}")[1]
        contents.problems.append(
            Problem(State.COULD_NOT_CHECK, contents.backup_ids(bits), folder, "a listing of it", got)
        )
        unlisted.update(covered)
    return unlisted


def _compare(contents: Contents, file: BackupFile, bits: int, unlisted: set[str]) -> Problem | None:
    """Compare a file with the listing."""
    path = file.path
    if path.rpartition("/")[0] in unlisted:
        return None
    size, got = expected_size(file), contents.present.get(path)
    if got is not None and size in (None, got):
        return None
    state = State.CORRUPT if got is not None and size is not None and got > size else State.INCOMPLETE
    expected = "a file" if size is None else f"{size} bytes"
    found = f"{got} bytes" if got is not None else "no regular file" if path in contents.present else "no file"
    return Problem(state, contents.backup_ids(bits), path, expected, found)


def _without(problem: Problem, gone: set[int]) -> Problem | None:
    """Return a problem without some backups; None when there are no others."""
    left = tuple(backup_id for backup_id in problem.backup_ids if backup_id not in gone)
    return replace(problem, backup_ids=left) if left or not problem.backup_ids else None


def _iter_bits(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
