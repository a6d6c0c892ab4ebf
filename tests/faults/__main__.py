"""Let a storage fail by seeded schedules: ``python -m tests.faults --schedules 5000``.

After each, what is there is whole, and the same thing, done again without faults, succeeds. Prints a table; the exit
status is 1 when anything was wrong. ``--first-seed`` repeats what was.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.filesystem import Schedule
from tests.faults.harness import SCENARIOS, Seen, build_world, run_schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], help="default: all")
    parser.add_argument("--schedules", type=int, default=5000, help="in all (default: 5000)")
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    names = arguments.scenarios or list(SCENARIOS)
    each = -(-arguments.schedules // len(names))
    print(f"{'scenario':<17}{'schedules':>10}{'faults':>8}{'succeeded':>11}{'requests':>10}{'seconds':>9}{'wrong':>7}")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        world = build_world(Path(place))
        for name in names:
            seen, began = Seen(), time.monotonic()
            for seed in range(arguments.first_seed, arguments.first_seed + each):
                run_schedule(world, name, seed, seen, Schedule.draw)
            print(
                f"{name:<17}{seen.schedules:>10}{seen.faults:>8}{seen.succeeded:>11}{seen.most_requests:>9.1f}x"
                f"{time.monotonic() - began:>9.0f}{len(seen.wrong):>7}  {dict(seen.errors)}",
                flush=True,
            )
            for text in seen.wrong[:10]:
                print(f"  {text}", file=sys.stderr, flush=True)
            wrong += len(seen.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
