"""Fuzz the readers of untrusted formats: ``python -m tests.fuzz --minutes 60``, for each of them.

Prints a table; the exit status is 1 when a reader did anything but read or refuse. Inputs that are wrong are written to
the working directory.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from random import Random

from tests.fuzz.fuzzer import fuzz
from tests.fuzz.targets import TARGETS

_MOST_MEMORY_BYTES = 3 << 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--minutes", type=float, default=60.0, help="for each (default: 60)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    print(f"{'format':<10}{'inputs':>12}{'accepted':>10}{'answers':>9}{'slowest':>9}{'wrong':>7}")
    wrong = 0
    for name in arguments.targets or TARGETS:
        end = time.monotonic() + 60 * arguments.minutes
        seen = fuzz(TARGETS[name], Random(arguments.seed), lambda _, end=end: time.monotonic() < end)  # noqa: S311
        print(
            f"{name:<10}{seen.inputs:>12,}{seen.accepted:>10,}{len(seen.answers):>9}{seen.slowest:>8.2f}s"
            f"{len(seen.wrong):>7}",
            flush=True,
        )
        for number, (text, data) in enumerate(seen.wrong.items()):
            Path(f"fuzz-{name}-{number}").write_bytes(data)
            print(f"  fuzz-{name}-{number}: {text}", flush=True)
        wrong += len(seen.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
