"""The page's routes: GET only, for who is logged in and may see plugins; the page is whole without its script.

Everything is escaped by Jinja2, and the browser is told to load nothing from elsewhere. No route does more than read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from airflow_provider_rocksdb.plugins.access import Access
from airflow_provider_rocksdb.plugins.chart import draw
from airflow_provider_rocksdb.plugins.gather import gather
from airflow_provider_rocksdb.plugins.overview import Database
from airflow_provider_rocksdb.plugins.storages import Storages, ask_storage
from airflow_provider_rocksdb.plugins.view import describe_database, describe_overview

_HERE = Path(__file__).parent
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_STATIC = {"page.css": "text/css", "page.js": "text/javascript"}
_REFUSALS = {
    401: ("You are not logged in", "Log in to Airflow, then open this page again."),
    403: ("You may not see this page", "Ask who runs this Airflow for the right to see plugins."),
    404: (
        "There is nothing to see here",
        "No repository of that name is known, or you may read neither its connection nor a DAG that uses it.",
    ),
}


def create_app() -> FastAPI:
    """Make the application."""
    app = FastAPI(
        title="RocksDB backups",
        dependencies=[Depends(requires_access_view(AccessView.PLUGINS))],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.middleware("http")(_add_headers)
    app.exception_handler(HTTPException)(_refuse)
    app.get("/", response_class=HTMLResponse)(_show)
    app.get("/static/{name}")(_static)
    app.state.storages = Storages(ask_storage)
    return app


def _show(
    request: Request,
    user: GetUserDep,
    session: SessionDep,
    repository: str = "",
    connection: str = "",
    backup: str = "",
) -> HTMLResponse:
    """Show all databases; or one, by its repository or its connection, with one of its backups."""
    now = datetime.now(UTC)
    databases = gather(session, Access(user, session), request.app.state.storages, now)
    if repository or connection:
        return _render("database.html", describe_database(_find(databases, repository, connection), backup, now))
    if len(databases) == 1:
        return _render("database.html", {**describe_database(databases[0], backup, now), "is_only": True})
    return _render("overview.html", describe_overview(databases, now))


def _find(databases: list[Database], repository: str, connection: str) -> Database:
    for database in databases:
        if database.url == repository if repository else connection in database.named_by:
            return database
    raise HTTPException(404)


def _static(name: str) -> Response:
    if name not in _STATIC:
        raise HTTPException(404)
    return Response((_HERE / "static" / name).read_bytes(), media_type=_STATIC[name])


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def _refuse(request: Request, error: Exception) -> HTMLResponse:  # noqa: ARG001 -- FastAPI's signature
    status = error.status_code if isinstance(error, HTTPException) else 500
    title, advice = _REFUSALS.get(status, ("This page cannot be shown", f"Status {status}."))
    return _render("refusal.html", {"title": title, "advice": advice}, status)


def _render(template: str, values: dict[str, Any], status: int = 200) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(template).render(values), status)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["draw"] = draw
    return environment
