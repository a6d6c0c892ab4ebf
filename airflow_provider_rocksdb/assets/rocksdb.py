"""Databases and backup repositories as assets.

============================  ============================================================
a database                    ``rocksdb://<host>/<DB directory>``
a local backup repository     ``file:///<path>``
any other                     its URL, such as ``s3://bucket/path``, without a connection id
============================  ============================================================

Every task that has made a backup emits one event of its repository, also through the alias ``rocksdb_backups``.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_rocksdb.hooks.storage import public_url

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.providers.common.compat.openlineage.facet import Dataset as OpenLineageDataset

BACKUPS_ALIAS = "rocksdb_backups"
"""Name of the asset alias through which the event of every backup of the deployment goes."""

_ENDS_PATH = str.maketrans({char: quote(char) for char in "%?#"})  # in a local path, these are letters like others


def create_asset(*, db_dir: str, host: str | None = None, extra: dict[str, Any] | None = None) -> Asset:
    """Make the asset of a database.

    :param db_dir: absolute path of the DB directory.
    :param host: the host whose path that is; default: this one.
    :raises ValueError: when the path is not absolute.
    """
    if not os.path.isabs(db_dir):
        raise ValueError(f"{db_dir!r}: expected the absolute path of a DB directory")
    path = os.path.normpath(db_dir).translate(_ENDS_PATH)
    return Asset(uri=f"rocksdb://{host or socket.gethostname()}{path}", extra=extra)


def create_repository_asset(*, backup_dir: str, extra: dict[str, Any] | None = None) -> Asset:
    """Make the asset of a backup repository.

    :param backup_dir: path or URL; the connection id of ``s3://conn_id@bucket/…`` is left out.
    :raises InvalidArgumentError: when the URL carries credentials.
    """
    url = public_url(backup_dir)
    if url.startswith("file://"):
        url = url.translate(_ENDS_PATH)
    return Asset(uri=url.rstrip("/"), extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check the URI of a database.

    :raises ValueError: when it has no host or no path, or more than these.
    """
    if not uri.netloc or "@" in uri.netloc:
        raise ValueError(f"{uri.scheme}://{uri.netloc.rpartition('@')[2]}{uri.path}: expected a host, and no user")
    if not uri.path.strip("/") or uri.query:
        raise ValueError(f"{uri.geturl()}: expected the absolute path of a DB directory, and nothing else")
    return uri


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> OpenLineageDataset:  # noqa: ARG001 -- Airflow's signature
    """Translate the asset of a database."""
    from airflow.providers.common.compat.openlineage.facet import Dataset as OpenLineageDataset

    parts = urlsplit(asset.uri)
    return OpenLineageDataset(namespace=f"rocksdb://{parts.netloc}", name=unquote(parts.path))
