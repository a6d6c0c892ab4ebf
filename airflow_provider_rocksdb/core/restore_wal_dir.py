"""A ``wal_dir`` that a restore was not told of: WALs that are left in it would be replayed into the restored database.

A program that gives RocksDB a ``wal_dir`` does so the next time, too. It would find there what the old database has
left, and not what was restored beside the other files. The old database's OPTIONS tell of it, and so does the backup.
"""

from __future__ import annotations

import logging
import os

from airflow_provider_rocksdb.core.checkpoint_record import decode_checkpoint
from airflow_provider_rocksdb.core.durable import read_small_file
from airflow_provider_rocksdb.core.errors import CorruptionError, InvalidArgumentError, RocksDBError
from airflow_provider_rocksdb.core.format.filename import FileType, newest_options, parse_file_name
from airflow_provider_rocksdb.core.format.options_file import OptionsFile
from airflow_provider_rocksdb.core.paths import DatabasePaths

logger = logging.getLogger(__name__)


def check_old_wal_dir(paths: DatabasePaths) -> None:
    """Check where the database that is to be replaced has its WALs, when no ``wal_dir`` was given.

    :raises InvalidArgumentError: when there are some, elsewhere.
    """
    if paths.wal_dir is not None:
        return
    try:
        name = newest_options(os.listdir(paths.db_dir))
        if name is not None:
            wal_dir = OptionsFile(read_small_file(os.path.join(paths.db_dir, name)), name).db_option("wal_dir")
            _require_no_wals(paths.db_dir, wal_dir, f"the {name} there")
    except InvalidArgumentError:
        raise
    except (RocksDBError, OSError):
        logger.info("%s: its OPTIONS cannot be read, and do not tell of a wal_dir", paths.db_dir)


def check_backup_wal_dir(paths: DatabasePaths, db_dir: str, wal_dir: str) -> None:
    """Check where the database that was backed up had its WALs, when no ``wal_dir`` was given.

    :param db_dir, wal_dir: of that database, as its backup tells; empty where it does not.
    :raises InvalidArgumentError: when it comes back to its own place, and some are left there.
    """
    if paths.wal_dir is not None or not wal_dir or wal_dir == db_dir:
        return
    if os.path.realpath(db_dir) == os.path.realpath(paths.db_dir):
        _require_no_wals(paths.db_dir, wal_dir, "the backup")
    logger.warning(
        "%s: the database that was backed up had its WALs in %s, here they lie in the DB directory; name a wal_dir if "
        "the program that opens it has one",
        paths.db_dir,
        wal_dir,
    )


def check_checkpoint_wal_dir(paths: DatabasePaths, record: bytes | None) -> None:
    """Check the same by a ``checkpoint.json``; one that cannot be read tells nothing.

    :raises InvalidArgumentError: as :func:`check_backup_wal_dir`.
    """
    try:
        source = decode_checkpoint(record, "").source if record is not None else {}
    except CorruptionError:
        return
    check_backup_wal_dir(paths, str(source.get("db_dir") or ""), str(source.get("wal_dir") or ""))


def _require_no_wals(db_dir: str, wal_dir: str, source: str) -> None:
    if not os.path.isabs(wal_dir) or os.path.realpath(wal_dir) == os.path.realpath(db_dir):
        return
    try:
        parsed = [parse_file_name(name) for name in os.listdir(wal_dir)]
    except OSError:
        return
    found = sum(name is not None and name.type is FileType.WAL for name in parsed)
    if found:
        raise InvalidArgumentError(
            f"{db_dir}: its WALs are in {wal_dir}, as {source} tells, which holds {found}; they would be replayed into "
            f"the restored database: give that directory as wal_dir, so that they are replaced, or {db_dir} if its "
            "program has no wal_dir any more"
        )
