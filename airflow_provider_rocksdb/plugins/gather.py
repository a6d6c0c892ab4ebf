"""Facts from all sources, and what they say of each database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_rocksdb.plugins import queries
from airflow_provider_rocksdb.plugins.facts import Answer, Connection
from airflow_provider_rocksdb.plugins.overview import STATES, Database, build_database, last_verification
from airflow_provider_rocksdb.plugins.places import sort_facts

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_provider_rocksdb.plugins.access import Access
    from airflow_provider_rocksdb.plugins.storages import Storages


def gather(session: Session, access: Access, storages: Storages, now: datetime) -> list[Database]:
    """Return every database that the viewer may read something of, those that need attention first."""
    events = queries.read_events(session, access)
    tasks = queries.read_tasks(session, access)
    named = {event.text("rocksdb_conn_id") for event in events} | {task.conn_id or "" for task in tasks}
    connections = queries.read_connections(session, access, named - {""})
    dag_ids = {event.key.dag_id for event in events} | {task.key.dag_id for task in tasks}
    schedules = queries.read_schedules(session, dag_ids)
    changed: dict[str, float] = {}
    for event in events:
        changed[event.url] = max(changed.get(event.url, 0.0), event.time.timestamp())
    answers = storages.ask_all({item.conn_id: changed.get(item.url, 0.0) for item in connections if item.url})
    places = sort_facts(connections, events, tasks)
    ended = [last_verification(facts[2]) for facts in places.values()]
    verified = queries.read_verified(session, [task.key for task in ended if task is not None])
    databases = [
        build_database(place[0], *facts, schedules, verified, _find_answer(facts[0], answers), now)
        for place, facts in places.items()
    ]
    return sorted(databases, key=lambda database: (STATES.index(database.state), database.name))


def _find_answer(connections: Sequence[Connection], answers: dict[str, Answer]) -> Answer | None:
    return next((answers[connection.conn_id] for connection in connections if connection.conn_id in answers), None)
