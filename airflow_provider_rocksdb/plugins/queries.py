"""What Airflow's database knows of databases and their backups, as far as a viewer may read it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pendulum
from airflow.models.asset import AssetAliasModel, AssetEvent
from airflow.models.connection import Connection as AirflowConnection
from airflow.models.dag import DagModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.timetables.base import DataInterval, TimeRestriction
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from airflow_provider_rocksdb.assets.rocksdb import BACKUPS_ALIAS
from airflow_provider_rocksdb.core.errors import RocksDBError
from airflow_provider_rocksdb.hooks.storage import public_url
from airflow_provider_rocksdb.operators.base import BACKUP_KEY
from airflow_provider_rocksdb.plugins.access import Access
from airflow_provider_rocksdb.plugins.facts import KINDS, Connection, Event, Schedule, Task, TaskKey, Verified
from airflow_provider_rocksdb.utils.errors import FAILURE_KEY

_HORIZON = timedelta(days=90)
_MAX_ROWS = 3000
_LONG_BEFORE = timedelta(days=3650)  # some timetables take an interval that begins late for one that they made
_MAX_XCOMS = 300
_ENVIRONMENT = "AIRFLOW_CONN_"


def read_events(session: Session, access: Access) -> list[Event]:
    """Read what tasks reported of the backups that they made, the newest first."""
    statement = (
        select(AssetEvent)
        .join(AssetEvent.source_aliases)
        .where(AssetAliasModel.name == BACKUPS_ALIAS, AssetEvent.timestamp > datetime.now(UTC) - _HORIZON)
        .order_by(AssetEvent.timestamp.desc())
        .limit(_MAX_ROWS)
    )
    found = []
    for row in session.scalars(statement):
        extra = row.extra if isinstance(row.extra, Mapping) else {}
        url = extra.get("url")
        if not isinstance(url, str) or not row.source_dag_id or not row.source_run_id or not row.source_task_id:
            continue
        if access.may_read_runs(row.source_dag_id):
            index = -1 if row.source_map_index is None else row.source_map_index
            key = TaskKey(row.source_dag_id, row.source_run_id, row.source_task_id, index)
            found.append(Event(key, row.timestamp, url, extra))
    return found


def read_tasks(session: Session, access: Access) -> list[Task]:
    """Read how this provider's tasks ended, the newest first."""
    started = datetime.now(UTC) - _HORIZON
    statement = (
        select(TaskInstance, XComModel.value)
        .join(XComModel, _is_of(TaskInstance))
        .where(XComModel.key == BACKUP_KEY, XComModel.timestamp > started)
        .order_by(XComModel.timestamp.desc())
        .limit(_MAX_ROWS)
    )
    told = [(task, _decode(value)) for task, value in session.execute(statement)]
    told = [(task, value) for task, value in told if access.may_read_runs(task.dag_id)]
    reasons = _read_xcoms(session, FAILURE_KEY, [_key(task) for task, _ in told if task.state != "success"])
    found = [_describe(task, value, reasons) for task, value in told]
    found += _read_silent(session, found, started)
    return sorted(found, key=lambda task: task.time, reverse=True)


def _read_silent(session: Session, told: Collection[Task], started: datetime) -> list[Task]:
    """Read tasks that failed before they could say what they are about: it is what they were about before."""
    before: dict[tuple[str, str, int], Task] = {}
    for task in told:
        before.setdefault((task.key.dag_id, task.key.task_id, task.key.map_index), task)
    statement = (
        select(TaskInstance)
        .outerjoin(XComModel, and_(_is_of(TaskInstance), XComModel.key == BACKUP_KEY))
        .where(
            TaskInstance.dag_id.in_({dag_id for dag_id, _, _ in before}),
            TaskInstance.state == "failed",
            TaskInstance.operator.in_(KINDS),
            TaskInstance.end_date > started,
            XComModel.key.is_(None),
        )
        .order_by(TaskInstance.end_date.desc())
        .limit(_MAX_ROWS)
    )
    found = []
    for task in session.scalars(statement):
        known = before.get((task.dag_id, task.task_id, task.map_index))
        if known is not None:
            found.append(_describe(task, {"url": known.url, "rocksdb_conn_id": known.conn_id}, {}))
    return found


def read_verified(session: Session, tasks: Collection[TaskKey]) -> dict[TaskKey, Verified]:
    """Read what verifications that succeeded returned."""
    found = {}
    for key, value in _read_xcoms(session, "return_value", tasks).items():
        if isinstance(value, Mapping):
            numbers = [number for number in value.get("backup_ids") or () if isinstance(number, int)]
            found[key] = Verified(key, str(value.get("level", "")), tuple(numbers))
    return found


