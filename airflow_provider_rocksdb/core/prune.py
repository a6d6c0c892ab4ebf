"""Delete backups by policy, and in time what no backup names any more.

In this order:

1. read all metas; plan; delete the metas that the policy does not keep
2. mark what no meta names: the clock of the grace period starts when an object is first seen unreferenced
3. delete what was marked longer ago than the grace period, by the rules of :mod:`.repository_marks`

A backup that is under way reuses files, and has sent files, that no meta names yet. So a first prune only marks, and a
prune after the grace period deletes. That also leaves a restore of a backup whose meta goes meanwhile its files.

What cannot be read is never deleted: while a meta cannot be read, no object is marked or deleted, for the meta may name
it; nor is any in a repository without a readable meta. What cannot be deleted (object lock, permissions) is reported,
stops nothing else, and is tried again by the next prune.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.errors import AccessError, InvalidArgumentError, NotFoundError, TransferError
from airflow_provider_rocksdb.core.parallel import Outcome, run_parallel
from airflow_provider_rocksdb.core.process_record import ProcessRecord
from airflow_provider_rocksdb.core.prune_result import Amount, PruneResult
from airflow_provider_rocksdb.core.repository_layout import DELETING_PREFIX, MARKS, PRIVATE, mark_name, meta_name
from airflow_provider_rocksdb.core.repository_marks import (
    DELETE_WITHIN_SECONDS,
    RESERVED_SECONDS,
    Marks,
    elapsed,
    list_marks,
    read_reservation,
)
from airflow_provider_rocksdb.core.repository_objects import Metas, Objects, Unreferenced
from airflow_provider_rocksdb.core.retention import BackupTime, RetentionPolicy, plan_retention
from airflow_provider_rocksdb.core.storage import Storage, translating
from airflow_provider_rocksdb.core.transfer import TransferOptions

R = TypeVar("R")

GRACE_SECONDS = 86400.0
PRUNE_OPTIONS = TransferOptions(max_workers=8)

_GIVE_UP_AFTER = 10  # requests that failed in spite of every attempt
_MARK = (
    b"No backup named this when a prune looked. A prune after the grace period deletes it, unless one does by then.\n"
)


def prune_backups(
    filesystem: AbstractFileSystem,
    root: str,
    policy: RetentionPolicy,
    *,
    dry_run: bool = False,
    grace_seconds: float = GRACE_SECONDS,
    options: TransferOptions = PRUNE_OPTIONS,
    stop: threading.Event | None = None,
) -> PruneResult:
    """Delete backups that a policy does not keep, and in time what only they needed. See the head of this module.

    Other prunes, and backups by this package, may run at the same time.

    :param dry_run: only say what would be done; nothing is written.
    :param grace_seconds: how long an object must have been seen unreferenced before it is deleted. Below an hour only
        when no backup runs at the same time: see :mod:`.repository_marks`.
    :param stop: set it to stop between two requests; what was deleted by then stays deleted.
    :raises NotFoundError: when there is no backup at all.
    :raises AccessError, InvalidArgumentError, TransferError: when the repository cannot be listed.
    :raises CancelledError: when ``stop`` was set.
    """
    if not 0 <= grace_seconds < float("inf"):
        raise InvalidArgumentError(f"grace_seconds: expected a number from 0, got {grace_seconds!r}")
    storage = Storage(filesystem, root)
    with translating(storage.url):
        return _Prune(storage, policy, grace_seconds, options, stop).run(dry_run)


@dataclass(frozen=True)
class _View:
    """What a repository was like when it was listed: what no meta names, and what is marked. ``now``: the store's."""

    unreferenced: dict[str, Unreferenced]
    kept: Amount
    marks: Marks
    now: float | None = None

    def holding_marks(self) -> dict[str, float]:
        """Return the marks of objects that no meta names, and that were not written since, or in the same second."""
        holding = {}
        for path, marked in self.marks.marked.items():
            item = self.unreferenced.get(path)
            if item is not None and item.modified is not None and marked is not None and item.modified < marked:
                holding[path] = marked
        return holding

    def find_due(self, grace_seconds: float) -> list[Unreferenced]:
        """Return what was marked so long ago; nothing where the store tells no time."""
        now = self.now
        if now is None:
            return []
        return [self.unreferenced[path] for path, at in self.holding_marks().items() if now - at >= grace_seconds]


