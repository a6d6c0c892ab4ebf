"""The core's public surface: RocksDB, files and fsspec, nothing of Airflow.

A name is imported from its module when it is first asked for: a DAG file that needs an error class loads neither file
systems nor RocksDB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_rocksdb.core.checkpoint import Checkpoint as Checkpoint
    from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint as delete_checkpoint
    from airflow_provider_rocksdb.core.checkpoint import read_checkpoint as read_checkpoint
    from airflow_provider_rocksdb.core.completeness import Completeness as Completeness
    from airflow_provider_rocksdb.core.completeness import check_completeness as check_completeness
    from airflow_provider_rocksdb.core.database import create_exclusive_checkpoint as create_exclusive_checkpoint
    from airflow_provider_rocksdb.core.directory_layout import upload_directory as upload_directory
    from airflow_provider_rocksdb.core.errors import RocksDBError as RocksDBError
    from airflow_provider_rocksdb.core.inventory import Inventory as Inventory
    from airflow_provider_rocksdb.core.inventory import read_inventory as read_inventory
    from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint as create_live_checkpoint
    from airflow_provider_rocksdb.core.paths import DatabasePaths as DatabasePaths
    from airflow_provider_rocksdb.core.repository import create_backup as create_backup
    from airflow_provider_rocksdb.core.repository_listing import list_backups as list_backups
    from airflow_provider_rocksdb.core.transfer import TransferOptions as TransferOptions

_MODULES = {
    "Checkpoint": "checkpoint",
    "Completeness": "completeness",
    "DatabasePaths": "paths",
    "Inventory": "inventory",
    "RocksDBError": "errors",
    "TransferOptions": "transfer",
    "check_completeness": "completeness",
    "create_backup": "repository",
    "create_exclusive_checkpoint": "database",
    "create_live_checkpoint": "live_checkpoint",
    "delete_checkpoint": "checkpoint",
    "list_backups": "repository_listing",
    "read_checkpoint": "checkpoint",
    "read_inventory": "inventory",
    "upload_directory": "directory_layout",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
