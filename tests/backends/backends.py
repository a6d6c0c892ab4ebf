"""The backends under contract: how each is opened, as a user would, by the provider's own resolver."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec import AbstractFileSystem

from airflow_provider_rocksdb.core.inventory import Inventory
from airflow_provider_rocksdb.hooks.storage import resolve_storage
from tests.core.databases import put
from tests.core.repositories import build_old, grow, take

USER, SECRET = "somebody", "not-a-secret"
# Azurite's own account and key: part of its documentation
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

LARGE_BYTES = 9 * 2**20  # more than one part of 8 MiB


@dataclass(frozen=True)
class Backend:
    """An empty place on a backend."""

    name: str
    filesystem: AbstractFileSystem
    root: str
    behind: Path | None = None  # the same place as a local directory, where there is one
    options: dict[str, Any] | None = None  # with which a child process opens it, where not with those it was opened by

    def download(self, target: Path, name: str = "") -> Path:
        """Copy what is there, or one name of it, to a local directory, by no code of ours."""
        shutil.rmtree(target, ignore_errors=True)
        if self.behind is not None:
            source = self.behind / name if name else self.behind
            return Path(shutil.copytree(source, target))
        base = f"{self.root}/{name}".rstrip("/")
        self.filesystem.invalidate_cache()
        for path, entry in self.filesystem.find(base, detail=True).items():
            if entry["type"] == "file":
                place = target / path.removeprefix(base).lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self.filesystem.cat_file(path))
        return target

    def to_child(self) -> dict[str, Any]:
        """As JSON-able values, with which :data:`REOPEN` opens the file system in a child process."""
        kind = type(self.filesystem)
        arguments = list(self.filesystem.storage_args)
        options = self.options or dict(self.filesystem.storage_options)
        return {"module": kind.__module__, "name": kind.__name__, "arguments": arguments, "options": options}

    def at(self, name: str) -> str:
        """Path of a name in it."""
        return f"{self.root}/{name}"


REOPEN = """
import importlib
def reopen(module, name, arguments, options):
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return getattr(importlib.import_module(module), name)(*arguments, **options)
"""

Make = Callable[[pytest.FixtureRequest, Path, str], Backend]


@dataclass(frozen=True)
class History:
    """Three checkpoints of one growing database, and how many keys each has. The second has a large SST file."""

    inventories: tuple[Inventory, ...]
    keys: tuple[int, ...]
    places: tuple[Path, ...]


def build_history(place: Path) -> History:
    """Build the database, take its checkpoints, close it."""
    database = build_old(str(place / "db"))
    inventories = [take(str(place / "db"), str(place / "1"))]
    for number in range(1500, 4500):
        database[b"%06d" % number] = os.urandom(LARGE_BYTES // 3000)
    database.flush()
    inventories.append(take(str(place / "db"), str(place / "2")))
    grow(database, 4500, 5000)
    put(database, 5000, 5100)
    inventories.append(take(str(place / "db"), str(place / "3")))
    database.close()
    return History(tuple(inventories), (1500, 4500, 5100), tuple(place / str(number) for number in (1, 2, 3)))


def resolve(name: str, url: str, behind: Path | None = None, **arguments: Any) -> Backend:
    filesystem, root = resolve_storage(url, **arguments)
    return Backend(name, filesystem, root, behind)


def local(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    return resolve("local", f"{directory}/{place}", directory / place)


def memory(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    return resolve("memory", f"memory://{place}")


def s3_by_options(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    server = request.getfixturevalue("s3_server")
    return resolve("s3", server.url, server.behind, storage_options=server.storage_options)


def s3_by_connection(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    server = request.getfixturevalue("s3_server")
    extra = {"endpoint_url": server.endpoint, "region_name": "us-east-1"}
    conn_id = request.getfixturevalue("connect")("aws", login=server.key, password=server.secret, extra=extra)
    opened = resolve("s3", server.url, server.behind, conn_id=conn_id)
    return dataclasses.replace(opened, options=server.storage_options)


def azure_options(port: int, **changes: str) -> dict[str, Any]:
    parts = {
        "DefaultEndpointsProtocol": "http",
        "AccountName": ACCOUNT,
        "AccountKey": ACCOUNT_KEY,
        "BlobEndpoint": f"http://127.0.0.1:{port}/{ACCOUNT}",
        **changes,
    }
    return {"connection_string": ";".join(f"{name}={value}" for name, value in parts.items())}


def azure_by_options(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    options = azure_options(request.getfixturevalue("azure_port"))
    fsspec.filesystem("abfs", **options).mkdir(place)
    return resolve("azure", f"abfs://{place}/repository", storage_options=options)


def azure_by_connection(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    options = azure_options(request.getfixturevalue("azure_port"))
    fsspec.filesystem("abfs", **options).mkdir(place)
    conn_id = request.getfixturevalue("connect")("azure", extra=options)
    return resolve("azure", f"az://{place}/repository", conn_id=conn_id)


def gcs_options(port: int) -> dict[str, Any]:
    return {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "any"}


def gcs_by_options(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    options = gcs_options(request.getfixturevalue("gcs_port"))
    fsspec.filesystem("gs", **options).mkdir(place)
    return resolve("gcs", f"gs://{place}/repository", storage_options=options)


def gcs_by_connection(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    options = gcs_options(request.getfixturevalue("gcs_port"))
    fsspec.filesystem("gs", **options).mkdir(place)
    conn_id = request.getfixturevalue("connect")("google", extra=options)
    return resolve("gcs", f"gcs://{place}/repository", conn_id=conn_id)


def sftp_by_paramiko(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    """Open by fsspec's own driver, which a sftp provider in the same environment hides."""
    from fsspec.implementations.sftp import SFTPFileSystem

    pytest.importorskip("paramiko", reason="needs paramiko")
    server = request.getfixturevalue("sftp_process")
    options = {"port": server.port, "username": USER, "password": SECRET}
    filesystem = SFTPFileSystem("127.0.0.1", look_for_keys=False, allow_agent=False, **options)
    return Backend("sftp", filesystem, f"/{place}", server.directory / place)


