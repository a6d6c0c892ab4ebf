"""Which facts belong to which database: a repository is one database's."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Sequence

from airflow_provider_rocksdb.plugins.facts import Connection, Event, Task

Place = tuple[str | None, str]  # a repository's URL; without one, a connection id
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
