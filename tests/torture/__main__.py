"""Torture the live checkpoint: ``python -m tests.torture --checkpoints 1000 --pauses``.

Prints a table with a line for each kind of writer, and exits with 1 when a checkpoint has failed. ``--ablate`` takes
the protections away one after the other, and exits with 1 when nothing fails without one, or something fails with it.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.torture.ablations import ABLATIONS, Ablation, ablation_table
from tests.torture.c_api import find_library
from tests.torture.judge import LDB
from tests.torture.kinds import KINDS, Kind
from tests.torture.torture import Tally, Turn, no_pause, table

PER_TURN = 10
GUARDED_CHECKPOINTS = 10


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=None, help="1000 in all; with --ablate at most 60 of each")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", choices=KINDS, default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pauses", action="store_true", help="pause between all steps of every second turn")
    parser.add_argument("--directory", help="where databases are put; the system's place for temporary files")
    parser.add_argument(
        "--without", nargs="+", metavar="PROTECTION", choices=ABLATIONS, default=[], help=", ".join(ABLATIONS)
    )
    parser.add_argument("--ablate", action="store_true", help="without each of the protections in turn")
    return parser.parse_args(arguments)


def usable_kinds(names: list[str]) -> list[Kind]:
    """Return the kinds whose RocksDB is installed, and say which are not."""
    kinds = []
    for kind in (KINDS[name] for name in names):
        if kind.engine == "9.8" or find_library(kind.engine) is not None:
            kinds.append(kind)
        else:
            print(f"not run, RocksDB {kind.engine} is not installed: {kind.name}", flush=True)
    if LDB is None:
        print("ldb is not installed: judged by rocksdict alone", flush=True)
    return kinds


def torture(options: argparse.Namespace) -> int:
    """Take checkpoints of each kind in turn until there are enough."""
    kinds = usable_kinds(options.kinds)
    tallies = {kind.name: Tally() for kind in kinds}
    wanted, done, turn = options.checkpoints or 1000, 0, 0
    started = time.monotonic()
    while done < wanted:
        kind, round_number = kinds[turn % len(kinds)], turn // len(kinds)
        count = min(PER_TURN, wanted - done)
        pause = None if options.pauses and round_number % 2 == 0 else no_pause
        tally = tallies[kind.name]
        Turn(kind, count, options.seed + turn, pause, directory=options.directory).run(tally)
        done, turn = done + count, turn + 1
        print(f"{time.monotonic() - started:6.0f} s  {done:5}/{wanted}  {kind.name}: {tally.failed} failed", flush=True)
    print(table(tallies))
    problems = [f"{name}: {problem}" for name, tally in tallies.items() for problem in tally.problems]
    print(*problems, sep="\n")
    return 1 if problems else 0


def ablate(ablations: list[Ablation], limit: int, seed: int) -> int:
    """Take away one protection after the other; then the same with it."""
    usable = {kind.name for kind in usable_kinds(sorted({ablation.kind for ablation in ablations}))}
    rows = []
    for ablation in ablations:
        if ablation.kind not in usable:
            continue
        without = ablation.run(limit, seed)
        guarded = ablation.run(GUARDED_CHECKPOINTS, seed, removed=False)
        rows.append((ablation, without, guarded))
        print(ablation_table(rows[-1:]).splitlines()[-1], flush=True)
    print(ablation_table(rows))
    return 0 if all(bool(bare.failed) != bool(row.covered) and not whole.failed for row, bare, whole in rows) else 1


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parse(arguments)
    if options.ablate or options.without:
        names = options.without or list(ABLATIONS)
        return ablate([ABLATIONS[name] for name in names], options.checkpoints or 60, options.seed)
    return torture(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