def sftp_by_connection(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    pytest.importorskip("airflow.providers.sftp.fs.sftp", reason="needs apache-airflow-providers-sftp")
    pytest.importorskip("sshfs", reason="needs sshfs")
    server = request.getfixturevalue("sftp_process")
    where = {"host": "127.0.0.1", "port": server.port, "login": USER, "password": SECRET}
    conn_id = request.getfixturevalue("connect")("sftp", extra={"no_host_key_check": "true"}, **where)
    return resolve("sshfs", f"sftp://127.0.0.1/{place}", server.directory / place, conn_id=conn_id)


def ftp_by_connection(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    server = request.getfixturevalue("ftp_process")
    where = {"host": "127.0.0.1", "port": server.port, "login": USER, "password": SECRET}
    conn_id = request.getfixturevalue("connect")("ftp", **where)
    return resolve("ftp", f"ftp://127.0.0.1/{place}", server.directory / place, conn_id=conn_id)


def webdav_by_options(request: pytest.FixtureRequest, directory: Path, place: str) -> Backend:
    pytest.importorskip("webdav4", reason="needs webdav4")
    server = request.getfixturevalue("webdav_process")
    options = {"base_url": f"http://127.0.0.1:{server.port}", "auth": (USER, SECRET)}
    return resolve("webdav", f"webdav://{place}", server.directory / place, storage_options=options)


DRIVERS: dict[str, Make] = {
    "local": local,
    "memory": memory,
    "s3": s3_by_options,
    "azure": azure_by_options,
    "gcs": gcs_by_options,
    "sftp": sftp_by_paramiko,
    "sshfs": sftp_by_connection,
    "ftp": ftp_by_connection,
    "webdav": webdav_by_options,
}
# the same drivers, opened in another way
BY_CONNECTION: dict[str, Make] = {
    "s3 by connection": s3_by_connection,
    "azure by connection": azure_by_connection,
    "gcs by connection": gcs_by_connection,
}
