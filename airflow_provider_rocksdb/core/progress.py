"""How far a transfer is, for the log and for whoever draws a bar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a transfer is; sizes in bytes. Files that are already where they should be are not counted."""

    files: int
    total_files: int
    bytes: int
    total_bytes: int
    seconds: float
    verb: str = "uploaded"

    @property
    def bytes_per_second(self) -> float:
        """Mean rate so far."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at that rate; None when nothing was sent yet."""
        return (self.total_bytes - self.bytes) / self.bytes_per_second if self.bytes else None

    def __str__(self) -> str:
        left = "unknown" if self.seconds_left is None else _format_seconds(self.seconds_left)
        return (
            f"{self.verb} {self.files} of {self.total_files} files, {format_bytes(self.bytes)} of "
            f"{format_bytes(self.total_bytes)}, {format_bytes(self.bytes_per_second)}/s, {left} left"
        )


def format_bytes(count: float) -> str:
    """Return a number of bytes for a reader, with one decimal place."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
