"""The page "RocksDB backups": who gets in, what a viewer sees, that nothing on it is code; and the links to it."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rocksdb.links.rocksdb import HAS_PAGE, RocksDBBackupLink, page_link
from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator
from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator, RocksDBVerifyBackupOperator
from tests.airflow import conftest

RunDag = Callable[[DAG], Any]
Connect = Callable[..., None]
Get = Callable[..., Any]

with_page = pytest.mark.skipif(not HAS_PAGE, reason="Airflow 2 has no such page")
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def get(airflow_home: Path) -> Iterator[Get]:
    """Get a path of Airflow's whole API server as a user of a role, or as nobody."""
    from airflow.api_fastapi.app import create_app, get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", secrets.token_hex())
        client = stack.enter_context(TestClient(create_app(), base_url="http://testserver"))

        def get(path: str, role: str | None = "ADMIN", method: str = "GET") -> Any:
            client.cookies.clear()
            headers = {}
            if role is not None:
                token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=role, role=role))
                headers["Authorization"] = f"Bearer {token}"
            return client.request(method, path, headers=headers, follow_redirects=False)

        yield get


@pytest.fixture
def sync() -> Callable[[DAG], None]:
    return conftest._sync


@pytest.fixture(scope="module")
def app() -> Any:
    from airflow_provider_rocksdb.plugins.app import create_app

    return create_app()


@with_page
@pytest.mark.parametrize(
    "path",
    ["", "?repository=x", "?connection=rocksdb_default", "static/page.css", "static/page.js", "static/x", "docs"],
)
def test_anonymous(get: Get, path: str) -> None:
    """Who is not logged in gets nothing of any route, whatever the query."""
    answer = get(f"/rocksdb/{path}", role=None)
    assert answer.status_code == (404 if path == "docs" else 401)
    assert "repository" not in answer.text.lower() or path == "docs"


@with_page
def test_every_route_asks(app: Any) -> None:
    """Every route asks for a login and the right to see plugins, and only reads."""
    assert [route.path for route in app.routes] == ["/", "/static/{name}"]
    for route in app.routes:
        assert route.methods == {"GET"}
        (guard, *_) = route.dependant.dependencies
        assert guard.call.__qualname__.startswith("requires_access_view")


@with_page
@pytest.mark.parametrize(
    "query",
    ["repository=%00", "repository=" + "x" * 9000, "connection=..%2f..", "repository=a&repository=b", "connection='--"],
)
def test_junk(get: Get, query: str) -> None:
    """What names no repository is not found, whatever it is made of."""
    assert get(f"/rocksdb/?{query}").status_code == 404


@with_page
@pytest.mark.parametrize("query", ["backup=junk", "user=admin", "session=1", "x" * 5000, "request=1"])
def test_ignored(get: Get, query: str) -> None:
    """Parameters that mean nothing change nothing; nobody becomes another user by one."""
    assert get(f"/rocksdb/?{query}", role="VIEWER").status_code == 200
    assert get(f"/rocksdb/?{query}", role=None).status_code == 401


@with_page
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_reads(get: Get, method: str) -> None:
    """No other method is answered."""
    assert get("/rocksdb/", method=method).status_code == 405


@with_page
def test_headers(get: Get) -> None:
    """Every answer, a refusal too, forbids what comes from elsewhere, and names its type."""
    for path, role in (("/rocksdb/", "ADMIN"), ("/rocksdb/", None), ("/rocksdb/static/page.js", "ADMIN")):
        headers = get(path, role).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("form-action") == "'none'"
        assert set(policy.values()) == {"'self'"}
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


