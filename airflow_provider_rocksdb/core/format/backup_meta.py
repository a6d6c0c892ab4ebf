"""A backup's ``meta/<id>`` (RocksDB: ``utilities/backup/backup_engine.cc``, ``BackupMeta::LoadFromFile``).

Lines of text, each ended by a line feed::

    schema_version 2.1                    absent in schema 1
    <timestamp>                           seconds since 1970
    <sequence number>
    metadata <hex>                        optional
    <field> <data>                        schema 2 only, any number
    <number of files>
    <path> crc32 <decimal> size <bytes>   schema 1: crc32 alone, and always; schema 2: pairs of field and data
    // FOOTER                             schema 2 only, optional, then more fields

``crc32`` is a CRC32C. Fields that are not known are passed over, as RocksDB does, unless their name begins with
``ni::``. Paths lead into ``private/<id>/``, ``shared/`` or ``shared_checksum/``; numbers are decimal, without leading
zeros.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_rocksdb.core.errors import CorruptionError, NotSupportedError

MAX_BACKUP_ID = 2**32 - 3  # the two above it mean "latest" and "none" (BackupEngine)
MAX_META_BYTES = 128 * 1024 * 1024  # ours: some 1.5 million files

_MAX_INT63 = 2**63 - 1
_MAX_UINT32 = 2**32 - 1
_MAX_UINT64 = 2**64 - 1

_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}")
_SCHEMA = re.compile(r"2(\.[0-9]{1,9})*")
_FIELD_NAME = re.compile(r"(ni::)?[A-Za-z_][A-Za-z_0-9.]*")
_PATH = re.compile(r"(private/([1-9][0-9]{0,9})|shared|shared_checksum)/([!-.0-\[\]-~]{1,255})")
_USUAL_CRC = rb"([!-~]+) crc32 (0|[1-9][0-9]{0,8}|[1-3][0-9]{9})"
_USUAL_FILE = re.compile(_USUAL_CRC + rb" size (0|[1-9][0-9]{0,17})\n")  # nearly every line, to be read fast
_USUAL_FILE_1 = re.compile(_USUAL_CRC + rb"()\n")
_HEX = re.compile(r"([0-9A-Fa-f]{2})*")
_DOTS = (".", "..")
_FOOTER = "// FOOTER"
_NOT_IGNORABLE = "ni::"


class BackupFile(NamedTuple):
    """A file of a backup: its path in the repository, CRC32C and size in bytes where the meta has them."""

    path: str
    crc32c: int | None
    size: int | None = None

    @property
    def name(self) -> str:
        """Its name in a restored database: without what lies between the first ``_`` and the last dot, if shared."""
        folder, _, name = self.path.rpartition("/")
        start, end = name.find("_"), name.rfind(".")
        return name[:start] + name[end:] if folder == "shared_checksum" and 0 <= start < end else name


@dataclass(frozen=True)
class BackupMeta:
    """What a ``meta/<id>`` says; ``timestamp`` in seconds since 1970, ``metadata`` as its maker gave it."""

    timestamp: int
    sequence_number: int
    metadata: bytes
    files: tuple[BackupFile, ...]
    schema_version: str = "2.1"


def decode_backup_meta(data: bytes) -> BackupMeta:
    """Read the content of a ``meta/<id>``; untrusted input.

    :raises CorruptionError: when it is not exactly such a text, or names a file outside the repository's folders.
    :raises NotSupportedError: for another schema, or a field that must not be passed over.
    """
    if len(data) > MAX_META_BYTES:
        raise CorruptionError(f"backup meta: {len(data)} bytes; at most {MAX_META_BYTES} are read")
    lines = _Lines(data)
    line = lines.next("timestamp")
    schema = "1"
    if line.startswith("schema_version "):
        schema = line.removeprefix("schema_version ")
        if not _SCHEMA.fullmatch(schema):
            raise NotSupportedError(f"backup meta: schema version {schema[:32]!r}; known here are 1 and 2")
        line = lines.next("timestamp")
    timestamp = _decode_number(line, _MAX_INT63, "timestamp")
    sequence_number = _decode_number(lines.next("sequence number"), _MAX_UINT64, "sequence number")
    metadata, count = _decode_fields(lines, schema)
    files = _decode_files(lines, count, schema)
    _decode_footer(lines, schema)
    _check_files(files)
    return BackupMeta(timestamp, sequence_number, metadata, tuple(files), schema)


def encode_backup_meta(meta: BackupMeta) -> bytes:
    """Write a ``meta/<id>`` in the schema that ``meta`` names; schema 1 has no sizes.

    :raises ValueError: when the result could not be read back.
    """
    old = meta.schema_version == "1"
    lines = [] if old else [f"schema_version {meta.schema_version}"]
    lines += [str(meta.timestamp), str(meta.sequence_number)]
    if meta.metadata:
        lines.append(f"metadata {meta.metadata.hex().upper()}")
    lines.append(str(len(meta.files)))
    for file in meta.files:
        crc = "" if file.crc32c is None else f" crc32 {file.crc32c}"
        size = "" if file.size is None or old else f" size {file.size}"
        lines.append(f"{file.path}{crc}{size}")
    data = "".join(f"{line}\n" for line in lines).encode()
    decode_backup_meta(data)
    return data


def decode_backup_id(name: str) -> int | None:
    """Return the id that a name in ``meta/`` or ``private/`` stands for, or None when it stands for none."""
    if not _NUMBER.fullmatch(name) or not 1 <= int(name) <= MAX_BACKUP_ID:
        return None
    return int(name)


class _Lines:
    """The lines of a text, one after the other; each must be printable ASCII, and ended."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._position == len(self._data):
            raise StopIteration
        end = self._data.find(b"\n", self._position)
        self.number += 1
        if end < 0:
            raise CorruptionError(f"backup meta: line {self.number} has no end: the text is cut")
        line = self._data[self._position : end].decode("latin-1")
        self._position = end + 1
        if not line or not line.isascii() or not line.isprintable():
            raise CorruptionError(f"backup meta: line {self.number}: expected printable ASCII, got {line[:64]!r}")
        return line

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Take a line, with its end, if it is as a pattern says."""
        match = pattern.match(self._data, self._position)
        if match:
            self._position = match.end()
            self.number += 1
        return match

    def next(self, what: str) -> str:
        line = next(self, None)
        if line is None:
            raise CorruptionError(f"backup meta: ends after {self.number} lines, before its {what}")
        return line


def _decode_number(text: str, maximum: int, what: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > maximum:
        raise CorruptionError(f"backup meta: {what}: expected a number from 0 to {maximum}, got {text[:64]!r}")
    return int(text)


def _decode_fields(lines: _Lines, schema: str) -> tuple[bytes, int]:
    """Read the fields between sequence number and files; return metadata and the number of files."""
    metadata: bytes | None = None
    while True:
        line = lines.next("number of files")
        if line[0].isdigit():
            return metadata or b"", _decode_number(line, _MAX_UINT32, "number of files")
        name, space, value = line.partition(" ")
        if name == "metadata" and space:
            if metadata is not None or not _HEX.fullmatch(value):
                raise CorruptionError(f"backup meta: metadata: expected it once, in hex, got {value[:64]!r}")
            metadata = bytes.fromhex(value)
        elif schema == "1":
            raise CorruptionError(f"backup meta: expected the number of files, got {line[:64]!r}")
        else:
            _check_ignorable(name, space)


def _check_ignorable(name: str, space: str) -> None:
    if not space or not _FIELD_NAME.fullmatch(name):
        raise CorruptionError(f"backup meta: expected a field and its data, got {name[:64]!r}")
    if name.startswith(_NOT_IGNORABLE):
        raise NotSupportedError(f"backup meta: field {name[:64]!r} is not known here, and must not be passed over")


def _decode_files(lines: _Lines, count: int, schema: str) -> list[BackupFile]:
    usual = _USUAL_FILE_1 if schema == "1" else _USUAL_FILE
    files: list[BackupFile] = []
    while len(files) < count:
        if match := lines.match(usual):
            path, crc, size = match.groups()
            files.append(BackupFile(path.decode(), int(crc), int(size) if size else None))
        elif line := next(lines, None):
            files.append(_decode_file(line, schema))
        else:
            raise CorruptionError(f"backup meta: expected {count} files, got {len(files)}")
    return files


def _decode_file(line: str, schema: str) -> BackupFile:
    """Read the line of a file."""
    if line == _FOOTER:
        raise CorruptionError("backup meta: the footer begins before the last file")
    path, *rest = line.split(" ")
    if len(rest) % 2 or (schema == "1" and [*rest[::2]] != ["crc32"]):
        raise CorruptionError(f"backup meta: {line[:300]!r}: expected a path, and fields with their data")
    crc: int | None = None
    size: int | None = None
    seen = set()
    for name, value in zip(rest[::2], rest[1::2], strict=True):
        if name in seen:
            raise CorruptionError(f"backup meta: {path[:300]}: field {name[:64]!r} stands there twice")
        seen.add(name)
        if name == "crc32":
            crc = _decode_number(value, _MAX_UINT32, f"crc32 of {path[:300]}")
        elif name == "size":
            size = _decode_number(value, _MAX_INT63, f"size of {path[:300]}")
        elif name == "ni::excluded" and value == "true":
            raise NotSupportedError(f"backup meta: {path[:300]} is excluded, and lies in another repository")
        elif (name, value) != ("ni::excluded", "false"):
            _check_ignorable(name, value)
    return BackupFile(path, crc, size)


def _decode_footer(lines: _Lines, schema: str) -> None:
    line = next(lines, None)
    if line is None:
        return
    if schema == "1" or line != _FOOTER:
        raise CorruptionError(f"backup meta: expected the end after the last file, got {line[:300]!r}")
    for field in lines:
        name, space, _ = field.partition(" ")
        _check_ignorable(name, space)


def _check_files(files: list[BackupFile]) -> None:
    names: dict[str, str] = {}
    for file in files:
        match, name = _PATH.fullmatch(file.path), file.name
        if not match or name in _DOTS or match[3] in _DOTS or (match[2] and int(match[2]) > MAX_BACKUP_ID):
            raise CorruptionError(f"backup meta: {file.path[:300]!r} is not a path of a backup's file")
        if name in names:
            raise CorruptionError(f"backup meta: {names[name]} and {file.path} would both be restored as {name}")
        names[name] = file.path