def read_schedules(session: Session, dag_ids: Collection[str]) -> dict[str, Schedule]:
    """Read when these DAGs run by themselves."""
    rows = session.scalars(select(DagModel).where(DagModel.dag_id.in_(dag_ids)))
    return {
        row.dag_id: Schedule(
            row.dag_id, row.timetable_summary or "none", bool(row.is_paused), partial(_follow, session, row.dag_id)
        )
        for row in rows
    }


def _follow(session: Session, dag_id: str, after: datetime) -> list[datetime]:
    """Ask a DAG's timetable itself: what Airflow's database calls the next run moves on with a DAG that is paused."""
    dag = SerializedDagModel.get_dag(dag_id, session=session)
    found: list[datetime] = []
    if dag is None:
        return found
    with contextlib.suppress(Exception):  # a timetable may be anybody's code
        for _ in range(2):
            last = pendulum.instance(found[-1] if found else after)
            info = dag.timetable.next_dagrun_info(
                last_automated_data_interval=DataInterval(last - _LONG_BEFORE, last),
                restriction=TimeRestriction(earliest=None, latest=None, catchup=True),
            )
            if info is None:
                break
            found.append(info.run_after)
    return found


def read_connections(session: Session, access: Access, named: Iterable[str]) -> list[Connection]:
    """Read the connections of type ``rocksdb``: those in Airflow's database, in the environment, and those named."""
    rows = session.scalars(select(AirflowConnection).where(AirflowConnection.conn_type == "rocksdb"))
    stored = {row.conn_id: row for row in rows}
    others = {name.removeprefix(_ENVIRONMENT).lower() for name in os.environ if name.startswith(_ENVIRONMENT)}
    found = [
        _read_connection(row) for conn_id, row in stored.items() if access.may_read_connection(conn_id, is_stored=True)
    ]
    for conn_id in sorted({*others, *named} - set(stored)):
        if not access.may_read_connection(conn_id, is_stored=False):
            continue
        row = _find_connection(conn_id)
        if row is not None and row.conn_type == "rocksdb":
            found.append(_read_connection(row))
    return sorted(found, key=lambda connection: connection.conn_id)


def _find_connection(conn_id: str) -> AirflowConnection | None:
    try:
        return AirflowConnection.get_connection_from_secrets(conn_id)
    except Exception:  # noqa: BLE001 -- whatever a secrets backend raises, the page goes on without this connection
        return None


def _read_connection(row: AirflowConnection) -> Connection:
    conn_id = str(row.conn_id)
    extra = {key.removeprefix("extra__rocksdb__"): value for key, value in row.extra_dejson.items()}
    db_dir = extra.get("db_dir") if isinstance(extra.get("db_dir"), str) else ""
    backup_dir = extra.get("backup_dir")
    if not isinstance(backup_dir, str) or not backup_dir:
        return Connection(conn_id, db_dir or "", None, f"Connection {conn_id} names no backup repository")
    try:
        return Connection(conn_id, db_dir or "", public_url(backup_dir))
    except RocksDBError as error:
        return Connection(conn_id, db_dir or "", None, f"Connection {conn_id}: {error}")


def _describe(task: TaskInstance, told: Any, reasons: Mapping[TaskKey, Any]) -> Task:
    value = told if isinstance(told, Mapping) else {}
    key = _key(task)
    url, conn_id, backup_id = value.get("url"), value.get("rocksdb_conn_id"), value.get("backup_id")
    return Task(
        key=key,
        kind=KINDS.get(task.operator or "", "other"),
        state=str(task.state or ""),
        time=task.end_date or task.start_date or datetime.now(UTC),
        url=url if isinstance(url, str) else None,
        conn_id=conn_id if isinstance(conn_id, str) else None,
        backup_id=backup_id if isinstance(backup_id, int) else None,
        reason=str(reasons.get(key) or ""),
    )


def _read_xcoms(session: Session, name: str, tasks: Collection[TaskKey]) -> dict[TaskKey, Any]:
    """Read one XCom of each of some tasks."""
    keys = list(tasks)[:_MAX_XCOMS]
    if not keys:
        return {}
    wanted = or_(
        *(
            and_(
                XComModel.dag_id == key.dag_id,
                XComModel.run_id == key.run_id,
                XComModel.task_id == key.task_id,
                XComModel.map_index == key.map_index,
            )
            for key in keys
        )
    )
    return {
        _key(row): _decode(row.value) for row in session.scalars(select(XComModel).where(XComModel.key == name, wanted))
    }


def _key(row: Any) -> TaskKey:
    return TaskKey(row.dag_id, row.run_id, row.task_id, row.map_index)


def _is_of(task: type[TaskInstance]) -> Any:
    return and_(
        XComModel.dag_id == task.dag_id,
        XComModel.run_id == task.run_id,
        XComModel.task_id == task.task_id,
        XComModel.map_index == task.map_index,
    )


def _decode(value: Any) -> Any:
    """Decode an XCom that holds plain values, without making an object of whatever else is in it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