@with_page
def test_no_right(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not see plugins gets a page that says so, and nothing else."""
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_view", lambda *_, **__: False)
    answer = get("/rocksdb/", "VIEWER")
    assert answer.status_code == 403
    assert "You may not see this page" in answer.text


@with_page
def test_rights(
    get: Get, run_dag: RunDag, live_db: Path, tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An admin sees a connection's storage; a viewer what tasks reported; who may not read the DAG, nothing."""
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    repository = tmp_path / "repository-of-rights"
    connect("page_rights", "rocksdb", extra={"db_dir": str(live_db), "backup_dir": str(repository)})
    connect("page_unused", "rocksdb", extra={"db_dir": str(live_db), "backup_dir": str(tmp_path / "unused")})
    with DAG("page_rights", schedule=None) as dag:
        backup = RocksDBBackupOperator(task_id="backup", rocksdb_conn_id="page_rights")
        backup >> RocksDBVerifyBackupOperator(task_id="verify", rocksdb_conn_id="page_rights", level="checksums")
    assert run_dag(dag).state == "success"
    path = f"/rocksdb/?repository=file://{repository}"
    admin, viewer = get(path).text, get(path, "VIEWER").text
    assert "Complete" in admin
    assert "level checksums, backup 1" in admin
    assert f"restore file://{repository} {live_db}.restored --backup-id 1" in unescape(admin)
    assert "its storage was not asked" in viewer
    assert re.search(r"Reported\s*</span>", viewer)
    assert "page_unused" in get("/rocksdb/").text
    assert "page_unused" not in get("/rocksdb/", "VIEWER").text
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", lambda *_, **__: False)
    assert get(path, "VIEWER").status_code == 404
    assert str(repository) not in get("/rocksdb/", "VIEWER").text


@with_page
def test_stored_connection(get: Get, tmp_path: Path) -> None:
    """A connection of Airflow's database shows before anything uses it, to who may read connections alone."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    extra = json.dumps({"db_dir": str(tmp_path), "backup_dir": str(tmp_path / "stored")})
    with create_session() as session:
        session.add(Connection(conn_id="page_stored", conn_type="rocksdb", extra=extra))
    assert "page_stored" in get("/rocksdb/").text
    assert "page_stored" not in get("/rocksdb/", "VIEWER").text
    assert get("/rocksdb/?connection=page_stored", "VIEWER").status_code == 404


@with_page
def test_escaped(get: Get, run_dag: RunDag, live_db: Path, tmp_path: Path, connect: Connect) -> None:
    """Markup in a directory's name, a repository's and an error is text on the page, also when the page is one line."""
    db_dir, repository = tmp_path / f"db{MARKUP}", tmp_path / f"repository{MARKUP}"
    db_dir.symlink_to(live_db)
    connect("page_markup", "rocksdb", extra={"db_dir": str(db_dir), "backup_dir": str(repository)})
    with DAG("page_markup", schedule=None) as dag:
        RocksDBBackupOperator(task_id="backup", rocksdb_conn_id="page_markup")
    assert run_dag(dag).state == "success"
    with DAG("page_markup_fails", schedule=None) as dag:
        RocksDBBackupOperator(task_id="backup", rocksdb_conn_id="page_markup", db_dir=str(tmp_path / f"none{MARKUP}"))
    assert run_dag(dag).state == "failed"
    pages = [get("/rocksdb/").text, get("/rocksdb/?connection=page_markup").text]
    for page in pages:
        assert MARKUP not in page
        assert "&lt;img src=x onerror" in page
    assert f"none{MARKUP}" in unescape(pages[1])


@with_page
def test_no_credential(get: Get, connect: Connect, tmp_path: Path) -> None:
    """A storage that refuses is said to, without what was sent to it; a URL with a password is not repeated."""
    connect("page_secret_store", "ftp", host="127.0.0.1", port=1, login="me", password="page-secret-1")  # noqa: S106
    extra = {"db_dir": str(tmp_path), "backup_dir": "ftp://127.0.0.1/x", "storage_conn_id": "page_secret_store"}
    connect("page_secret", "rocksdb", extra=extra)
    connect("page_in_url", "rocksdb", extra={**extra, "backup_dir": "ftp://me:page-secret-2@127.0.0.1/x"})
    page = get("/rocksdb/").text + get("/rocksdb/?connection=page_secret").text
    assert "The storage cannot be read" in page
    assert "a URL must not carry a user or a password" in page
    assert "page-secret" not in page


@with_page
def test_empty(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is known yet, the page says what to do first."""
    from airflow_provider_rocksdb.plugins import app

    monkeypatch.setattr(app, "gather", lambda *_: [])
    assert "Back up a first database" in get("/rocksdb/").text


@with_page
@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("@hourly", ["2026-03-06T13:00", "2026-03-06T14:00"]),
        ("30 2 * * 1-5", ["2026-03-09T02:30", "2026-03-10T02:30"]),
        (timedelta(hours=6), ["2026-03-06T18:06", "2026-03-07T00:06"]),
        (None, []),
        ("@once", []),
    ],
)
def test_schedule(airflow_home: Path, sync: Callable[[DAG], None], when: Any, expected: list[str]) -> None:
    """When the next backup is due is asked of the DAG's own timetable, from the last one on: also of a paused DAG."""
    from airflow.utils.session import create_session

    from airflow_provider_rocksdb.plugins.queries import read_schedules

    dag_id = "page_schedule_" + re.sub(r"\W", "_", str(when))
    with DAG(dag_id, schedule=when, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False) as dag:
        RocksDBBackupOperator(task_id="backup")
    sync(dag)
    with create_session() as session:
        times = read_schedules(session, [dag_id])[dag_id].following(datetime(2026, 3, 6, 12, 6, tzinfo=UTC))
    assert [time.isoformat()[:16] for time in times] == expected


