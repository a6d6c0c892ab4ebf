"""An Airflow of the tests' own, and a database that a process of its own is writing.

The environment is set when this file is read: before any test module here is, and so before Airflow is.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.sdk import DAG

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
(AIRFLOW_HOME / "dags").mkdir()
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(AIRFLOW_HOME / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
}

WRITER = """
import sys
from rocksdict import Options, Rdict, WriteBatch
database = Rdict(sys.argv[1], Options(raw_mode=True))
for number in range(1000):
    database[b"%06d" % number] = b"value"
database.flush()
for number in range(1000, 1100):
    database[b"%06d" % number] = b"in the WAL only"
print("ready", flush=True)
sys.stdin.read()
database.close()
"""


@pytest.fixture(scope="session", autouse=True)
def airflow_home() -> Path:
    """Make Airflow's database, once."""
    assert "airflow" not in sys.modules or os.environ["AIRFLOW_HOME"] == str(AIRFLOW_HOME)
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return AIRFLOW_HOME


@contextlib.contextmanager
def writing(db_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a process that has a database open, with 1,000 keys in SST files and 100 more in the WAL."""
    command = [sys.executable, "-c", WRITER, str(db_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        yield writer
        writer.stdin.close()


@pytest.fixture(scope="session")
def live_db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Have a database that is open elsewhere for the whole session."""
    db_dir = tmp_path_factory.mktemp("live") / "db"
    with writing(db_dir):
        yield db_dir


@pytest.fixture
def stopped_db(tmp_path: Path, live_db: Path) -> Path:
    """Have a database that nobody has open."""
    shutil.copytree(live_db, tmp_path / "db")
    return tmp_path / "db"


class Run:
    """What a DAG's latest run has left in Airflow's database."""

    def __init__(self, dag_id: str, log: str) -> None:
        self.dag_id, self.run_id, self.log = dag_id, "", log
        statement = "SELECT run_id, state FROM dag_run WHERE dag_id = ? AND ? = '' ORDER BY id DESC LIMIT 1"
        ((self.run_id, self.state),) = self._select(statement)

    @property
    def states(self) -> dict[str, str]:
        rows = self._select("SELECT task_id, state FROM task_instance WHERE dag_id = ? AND run_id = ?")
        return dict(rows)

    @property
    def tries(self) -> dict[str, tuple[str, int]]:
        rows = self._select("SELECT task_id, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ?")
        return {task_id: (state, try_number) for task_id, state, try_number in rows}

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        for task, index, name, value in self._select(
            "SELECT task_id, map_index, key, value FROM xcom WHERE dag_id = ? AND run_id = ?"
        ):
            if (task, index, name) == (task_id, map_index, key):
                value = json.loads(value)
                return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
        return None

    def _select(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as connection:
            return connection.execute(statement, (self.dag_id, self.run_id)).fetchall()


def asset_events(dag_id: str) -> list[tuple[str, dict[str, Any], list[str]]]:
    """Return what Airflow has stored of a DAG's asset events: URI, extra and aliases of each, the oldest first."""
    with contextlib.closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as connection:
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'asset_event'").fetchone()
        name = "asset" if tables[0] else "dataset"  # Airflow 2
        statement = f"""
            SELECT asset.uri, event.extra, (
                SELECT group_concat(alias.name) FROM {name}_alias alias
                JOIN {name}_alias_{name}_event link ON link.alias_id = alias.id WHERE link.event_id = event.id
            ) FROM {name}_event event JOIN {name} asset ON asset.id = event.{name}_id
            WHERE event.source_dag_id = ? ORDER BY event.id
        """  # noqa: S608 -- Airflow's own names
        rows = connection.execute(statement, (dag_id,)).fetchall()
    return [(uri, json.loads(extra), aliases.split(",") if aliases else []) for uri, extra, aliases in rows]


@pytest.fixture
def stored() -> Callable[[], str]:
    """Read everything that Airflow has stored but the DAGs' own code: templates, XComs, logs, …, as text."""

    def read() -> str:
        with contextlib.closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as connection:
            return "\n".join(line for line in connection.iterdump() if not line.startswith('INSERT INTO "dag_code"'))

    return read


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make Airflow connections, which last as long as the test."""

    def connect(conn_id: str, conn_type: str, **values: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, **values}))

    return connect


_modules: dict[str, str] = {}  # DAG id -> test module


@pytest.fixture
def run_dag(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[DAG], Run]:
    """Run a DAG in this process, to its end."""

    def run(dag: DAG) -> Run:
        module = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
        assert _modules.setdefault(dag.dag_id, module) == module, "Airflow 3.1 keeps a DAG by its id: take another"
        _sync(dag)
        capfd.readouterr()
        caplog.clear()
        _build_api_once()
        try:
            dag.test()
        except BaseException as error:
            if type(error).__name__ != "AirflowTaskTerminated":  # Airflow 2 lets a kill through
                raise
        printed = capfd.readouterr()
        log = printed.out + printed.err + caplog.text
        print(log)  # for pytest to show when the test fails
        return Run(dag.dag_id, log)

    return run


@pytest.fixture
def killed_when() -> Iterator[Callable[[Path], None]]:
    """Send this process SIGTERM as soon as a path is there."""
    handler, done = signal.getsignal(signal.SIGTERM), threading.Event()
    threads = []

    def kill(path: Path) -> None:
        while not done.wait(0.005):
            if path.exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def start(path: Path) -> None:
        threads.append(threading.Thread(target=kill, args=(path,)))
        threads[-1].start()

    yield start
    done.set()
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGTERM, handler)


@functools.cache
def _build_api_once() -> None:
    """Have the API built once, as later versions do; Airflow 3.1 builds it anew for every task, which takes seconds."""
    try:
        from airflow.sdk.execution_time import supervisor
    except ImportError:  # Airflow 2
        return
    if not hasattr(supervisor.in_process_api_server, "cache_clear"):
        supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)


def _sync(dag: DAG) -> None:
    """Tell Airflow of a DAG that is in no file of the DAGs folder."""
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
    except ImportError:  # Airflow 2
        return
    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag, sync_bag_to_db
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=AIRFLOW_HOME / "dags")
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
