"""Compress and decompress a stream in pieces, in bounded memory: zstd, gzip, or not at all.

zstd comes with Python from 3.14 on (``compression.zstd``), before that from ``backports.zstd``. Its threads are the
library's own; what they make of the same bytes does not depend on how many they are. They take some 10 MiB each at the
default level, 50 MiB at level 12, and up to 200 MiB above that.
"""

from __future__ import annotations

import importlib
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from airflow_provider_rocksdb.core.archive_layout import Compression
from airflow_provider_rocksdb.core.errors import CorruptionError, InvalidArgumentError

_LEVELS: dict[Compression, tuple[int, int, int]] = {"zstd": (1, 19, 3), "gzip": (1, 9, 6)}  # least, most, default
_MAX_THREADS = 256  # zstd's own limit
_DEFAULT_THREADS = 4
_JOB_BYTES = 2 * 1024 * 1024  # for a thread at a time; zstd's own jobs are 4 to 16 times as large, for 1 or 2 % less
_LAST_LEVEL_WITH_SMALL_JOBS = 12  # small ones would slow down those above
_PIECE_BYTES = 1024 * 1024
_MAX_WINDOW_LOG = 27  # zstd: ZSTD_WINDOWLOG_LIMIT_DEFAULT; 128 MiB, of which level 19 needs 8
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


class Compressor(Protocol):
    """What makes a stream of pieces."""

    def compress(self, data: bytes, /) -> bytes:
        """Take a piece; return what is ready."""

    def flush(self) -> bytes:
        """Return the rest."""


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def check_compression(compression: Compression, level: int | None, threads: int | None) -> None:
    """Check what a compressor is to be made of, and that it can be made here.

    :raises InvalidArgumentError: for numbers that make no sense, and when zstd is not installed.
    """
    least, most, _ = _LEVELS.get(compression, (0, 0, 0))
    if level is not None and not least <= level <= most:
        levels = f"a level from {least} to {most}" if most else "no level"
        raise InvalidArgumentError(f"compression level {level}: {compression} takes {levels}")
    if threads is not None and compression != "zstd":
        raise InvalidArgumentError(f"compression threads {threads}: only zstd has threads, {compression} has none")
    if threads is not None and not 1 <= threads <= _MAX_THREADS:
        raise InvalidArgumentError(f"compression threads {threads}: expected 1 to {_MAX_THREADS}")
    if compression == "zstd":
        _import_zstd()


def open_compressor(compression: Compression, level: int | None = None, threads: int | None = None) -> Compressor:
    """Begin a compressed stream.

    :param level: 1 to 19 (default 3) for zstd, 1 to 9 (default 6) for gzip.
    :param threads: zstd's; default: one for each processor, at most 4.
    """
    if compression == "none":
        return _Plain()
    level = level or _LEVELS[compression][2]
    if compression == "gzip":
        return zlib.compressobj(level, zlib.DEFLATED, _GZIP_FORMAT)
    zstd = _import_zstd()
    parameter = zstd.CompressionParameter
    workers = threads or min(_DEFAULT_THREADS, os.cpu_count() or 1)
    most = parameter.nb_workers.bounds()[1]  # 0 in a library that was built without threads
    options = {parameter.compression_level: level, parameter.checksum_flag: 1, parameter.nb_workers: min(workers, most)}
    if most and level <= _LAST_LEVEL_WITH_SMALL_JOBS:
        options[parameter.job_size] = _JOB_BYTES
    compressor: Compressor = zstd.ZstdCompressor(options=options)
    return compressor


def decompress(pieces: Iterable[bytes], compression: Compression, where: str) -> Iterator[bytes]:
    """Yield what a compressed stream holds, in pieces of a MiB at most, however little they were made of.

    :raises CorruptionError: when the stream is damaged, ends too early, or something follows it.
    :raises InvalidArgumentError: when zstd is not installed.
    """
    if compression == "none":
        yield from pieces
        return
    engine, damage = _open_decompressor(compression)
    for piece in pieces:
        if engine.eof:
            raise CorruptionError(f"{where}: something follows the end of the {compression} stream: {piece[:16]!r}…")
        data = piece
        while True:
            try:
                found = engine.decompress(data, _PIECE_BYTES)
            except damage as error:
                raise CorruptionError(f"{where}: the {compression} stream is damaged: {error}") from None
            if found:
                yield found
            if engine.eof or not found:
                break
            data = b""
        if engine.unused_data:
            raise CorruptionError(
                f"{where}: something follows the end of the {compression} stream: {engine.unused_data[:16]!r}…"
            )
    if not engine.eof:
        raise CorruptionError(f"{where}: the {compression} stream ends before its end: the archive is cut")


class _Gunzip:
    """zlib's decompressor, which hands back what it had no room for, with zstd's manners, which keeps it."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP_FORMAT)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _open_decompressor(compression: Compression) -> tuple[Any, type[Exception]]:
    if compression == "gzip":
        return _Gunzip(), zlib.error
    zstd = _import_zstd()
    options = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _import_zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise InvalidArgumentError(
        "zstd is not installed: pip install 'airflow-provider-rocksdb[zstd]' (the package backports.zstd), or choose "
        "compression gzip or none"
    )
