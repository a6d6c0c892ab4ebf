"""A fleet: PostgreSQL, Redis, an Airflow with the CeleryExecutor, two hosts, and databases that are being written."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fleet.cluster import AIRFLOW, Cluster, wait_for
from tests.fleet.hosts import Host, kill, require_namespaces
from tests.fleet.services import postgresql, redis

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "example_dags"
HOSTS = {"db-host-1": ("users", "orders"), "db-host-2": ("events",)}
KEYS_BEFORE = 200_000  # as example_dags/rocksdb_demo.py writes before it slows down


@dataclass
class Fleet:
    """Two hosts, of which each sees its own disk at ``directory/disk``; repositories that both see."""

    directory: Path
    cluster: Cluster
    stack: contextlib.ExitStack
    hosts: dict[str, Host] = field(init=False)
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mount = self.directory / "disk"
        self.hosts = {name: Host(name, self.directory / name, mount) for name in ("airflow", *HOSTS)}

    def start_service(self, host: str, name: str) -> None:
        """Have a program on a host that writes a database without a pause."""
        host_ = self.hosts[host]
        script = str(EXAMPLES / "rocksdb_demo.py")
        command = [sys.executable, script, host_.mount / name, host_.mount / f"{name}.acknowledged"]
        log = self.directory / f"{name}.log"
        self.stack.enter_context(host_.running(*command, log=log, env=self.cluster.env))

    def start_airflow(self, command: str) -> None:
        """Start a part of Airflow that is on no database's host."""
        self.stack.callback(kill, self.start(command))

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start such a part, and leave it to the caller to end it."""
        log = self.directory / f"{command}.log"
        return self.hosts["airflow"].start(*AIRFLOW, command, log=log, env=self.cluster.env)

    def start_worker(self, host: str) -> None:
        """Start a host's Celery worker, for the host's queue and for what may run anywhere."""
        command = ("celery", "worker", "--queues", f"{host},default", "--concurrency", "2", "--skip-serve-logs")
        command += ("--without-mingle", "--without-gossip")
        log = self.directory / f"worker-{host}.log"
        self.workers[host] = self.hosts[host].start(*AIRFLOW, *command, log=log, env=self.cluster.env)
        self.stack.callback(kill, self.workers[host])

    def kill_worker(self, host: str) -> None:
        """Kill a host's worker with all its tasks; the databases' own processes go on."""
        kill(self.workers[host])

    def acknowledged(self, name: str) -> int:
        """How many keys a database's writer says it has written."""
        (host,) = (host for host, names in HOSTS.items() if name in names)
        try:
            return int.from_bytes((self.hosts[host].disk / f"{name}.acknowledged").read_bytes(), "little")
        except FileNotFoundError:
            return 0

    def repository(self, name: str) -> Path:
        """Return the place of a database's backup repository."""
        return self.directory / "backups" / name


@pytest.fixture(scope="package")
def fleet() -> Iterator[Fleet]:
    """Run a whole fleet: three databases on two hosts, with a worker each."""
    pytest.importorskip("airflow.providers.celery", reason="needs apache-airflow-providers-celery")
    require_namespaces()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", ignore_cleanup_errors=True)))
        database, broker = stack.enter_context(postgresql()), stack.enter_context(redis(directory))
        connections = {
            f"rocksdb_{name}": {
                "conn_type": "rocksdb",
                "extra": {"db_dir": str(directory / "disk" / name), "backup_dir": str(directory / "backups" / name)},
            }
            for names in HOSTS.values()
            for name in names
        }
        settings = {
            "CORE__EXECUTOR": "CeleryExecutor",
            "DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",  # then a triggerer that was killed is known as dead
            "CELERY__BROKER_URL": broker,
            "CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{database}",
        }
        cluster = Cluster(directory / "airflow-home", connections, settings)
        yield _start(Fleet(directory, cluster, stack))


def _start(fleet: Fleet) -> Fleet:
    dags = fleet.cluster.home / "dags"
    shutil.copy(EXAMPLES / "example_rocksdb_fleet_backup.py", dags)
    for name in ("deferred", "limited", "two_hosts"):
        shutil.copy(Path(__file__).parent / "dags" / f"{name}.py", dags)
    for host, names in HOSTS.items():
        for name in names:
            fleet.start_service(host, name)
    fleet.cluster.migrate()
    for command in ("api-server", "scheduler", "dag-processor"):
        fleet.start_airflow(command)
    for host in HOSTS:
        fleet.start_worker(host)
    wait_for(lambda: fleet.cluster.healthy("scheduler", "dag_processor"), "Airflow")
    fleet.cluster.call("POST", "/pools", {"name": "rocksdb_uploads", "slots": 1})
    for names in HOSTS.values():
        for name in names:
            wait_for(lambda name=name: fleet.acknowledged(name) >= KEYS_BEFORE, f"the writer of {name}")
    return fleet
