"""A path or URL, an Airflow connection, storage options -> an fsspec file system and the path on it.

Airflow's own integrations (s3, gs, abfs, sftp… as providers are installed) know their connection types and are used
where they exist. Any other scheme that fsspec knows is opened with the connection's host, port, login and password, and
with those keys of its extra that ``CONNECTION_OPTIONS`` lists. No credentials in URLs: they end up in logs and pages.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from airflow_provider_rocksdb.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Keys of a connection's extra that are passed on to a file system which Airflow has no integration for.
CONNECTION_OPTIONS = frozenset(
    [
        "account_key",
        "account_name",
        "anon",
        "auto_mkdir",
        "client_kwargs",
        "connection_string",
        "domain",
        "encoding",
        "endpoint_url",
        "key",
        "project",
        "sas_token",
        "secret",
        "share_access",
        "ssl",
        "timeout",
        "tls",
        "token",
        "use_ssl",
        "verify",
    ]
)

_CONNECTION_IN_URL_SCHEMES = ("s3", "s3a", "s3n")
# Storage options whose values are addresses: a log in which they are masked helps nobody.
_NOT_SECRET = frozenset(["base_url", "endpoint_url", "host", "hostname", "port", "project", "region", "region_name"])


def is_url(path_or_url: str) -> bool:
    """Whether this is a URL, as against a local path."""
    return "://" in path_or_url


def public_url(path_or_url: str) -> str:
    """Return the URL of a place as everyone may see it: without a connection id.

    :raises InvalidArgumentError: when the URL carries credentials.
    """
    return _split_connection(path_or_url, None)[0] if is_url(path_or_url) else f"file://{os.path.abspath(path_or_url)}"


def resolve_storage(
    path_or_url: str, conn_id: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> tuple[AbstractFileSystem, str]:
    """Return the file system that a path or URL lies on, and the path there.

    :param path_or_url: a local path; a URL; ``s3://conn_id@bucket/…`` names the connection in the URL.
    :param conn_id: Airflow connection of the storage.
    :param storage_options: arguments of the fsspec file system; their values are masked in the log.
    :raises InvalidArgumentError: when the URL carries credentials, or the parts do not go together.
    :raises AirflowNotFoundException: when there is no such connection.
    """
    import fsspec

    from airflow_provider_rocksdb.core.drivers import default_timeouts

    options = dict(storage_options or {})
    for secret in _iter_secrets(options):
        mask_secret(secret)
    if not is_url(path_or_url):
        if conn_id or options:
            raise InvalidArgumentError(
                f"{path_or_url}: a local path takes neither a storage connection nor storage options; name a URL"
            )
        return fsspec.filesystem("file"), os.path.abspath(path_or_url)
    url, conn_id = _split_connection(path_or_url, conn_id)
    scheme = url.partition("://")[0]
    connection = BaseHook.get_connection(conn_id) if conn_id else None  # a missing one would mean anonymous access
    airflow_io = _airflow_io()
    if airflow_io.has_fs(scheme):
        if not options:
            with _naming(url, scheme):
                filesystem = airflow_io.get_fs(scheme, conn_id, default_timeouts(scheme))
            return filesystem, filesystem._strip_protocol(url)
        if conn_id:
            raise InvalidArgumentError(
                f"{url}: connection {conn_id!r} and storage options cannot be combined for {scheme}://, whose "
                "connection type Airflow reads itself; put the options into the connection, or drop one of the two"
            )
    options = {**_connection_options(connection), **options}
    if connection is not None:
        options = _refuse_anonymous(scheme, conn_id, options)
    return _open_by_options(url, options)


def _open_by_options(url: str, options: dict[str, Any]) -> tuple[AbstractFileSystem, str]:
    import fsspec

    from airflow_provider_rocksdb.core.drivers import default_timeouts

    scheme = url.partition("://")[0]
    try:
        with _naming(url, scheme):
            filesystem, path = fsspec.core.url_to_fs(url, **{**default_timeouts(scheme), **options})
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise InvalidArgumentError(f"{url}: cannot be opened with options {sorted(options)}: {error}") from None
    return filesystem, path


@contextlib.contextmanager
def _naming(url: str, scheme: str) -> Iterator[None]:
    """Name what drivers raise that connect, or look for credentials, when they are made.

    :raises InvalidArgumentError: when the driver is not installed.
    :raises AccessError, NotFoundError: when the storage refuses.
    """
    from airflow_provider_rocksdb.core.storage import translate_error

    try:
        yield
    except ImportError as error:
        raise InvalidArgumentError(f"{scheme}://: its fsspec driver is not installed: {error}") from None
    except (TypeError, ValueError):
        raise
    except Exception as error:
        named = translate_error(error, url)
        if named is None:
            raise
        raise named from error


def _refuse_anonymous(scheme: str, conn_id: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Keep drivers that find no credentials in a connection from trying without any.

    :raises InvalidArgumentError: for FTP without a login.
    """
    if scheme in ("abfs", "abfss", "az"):
        return {"anon": False, **options}  # the host's own identity, then
    if scheme in ("gs", "gcs"):
        return {"token": "google_default", **options}
    if scheme == "ftp" and "username" not in options:
        raise InvalidArgumentError(
            f"connection {conn_id!r} has no login; if anonymous FTP is meant, write anonymous as its login"
        )
    return options


def _split_connection(url: str, conn_id: str | None) -> tuple[str, str | None]:
    """Take the connection id out of ``s3://conn_id@bucket``; refuse any other user info, and chained URLs."""
    scheme, _, rest = url.partition("://")
    if "::" in re.sub(r"\[[^]]*]", "", url):  # but for an IPv6 address
        raise InvalidArgumentError(f"{scheme}…: chained URLs are not supported; name one file system")
    location, slash, path = rest.partition("/")
    user, at, host = location.rpartition("@")
    container = scheme in ("abfs", "abfss") and ":" not in user  # abfs://container@account.dfs.core.windows.net/…
    if not at and re.match(r"[^/@]*:[^@]*@", rest):  # a password may have a / in it
        user, at = rest, "@"
    if not at or container:
        return url, conn_id
    if scheme not in _CONNECTION_IN_URL_SCHEMES or ":" in user:
        raise InvalidArgumentError(
            f"{scheme}://***: a URL must not carry a user or a password; put them into an Airflow connection and name "
            "that as storage_conn_id"
        )
    if conn_id and conn_id != user:
        raise InvalidArgumentError(f"{scheme}://{host}: the URL names connection {user!r}, the task {conn_id!r}")
    return f"{scheme}://{host}{slash}{path}", user


def _connection_options(connection: Any) -> dict[str, Any]:
    if connection is None:
        return {}
    extra = connection.extra_dejson
    options = {key: value for key, value in extra.items() if key in CONNECTION_OPTIONS and value not in (None, "")}
    fields = {
        "host": connection.host,
        "port": connection.port,
        "username": connection.login,
        "password": connection.password,
    }
    return {**options, **{key: value for key, value in fields.items() if value}}


def _iter_secrets(value: Any, key: str = "") -> Iterator[str]:
    """Yield every text in storage options that may be a secret."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _iter_secrets(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _iter_secrets(item, key)
    elif isinstance(value, str) and value and key not in _NOT_SECRET:
        yield value


def _airflow_io() -> Any:
    """Airflow's own module of that name: ``has_fs`` and ``get_fs``."""
    try:
        return importlib.import_module("airflow.sdk.io")
    except ImportError:  # Airflow 2
        return importlib.import_module("airflow.io")