class _Prune:
    """One call of :func:`prune_backups`."""

    def __init__(
        self,
        storage: Storage,
        policy: RetentionPolicy,
        grace_seconds: float,
        options: TransferOptions,
        stop: threading.Event | None,
    ) -> None:
        self.storage = storage
        self.policy = policy
        self.grace_seconds = grace_seconds
        self.options = options
        self.stop = stop
        self.began = time.monotonic()
        self.metas = Metas(storage, options, stop)
        self.marked: dict[str, Unreferenced] = {}
        self.removed: dict[str, Unreferenced] = {}
        self.failures: dict[str, str] = {}
        self.has_given_up = False

    def run(self, dry_run: bool) -> PruneResult:
        self.metas.read()
        if not self.metas.readable and not self.metas.unreadable:
            raise NotFoundError(f"{self.storage.url}: there is no backup; is this the backup repository?")
        times = [BackupTime(backup_id, meta.timestamp) for backup_id, meta in self.metas.readable.items()]
        plan = plan_retention(times, self.policy, time.time())
        marks = self._drop_marks(self._view(list_marks(self.storage, self.options, self.stop)), dry_run)
        gone = plan.removed if dry_run else self._remove_metas(plan.removed)
        for backup_id in gone:
            self.metas.forget(backup_id)
        view = self._view(marks, time.time())
        if self._is_certain:
            self._mark(view, dry_run)
            if dry_run:
                self.removed = {item.path: item for item in view.find_due(self.grace_seconds)}
            else:
                view = self._delete_due(view)
        done = self.removed.keys() | self.marked.keys()
        waiting = [view.unreferenced[path] for path in view.holding_marks() if path not in done]
        return PruneResult(
            backup_dir=self.storage.url,
            dry_run=dry_run,
            plan=plan,
            removed_backups=tuple(sorted(gone)),
            unreadable=dict(self.metas.unreadable),
            marked=_sum(self.marked.values()),
            removed=_sum(self.removed.values()),
            waiting=_sum(waiting),
            kept=view.kept,
            failures=tuple(f"{path}: {text}" for path, text in self.failures.items()),
            seconds=round(time.monotonic() - self.began, 3),
        )

    @property
    def _is_certain(self) -> bool:
        """Whether it is known what every backup needs, and that this is a repository at all."""
        return bool(self.metas.readable) and not self.metas.unreadable

    def _view(self, marks: Marks, now: float | None = None, reserved: frozenset[str] = frozenset()) -> _View:
        objects = Objects(self.storage, self.options, self.stop)
        referenced = self.metas.find_referenced()
        unreferenced = objects.find_unreferenced(referenced | reserved, self.metas.names)
        self.failures |= objects.unlisted
        return _View(unreferenced, Amount(*objects.count_shared(referenced)), marks, now)

    def _drop_marks(self, view: _View, dry_run: bool) -> Marks:
        """Take the marks away from what is gone, needed again, or new; return what is left of them."""
        holding = view.holding_marks()
        dropped = set(view.marks.marked) - set(holding) if self._is_certain else set()
        if not dry_run:
            self._each(sorted(dropped), lambda path: self._delete(mark_name(path)))
        return replace(view.marks, marked=holding if self._is_certain else view.marks.marked)

    def _remove_metas(self, backup_ids: Iterable[int]) -> list[int]:
        """Delete metas, the oldest first; return the ids of those that are gone."""
        names = {meta_name(backup_id): backup_id for backup_id in sorted(backup_ids)}
        return [names[name] for name in self._each(names, self._delete)]

    def _mark(self, view: _View, dry_run: bool) -> None:
        """Mark what is unreferenced and has no mark yet."""
        new = {path: item for path, item in view.unreferenced.items() if path not in view.marks.marked}
        for path in [path for path, item in new.items() if item.modified is None]:
            self.failures[path] = "cannot be deleted: the store does not tell when it was written"
            del new[path]
        if new and not dry_run:
            self._request(MARKS, lambda: self.storage.make_folders((MARKS,)))
            new = {
                path: new[path] for path in self._each(sorted(new), lambda path: self._write(mark_name(path), _MARK))
            }
        self.marked = new

    def _delete_due(self, view: _View) -> _View:
        """Delete what is due, in rounds of limited length; return what the repository was like in the last."""
        at_once = bool(self.marked) and not self.grace_seconds
        has_more = at_once or bool(view.holding_marks() or view.marks.deleting or view.marks.reserved)
        while has_more:
            began, token = elapsed(), f"{MARKS}/{DELETING_PREFIX}{secrets.token_hex(8)}"
            try:
                if not self._each([token], lambda name: self._write(name, ProcessRecord.of_this().encode())):
                    return view
                try:
                    with translating(self.storage.url):
                        view = self._look_again(token)
                except (AccessError, TransferError) as error:
                    self.failures[MARKS] = f"nothing more was deleted, for not all could be read: {error}"
                    return view
                due = [item.path for item in view.find_due(self.grace_seconds) if item.path not in self.failures]
                deleted = self._delete_in_time(due, view, began) if self._is_certain else []
                if elapsed() - began >= DELETE_WITHIN_SECONDS and not deleted:
                    self.failures[MARKS] = f"nothing more was deleted: to list took {elapsed() - began:.0f} s"
            finally:
                with contextlib.suppress(Exception):
                    self.storage.delete(token)
            self.removed |= {path: view.unreferenced[path] for path in deleted}
            self._each(deleted, lambda path: self._delete(mark_name(path)))
            has_more = bool(deleted) and len(deleted) < len(due) and not self.has_given_up
        return view

    def _look_again(self, token: str) -> _View:
        """Read all that decides anew, in this order: marks and reservations, metas, objects."""
        marks = list_marks(self.storage, self.options, self.stop)
        now = marks.deleting.get(token.partition("/")[2])
        tokens = {**marks.deleting, **marks.reserved}
        old = [
            name for name, at in tokens.items() if now is not None and at is not None and now - at >= RESERVED_SECONDS
        ]
        self._each([f"{MARKS}/{name}" for name in old], self._delete)
        reserved: set[str] = set()
        for name in sorted(set(marks.reserved) - set(old)):
            with contextlib.suppress(NotFoundError, FileNotFoundError):  # its backup has ended: a meta tells more
                reserved |= self._request(f"{MARKS}/{name}", partial(read_reservation, self.storage, name))
        self.metas.read()
        return self._view(marks, now, frozenset(reserved))

    def _delete_in_time(self, paths: Collection[str], view: _View, began: float) -> list[str]:
        """Delete what the paths stand for, as far as the time reaches; return what is gone."""

        def delete(name: str) -> bool:
            if elapsed() - began >= DELETE_WITHIN_SECONDS:
                return False
            self.storage.delete(name)
            return True

        def delete_all(path: str) -> bool:
            for name in view.unreferenced[path].files:
                if not self._request(name, partial(delete, name)):
                    return False
            if path.startswith(f"{PRIVATE}/"):
                self.storage.remove_folder(path)
            return True

        return self._each(paths, delete_all)

    def _each(self, names: Iterable[str], work: Callable[[str], bool]) -> list[str]:
        """Do something with each; return those with which it was done, and remember why it failed with others."""
        outcome = run_parallel(work, names, max_workers=self.options.max_workers, goes_on=_goes_on, stop=self.stop)
        for name, error in outcome.failures.items():
            if not isinstance(error, Exception):
                raise error
            self.failures[name] = str(error)
        if outcome.not_begun:
            self.has_given_up = True
            self.failures["and"] = f"{outcome.not_begun} more were not tried, for the storage kept failing"
        return [name for name, is_done in outcome.results.items() if is_done]

    def _delete(self, name: str) -> bool:
        self._request(name, partial(self.storage.delete, name))
        return True

    def _write(self, name: str, data: bytes) -> bool:
        self._request(name, partial(self.storage.write, name, data))
        return True

    def _request(self, name: str, call: Callable[[], R]) -> R:
        what = f"{self.storage.url}/{name}"
        with translating(what):
            return self.options.retry(call, self.storage, what, self.stop)


def _goes_on(outcome: Outcome[str, bool]) -> bool:
    """Go on after what is refused; not when the storage keeps failing."""
    return sum(isinstance(error, TransferError) for error in outcome.failures.values()) < _GIVE_UP_AFTER


def _sum(items: Iterable[Unreferenced]) -> Amount:
    sizes = [(len(item.files), item.bytes) for item in items]
    return Amount(sum(count for count, _ in sizes), sum(size for _, size in sizes))
