"""What a prune did, for a reader and for a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from airflow_provider_rocksdb.core.errors import CouldNotCheckError
from airflow_provider_rocksdb.core.retention import RetentionPlan


class Amount(NamedTuple):
    """A number of objects, and their bytes."""

    objects: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.objects} ({self.bytes} bytes)"


@dataclass(frozen=True)
class PruneResult:
    """What a prune did, or in a dry run would do.

    ``unreadable``: metas that could not be read, by id, and why; no object was marked or deleted then.
    ``marked``: objects first seen unreferenced now. ``removed``: objects deleted. ``waiting``: objects that were marked
    before and are still there: for the grace period, or because they could not be deleted. ``kept``: shared files that
    backups name. ``failures``: what could not be deleted or marked, and why. In a dry run, marks are measured against
    this host's clock, and otherwise against the store's.
    """

    backup_dir: str
    dry_run: bool
    plan: RetentionPlan
    removed_backups: tuple[int, ...]
    unreadable: dict[int, str]
    marked: Amount
    removed: Amount
    waiting: Amount
    kept: Amount
    failures: tuple[str, ...]
    seconds: float

    def raise_for_unreadable(self) -> None:
        """Do nothing when every meta could be read.

        :raises CouldNotCheckError: naming those that could not.
        """
        if self.unreadable:
            texts = [f"backup {backup_id}: {reason}" for backup_id, reason in sorted(self.unreadable.items())]
            raise CouldNotCheckError(
                f"{self.backup_dir}: {len(texts)} metas cannot be read, so that no object was marked or deleted; mend "
                f"or remove them: {'; '.join(texts[:10])}"
            )

    def to_dict(self, limit: int | None = None) -> dict[str, Any]:
        """As JSON-able values; of each list at most ``limit`` items, with the number of those left out."""
        lists: dict[str, list[Any]] = {
            "plan": [decision.to_dict() for decision in self.plan.decisions],
            "removed_backups": list(self.removed_backups),
            "unreadable": [{"backup_id": key, "reason": text} for key, text in sorted(self.unreadable.items())],
            "failures": list(self.failures),
        }
        left_out = {
            name: len(items) - limit for name, items in lists.items() if limit is not None and len(items) > limit
        }
        return {
            "backup_dir": self.backup_dir,
            "dry_run": self.dry_run,
            **{name: items[:limit] for name, items in lists.items()},
            **{name: getattr(self, name)._asdict() for name in ("marked", "removed", "waiting", "kept")},
            "seconds": self.seconds,
            "left_out": left_out,
        }

    def lines(self) -> list[str]:
        """Return for a reader: each backup with its reason, the newest first; what was not done; the sum."""
        texts = [f"{'backup':>10}  {'time':20}  {'':6}  reasons"]
        for decision in self.plan.decisions:
            action = "keep" if decision.keep else "remove"
            reasons = ", ".join(decision.reasons) or "no rule keeps it"
            texts.append(f"{decision.backup_id:>10}  {decision.time:20}  {action:6}  {reasons}")
        for backup_id, reason in sorted(self.unreadable.items()):
            texts.append(f"{backup_id:>10}  {'':20}  {'keep':6}  cannot be read: {reason}")
        texts += [f"not done: {failure}" for failure in self.failures]
        did = "would be" if self.dry_run else "were"
        if self.unreadable:
            objects = "no object is marked or deleted while a meta cannot be read"
        else:
            objects = (
                f"of the objects that none needs, {self.removed} {did} deleted, {self.marked} {did} marked, "
                f"{self.waiting} wait; {len(self.failures)} failures"
            )
        return [*texts, f"{len(self.removed_backups)} of {len(self.plan.decisions)} backups {did} removed; {objects}"]
