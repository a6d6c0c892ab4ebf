"""A judge of one checkpoint: what stock RocksDB says it holds, against what :mod:`tests.torture.kinds` says it must.

Run as a program, since a bad copy of a database can take its reader down with it. First ``ldb`` (RocksDB 7.8), which
changes nothing: the live files are exactly those that lie there, they are consistent, and every family has as many keys
as it must. Then rocksdict (9.8), with the OPTIONS that lie there, no further paths, under ``kAbsoluteConsistency``:
every key and value, the status checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.core.databases import ROOT
from tests.torture.kinds import (
    HOT_PERIOD,
    KINDS,
    Kind,
    families_after,
    floor_after,
    holders,
    hot_key,
    is_hot,
    key,
)

TIMEOUT_SECONDS = 120
_LDB_TIMEOUT_SECONDS = 30  # so that the judge ends before its own time is up, and leaves no ldb behind
LDB = shutil.which("ldb")
_LIVE_FILE = re.compile(r"/(\d+\.sst)$", re.MULTILINE)
_BLOB_FILE = re.compile(r"^blob_file_number: (\d+)", re.MULTILINE)


@dataclass
class Verdict:
    """What was found: the last number, how many keys were looked at, how many are lost, and what is wrong."""

    last: int = -1
    keys: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)


def judge(kind: Kind, checkpoint_dir: str, acknowledged: int) -> Verdict:
    """Judge a checkpoint in a child process; it is of no more use afterwards.

    :param acknowledged: how many numbers had been acknowledged before it was begun.
    """
    arguments = {"kind": kind.name, "checkpoint_dir": checkpoint_dir, "acknowledged": acknowledged}
    command = [sys.executable, "-m", "tests.torture.judge", json.dumps(arguments)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    except subprocess.TimeoutExpired:
        return Verdict(problems=[f"the judge did not end within {TIMEOUT_SECONDS} s"])
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Verdict(problems=[f"the judge ended with status {done.returncode} and said: {said}"])
    return Verdict(**json.loads(done.stdout))


def _judge(kind: Kind, checkpoint_dir: str, acknowledged: int) -> Verdict:
    verdict = Verdict()
    seen_files = _ldb_files(checkpoint_dir, verdict) if LDB else None
    counts = _ldb_counts(kind, checkpoint_dir, verdict) if LDB else {}
    if seen_files is not None:
        there = {name for name in os.listdir(checkpoint_dir) if name.endswith((".sst", ".blob"))}
        if there != seen_files:
            verdict.problems.append(
                f"live files: missing {sorted(seen_files - there)[:5]}, not live {sorted(there - seen_files)[:5]}"
            )
    try:
        found = _read(checkpoint_dir, strict=not kind.leaves_torn_wals)
    except Exception as error:  # noqa: BLE001 -- rocksdict raises plain Exception
        verdict.problems.append(f"rocksdict: {error}")
        return verdict
    _compare(kind, found, acknowledged, verdict)
    for family, count in counts.items():
        if count != len(found.get(family, ())):
            verdict.problems.append(
                f"family {family!r}: ldb counts {count} keys, rocksdict {len(found.get(family, ()))}"
            )
    return verdict


def _run_ldb(checkpoint_dir: str, verdict: Verdict, *arguments: str) -> str | None:
    command = [str(LDB), f"--db={checkpoint_dir}", "--ignore_unknown_options", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LDB_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        verdict.problems.append(f"ldb {arguments[-1]}: did not end within {_LDB_TIMEOUT_SECONDS} s")
        return None
    if done.returncode or "Failed" in done.stderr:
        said = (done.stderr + done.stdout).strip().splitlines() or ["nothing"]
        verdict.problems.append(f"ldb {arguments[-1]}: status {done.returncode}: {said[0]}")
        return None
    return done.stdout


def _ldb_files(checkpoint_dir: str, verdict: Verdict) -> set[str] | None:
    """Live SST and blob files, as ``ldb`` sees them."""
    tables = _run_ldb(checkpoint_dir, verdict, "list_live_files_metadata")
    manifest = _run_ldb(checkpoint_dir, verdict, "manifest_dump")
    consistent = _run_ldb(checkpoint_dir, verdict, "checkconsistency")
    if tables is None or manifest is None or consistent is None:
        return None
    blobs = {int(number) for number in _BLOB_FILE.findall(manifest)}
    return {*_LIVE_FILE.findall(tables), *(f"{number:06d}.blob" for number in blobs)}


def _ldb_counts(kind: Kind, checkpoint_dir: str, verdict: Verdict) -> dict[str, int]:
    counts = {}
    for family in kind.families:
        said = _run_ldb(checkpoint_dir, verdict, f"--column_family={family}", "dump", "--count_only")
        match = re.search(r"Keys in range: (\d+)", said or "")
        if match:
            counts[family] = int(match[1])
        elif said is not None:
            verdict.problems.append(f"ldb dump: no count of family {family!r} in {said[:200]!r}")
    return counts


def _read(checkpoint_dir: str, *, strict: bool) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every family's keys, with the number that each value begins with."""
    import rocksdict

    options, families = rocksdict.Options.load_latest(checkpoint_dir, ignore_unknown_options=True)
    if strict:
        options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.absolute_consistency())
    database = rocksdict.Rdict(checkpoint_dir, options, families)
    found = {}
    for name in families:
        iterator = (database if name == "default" else database.get_column_family(name)).iter()
        iterator.seek_to_first()
        pairs = []
        while iterator.valid():
            pairs.append((iterator.key(), iterator.value()[:8]))
            iterator.next()
        iterator.status()
        found[name] = pairs
    return found


