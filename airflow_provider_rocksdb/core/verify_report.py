"""What a verification finds: problems, the part of all files that was looked at, and the report of both."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_rocksdb.core.completeness import STATE_ERRORS
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.repository_layout import Layout

_SHOWN = 10  # problems in the text of an error, and backups in that of a problem


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file of a repository, and the backups that it belongs to (none: all of them)."""

    state: State
    backup_ids: tuple[int, ...]
    file: str
    expected: str
    got: str

    def __str__(self) -> str:
        ids = ", ".join(map(str, self.backup_ids[:_SHOWN])) + (", …" if len(self.backup_ids) > _SHOWN else "")
        whose = f" (backup{'s' if len(self.backup_ids) > 1 else ''} {ids})" if self.backup_ids else ""
        return f"{self.file}: expected {self.expected}, got {self.got}{whose}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "state": self.state.value, "backup_ids": list(self.backup_ids)}


@dataclass(frozen=True)
class Sample:
    """Which part of all files is read: those whose names' hash leaves ``part`` when divided by ``parts``."""

    percent: float
    part: int
    parts: int

    def takes(self, name: str) -> bool:
        """Whether it is this file's turn."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.parts == self.part


@dataclass(frozen=True)
class VerifyReport:
    """What was found. ``problems`` has every one, the gravest kind first.

    ``file_count`` and ``total_bytes`` are of all files that the backups name, each counted once; ``read_files`` and
    ``read_bytes`` of those that were read to their end.
    """

    state: State
    level: str
    backup_dir: str
    layout: Layout
    backup_ids: tuple[int, ...]
    problems: tuple[Problem, ...]
    file_count: int
    total_bytes: int
    read_files: int
    read_bytes: int
    sample: Sample | None
    seconds: float

    @property
    def read_share(self) -> float:
        """Part of all bytes that was read, from 0 to 1."""
        return self.read_bytes / self.total_bytes if self.total_bytes else 0.0

    @property
    def reason(self) -> str:
        """The gravest problems in one line, and how many more there are; empty when complete."""
        shown = "; ".join(str(problem) for problem in self.problems[:_SHOWN])
        more = len(self.problems) - _SHOWN
        return f"{shown}; and {more} more" if more > 0 else shown

    @property
    def summary(self) -> str:
        """What was looked at, in one line."""
        which = f"backup {', '.join(map(str, self.backup_ids))}: " if len(self.backup_ids) == 1 else ""
        which = f"{len(self.backup_ids)} backups: " if len(self.backup_ids) > 1 else which
        sample = f", part {self.sample.part + 1} of {self.sample.parts}" if self.sample else ""
        return (
            f"{which}{self.file_count} files, {self.total_bytes} bytes; read {self.read_files} files, "
            f"{self.read_bytes} bytes ({self.read_share:.1%}{sample})"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            **asdict(self),
            "state": self.state.value,
            "backup_ids": list(self.backup_ids),
            "problems": [problem.to_dict() for problem in self.problems],
            "read_share": round(self.read_share, 4),
        }

    def raise_for_state(self) -> None:
        """Do nothing when complete.

        :raises IncompleteError, CorruptionError, CouldNotCheckError: by the state, with the reason.
        """
        if self.state is not State.COMPLETE:
            raise STATE_ERRORS[self.state](f"{self.backup_dir}: {self.state.value.replace('_', ' ')}: {self.reason}")
