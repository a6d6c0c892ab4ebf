"""What the writers write: pure rules by which the judge knows what a database holds after number N and no more.

Numbers 0, 1, 2… are written in order. Each is one key (``%08d``) in every family of :func:`holders`, all by one
WriteBatch, with the hot key of its slot beside it (overwritten again and again: garbage for compaction and blob GC).
A value begins with its number. Some kinds have numbers that come otherwise, by rules of the number alone:

- ingesting: some runs of numbers come as an ingested SST file, in family ``a`` only;
- churning: families ``churn-<first number>`` are created before that number and dropped :data:`CHURN_LIFE` later;
- two phases: some numbers are transactions, prepared :data:`PREPARE_AHEAD` numbers before they are committed;
- deleting: files that lie wholly below a floor are deleted now and then, without a word in the WAL.

Writers that restart die by a signal at any moment, several times a second, and are started again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from airflow_provider_rocksdb.core.paths import DatabasePaths

Feature = Literal["", "ingest", "churn", "two_phase", "delete_files"]
Engine = Literal["9.8", "7.8", "6.29"]

HOT_SLOTS = 50
INGEST_PERIOD, INGEST_FROM = 300, 240
CHURN_PERIOD, CHURN_LIFE = 400, 600
PREPARE_PERIOD, PREPARE_AHEAD = 250, 1500
DELETE_PERIOD, DELETE_KEEP = 2000, 1000

SETTINGS = {
    "write_buffer_size": "65536",
    "arena_block_size": "4096",
    "max_total_wal_size": "500000",
    "level0_file_num_compaction_trigger": "3",
    "target_file_size_base": "65536",
    "max_bytes_for_level_base": "262144",
    "compression": "kNoCompression",
    "stats_dump_period_sec": "0",
    "keep_log_file_num": "2",
}
STRIDES = {"default": 1, "a": 1, "b": 1, "slow": 16}  # every how manieth number a family holds
HOT_PERIOD = 2 * HOT_SLOTS * STRIDES["slow"]  # within which every hot key of every family has been written again
_VALUE_BYTES = {"default": 60, "a": 120, "b": 30, "slow": 30}  # of unlike sizes, so that they are flushed apart


@dataclass(frozen=True)
class Kind:
    """A kind of writer; ``settings`` by RocksDB's own names, ``rate`` in numbers a second.

    ``leaves_torn_wals``: by dying within a write; RocksDB then goes on behind the torn end of an inner WAL, which no
    copy opens with under ``kAbsoluteConsistency``.
    """

    name: str
    engine: Engine = "9.8"
    settings: Mapping[str, str] = field(default_factory=dict)
    feature: Feature = ""
    families: tuple[str, ...] = ("default", "a", "b", "slow")
    separate_wal_dir: bool = False
    two_paths: bool = False
    value_factor: int = 1
    rate: int = 4000
    restarts: bool = False
    leaves_torn_wals: bool = False

    def paths(self, place: str) -> DatabasePaths:
        """Where the database's directories are."""
        return DatabasePaths(
            os.path.join(place, "db"),
            wal_dir=os.path.join(place, "wal") if self.separate_wal_dir else None,
            db_paths=(os.path.join(place, "fast"), os.path.join(place, "slow")) if self.two_paths else (),
        )

    @property
    def recycles(self) -> bool:
        """Whether WALs are recycled, so that their sizes do not tell where they end."""
        return "recycle_log_file_num" in self.settings

    def value_bytes(self, family: str) -> int:
        """Size of a value."""
        return _VALUE_BYTES.get(family, 30) * self.value_factor


_BLOBS = {
    "enable_blob_files": "true",
    "min_blob_size": "40",
    "enable_blob_garbage_collection": "true",
    "blob_garbage_collection_age_cutoff": "1.0",
    "blob_garbage_collection_force_threshold": "0.1",
}
_ARCHIVE = {"WAL_ttl_seconds": "2"}
_RECYCLED = {"recycle_log_file_num": "3"}
_RECYCLED_6 = _RECYCLED | {"wal_recovery_mode": "kSkipAnyCorruptedRecords"}  # else it recycles none
_TRACKED = {"track_and_verify_wals_in_manifest": "true"}
_LARGE = {"write_buffer_size": "8388608", "max_total_wal_size": "32000000"}
_KEPT = {"avoid_flush_during_recovery": "true"}  # WALs live on over restarts
_THREE = ("default", "a", "b")  # "slow" would keep every old WAL alive