@with_page
def test_navigation(get: Get) -> None:
    """The UI gets one entry for its navigation, relative to where Airflow is, which leads to the page."""
    plugins = get("/api/v2/plugins").json()["plugins"]
    (plugin,) = [plugin for plugin in plugins if plugin["name"] == "rocksdb"]
    (view,) = plugin["external_views"]
    assert (view["name"], view["destination"], view["url_route"]) == ("RocksDB backups", "nav", "rocksdb-backups")
    assert get(f"/{view['href']}").status_code == 200


@with_page
def test_link(get: Get, run_dag: RunDag, live_db: Path, tmp_path: Path, connect: Connect) -> None:
    """A task's link leads to its backup; a failed task's, to its repository."""
    connect("page_link", "rocksdb", extra={"db_dir": str(live_db), "backup_dir": str(tmp_path / "repository")})
    with DAG("page_link", schedule=None) as dag:
        backup = RocksDBBackupOperator(task_id="backup", rocksdb_conn_id="page_link")
        backup >> RocksDBVerifyBackupOperator(task_id="verify", rocksdb_conn_id="page_link", backup_id=9)
    run = run_dag(dag)
    assert run.states == {"backup": "success", "verify": "failed"}
    for task_id, backup_id in (("backup", ["1"]), ("verify", None)):
        link = run.xcom(task_id, "_link_RocksDBBackupLink")
        assert link.startswith("plugin/rocksdb-backups?")
        query = parse_qs(urlsplit(link).query)
        assert query["repository"] == [f"file://{tmp_path}/repository"]
        assert query.get("backup") == backup_id
        assert get(f"/rocksdb/?{urlsplit(link).query}").status_code == 200
    assert "expected backup 9" in run.xcom("verify", "rocksdb_failure")


def test_link_of_a_connection() -> None:
    """A task that uses no repository, such as one that makes a checkpoint, links to its connection's."""
    assert page_link({"url": None, "rocksdb_conn_id": "orders", "backup_id": None}).endswith("?connection=orders")


def test_every_operator_has_the_link() -> None:
    """The base class of all operators and sensors has the link, where there is a page that it can lead to."""
    links = [type(link) for link in RocksDBBaseOperator.operator_extra_links]
    assert links == ([RocksDBBackupLink] if HAS_PAGE else [])


def test_plugin_loads() -> None:
    """Airflow loads the plugin by its entry point, once, and without an error."""
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    if hasattr(plugins_manager, "_get_plugins"):
        plugins, errors = plugins_manager._get_plugins()
    else:  # before Airflow 3.2
        plugins, errors = plugins_manager.plugins, plugins_manager.import_errors
    assert [plugin.name for plugin in plugins].count("rocksdb") == 1
    assert not [name for name in errors if "rocksdb" in name]


def test_plugin_is_light() -> None:
    """Every process of Airflow loads the plugin, and with it nothing of the page."""
    code = "import sys, airflow_provider_rocksdb.plugins.rocksdb; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'airflow_provider_rocksdb.plugins.rocksdb'" in done.stdout
    for heavy in ("airflow_provider_rocksdb.plugins.app", "airflow.api_fastapi.app", "rocksdict"):
        assert f"'{heavy}'" not in done.stdout
