"""Ours beside its peers, in alternation: what a row of the table is made of.

Every run is a process of its own. Its CPU seconds are those of the process and its children. Its memory is the largest
resident set, read from ``/proc/<pid>/status`` (VmHWM) while it runs. Its seconds are those of the whole process, start
included; or, where a row says so, those of the work alone, which the process prints last, as ``{"seconds": …}``.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = "ours"

_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Sample:
    """One run: seconds by the clock, seconds of CPU time, bytes of memory at its peak, and what else it said."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row for each peer of what was measured.

    :param samples: of each contender, ours among them, in the order of the rounds
    :param targets: for a peer, how many times as fast as it ours shall be; a peer without one is reported
    """

    what: str
    samples: Mapping[str, Sequence[Sample]]
    targets: Mapping[str, float] = field(default_factory=dict)


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, own_clock: bool = False) -> Sample:
    """Run a program to its end.

    :param own_clock: take the seconds that it prints
    :raises RuntimeError: when it fails.
    """
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}  # as what is installed is
    environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT), **(env or {})}
    began = time.monotonic()
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    peak = _Peak(child.pid)
    assert child.stdout is not None  # noqa: S101 -- for the type checker
    output = child.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}: status {child.returncode}: {output[-2000:]}")
    said = _read_figures(output)
    work = said.pop("seconds", None)
    if own_clock:
        if work is None:
            raise RuntimeError(f"{command[:4]}: printed no seconds: {output[-2000:]}")
        seconds = work
    return Sample(seconds, usage.ru_utime + usage.ru_stime, peak.stop(), said)


def alternate(
    contenders: Mapping[str, Callable[[], Sample]], *, pairs: int, prepare: Callable[[], object] = lambda: None
) -> dict[str, list[Sample]]:
    """Run the contenders in turns, A B A B; ``prepare`` runs before each and is not measured."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for _ in range(pairs):
        for name, contender in contenders.items():
            prepare()
            samples[name].append(contender())
    return samples


def forget(directory: Path) -> None:
    """Have the kernel keep no data of files below a directory in its cache."""
    os.sync()  # what is not written yet would stay
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def ratios(row: Row, peer: str) -> list[float]:
    """How many times as fast as the peer ours was, in each round."""
    return [theirs.seconds / mine.seconds for mine, theirs in zip(row.samples[OURS], row.samples[peer], strict=True)]


def is_reached(row: Row, peer: str) -> bool:
    """Whether the target was reached, in the median of the rounds."""
    return statistics.median(ratios(row, peer)) >= row.targets.get(peer, 0.0)


HEAD = (
    "| what | peer | times as fast (spread) | target | seconds: ours, peer | CPU: ours, peer | MiB: ours, peer |\n"
    "|---|---|---|---|---|---|---|"
)


def format_row(row: Row) -> str:
    """Format a row as lines of a Markdown table, medians of the rounds."""
    lines = []
    for peer in row.samples:
        if peer == OURS:
            continue
        times = ratios(row, peer)
        answer = "reached" if is_reached(row, peer) else "MISSED"
        cells = [
            row.what,
            peer,
            f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})",
            f"{row.targets[peer]:.1f} {answer}" if peer in row.targets else "",
            ", ".join(_format_seconds(_median(row, contender, "seconds")) for contender in (OURS, peer)),
            f"{_median(row, OURS, 'cpu_seconds'):.2f}, {_median(row, peer, 'cpu_seconds'):.2f}",
            f"{_median(row, OURS, 'peak_bytes') / 2**20:.0f}, {_median(row, peer, 'peak_bytes') / 2**20:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_format_figures(row)])


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds > 0.1 else f"{seconds:.4f}"


def _format_figures(row: Row) -> list[str]:
    names = sorted({name for samples in row.samples.values() for sample in samples for name in sample.figures})
    lines = []
    for name in names:
        said = [
            f"{contender} {statistics.median(sample.figures[name] for sample in samples):,.0f}"
            for contender, samples in row.samples.items()
            if all(name in sample.figures for sample in samples)
        ]
        lines.append(f"| {row.what}: {name} | | {', '.join(said)} | | | | |")
    return lines


def _median(row: Row, contender: str, name: str) -> float:
    return float(statistics.median(getattr(sample, name) for sample in row.samples[contender]))


def _read_figures(output: str) -> dict[str, float]:
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith('{"seconds"'):
        return {}
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


class _Peak:
    """Looks at a process's largest resident set until it ends; the kernel keeps the maximum between two looks."""

    def __init__(self, pid: int) -> None:
        self._status, self._peak, self._stop = Path(f"/proc/{pid}/status"), 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return what was seen, in bytes."""
        self._stop.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._stop.is_set():
            try:
                match = re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text())
            except OSError:
                return
            if match:
                self._peak = max(self._peak, int(match[1]) * 1024)
            self._stop.wait(_LOOK_SECONDS)
