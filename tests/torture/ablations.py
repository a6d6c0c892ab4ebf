"""What each protection of the live checkpoint is there for: taken away, the torture must find something lost.

Each takes one protection out of the running package, by replacing a function of it in memory, and names the kind of
writer and the pauses that make the race likely.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_rocksdb.core import capture, durable, live_checkpoint, live_database
from airflow_provider_rocksdb.core.capture import FileCapture, WalCapture
from airflow_provider_rocksdb.core.checkpoint_record import CheckpointFile
from airflow_provider_rocksdb.core.format import options_file
from airflow_provider_rocksdb.core.format.filename import wal_file_name
from airflow_provider_rocksdb.core.format.manifest import ColumnFamily, Version
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.live_database import LiveDatabase
from airflow_provider_rocksdb.core.wal import WalContent, read_wal_file
from tests.torture.kinds import KINDS
from tests.torture.torture import Tally, Turn

TURN = 10
PAUSED_ROUNDS = 3  # later rounds go on unpaused, so that a checkpoint with all protections ends
TIMEOUT_SECONDS = 20.0

WHAT_LENGTH = 120
_PLACE = re.compile(r"\S*/torture-\w+/")

Replacement = tuple[Any, str, Any]
"""Object, attribute and what takes its place."""


@dataclass(frozen=True)
class Ablation:
    """A protection to be taken away; ``pauses``: for how many numbers to wait before a step.

    ``covered``: what else holds where nothing is expected to fail; such a protection is a second line.
    """

    name: str
    kind: str
    replacements: Callable[[], list[Replacement]]
    pauses: Mapping[str, int] = field(default_factory=dict)
    linger: int = 0
    covered: str = ""

    def run(self, limit: int, seed: int, *, removed: bool = True) -> Tally:
        """Take checkpoints until one fails, at most ``limit``, without the protection or with it."""
        tally = Tally()
        with self.removed() if removed else contextlib.nullcontext():
            while not tally.failed and tally.checkpoints < limit:
                turn = Turn(
                    KINDS[self.kind],
                    min(TURN, limit - tally.checkpoints),
                    seed + tally.checkpoints,
                    pause=self._pause,
                    linger=self.linger,
                    timeout_seconds=TIMEOUT_SECONDS,
                )
                try:
                    turn.run(tally, until_failed=True)
                except RuntimeError as error:  # the writer, whose files it has damaged, has died
                    tally.failed += 1
                    tally.problems.append(str(error))
        return tally

    def _pause(self, step: str, rounds: int) -> int:
        return self.pauses.get(step, 0) if rounds <= PAUSED_ROUNDS else 0

    @contextlib.contextmanager
    def removed(self) -> Iterator[None]:
        """Take the protection away for the length of a block."""
        with contextlib.ExitStack() as stack:
            for owner, name, value in self.replacements():
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            yield


def _never_grown() -> list[Replacement]:
    return [(LiveDatabase, "has_grown", lambda self: False)]


def _rolls_unseen() -> list[Replacement]:
    def has_grown(self: LiveDatabase) -> bool:
        return os.fstat(self._descriptor or 0).st_size != self._seen[0]

    return [(LiveDatabase, "has_grown", has_grown)]


def _one_listing(*, first: bool) -> list[Replacement]:
    """Of the two listings of a round keep the first or the second."""
    original, listings = LiveDatabase.list_wals, [0]

    def list_wals(self: LiveDatabase) -> dict[int, str]:
        listings[0] += 1
        return original(self) if listings[0] % 2 == first else {}

    def counted_round(self: Any) -> Any:
        listings[0] = 0
        return original_round(self)

    original_round = live_checkpoint._Capture._round
    return [(LiveDatabase, "list_wals", list_wals), (live_checkpoint._Capture, "_round", counted_round)]


def _larger_wal_bound() -> list[Replacement]:
    def min_wal_number(self: Version) -> int:
        lowest = min(family.log_number for family in self.column_families.values())
        return max(self.min_log_number_to_keep or 0, lowest)

    return [(Version, "min_wal_number", property(min_wal_number))]


def _linked_wals() -> list[Replacement]:
    def link(self: WalCapture, number: int, path: str, descriptor: int, size: int) -> WalContent:
        target = os.path.join(self._directory, wal_file_name(number))
        os.link(path, target)
        return read_wal_file(number, target)

    return [(WalCapture, "_copy", link), *_uncut_wals()]


def _uncut_wals() -> list[Replacement]:
    def cut(self: WalCapture) -> list[CheckpointFile]:
        return [CheckpointFile(wal_file_name(wal.number), wal.size, "written") for wal in self.copied]

    return [(WalCapture, "cut", cut)]


def _unbounded_wals() -> list[Replacement]:
    original = WalCapture.copy

    def copy(self: WalCapture) -> None:
        self._pinned = [(number, path, fd, os.fstat(fd).st_size) for number, path, fd, _ in self._pinned]
        original(self)

    return [(WalCapture, "copy", copy)]


def _oldest_first() -> list[Replacement]:
    original = WalCapture.pin

    def pin(self: WalCapture, paths: Mapping[int, str]) -> None:
        self.close()
        pinned = []
        for number in sorted(paths):
            WalCapture.close(self)
            original(self, {number: paths[number]})
            pinned += self._pinned
            self._pinned = []
        self._pinned = pinned[::-1]

    return [(WalCapture, "pin", pin)]


def _no_archive() -> list[Replacement]:
    def open_wal(path: str) -> tuple[str, int]:
        return path, os.open(path, os.O_RDONLY)

    return [(live_database, "ARCHIVE_DIR", "nothing"), (capture, "_open_wal", open_wal)]


def _whole_manifest() -> list[Replacement]:
    def copy_manifest(self: LiveDatabase, files: durable.NewFiles, target: str, _: int) -> None:
        files.copy(self._descriptor or 0, target, os.fstat(self._descriptor or 0).st_size)

    return [(LiveDatabase, "copy_manifest", copy_manifest)]


def _uncut_manifest() -> list[Replacement]:
    original = LiveDatabase.copy_manifest

    def copy_manifest(self: LiveDatabase, files: durable.NewFiles, target: str, _: int) -> None:
        original(self, files, target, self._seen[0])

    return [(LiveDatabase, "copy_manifest", copy_manifest)]


def _current_of_the_source() -> list[Replacement]:
    read, create, directories = LiveDatabase.read_current, durable.NewFiles.create, [""]

    def read_current(self: LiveDatabase) -> str:
        directories[0] = self.db_dir
        return read(self)

    def create_file(self: durable.NewFiles, path: str, data: bytes) -> None:
        if os.path.basename(path) == "CURRENT":
            data = durable.read_small_file(os.path.join(directories[0], "CURRENT"))
        create(self, path, data)

    return [(LiveDatabase, "read_current", read_current), (durable.NewFiles, "create", create_file)]


def _all_blobs() -> list[Replacement]:
    return [(ColumnFamily, "live_blobs", lambda self: list(self.blobs.values()))]


def _links_kept() -> list[Replacement]:
    return [(FileCapture, "finish", lambda self, live: None)]


def _options_as_they_are() -> list[Replacement]:
    original = OptionsFile.for_copy

    def for_copy(self: OptionsFile, _: Mapping[bytes, str]) -> tuple[bytes, dict[str, object]]:
        return original(self, dict.fromkeys(self.column_families, ""))

    return [(OptionsFile, "for_copy", for_copy)]


_UNSEEN = {"read MANIFEST": 1000, "pin WALs": 2000}  # WALs come after the first listing and go before the second

ABLATIONS = {
    ablation.name: ablation
    for ablation in (
        Ablation("another round when the MANIFEST has grown", "plain", _never_grown, _UNSEEN),
        Ablation(
            "another round when the MANIFEST has grown (ingested files)", "ingesting", _never_grown, {"pin WALs": 200}
        ),
        Ablation("another round when CURRENT has changed", "MANIFEST rolls", _rolls_unseen, _UNSEEN),
        Ablation(
            "another round when a file is missing",
            "plain",
            lambda: [(live_checkpoint, "_moved_on_when_missing", contextlib.nullcontext)],
            {"link files": 1000},
        ),
        Ablation(
            "the first listing of WALs",
            "plain",
            lambda: _one_listing(first=False),
            {"pin WALs": 1000},
            covered="a needed WAL goes only after the MANIFEST has grown: another round",
        ),
        Ablation("the second listing of WALs", "plain", lambda: _one_listing(first=True), {"read MANIFEST": 1000}),
        Ablation("WALs needed from the MANIFEST's own bound", "7.8 two-phase commit", _larger_wal_bound),
        Ablation(
            "WALs pinned newest first",
            "plain",
            _oldest_first,
            {"pin WALs": 100},
            covered="no RocksDB up to 9.8 writes into a WAL when the next one is there",
        ),
        Ablation("WALs copied no further than their noted sizes", "ingesting", _unbounded_wals, {"copy WALs": 300}),
        Ablation("WALs copied, not linked", "recycled WALs", _linked_wals, linger=2000),
        Ablation("WALs copied, not linked (WALs not recycled)", "ingesting", _linked_wals, linger=300),
        Ablation(
            "another round when a WAL was recycled",
            "recycled WALs",
            lambda: [(capture, "_is_elsewhere", lambda path, descriptor: False)],
            {"copy WALs": 2000},
        ),
        Ablation("the newest WAL cut at its last whole record", "recycled WALs", _uncut_wals),
        Ablation("the newest WAL cut at its last whole record (full disk)", "plain", _uncut_wals),
        Ablation(
            "WALs looked for in the archive",
            "archive",
            _no_archive,
            {"pin WALs": 1000},
            covered="a needed WAL is archived only after the MANIFEST has grown: another round",
        ),
        Ablation(
            "wal_dir taken from OPTIONS",
            "separate wal_dir",
            lambda: [(LiveDatabase, "_find_wal_dir", lambda self: self.db_dir)],
        ),
        Ablation(
            "wal_dir emptied in OPTIONS", "separate wal_dir", lambda: [(options_file, "_EMPTIED", ())], linger=200
        ),
        Ablation("OPTIONS of exactly the column families", "churning families", _options_as_they_are, {"end": 600}),
        Ablation("the MANIFEST cut at the Version", "plain", _whole_manifest, {"end": 1000}),
        Ablation(
            "the MANIFEST cut at its last whole record",
            "atomic flush",
            _uncut_manifest,
            covered="half a record grows: another round; it stays only after a crash",
        ),
        Ablation("an own CURRENT", "MANIFEST rolls", _current_of_the_source, {"end": 500}),
        Ablation("path ids set to 0", "two paths", lambda: [(live_checkpoint, "clear_path_ids", lambda record: None)]),
        Ablation("blob files without an SST file left out", "blob files", _all_blobs),
        Ablation("links dropped when no longer live", "plain", _links_kept, {"link files": 300}),
    )
}


def ablation_table(rows: list[tuple[Ablation, Tally, Tally]]) -> str:
    """Lay out what failed without each protection, and with it under the same pauses."""
    lines = [
        "| protection removed | writer | failed at | what failed, or what else holds | with it, same pauses |",
        "|---|---|--:|---|---|",
    ]
    for ablation, without, guarded in rows:
        found = f"{without.checkpoints}" if without.failed else f"none of {without.checkpoints}"
        what = _PLACE.sub("", without.problems[0])[:WHAT_LENGTH] if without.problems else ablation.covered
        rest = f"{guarded.failed} of {guarded.checkpoints} failed"
        lines.append(f"| {ablation.name} | {ablation.kind} | {found} | {what} | {rest} |")
    return "\n".join(lines)
