"""How much is measured: the full table's sizes, and small ones that only show that every row runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """Counts of files and their bytes, by what they are for."""

    pairs: int
    checkpoint_files: tuple[int, ...]
    local_files: int  # of 64 MB
    local_file_bytes: int
    s3_files: int  # of 64 MB
    small_files: int
    small_file_bytes: int
    large_files: int
    large_file_bytes: int
    unchanged_files: int
    writer_seconds: float
    manifest_bytes: int


FULL = Sizes(5, (100, 10_000, 100_000), 160, 64 * 10**6, 32, 2000, 50_000, 20, 256 * 10**6, 10_000, 20.0, 100 * 10**6)
QUICK = Sizes(1, (10, 200), 4, 10**6, 4, 50, 5000, 2, 4 * 10**6, 200, 1.0, 2 * 10**6)


@dataclass(frozen=True)
class Bench:
    """Where to measure, and how much."""

    directory: Path
    sizes: Sizes

    def place(self, name: str) -> Path:
        """Return a path for something to be made."""
        return self.directory / name
