"""What Airflow must know of this provider before it imports any of it: plain data."""

from __future__ import annotations

from typing import Any

_INTEGRATION = "RocksDB"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as Airflow's ``provider_info.schema.json`` describes it."""
    return {
        "package-name": "airflow-provider-rocksdb",
        "name": "RocksDB",
        "description": "Backups of live `RocksDB <https://rocksdb.org/>`__ databases, scheduled and incremental.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://rocksdb.org/",
                "tags": ["software"],
            }
        ],
        "hooks": [_modules("hooks.rocksdb")],
        "operators": [_modules("operators.rocksdb")],
        "sensors": [_modules("sensors.rocksdb")],
        "triggers": [_modules("triggers.rocksdb")],
        "transfers": [
            {
                "source-integration-name": _INTEGRATION,
                "target-integration-name": "Common IO",
                "python-module": "airflow_provider_rocksdb.transfers.rocksdb_to_fsspec",
            },
            {
                "source-integration-name": "Common IO",
                "target-integration-name": _INTEGRATION,
                "python-module": "airflow_provider_rocksdb.transfers.fsspec_to_rocksdb",
            },
        ],
        "asset-uris": [
            {
                "schemes": ["rocksdb"],
                "handler": "airflow_provider_rocksdb.assets.rocksdb.sanitize_uri",
                "factory": "airflow_provider_rocksdb.assets.rocksdb.create_asset",
                "to_openlineage_converter": "airflow_provider_rocksdb.assets.rocksdb.convert_asset_to_openlineage",
            }
        ],
        "extra-links": ["airflow_provider_rocksdb.links.rocksdb.RocksDBBackupLink"],
        "plugins": [{"name": "rocksdb", "plugin-class": "airflow_provider_rocksdb.plugins.rocksdb.RocksDBPlugin"}],
        "connection-types": [
            {
                "connection-type": "rocksdb",
                "hook-class-name": "airflow_provider_rocksdb.hooks.rocksdb.RocksDBHook",
                "hook-name": "RocksDB",
                "conn-fields": {
                    name: {"label": label, "description": help_text(name), "schema": {"type": ["string", "null"]}}
                    for name, (label, _, _) in CONNECTION_FIELDS.items()
                },
                "ui-field-behaviour": {
                    "hidden-fields": list(HIDDEN_FIELDS),
                    "relabeling": {},
                    "placeholders": {name: example for name, (_, _, example) in CONNECTION_FIELDS.items()},
                },
            }
        ],
    }


HIDDEN_FIELDS = ("host", "schema", "login", "password", "port", "extra")

# Keys of the connection's extra, and nothing else is read from it: label, description, example.
CONNECTION_FIELDS: dict[str, tuple[str, str, str]] = {
    "db_dir": (
        "DB directory",
        "Directory in which the database's CURRENT file lies, as the workers see it. Leave it empty for a repository "
        "alone.",
        "/var/lib/service/db",
    ),
    "wal_dir": (
        "WAL directory",
        "RocksDB's wal_dir. Only needed where it is not what the database's OPTIONS file says.",
        "/var/lib/service/wal",
    ),
    "db_paths": (
        "Further data directories",
        "RocksDB's db_paths, all of them, in their order, separated by commas. Only for a database that has some.",
        "/fast/db,/large/db",
    ),
    "cf_paths": (
        "Directories by column family",
        "RocksDB's cf_paths: a JSON object of column family name to list of directories. Only where there are some.",
        '{"archive": ["/large/archive"]}',
    ),
    "backup_dir": (
        "Backup repository",
        "Path or URL of the backup repository; one for each database. No credentials in it.",
        "s3://backups/service",
    ),
    "storage_conn_id": (
        "Connection of the storage",
        "Id of the Airflow connection with the credentials for the backup repository, where that is a URL.",
        "aws_default",
    ),
}


def help_text(name: str) -> str:
    """Return what the form says below a field; its example too, for the React form shows no placeholder there."""
    _, description, example = CONNECTION_FIELDS[name]
    return f"{description} Example: {example}"


def _modules(*names: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"airflow_provider_rocksdb.{name}" for name in names],
    }
