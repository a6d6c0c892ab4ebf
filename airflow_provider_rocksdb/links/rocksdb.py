"""The link from a task to its backup on the page "RocksDB backups"."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

URL_ROUTE = "rocksdb-backups"  # of the page in Airflow's UI: plugin/<route>

HAS_PAGE = importlib.util.find_spec("airflow.sdk") is not None
"""Whether this Airflow's UI can show the page: Airflow 2 cannot."""


class RocksDBBackupLink(BaseOperatorLink):
    """Leads to the repository that a task uses, and to its backup there; also from a task that failed.

    It is relative to where Airflow's UI is, and so is right under a base path, which a worker need not know.
    """

    name = "RocksDB backup"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 -- Airflow's signature
        """Return the link; empty when the task did not come so far as to say what it is about."""
        told = XCom.get_value(key="rocksdb_backup", ti_key=ti_key) if HAS_PAGE else None
        return page_link(told) if isinstance(told, Mapping) else ""


def page_link(told: Mapping[str, Any]) -> str:
    """Return the link to what a task's XCom ``rocksdb_backup`` names."""
    names = {"repository": told.get("url"), "connection": told.get("rocksdb_conn_id"), "backup": told.get("backup_id")}
    return f"plugin/{URL_ROUTE}?{urlencode({key: value for key, value in names.items() if value is not None})}"
