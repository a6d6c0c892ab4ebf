"""Where a database's files lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_rocksdb.core.errors import InvalidArgumentError


@dataclass(frozen=True)
class DatabasePaths:
    """Directories of a database, as its own program gives them to RocksDB.

    :param db_dir: the DB directory, where CURRENT lives.
    :param wal_dir: RocksDB's ``wal_dir``; None: what OPTIONS says, else the DB directory.
    :param db_paths: RocksDB's ``db_paths`` in the order of the path ids; empty: the DB directory alone.
    :param cf_paths: RocksDB's ``cf_paths`` by column family name; a family not named uses ``db_paths``.
    """

    db_dir: str
    wal_dir: str | None = None
    db_paths: tuple[str, ...] = ()
    cf_paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def table_dir(self, column_family: bytes, path_id: int) -> str:
        """Directory of the family's SST files with this path id (``TableFileName``).

        :raises InvalidArgumentError: when nobody has named that directory.
        """
        name = os.fsdecode(column_family)
        directories = self.cf_paths.get(name) or self.db_paths or (self.db_dir,)
        if path_id >= len(directories):
            raise InvalidArgumentError(
                f"{self.db_dir}: an SST file of column family {name!r} has path id {path_id}, and {len(directories)} "
                "directories are known; name the database's db_paths (or this family's cf_paths), all, in their order"
            )
        return directories[path_id]

    def blob_dir(self, column_family: bytes) -> str:
        """Directory of the family's blob files: that of path id 0."""
        return self.table_dir(column_family, 0)

    def all_dirs(self) -> list[str]:
        """Every directory named, the DB directory first."""
        families = (directory for directories in self.cf_paths.values() for directory in directories)
        named = (self.db_dir, self.wal_dir, *self.db_paths, *families)
        return list(dict.fromkeys(directory for directory in named if directory))

    def absolute(self) -> DatabasePaths:
        """Return the same directories as this process would find them, wherever it goes."""
        return DatabasePaths(
            os.path.abspath(self.db_dir),
            os.path.abspath(self.wal_dir) if self.wal_dir else None,
            tuple(map(os.path.abspath, self.db_paths)),
            {name: tuple(map(os.path.abspath, directories)) for name, directories in self.cf_paths.items()},
        )

    def to_dict(self) -> dict[str, object]:
        """As JSON-able values."""
        return {
            "db_dir": self.db_dir,
            "wal_dir": self.wal_dir,
            "db_paths": list(self.db_paths),
            "cf_paths": {name: list(directories) for name, directories in self.cf_paths.items()},
        }
