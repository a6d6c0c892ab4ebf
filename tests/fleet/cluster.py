"""An Airflow of several processes, and a client of its REST API."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.fleet.services import free_port

Value = TypeVar("Value")
AIRFLOW = (sys.executable, "-m", "airflow")
WAIT_SECONDS = 240.0  # for anything at all: a limit, not an expectation


def wait_for(condition: Callable[[], Value], what: str, pause: float = 0.5) -> Value:
    """Wait until a condition gives something true; return it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(pause)
    return value


@dataclass
class Cluster:
    """The environment of all processes of an Airflow, and its API."""

    home: Path
    connections: dict[str, dict[str, Any]]
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _token: str = ""

    def __post_init__(self) -> None:
        (self.home / "dags").mkdir(parents=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        inherited["PATH"] = f"{Path(sys.executable).parent}:{inherited['PATH']}"  # "standalone" starts "airflow"
        settings = {
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__WORKERS": "1",
            "API__SECRET_KEY": secrets.token_hex(),
            "API_AUTH__JWT_SECRET": secrets.token_hex(),
            "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__DAGS_FOLDER": str(self.home / "dags"),
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "CORE__DEFAULT_TASK_RETRY_DELAY": "3",
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "CORE__LOAD_EXAMPLES": "False",
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "WORKERS__EXECUTION_API_TIMEOUT": "60",  # of a busy machine
            **self.settings,
        }
        self.env = {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            **{f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(c) for conn_id, c in self.connections.items()},
        }

    def migrate(self) -> None:
        """Make Airflow's database."""
        done = subprocess.run([*AIRFLOW, "db", "migrate"], env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API; return the answer."""
        if not self._token:
            self._token = self._request("GET", "/auth/token")["access_token"]
        for tries_left in reversed(range(3)):
            try:
                return self._request(method, f"/api/v2{path}", body)
            except urllib.error.HTTPError as error:
                # what Airflow makes of a SQLite database that others have locked for five seconds
                if error.code != 500 or method == "POST" or not tries_left:
                    raise
        raise AssertionError

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:  # noqa: S310 -- ours
            return json.load(answer)

    def healthy(self, *parts: str) -> bool:
        """Whether the API server answers, and these other parts say that they run."""
        try:
            health = self.call("GET", "/monitor/health")
        except (OSError, ValueError):
            return False
        return all(health[part]["status"] == "healthy" for part in parts)

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until a DAG is known."""
        wait_for(lambda: self._exists(f"/dags/{dag_id}"), f"DAG {dag_id}")

    def _exists(self, path: str) -> bool:
        try:
            self.call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return False
        return True

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a DAG."""
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Have the scheduler start no more runs of a DAG."""
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": True})

    def trigger(self, dag_id: str, **params: str) -> Run:
        """Start a run."""
        body = {"logical_date": None, "conf": params}
        return Run(self, dag_id, self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str, *states: str) -> list[Run]:
        """Return the runs that are in one of these states, the oldest first."""
        query = urllib.parse.urlencode({"state": states, "order_by": "id"}, doseq=True)
        runs = self.call("GET", f"/dags/{dag_id}/dagRuns?{query}")["dag_runs"]
        return [Run(self, dag_id, run["dag_run_id"]) for run in runs]


@dataclass
class Run:
    """A run of a DAG."""

    cluster: Cluster
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"/dags/{self.dag_id}/dagRuns/{urllib.parse.quote(self.run_id, safe='')}"

    def wait(self) -> str:
        """Wait until it has ended; return how."""

        def ended() -> str:
            state = str(self.cluster.call("GET", self.path)["state"])
            return state if state in ("success", "failed") else ""

        state = wait_for(ended, f"the end of {self.run_id}")
        for task in self.tasks():
            print({key: task[key] for key in ("task_id", "map_index", "state", "try_number", "hostname")})
            print(self.log(task["task_id"]) if task["state"] == "failed" else "")
        return state

    def tasks(self) -> list[dict[str, Any]]:
        """Return all task instances."""
        found = self.cluster.call("GET", f"{self.path}/taskInstances")["task_instances"]
        return sorted(found, key=lambda task: (task["task_id"], task["map_index"]))

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the only task instance of a task that is not mapped."""
        (found,) = (task for task in self.tasks() if task["task_id"] == task_id)
        return found

    def states(self) -> dict[str, str]:
        """Return the tasks' states, of a run without mapped tasks."""
        return {task["task_id"]: task["state"] for task in self.tasks()}

    def result(self, task_id: str, map_index: int = -1) -> Any:
        """Return what a task returned."""
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries/return_value?map_index={map_index}"
        return self.cluster.call("GET", path)["value"]

    def log(self, task_id: str) -> str:
        """Return the logs of all tries of a task that is not mapped."""
        return "\n".join(path.read_text() for path in sorted(self._logs(task_id).glob("attempt=*.log")))

    def trigger_logs(self, task_id: str) -> dict[int, str]:
        """Return what triggers have logged for a task that is not mapped, by the job id of their triggerer."""
        paths = self._logs(task_id).glob("attempt=*.log.trigger.*.log")
        return {int(path.name.split(".")[-2]): path.read_text() for path in paths}

    def _logs(self, task_id: str) -> Path:
        return self.cluster.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}" / f"task_id={task_id}"
