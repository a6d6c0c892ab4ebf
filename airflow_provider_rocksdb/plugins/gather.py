"""Facts from all sources, sorted by database."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_rocksdb.plugins import queries
from airflow_provider_rocksdb.plugins.facts import Answer, Connection, Event, Task
from airflow_provider_rocksdb.plugins.overview import STATES, Database, build_database, last_verification

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_provider_rocksdb.plugins.access import Access
    from airflow_provider_rocksdb.plugins.storages import Storages

Place = tuple[str | None, str]  # a repository's URL; without one, a connection id


def gather(session: Session, access: Access, storages: Storages, now: datetime) -> list[Database]:
    """Return every database that the viewer may read something of, those that need attention first."""
    events = queries.read_events(session, access)
    tasks = queries.read_tasks(session, access)
    named = {event.text("rocksdb_conn_id") for event in events} | {task.conn_id or "" for task in tasks}
    connections = queries.read_connections(session, access, named - {""})
    dag_ids = {event.key.dag_id for event in events} | {task.key.dag_id for task in tasks}
    schedules = queries.read_schedules(session, dag_ids)
    answers = storages.ask_all([connection.conn_id for connection in connections if connection.url])
    places = sort_facts(connections, events, tasks)
    ended = [last_verification(facts[2]) for facts in places.values()]
    verified = queries.read_verified(session, [task.key for task in ended if task is not None])
    databases = [
        build_database(place[0], *facts, schedules, verified, _find_answer(facts[0], answers), now)
        for place, facts in places.items()
    ]
    return sorted(databases, key=lambda database: (STATES.index(database.state), database.name))


Facts = tuple[list[Connection], list[Event], list[Task]]


def sort_facts(connections: Sequence[Connection], events: Sequence[Event], tasks: Sequence[Task]) -> dict[Place, Facts]:
    """Sort by repository; what has none, by connection.

    Archives, and databases that were uploaded as they are, belong to the folder that they lie in.
    """
    found: dict[Place, Facts] = defaultdict(lambda: ([], [], []))
    places: dict[str, Place] = {}
    for connection in connections:
        place = (connection.url, "" if connection.url else connection.conn_id)
        places[connection.conn_id] = place
        found[place][0].append(connection)
    known = {url for url, _ in found if url}
    for event in events:
        place = (_find_repository(event.url, event.text("layout"), known), "")
        places.setdefault(event.text("rocksdb_conn_id"), place)
        found[place][1].append(event)
    known = {url for url, _ in found if url}
    for task in tasks:
        url = task.url if task.url is None or task.url in known else _find_folder(task.url, known)
        found[(url, "") if url else places.get(task.conn_id or "", (None, task.conn_id or ""))][2].append(task)
    return dict(found)


def _find_repository(url: str, layout: str, known: Collection[str]) -> str:
    return url if layout == "backup_engine" or url in known else posixpath.dirname(url.rstrip("/"))


def _find_folder(url: str, known: Collection[str]) -> str:
    folder = posixpath.dirname(url.rstrip("/"))
    return folder if folder in known else url


def _find_answer(connections: Sequence[Connection], answers: dict[str, Answer]) -> Answer | None:
    return next((answers[connection.conn_id] for connection in connections if connection.conn_id in answers), None)