KINDS = {
    kind.name: kind
    for kind in (
        Kind("plain"),
        Kind("recycled WALs", settings=_RECYCLED),
        Kind("blob files", settings=_BLOBS),
        Kind("two paths", settings={"max_bytes_for_level_base": "40000"}, two_paths=True),
        Kind("separate wal_dir", separate_wal_dir=True),
        Kind("archive", settings=_ARCHIVE),
        Kind("atomic flush", settings={"atomic_flush": "true"}),
        Kind("ingesting", feature="ingest"),
        Kind("churning families", feature="churn"),
        Kind("tracked WALs", settings=_TRACKED),
        Kind("MANIFEST rolls", settings={"max_manifest_file_size": "1000"}),
        Kind("compressed WALs", settings={"wal_compression": "kZSTD"}),
        Kind("large batches", settings=_LARGE, value_factor=4000, rate=40),
        Kind("restarting", settings=_KEPT, restarts=True),
        Kind("restarting, recycled WALs", settings=_RECYCLED, restarts=True),
        Kind(
            "restarting, large batches",
            settings=_LARGE | _KEPT,
            value_factor=4000,
            rate=40,
            restarts=True,
            leaves_torn_wals=True,
        ),
        Kind("7.8", engine="7.8"),
        Kind("7.8 two-phase commit", engine="7.8", feature="two_phase", families=_THREE),
        Kind("7.8 deleting files", engine="7.8", feature="delete_files"),
        Kind("7.8 tracked", engine="7.8", settings=_TRACKED),
        Kind("7.8 restarting", engine="7.8", restarts=True),
        Kind("7.8 compressed, archive", engine="7.8", settings=_ARCHIVE | {"wal_compression": "kZSTD"}),
        Kind("6.29", engine="6.29"),
        Kind("6.29 recycled, blobs", engine="6.29", settings=_RECYCLED_6 | _BLOBS),
        Kind("6.29 restarting", engine="6.29", restarts=True),
    )
}


def key(number: int) -> bytes:
    """Key of a number."""
    return b"%08d" % number


def hot_key(number: int) -> bytes:
    """Hot key of a number's slot; it sorts behind all numbers."""
    return b"hot-%02d" % (number % HOT_SLOTS)


def is_ingested(kind: Kind, number: int) -> bool:
    """Whether a number comes in an ingested SST file."""
    return kind.feature == "ingest" and number % INGEST_PERIOD >= INGEST_FROM


def is_transaction(kind: Kind, number: int) -> bool:
    """Whether a number comes by two-phase commit."""
    return kind.feature == "two_phase" and number >= PREPARE_AHEAD and number % PREPARE_PERIOD == PREPARE_PERIOD - 1


def is_hot(kind: Kind, number: int) -> bool:
    """Whether a number comes with its slot's hot key."""
    return not is_ingested(kind, number) and not is_transaction(kind, number)


def churn_families(number: int) -> Iterator[str]:
    """Yield the churning families that are alive when a number is written."""
    for first in range(number - number % CHURN_PERIOD, max(0, number - CHURN_LIFE), -CHURN_PERIOD):
        yield f"churn-{first:08d}"


def holders(kind: Kind, number: int) -> list[str]:
    """Families that hold a number."""
    if is_ingested(kind, number):
        return ["a"]
    names = [name for name in kind.families if number % STRIDES[name] == 0]
    return [*names, *churn_families(number)] if kind.feature == "churn" else names


def families_after(kind: Kind, last: int) -> tuple[set[str], set[str]]:
    """Families that there must be after a number has been written and before the next one; and that there may be."""
    if kind.feature != "churn":
        return set(kind.families), set(kind.families)
    before, after = set(churn_families(last)), set(churn_families(last + 1))
    return {*kind.families, *(before & after)}, {*kind.families, *before, *after}


def floor_after(kind: Kind, last: int) -> int:
    """Numbers below it may have been deleted after a number has been written and before the next one."""
    deleted_before = (last + 1) // DELETE_PERIOD * DELETE_PERIOD
    return max(0, deleted_before - DELETE_KEEP) if kind.feature == "delete_files" else 0
