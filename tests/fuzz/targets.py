"""What is fuzzed: for each format its seeds, a way to repair checksums, and the reader.

Seeds are files of the databases in ``tests/golden``. Half of the inputs get their checksums repaired after they were
mutated: what a checksum keeps out, an attacker writes with a good one.
"""

from __future__ import annotations

import contextlib
import functools
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_rocksdb.core.archive_layout import BLOCK_BYTES
from airflow_provider_rocksdb.core.archive_reader import extract_archive
from airflow_provider_rocksdb.core.compression import open_compressor
from airflow_provider_rocksdb.core.errors import CorruptionError
from airflow_provider_rocksdb.core.format.backup_meta import (
    BackupFile,
    BackupMeta,
    decode_backup_meta,
    encode_backup_meta,
)
from airflow_provider_rocksdb.core.format.log_format import LogReader, iter_records
from airflow_provider_rocksdb.core.format.manifest import ManifestReader
from airflow_provider_rocksdb.core.format.table_properties import read_session_id, read_table_properties
from airflow_provider_rocksdb.core.wal import read_wal
from tests.core.format.encoders import log, pread_of
from tests.core.test_archive_hostile import stream

_GOLDEN = Path(__file__).parent.parent / "golden"
_MOST_SEED_BYTES = 40_000
_NEW_FOOTER_BYTES = 53
_LIMIT = 1 << 20

