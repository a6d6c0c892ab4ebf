"""Verify the backups of a repository: what they name is there, and is what it was.

Levels, each with what the one before has:

* ``files``: every file that a backup's meta names is there, with its size;
* ``checksums``: every file is read, once even when many backups name it, and its CRC32C compared; or of all files that
  part whose turn it is today;
* ``restore``: a drill: each backup is restored into a scratch directory, and every block of it is read.

What is missing or too small is *incomplete*. What is too large, fails a CRC or cannot be, is *corrupt*. What cannot be
looked at *could not be checked*, which is never a success; neither is a repository without a backup. Nothing is written
in the repository.

A sample of ``percent`` divides files by a hash of their names into ``100 / percent`` parts, rounded up, and takes part
``day % parts``, where ``day`` counts from 1970-01-01 in UTC: so that many days in a row read everything, and nothing
has to be remembered. A root that has a CURRENT, and no ``meta/``, is the layout ``directory``: one database as it is.

An archive is one stream with its list at the end, so that also level ``files`` reads all of it. In a folder of archives
the one that was written last is verified, or all are.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.archive_listing import find_archives
from airflow_provider_rocksdb.core.archive_reader import check_archive
from airflow_provider_rocksdb.core.completeness import DEFAULT_TIMEOUT_SECONDS, Completeness, check_completeness
from airflow_provider_rocksdb.core.drill import drill
from airflow_provider_rocksdb.core.errors import CancelledError, InvalidArgumentError
from airflow_provider_rocksdb.core.format.backup_meta import MAX_BACKUP_ID, BackupFile
from airflow_provider_rocksdb.core.inspection import SEVERITY, State, gravest
from airflow_provider_rocksdb.core.repository_contents import (
    Contents,
    expected_checksum,
    expected_size,
    explain,
    forget_deleted,
    read_contents,
)
from airflow_provider_rocksdb.core.repository_layout import META, Layout, meta_name
from airflow_provider_rocksdb.core.repository_listing import list_metas, read_layout
from airflow_provider_rocksdb.core.repository_reading import ReadObject, read_objects
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import DEFAULT_OPTIONS, TransferOptions
from airflow_provider_rocksdb.core.verify_report import Problem, Sample, VerifyReport

logger = logging.getLogger(__name__)

VerifyLevel = Literal["files", "checksums", "restore"]

_LEVELS = ("files", "checksums", "restore")
_DAY_SECONDS = 86400


def verify_backups(
    filesystem: AbstractFileSystem,
    root: str,
    *,
    backup_id: int | None = None,
    all_backups: bool = False,
    level: VerifyLevel = "files",
    sample_percent: float | None = None,
    now: datetime | None = None,
    scratch_dir: str | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    options: TransferOptions = DEFAULT_OPTIONS,
    stop: threading.Event | None = None,
) -> VerifyReport:
    """Verify one backup of a repository, or all.

    :param root: on ``filesystem``: the repository, a directory with a database as it is, an archive, or a folder of
        archives.
    :param backup_id: which; default: the newest, or of archives the one written last.
    :param all_backups: every backup.
    :param level: ``files``, ``checksums`` or ``restore``.
    :param sample_percent: how much of all files to read at level ``checksums``; each day another part.
    :param now: which day it is; default: today.
    :param scratch_dir: where to restore at level ``restore``: it takes the size of one database there for the time.
        Default: the directory of temporary files.
    :param timeout_seconds: for reading the blocks of one restored database.
    :param stop: set it to stop.
    :raises InvalidArgumentError: when the arguments do not go together.
    :raises CancelledError: when ``stop`` was set.
    """
    if level not in _LEVELS:
        raise InvalidArgumentError(f"level {level!r}: expected one of {', '.join(_LEVELS)}")
    if backup_id is not None and (all_backups or not 1 <= backup_id <= MAX_BACKUP_ID):
        raise InvalidArgumentError(f"backup id {backup_id}: expected an id from 1 on, or all backups, and not both")
    sample = _todays_sample(sample_percent, level, now)
    check = _Verification(Storage(filesystem, root), level, sample, scratch_dir, timeout_seconds, options, stop)
    where, expected = check.storage.url, "a repository that can be read"
    with _noting(check.problems, where, expected):
        check.layout = read_layout(check.storage, options, stop)
    if check.layout != "backup_engine" and (backup_id is not None or sample is not None):
        what = "one database" if check.layout == "directory" else "an archive, or a folder of such"
        raise InvalidArgumentError(f"{where}: is {what}, without backup ids and without samples")
    if not check.problems:
        with _noting(check.problems, where, expected):
            check.run(backup_id, all_backups)
    return check.report()


def _todays_sample(percent: float | None, level: VerifyLevel, now: datetime | None) -> Sample | None:
    now = now or datetime.now(UTC)
    if now.tzinfo is None:
        raise InvalidArgumentError(f"now: expected a time with a time zone, got {now.isoformat()}")
    if percent is None:
        return None
    if not 0 < percent <= 100:
        raise InvalidArgumentError(f"sample_percent: expected more than 0, up to 100, got {percent:g}")
    if level != "checksums":
        raise InvalidArgumentError(f"sample_percent: goes with level checksums, and not with {level}")
    parts = math.ceil(100 / percent)
    return Sample(percent, int(now.timestamp() // _DAY_SECONDS) % parts, parts)


@dataclass(frozen=True)
class _Amount:
    files: int = 0
    bytes: int = 0

    def __add__(self, other: _Amount) -> _Amount:
        return _Amount(self.files + other.files, self.bytes + other.bytes)


@dataclass
class _Verification:
    """One call of :func:`verify_backups`."""

    storage: Storage
    level: VerifyLevel
    sample: Sample | None
    scratch_dir: str | None
    timeout_seconds: float
    options: TransferOptions
    stop: threading.Event | None
    layout: Layout = "backup_engine"
    began: float = field(default_factory=time.monotonic)
    problems: list[Problem] = field(default_factory=list)
    backup_ids: tuple[int, ...] = ()
    total: _Amount = _Amount()
    read: _Amount = _Amount()

    def report(self) -> VerifyReport:
        return VerifyReport(
            state=gravest(problem.state for problem in self.problems),
            level=self.level,
            backup_dir=self.storage.url,
            layout=self.layout,
            backup_ids=self.backup_ids,
            problems=tuple(sorted(self.problems, key=lambda problem: -SEVERITY.index(problem.state))),
            file_count=self.total.files,
            total_bytes=self.total.bytes,
            read_files=self.read.files,
            read_bytes=self.read.bytes,
            sample=self.sample,
            seconds=round(time.monotonic() - self.began, 3),
        )

    def run(self, backup_id: int | None, all_backups: bool) -> None:
        """Verify, by the layout."""
        if self.layout == "directory":
            self._verify_directory()
        elif self.layout == "archive":
            self._verify_archives(all_backups)
        else:
            self._verify_repository(backup_id, all_backups)

    def _verify_directory(self) -> None:
        """Verify a database that lies there as it is."""
        if self.level == "restore":
            found = self._drill(None)
        else:
            root, filesystem = self.storage.path(""), self.storage.own_file_system()
            found = check_completeness(root, filesystem=filesystem, level=self.level, stop=self.stop)
        where, expected = self.storage.url, "a whole database"
        self.problems += [Problem(found.state, (), where, expected, text) for text in found.problems]
        self.total = _Amount(found.file_count, found.total_bytes)
        if self.level != "files":
            self.read = _Amount(found.read_files, found.read_bytes)

    def _verify_archives(self, all_backups: bool) -> None:
        """Verify archives; each counts as one file, of its size."""
        found = find_archives(self.storage, self.options, self.stop)
        for archive in found if all_backups else found[-1:]:
            is_whole = False
            with _noting(self.problems, archive.name, "a whole archive"):
                if self.level == "restore":
                    checked = self._drill(None, Storage(archive.folder.filesystem, archive.path))
                    expected = "a database that can be restored and read"
                    self.problems += [Problem(checked.state, (), archive.name, expected, t) for t in checked.problems]
                    is_whole = checked.state is State.COMPLETE
                else:
                    check_archive(archive.folder.filesystem, archive.path, options=self.options, stop=self.stop)
                    is_whole = True
            self.total += _Amount(1, archive.size)
            self.read += _Amount(1, archive.size) if is_whole else _Amount()

    def _verify_repository(self, backup_id: int | None, all_backups: bool) -> None:
        """Verify backups by their metas."""
        metas = list_metas(self.storage, self.options, self.stop)
        wanted = set(metas) if all_backups else {backup_id or max(metas, default=0)} & metas.keys()
        contents = read_contents(self.storage, {i: metas[i] for i in wanted}, self.options, self.stop)
        read: set[str] = set()
        if self.level == "checksums":
            read = self._compare_checksums(contents)
        elif self.level == "restore":
            read = self._restore_each(contents)
        with _noting(self.problems, META, "a listing of it"):
            forget_deleted(contents, self.storage, self.options, self.stop)
        self.problems += contents.problems
        self.backup_ids = contents.remaining
        if not self.backup_ids:
            expected = "a backup" if backup_id is None else f"backup {backup_id}"
            others = ", ".join(map(str, sorted(metas.keys() - wanted)))
            self.problems.append(Problem(State.INCOMPLETE, (), META, expected, others or "no backup"))
        sizes = {file.path: contents.size(file) for file in contents.named_by}
        self.total = _Amount(len(sizes), sum(sizes.values()))
        sizes = {path: size for path, size in sizes.items() if path in read}
        self.read = _Amount(len(sizes), sum(sizes.values()))

    def _compare_checksums(self, contents: Contents) -> set[str]:
        """Read files, compare them with what each meta says; return those that were read."""
        wrong = {problem.file for problem in contents.problems}
        sizes = {
            path: size
            for path in {file.path for file in contents.named_by} - wrong
            if (size := contents.present.get(path)) is not None and (self.sample is None or self.sample.takes(path))
        }
        done = read_objects(sizes, self.storage, self.options, self.stop)
        for file, bits in contents.named_by.items():
            found, error = done.found.get(file.path), done.failures.get(file.path)
            if found is not None:
                state, expected, got = _compare(file, found)
            elif error is not None:
                expected = f"{sizes[file.path]} bytes to read"
                state, got = explain(error, f"{self.storage.url}/{file.path}")
            else:
                continue
            if state is not State.COMPLETE:
                contents.problems.append(Problem(state, contents.backup_ids(bits), file.path, expected, got))
        if done.not_begun:
            what, got = f"{len(done.not_begun)} more files", f"none: gave up after {len(done.failures)} that failed"
            contents.problems.append(Problem(State.COULD_NOT_CHECK, (), what, "them to be read", got))
        return set(done.found)

    def _restore_each(self, contents: Contents) -> set[str]:
        """Restore each backup of which nothing is missing; return the files of those that were whole."""
        whole = 0
        hurt = {backup_id for problem in contents.problems for backup_id in problem.backup_ids}
        for index, backup_id in enumerate(contents.ids):
            if backup_id in hurt:
                continue
            logger.info("%s: restoring backup %d into a scratch directory", self.storage.url, backup_id)
            where, expected = meta_name(backup_id), "a backup that can be restored and read"
            with _noting(contents.problems, where, expected, backup_id):
                found = self._drill(backup_id)
                contents.problems += [Problem(found.state, (backup_id,), where, expected, t) for t in found.problems]
                whole |= (found.state is State.COMPLETE) << index
        return {file.path for file, bits in contents.named_by.items() if bits & whole}

    def _drill(self, backup_id: int | None, storage: Storage | None = None) -> Completeness:
        return drill(
            storage or self.storage,
            backup_id,
            scratch_dir=self.scratch_dir,
            timeout_seconds=self.timeout_seconds,
            options=self.options,
            stop=self.stop,
        )


@contextlib.contextmanager
def _noting(problems: list[Problem], file: str, expected: str, *backup_ids: int) -> Iterator[None]:
    """Turn every refusal to look into a problem."""
    try:
        yield
    except CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever a storage driver raises, it was not checked
        state, got = explain(error, file)
        problems.append(Problem(state, backup_ids, file, expected, got))


def _compare(file: BackupFile, found: ReadObject) -> tuple[State, str, str]:
    """Compare what was read with what a meta says: the answer, what was expected, and got."""
    size, crc = expected_size(file), expected_checksum(file)
    got = f"{found.size} bytes with CRC32C {found.crc32c:#010x}"
    if crc is None:
        return State.COULD_NOT_CHECK, "a CRC32C in the meta", "none"
    if size in (None, found.size) and crc == found.crc32c:
        return State.COMPLETE, "", got
    expected = f"{'' if size is None else f'{size} bytes with '}CRC32C {crc:#010x}"
    is_short = size is not None and found.size < size
    return State.INCOMPLETE if is_short else State.CORRUPT, expected, got
