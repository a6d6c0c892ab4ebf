"""``checkpoint.json``, the record of a checkpoint of ours: where it comes from, every file with its size, the WALs."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.progress import format_bytes

RECORD_NAME = "checkpoint.json"
RECORD_END = b"\n}\n"  # by which a whole record is told from one still being copied
_FORMAT = 1

_ENCODER = json.JSONEncoder(separators=(",\n", ": "))
_quote = json.encoder.encode_basestring_ascii  # what quotes the strings of json.dumps

CopyKind = Literal["link", "reflink", "copy", "written"]


class CheckpointFile(NamedTuple):
    """A file of a checkpoint; size in bytes; kind: how its content got there."""

    name: str
    size: int
    kind: CopyKind


@dataclass(frozen=True)
class Checkpoint:
    """What ``checkpoint.json`` says.

    ``sequence_number`` is that of the last write the checkpoint holds, WALs included. ``wals``: file numbers.
    ``damage`` lists what was found damaged in the source and copied as it is. ``run``: the scheduler's names of the
    run, if any. Sizes in bytes.
    """

    checkpoint_dir: str
    mode: Literal["live", "exclusive"]
    source: dict[str, Any]
    db_id: str
    sequence_number: int
    manifest: str
    files: tuple[CheckpointFile, ...]
    wals: tuple[int, ...]
    damage: tuple[str, ...] = ()
    options_changes: dict[str, Any] = field(default_factory=dict)
    rounds: int = 1
    seconds: float = 0.0
    run: dict[str, str] = field(default_factory=dict)
    hostname: str = field(default_factory=socket.gethostname)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    def __str__(self) -> str:
        """Say in a few words what it holds."""
        total, copied = format_bytes(self.total_bytes), format_bytes(self.copied_bytes)
        return (
            f"{self.file_count} files, {total}, of which {copied} are copies and the rest links; {self.seconds:.3f} s"
        )

    @property
    def file_count(self) -> int:
        """Number of files, this record not counted."""
        return len(self.files)

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    @property
    def copied_bytes(self) -> int:
        """Bytes that were written, not linked or cloned."""
        return sum(file.size for file in self.files if file.kind in ("copy", "written"))

    def summary(self) -> dict[str, Any]:
        """Return the small JSON-able result: what a scheduler passes on."""
        kinds = [file.kind for file in self.files]
        return {
            "checkpoint_dir": self.checkpoint_dir,
            "hostname": self.hostname,
            "mode": self.mode,
            "db_id": self.db_id,
            "sequence_number": self.sequence_number,
            "file_count": self.file_count,
            "total_bytes": self.total_bytes,
            "copied_bytes": self.copied_bytes,
            "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "rounds": self.rounds,
            "seconds": self.seconds,
            "damage": list(self.damage),
        }

    def to_json(self) -> bytes:
        """Content of ``checkpoint.json``: a value a line, in a way that is fast with many files."""
        values = {name: value for name, value in vars(self).items() if name != "files"}
        text = _ENCODER.encode({"format": _FORMAT, **values})
        files = [f'{{"name": {_quote(name)},\n"size": {size},\n"kind": "{kind}"}}' for name, size, kind in self.files]
        return text.removesuffix("}").encode() + b',\n"files": [' + ",\n".join(files).encode() + b"]" + RECORD_END


def decode_checkpoint(data: bytes, where: str) -> Checkpoint:
    """Read the content of a ``checkpoint.json``; untrusted input.

    :raises CorruptionError: when it is not such a record.
    """
    try:
        values = json.loads(data)
        if values.pop("format") != _FORMAT:
            raise ValueError("unknown format")
        values["files"] = tuple(_decode_file(item) for item in values["files"])
        values["wals"] = tuple(_decode_number(number) for number in values["wals"])
        values["damage"] = tuple(str(item) for item in values["damage"])
        values["manifest"] = _decode_name(values["manifest"])
        checkpoint = Checkpoint(**values)
        _decode_number(checkpoint.sequence_number)
        for name in ("checkpoint_dir", "mode", "db_id", "hostname", "created"):
            if not isinstance(values[name], str):
                raise TypeError(f"{name} is {values[name]!r}")
        for name in ("source", "options_changes", "run"):
            if not isinstance(values[name], dict):
                raise TypeError(f"{name} is {values[name]!r}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptionError(f"{where}: not a record of a checkpoint: {type(error).__name__}: {error}") from None
    return checkpoint


def _decode_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", value) or value in (".", ".."):
        raise ValueError(f"{value!r} is not a file name")
    return value


def _decode_number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a number of its kind")
    return value


def _decode_file(item: Mapping[str, Any]) -> CheckpointFile:
    return CheckpointFile(_decode_name(item["name"]), _decode_number(item["size"]), item["kind"])


def read_checkpoint(checkpoint_dir: str) -> Checkpoint | None:
    """Return a directory's record; None when it has none: not a checkpoint of ours, or one still being built.

    :raises CorruptionError: when there is a record that cannot be read as one.
    """
    path = os.path.join(checkpoint_dir, RECORD_NAME)
    try:
        data = durable.read_small_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return decode_checkpoint(data, path) if data else None


def is_unchanged(path: str, checkpoint: Checkpoint) -> bool:
    """Whether CURRENT and MANIFEST are those of the record: nobody has opened the checkpoint as a database since."""
    sizes = {file.name: file.size for file in checkpoint.files}
    try:
        current = durable.read_small_file(os.path.join(path, "CURRENT"))
        size = os.path.getsize(os.path.join(path, checkpoint.manifest))
    except FileNotFoundError:
        return False
    return current == checkpoint.manifest.encode() + b"\n" and size == sizes.get(checkpoint.manifest)


def read_own_checkpoint(directory: str) -> Checkpoint | None:
    """Return the record of a checkpoint of ours that nobody has used as a database since; None for anything else.

    :raises CorruptionError: when the record cannot be read; in a database, a file of that name is somebody else's.
    """
    try:
        checkpoint = read_checkpoint(directory)
    except CorruptionError:
        if os.path.lexists(os.path.join(directory, "LOCK")):
            return None
        raise
    return checkpoint if checkpoint is not None and is_unchanged(directory, checkpoint) else None


def same_run(checkpoint_dir: str, run: Mapping[str, str]) -> bool:
    """Whether a checkpoint directory was made by this run of a scheduler, so that its retry may replace it."""
    if not run or not os.path.isdir(checkpoint_dir):
        return False
    try:
        checkpoint = read_checkpoint(checkpoint_dir)
    except CorruptionError:
        return False
    return checkpoint is not None and checkpoint.run == dict(run)
