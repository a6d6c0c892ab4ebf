"""A real ``airflow standalone`` with databases in each state: good, failing, late, unreachable, without a backup."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.cluster import AIRFLOW, WAIT_SECONDS, Cluster, wait_for
from tests.fleet.hosts import Host, require_namespaces

ROOT = Path(__file__).parent.parent.parent
PASSWORDS = {"admin": "admin-password", "viewer": "viewer-password"}
STATES = ("orders", "users", "events")
GOOD_RUNS = 4


@dataclass
class Site(Cluster):
    """An Airflow with two users, of which one may only look."""

    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API as admin."""
        self._token = self._token or self.log_in("admin")
        return self._request(method, f"/api/v2{path}", body)

    def log_in(self, user: str) -> str:
        """Return a user's token."""
        if user not in self.tokens:
            data = json.dumps({"username": user, "password": PASSWORDS[user]}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{self.url}/auth/token", data, headers)  # noqa: S310 -- ours
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 -- ours
                self.tokens[user] = json.load(answer)["access_token"]
        return self.tokens[user]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def back_up(self, name: str) -> str:
        """Run the DAG of a database to its end; return how it ended."""
        return self.trigger(f"{name}_backup").wait()


@contextlib.contextmanager
def running_site(directory: Path) -> Iterator[Site]:
    """Run it, and bring each database into its state."""
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # takes connections, never answers
        host = Host("db-host-1", directory / "host", directory / "disk")
        site = _make(directory, silent.getsockname()[1])
        script = ROOT / "example_dags" / "rocksdb_demo.py"
        for name in STATES:
            command = (sys.executable, script, host.mount / name, host.mount / f"{name}.acknowledged")
            stack.enter_context(host.running(*command, log=directory / f"{name}.log", env=site.env))
        stack.enter_context(host.running(*AIRFLOW, "standalone", log=directory / "airflow.log", env=site.env))
        stack.enter_context(_telling(directory / "airflow.log"))
        wait_for(lambda: site.healthy("scheduler", "dag_processor"), "Airflow")
        for name in STATES:
            site.wait_for_dag(f"{name}_backup")
            site.unpause(f"{name}_backup")
            first = wait_for(lambda name=name: site.runs(f"{name}_backup"), f"a run of {name}_backup")[0]
            assert first.wait() == "success"
        site.pause("events_backup")  # from now on it grows late
        for _ in range(GOOD_RUNS - 1):
            assert site.back_up("orders") == "success"
        (host.disk / "users").rename(host.disk / "users.lost")
        assert site.back_up("users") == "failed"
        yield site


@contextlib.contextmanager
def _telling(log: Path) -> Iterator[None]:
    """Print the end of a log when the block fails."""
    try:
        yield
    except BaseException:
        print("\n".join(log.read_text().splitlines()[-300:]))
        raise


def _make(directory: Path, silent_port: int) -> Site:
    def database(name: str, backup_dir: str, **extra: str) -> dict[str, Any]:
        places = {"db_dir": str(directory / "disk" / name), "backup_dir": backup_dir}
        return {"conn_type": "rocksdb", "extra": {**places, **extra}}

    passwords = directory / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    endpoint = {"endpoint_url": f"http://127.0.0.1:{silent_port}", "region_name": "us-east-1"}
    connections = {
        **{name: database(name, str(directory / "backups" / name)) for name in (*STATES, "sessions")},
        "ledger": database("ledger", "s3://backups/ledger", storage_conn_id="silent"),
        "silent": {"conn_type": "aws", "login": "key", "password": "a-secret-that-nobody-may-see", "extra": endpoint},
    }
    settings = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "2",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:ADMIN,viewer:VIEWER",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    settings["DATABASE__SQL_ALCHEMY_CONN"] = (
        f"sqlite:///{directory}/airflow.db?timeout={WAIT_SECONDS:.0f}"  # as waited for
    )
    site = Site(directory / "home", connections, settings)
    shutil.copy(Path(__file__).parent / "dags" / "fleet.py", site.home / "dags")
    return site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Have an Airflow with databases in each state, for all tests of a module."""
    require_namespaces()
    with contextlib.ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="site-", ignore_cleanup_errors=True)
        yield stack.enter_context(running_site(Path(stack.enter_context(place))))
