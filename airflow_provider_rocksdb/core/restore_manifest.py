"""What a restore needs of a MANIFEST: the column family of each file, and whether there are path ids to clear."""

from __future__ import annotations

import os
from dataclasses import dataclass

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.format.manifest import ManifestReader


@dataclass(frozen=True)
class RestoredManifest:
    """A MANIFEST's last Version.

    ``comparators`` by column family. ``families``: names of column families by the numbers of their SST and blob files.
    """

    name: str
    comparators: dict[bytes, str]
    families: dict[int, bytes]
    has_path_ids: bool


def read_restored_manifest(name: str, path: str, size: int) -> RestoredManifest:
    """Read a MANIFEST from its file.

    :raises CorruptionError, NotSupportedError: when it is damaged, or not known here.
    """
    reader = ManifestReader(name)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        reader.read(lambda offset, length: durable.pread(descriptor, offset, length), size)
    finally:
        os.close(descriptor)
    families: dict[int, bytes] = {}
    path_ids: set[int] = set()
    for family in reader.version.column_families.values():
        path_ids |= {table.path_id for table in family.tables.values()}
        numbers = [*family.tables, *(blob.number for blob in family.live_blobs())]
        families |= dict.fromkeys(numbers, family.name)
    comparators = {family.name: family.comparator for family in reader.version.column_families.values()}
    return RestoredManifest(name, comparators, families, has_path_ids=bool(path_ids - {0}))
