"""``restore.json``: what a restore writes down before it exchanges directories, so that another run can undo that."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from airflow_provider_rocksdb.core.errors import CorruptionError

RECORD_NAME = "restore.json"

_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """What it says once an exchange begins, and until that is finished.

    ``id`` is random. ``roots``: path and kind of all directories, the DB directory first. ``old``: device and inode of
    the directory that is replaced (beside). ``new_names`` are moved up, ``old_names`` away (inside).
    """

    id: str
    roots: tuple[tuple[str, str], ...]
    old: tuple[int, int] | None = None
    new_names: tuple[str, ...] = ()
    old_names: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps({"format": _FORMAT, **vars(self)}).encode() + b"\n"


def read_record(directory: str) -> Record | None:
    """Read a directory's ``restore.json``; None when there is none, or an empty one.

    :raises CorruptionError: when it is not one of ours.
    """
    path = os.path.join(directory, RECORD_NAME)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not data:
        return None
    try:
        values = json.loads(data)
        if values.pop("format") != _FORMAT:
            raise ValueError("unknown format")
        values["roots"] = tuple((str(root), str(kind)) for root, kind in values["roots"])
        values["old"] = None if values["old"] is None else (int(values["old"][0]), int(values["old"][1]))
        for name in ("new_names", "old_names"):
            values[name] = tuple(_plain(item) for item in values[name])
        return Record(**values)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise CorruptionError(f"{path}: not a record of a restore: {type(error).__name__}: {error}") from None


def _plain(name: Any) -> str:
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
        raise ValueError(f"{name!r} is not a file name")
    return name
