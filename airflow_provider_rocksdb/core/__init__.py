"""The core's public surface: RocksDB, files and fsspec, nothing of Airflow.

A name is imported from its module when it is first asked for: a DAG file that needs an error class loads neither file
systems nor RocksDB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_rocksdb.core.archive import upload_archive as upload_archive
    from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint as delete_checkpoint
    from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint as Checkpoint
    from airflow_provider_rocksdb.core.checkpoint_record import read_checkpoint as read_checkpoint
    from airflow_provider_rocksdb.core.completeness import Completeness as Completeness
    from airflow_provider_rocksdb.core.completeness import check_completeness as check_completeness
    from airflow_provider_rocksdb.core.database import create_exclusive_checkpoint as create_exclusive_checkpoint
    from airflow_provider_rocksdb.core.directory_layout import upload_directory as upload_directory
    from airflow_provider_rocksdb.core.errors import RocksDBError as RocksDBError
    from airflow_provider_rocksdb.core.freshness import FoundBackup as FoundBackup
    from airflow_provider_rocksdb.core.freshness import find_backup as find_backup
    from airflow_provider_rocksdb.core.inventory import Inventory as Inventory
    from airflow_provider_rocksdb.core.inventory import read_inventory as read_inventory
    from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint as create_live_checkpoint
    from airflow_provider_rocksdb.core.new_backups import NewBackups as NewBackups
    from airflow_provider_rocksdb.core.new_backups import find_new_backups as find_new_backups
    from airflow_provider_rocksdb.core.output import open_output as open_output
    from airflow_provider_rocksdb.core.paths import DatabasePaths as DatabasePaths
    from airflow_provider_rocksdb.core.prune import prune_backups as prune_backups
    from airflow_provider_rocksdb.core.prune_result import PruneResult as PruneResult
    from airflow_provider_rocksdb.core.reading import DatabaseReader as DatabaseReader
    from airflow_provider_rocksdb.core.reading import open_backup as open_backup
    from airflow_provider_rocksdb.core.reading import open_checkpoint as open_checkpoint
    from airflow_provider_rocksdb.core.repository import BackupResult as BackupResult
    from airflow_provider_rocksdb.core.repository import create_backup as create_backup
    from airflow_provider_rocksdb.core.repository_listing import list_backups as list_backups
    from airflow_provider_rocksdb.core.repository_usage import BackupUsage as BackupUsage
    from airflow_provider_rocksdb.core.repository_usage import list_usage as list_usage
    from airflow_provider_rocksdb.core.restore import RestoreResult as RestoreResult
    from airflow_provider_rocksdb.core.restore import restore_backup as restore_backup
    from airflow_provider_rocksdb.core.retention import RetentionPolicy as RetentionPolicy
    from airflow_provider_rocksdb.core.temporary_checkpoint import temporary_checkpoint_dir as temporary_checkpoint_dir
    from airflow_provider_rocksdb.core.transfer import TransferOptions as TransferOptions
    from airflow_provider_rocksdb.core.upload import upload_checkpoint as upload_checkpoint
    from airflow_provider_rocksdb.core.verify import verify_backups as verify_backups
    from airflow_provider_rocksdb.core.verify_report import VerifyReport as VerifyReport

_MODULES = {
    "BackupResult": "repository",
    "BackupUsage": "repository_usage",
    "Checkpoint": "checkpoint_record",
    "Completeness": "completeness",
    "DatabasePaths": "paths",
    "DatabaseReader": "reading",
    "FoundBackup": "freshness",
    "Inventory": "inventory",
    "NewBackups": "new_backups",
    "PruneResult": "prune_result",
    "RestoreResult": "restore",
    "RetentionPolicy": "retention",
    "RocksDBError": "errors",
    "TransferOptions": "transfer",
    "VerifyReport": "verify_report",
    "check_completeness": "completeness",
    "create_backup": "repository",
    "create_exclusive_checkpoint": "database",
    "create_live_checkpoint": "live_checkpoint",
    "delete_checkpoint": "checkpoint",
    "find_backup": "freshness",
    "find_new_backups": "new_backups",
    "list_backups": "repository_listing",
    "list_usage": "repository_usage",
    "open_backup": "reading",
    "open_checkpoint": "reading",
    "open_output": "output",
    "prune_backups": "prune",
    "read_checkpoint": "checkpoint_record",
    "read_inventory": "inventory",
    "restore_backup": "restore",
    "temporary_checkpoint_dir": "temporary_checkpoint",
    "upload_archive": "archive",
    "upload_checkpoint": "upload",
    "upload_directory": "directory_layout",
    "verify_backups": "verify",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
