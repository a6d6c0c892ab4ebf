"""Kill commands with SIGKILL at random moments, and look at what is left: ``python -m tests.crash --kills 200``.

A writer process goes on with its database meanwhile. After each kill, what was committed must be whole, the database's
directory must hold nothing that RocksDB has not put there, and the same command, run again, must succeed and clear away
what the dead one left. Prints a table; the exit status is 1 when anything was wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.crash.harness import SCENARIOS, run_scenario


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], help="default: all")
    parser.add_argument("--kills", type=int, default=200, help="of each command (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{'command':<12}{'killed':>8}{'too late':>10}{'committed':>11}{'keys checked':>14}{'wrong':>7}")
    wrong = 0
    for name in arguments.scenarios or SCENARIOS:
        moments = random.Random(arguments.seed)  # noqa: S311 -- no secret
        with tempfile.TemporaryDirectory(prefix=f"crash-{name}-") as place:
            seen = run_scenario(name, Path(place), arguments.kills, moments)
        print(
            f"{name:<12}{seen.killed:>8}{seen.too_late:>10}{seen.committed:>11}{seen.keys:>14,}{len(seen.wrong):>7}",
            flush=True,
        )
        for text in seen.wrong:
            print(f"  {text}", file=sys.stderr, flush=True)
        wrong += len(seen.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
