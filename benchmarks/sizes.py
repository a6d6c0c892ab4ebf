"""How much is measured: the full table's sizes, and small ones that only show that every row runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Sample, alternate, forget

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """Counts of files and their bytes, by what they are for."""

    pairs: int
    checkpoints: tuple[tuple[int, int], ...]  # files and the bytes of each
    local_files: int  # of 64 MB
    local_file_bytes: int
    s3_files: int  # of 64 MB
    small_files: int
    small_file_bytes: int
    large_files: int
    large_file_bytes: int
    unchanged_files: int  # as small as those
    grown_files: int  # of which 1 % are new
    grown_file_bytes: int
    writer_seconds: float
    manifest_bytes: int


FULL = Sizes(
    pairs=5,
    checkpoints=((100, 1000), (100, 10**7), (10_000, 1000), (100_000, 1000)),
    local_files=160,
    local_file_bytes=64 * 10**6,
    s3_files=32,
    small_files=2000,
    small_file_bytes=50_000,
    large_files=20,
    large_file_bytes=256 * 10**6,
    unchanged_files=10_000,
    grown_files=1000,
    grown_file_bytes=10**6,
    writer_seconds=10.0,
    manifest_bytes=100 * 10**6,
)
QUICK = Sizes(
    pairs=1,
    checkpoints=((10, 1000), (10, 10**5), (200, 1000)),
    local_files=4,
    local_file_bytes=10**6,
    s3_files=4,
    small_files=50,
    small_file_bytes=5000,
    large_files=2,
    large_file_bytes=4 * 10**6,
    unchanged_files=200,
    grown_files=100,
    grown_file_bytes=20_000,
    writer_seconds=1.0,
    manifest_bytes=2 * 10**6,
)


@dataclass(frozen=True)
class Bench:
    """Where to measure, and how much."""

    directory: Path
    sizes: Sizes
    cold: bool = False

    def alternate(
        self,
        contenders: Mapping[str, Callable[[], Sample]],
        *,
        prepare: Callable[[], object] = lambda: None,
        times: int = 1,
    ) -> dict[str, list[Sample]]:
        """Run the contenders in turns, as often as the sizes say, or ``times`` that; data not in cache if ``cold``."""

        def prepare_all() -> None:
            prepare()
            if self.cold:
                forget(self.directory)

        return alternate(contenders, pairs=times * self.sizes.pairs, prepare=prepare_all)

    def place(self, name: str) -> Path:
        """Return a path for something to be made."""
        return self.directory / name
