"""Databases to measure with, made by rocksdict: nothing in them compresses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rocksdict import BlockBasedOptions, DBCompressionType, IngestExternalFileOptions, Options, Rdict, SstFileWriter

from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths

VALUE_BYTES = 16 * 1024


def make_options() -> Options:
    """Return options with which a database keeps the files that it is given, and RocksDB 7.8 can open it."""
    tables = BlockBasedOptions()
    tables.set_format_version(5)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(tables)
    options.set_disable_auto_compactions(True)
    options.set_compression_type(DBCompressionType.none())
    options.set_level_zero_slowdown_writes_trigger(1_000_000)
    options.set_level_zero_stop_writes_trigger(1_000_000)
    options.set_max_open_files(100)
    return options


def make_database(directory: Path, count: int, file_bytes: int, *, first: int = 0) -> None:
    """Add SST files to a database, which need not exist.

    :param count: number of SST files
    :param file_bytes: of each, about
    :param first: the number of the first file: those with other numbers have other keys
    """
    made = directory.with_name(f"{directory.name}.sst")
    made.mkdir(parents=True)
    database = Rdict(str(directory), make_options())
    ingest = IngestExternalFileOptions()
    ingest.set_move_files(True)
    paths = []
    for number in range(first, first + count):
        paths.append(str(made / f"{number:08d}.sst"))
        writer = SstFileWriter(options=make_options())
        writer.open(paths[-1])
        for key, value in _records(number, file_bytes):
            writer[key] = value
        writer.finish()
        if len(paths) == 1000 or number == first + count - 1:
            database.ingest_external_file(paths, ingest)
            paths.clear()
    database.close()
    made.rmdir()


def checkpoint(directory: Path, place: Path) -> Path:
    """Make a checkpoint of a database; return its directory."""
    create_live_checkpoint(DatabasePaths(str(directory)), str(place))
    return place


def _records(number: int, file_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    size = min(VALUE_BYTES, file_bytes)
    for index in range(max(1, file_bytes // VALUE_BYTES)):
        yield b"%08d%08d" % (number, index), os.urandom(size)
