"""The page "RocksDB backups" in the navigation of Airflow's UI, 3.1 and later; Airflow 2 reads over it.

Every process of Airflow loads this module; the page's own code is loaded by the first request for it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_rocksdb.links.rocksdb import URL_ROUTE

URL_PREFIX = "/rocksdb"


class _Page:
    """The page as an ASGI application."""

    @cached_property
    def _app(self) -> Any:
        from airflow_provider_rocksdb.plugins.app import create_app

        return create_app()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


class RocksDBPlugin(AirflowPlugin):
    """Adds the page."""

    name = "rocksdb"
    fastapi_apps: list[Any] = [{"app": _Page(), "url_prefix": URL_PREFIX, "name": "RocksDB backups"}]  # noqa: RUF012
    external_views: list[Any] = [  # noqa: RUF012 -- as Airflow declares it
        {
            "name": "RocksDB backups",
            "href": f"{URL_PREFIX.strip('/')}/",  # relative, so that it is right under a base path
            "destination": "nav",
            "category": "browse",
            "url_route": URL_ROUTE,
        }
    ]
