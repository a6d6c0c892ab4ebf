"""A path or URL and its options on a command line -> an fsspec file system and a path on it.

Options are arguments of the file system's class. They come from the environment, a file and the command line, the later
before the earlier. Their values are never printed: :func:`mask_secrets` takes them out of what is.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_rocksdb.core.errors import AccessError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fsspec import AbstractFileSystem

ENVIRONMENT_VARIABLE = "ROCKSDB_BACKUP_STORAGE_OPTIONS"

# Options whose values are addresses and names: an error about them is useless without them.
NOT_SECRET = frozenset(
    [
        "account_name",
        "addressing_style",
        "endpoint_url",
        "host",
        "hostname",
        "port",
        "project",
        "region",
        "region_name",
        "user",
        "username",
    ]
)
MASK = "***"
MIN_SECRET = 4  # masking anything shorter would mask half of any text

Value = TypeVar("Value")


def is_url(path_or_url: str) -> bool:
    """Whether this is a URL, as against a local path."""
    return "://" in path_or_url


def refuse_unsafe_url(path_or_url: str) -> None:
    """Raise :class:`InvalidArgumentError` for a URL that carries credentials or chains file systems."""
    if not is_url(path_or_url):
        return
    if "::" in re.sub(r"\[[^]]*]", "", path_or_url):  # but for an IPv6 address
        raise InvalidArgumentError(
            f"{path_or_url.split('::')[0]}::…: chained URLs are not supported: name one file system"
        )
    scheme, _, rest = path_or_url.partition("://")
    host, colon, port = rest.partition("/")[0].partition(":")
    if "@" in host + port or (colon and not port.isdigit() and "[" not in host):  # a password may have a / in it
        raise InvalidArgumentError(
            f"{scheme}://{MASK}: a URL must not carry a user or a password: put them into a storage options file or "
            f"into {ENVIRONMENT_VARIABLE}"
        )


def decode_value(text: str) -> Any:
    """Decode a storage option's value: JSON where it is JSON, else the text itself."""

    def no_constant(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return text


def read_storage_options(pairs: Iterable[tuple[str, Any]], file: str | None) -> dict[str, Any]:
    """Read storage options from the environment, a file and the command line.

    :raises NotFoundError: there is no such file
    :raises AccessError: the file may not be read
    :raises InvalidArgumentError: the environment or the file holds something else than a JSON object
    """
    options = _decode_object(os.environ.get(ENVIRONMENT_VARIABLE) or "{}", f"variable {ENVIRONMENT_VARIABLE}")
    if file is not None:
        try:
            with open(file, encoding="utf-8") as stream:
                options |= _decode_object(stream.read(), file)
        except FileNotFoundError:
            raise NotFoundError(f"{file}: no such storage options file") from None
        except UnicodeDecodeError:
            raise InvalidArgumentError(f"{file}: expected a JSON object in UTF-8, got other bytes") from None
        except OSError as error:
            raise AccessError(f"{file}: cannot read the storage options: {error.strerror}") from None
    return options | dict(pairs)


def _decode_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:  # whose message names a place, and not the text
        raise InvalidArgumentError(f"{where}: expected a JSON object of storage options, got {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{where}: expected a JSON object of storage options, got a {type(value).__name__}")
    return value


def open_file_system(path_or_url: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """Open the file system that a path or URL names; return it and the path on it.

    :raises InvalidArgumentError: unknown scheme, missing driver, or arguments that the file system does not take
    :raises AccessError, NotFoundError: the storage refuses
    """
    import fsspec  # the commands that need no file system start faster without it

    from airflow_provider_rocksdb.core.drivers import default_timeouts

    refuse_unsafe_url(path_or_url)
    if not is_url(path_or_url):
        return fsspec.filesystem("file"), os.path.abspath(path_or_url)
    scheme = path_or_url.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(path_or_url, **{**default_timeouts(scheme), **options})
    except ImportError as error:
        raise InvalidArgumentError(f"{scheme}://: the fsspec driver is not installed: {error}") from None
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{path_or_url}: no such fsspec file system: {error}") from None
    except Exception as error:
        from airflow_provider_rocksdb.core.storage import translate_error

        named = translate_error(error, path_or_url)  # of a driver that connects when it is made
        if named is None:
            raise
        raise named from error
    return filesystem, path


def mask_secrets(value: Value, options: Mapping[str, Any]) -> Value:
    """Return a text, or a JSON value, without the values of ``options``."""
    secrets = sorted({text for text in _iter_secrets(options) if len(text) >= MIN_SECRET}, key=len, reverse=True)

    def mask(item: Any) -> Any:
        if isinstance(item, str):
            for secret in secrets:
                item = item.replace(secret, MASK)
        elif isinstance(item, dict):
            item = {key: mask(child) for key, child in item.items()}
        elif isinstance(item, list):
            item = [mask(child) for child in item]
        return item

    return cast("Value", mask(value)) if secrets else value


def _iter_secrets(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _iter_secrets(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _iter_secrets(item, key)
    elif isinstance(value, str | int) and not isinstance(value, bool) and key not in NOT_SECRET:
        yield str(value)