def _compare(kind: Kind, found: dict[str, list[tuple[bytes, bytes]]], acknowledged: int, verdict: Verdict) -> None:
    numbers = {family: [int(name) for name, _ in pairs if name.isdigit()] for family, pairs in found.items()}
    verdict.keys = sum(len(pairs) for pairs in found.values())
    verdict.last = max((seen[-1] for seen in numbers.values() if seen), default=-1)
    must, may = families_after(kind, verdict.last)
    for family in sorted(must - set(found)):
        verdict.problems.append(f"family {family!r} is missing")
    for family in sorted(set(found) - may):
        verdict.problems.append(f"family {family!r} should be gone")
    end = max(verdict.last + 1, acknowledged)
    expected = _expect(kind, end, set(found))
    floor = floor_after(kind, verdict.last)
    for family, seen in numbers.items():
        missing = sorted(set(expected[family]) - set(seen))
        lost = [number for number in missing if number >= floor]
        excess = sorted(set(seen) - set(expected[family]))
        if lost:
            verdict.lost += len(lost)
            where = "acknowledged before" if lost[0] < acknowledged else "in the middle"
            verdict.problems.append(
                f"family {family!r}: {len(lost)} keys missing, {where}: {_ranges(lost)} of 0-{end - 1} "
                f"({acknowledged} acknowledged before)"
            )
        if excess:
            verdict.problems.append(f"family {family!r}: {len(excess)} keys too many: {_ranges(excess)}")
    _compare_values(kind, found, verdict)


def _expect(kind: Kind, end: int, families: set[str]) -> dict[str, list[int]]:
    expected: dict[str, list[int]] = {family: [] for family in families}
    for number in range(end):
        for family in holders(kind, number):
            if family in families:
                expected[family].append(number)
    return expected


def _compare_values(kind: Kind, found: dict[str, list[tuple[bytes, bytes]]], verdict: Verdict) -> None:
    """Each number's value begins with it; each hot key's with the last number of its slot."""
    hot: dict[str, dict[bytes, bytes]] = {family: {} for family in found}
    for number in range(max(0, verdict.last - HOT_PERIOD), verdict.last + 1):
        if is_hot(kind, number):
            for family in holders(kind, number):
                if family in hot:
                    hot[family][hot_key(number)] = key(number)
    for family, pairs in found.items():
        wrong = [(name, value) for name, value in pairs if value != (name if name.isdigit() else hot[family].get(name))]
        if wrong:
            verdict.problems.append(f"family {family!r}: {len(wrong)} values of another number, first {wrong[0]!r}")


def _ranges(numbers: list[int]) -> str:
    return ", ".join(_iter_ranges(numbers[:10_000])) if len(numbers) < 10_000 else f"{numbers[0]}…{numbers[-1]}"


def _iter_ranges(numbers: list[int]) -> Iterator[str]:
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            yield f"{start}-{previous}" if previous > start else str(start)
            start = number
        previous = number


def _main(arguments: dict[str, Any]) -> None:
    kind = KINDS[arguments["kind"]]
    verdict = _judge(kind, arguments["checkpoint_dir"], arguments["acknowledged"])
    sys.stdout.write(json.dumps(asdict(verdict)))
    sys.stdout.flush()
    os._exit(0)  # nothing that RocksDB does on its way out may change the verdict


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