Mutate = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Target:
    """A format: seeds, the reader, and what makes of a seed an input whose checksums are good."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], str]
    mutate_whole: Callable[[bytes, Mutate, Random], bytes]


@functools.cache
def _golden_files() -> dict[str, list[bytes]]:
    """Files of the databases, by kind; large ones are left out."""
    found: dict[str, list[bytes]] = {"MANIFEST": [], ".log": [], ".sst": []}
    for archive in sorted(_GOLDEN.glob("*.tar.xz")):
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(archive.read_bytes()))) as tar:
            for member in tar:
                kind = next((kind for kind in found if kind in Path(member.name).name), None)
                if kind is not None and member.isfile() and 0 < member.size <= _MOST_SEED_BYTES:
                    content = tar.extractfile(member)
                    assert content is not None
                    found[kind].append(content.read())
    return found


def _records(data: bytes, log_number: int | None = None) -> list[bytes]:
    records = []
    with contextlib.suppress(CorruptionError):
        records += [record.payload for record in iter_records(LogReader("x", log_number), pread_of(data), len(data))]
    return records


def _mutate_records(data: bytes, mutate: Mutate, numbers: Random) -> bytes:
    """Mutate some records of a log, drop, double or swap some; every CRC is good."""
    records = _records(data) or [b""]
    for _ in range(numbers.randint(1, 3)):
        place, other = numbers.randrange(len(records)), numbers.randrange(len(records))
        match numbers.randrange(5):
            case 0:
                records.insert(place, records[other])
            case 1:
                records[place], records[other] = records[other], records[place]
            case _:
                records[place] = mutate(records[place])
    return log(*records, log_number=numbers.choice([None, 7]))


def _read_manifest(data: bytes) -> str:
    reader = ManifestReader("MANIFEST")
    reader.read(pread_of(data), len(data))
    return f"{len(reader.version.column_families)} {reader.is_torn} {reader.bad_tail is None}"


def _read_wal(data: bytes) -> str:
    wal = read_wal(7, len(data), pread_of(data))
    assert 0 <= wal.end <= len(data)
    assert wal.records <= len(data)
    return f"{wal.torn} {wal.recyclable} {wal.damage}"


def _read_table(data: bytes) -> str:
    found = sorted(read_table_properties(pread_of(data), len(data)))
    return f"{found} {read_session_id(pread_of(data), len(data)) is None}"


def _mutate_table(data: bytes, mutate: Mutate, numbers: Random) -> bytes:
    """Mutate a table whose footer says that there are no checksums."""
    mutated = bytearray(mutate(data))
    if len(mutated) >= _NEW_FOOTER_BYTES:
        mutated[-_NEW_FOOTER_BYTES] = 0
        mutated[-8:] = data[-8:]
    return bytes(mutated)


def _metas() -> list[bytes]:
    files = (
        BackupFile("private/1/MANIFEST-000005", 7, 100),
        BackupFile("private/1/CURRENT", 8, 16),
        BackupFile("shared_checksum/000009_sABCDEFGHIJKLMNOPQRST_1234.sst", 9, 1234),
        BackupFile("shared_checksum/000010_11_99.blob", 11, 99),
    )
    ours = encode_backup_meta(BackupMeta(1_700_000_000, 1500, b'{"provider": 1}', files))
    old = b"1700000000\n1500\n2\nprivate/1/CURRENT crc32 8\nshared_checksum/000009_1_2.sst crc32 1\n"
    new = (
        b"schema_version 2.1\n1700000000\n1500\nmetadata 00ff\n1\nprivate/1/CURRENT crc32 8 size 16 ni::temp kWarm\n"
        b"// ni::footer 1\n"
    )
    return [ours, old, new]


def _mutate_meta(data: bytes, _: Mutate, numbers: Random) -> bytes:
    """Swap, double and drop words and lines; the number of files is right."""
    lines = [line.split(b" ") for line in data.split(b"\n")]
    words = [word for line in lines for word in line] + [b"0", b"", b"..", b"/", b"18446744073709551616", b"size"]
    for _ in range(numbers.randint(1, 4)):
        place, other = numbers.randrange(len(lines)), numbers.randrange(len(lines))
        match numbers.randrange(6):
            case 0:
                lines.insert(place, lines[other][:])
            case 1 if len(lines) > 2:
                del lines[place]
            case 2:
                lines[place].append(numbers.choice(words))
            case _:
                lines[place][numbers.randrange(len(lines[place]))] = numbers.choice(words)
    files = sum(b"/" in line[0] and b"//" not in line[0] for line in lines if line)
    counts = [line for line in lines if len(line) == 1 and len(line[0]) == 1]
    if counts:
        counts[0][0] = str(files).encode()
    return b"\n".join(b" ".join(line) for line in lines)


def _read_meta(data: bytes) -> str:
    meta = decode_backup_meta(data)
    for file in meta.files:
        assert ".." not in file.path.split("/")
        assert not file.path.startswith("/")
        assert "/" not in file.name
    return f"{len(meta.files)} {bool(meta.metadata)}"


class _Store(MemoryFileSystem):
    cachable = False


class _Sink(io.BytesIO):
    pass


def _read_archive(data: bytes) -> str:
    ending = {b"\x28\xb5": ".tar.zst", b"\x1f\x8b": ".tar.gz"}.get(data[:2], ".tar")
    store = _Store(global_store=False)
    store.pipe_file(f"/x{ending}", data)
    taken: dict[str, int] = {}

    @contextlib.contextmanager
    def take(name: str, size: int) -> Iterator[Any]:
        assert "/" not in name
        assert name not in taken
        sink = _Sink()
        yield sink
        taken[name] = len(sink.getvalue())
        assert taken[name] == size
        assert sum(taken.values()) <= _LIMIT

    extract_archive(store, f"/x{ending}", take, max_total_bytes=_LIMIT)
    return f"{ending} {len(taken)}"


def _archives() -> list[bytes]:
    members = [("000001.sst", b"s" * 700), ("MANIFEST-000002", b"m" * 512), ("CURRENT", b"MANIFEST-000002\n")]
    tar = stream(members)
    return [tar, *(_compress(tar, name) for name in ("zstd", "gzip"))]


def _compress(tar: bytes, compression: Any) -> bytes:
    compressor = open_compressor(compression)
    return compressor.compress(tar) + compressor.flush()


def _mutate_archive(data: bytes, mutate: Mutate, numbers: Random) -> bytes:
    """Mutate what is in an archive; headers' checksums are good."""
    tar = bytearray(mutate(_archives()[0]))
    for start in range(0, len(tar) - BLOCK_BYTES + 1, BLOCK_BYTES):
        if tar[start + 257 : start + 262] == b"ustar":
            tar[start + 148 : start + 156] = b" " * 8
            tar[start + 148 : start + 156] = b"%06o\0 " % sum(tar[start : start + BLOCK_BYTES])
    compression = numbers.choice(["none", "gzip", "zstd"])
    return bytes(tar) if compression == "none" else _compress(bytes(tar), compression)


TARGETS: dict[str, Target] = {
    "manifest": Target(lambda: _golden_files()["MANIFEST"], _read_manifest, _mutate_records),
    "wal": Target(lambda: _golden_files()[".log"], _read_wal, _mutate_records),
    "table": Target(lambda: _golden_files()[".sst"], _read_table, _mutate_table),
    "meta": Target(_metas, _read_meta, _mutate_meta),
    "archive": Target(_archives, _read_archive, _mutate_archive),
}
