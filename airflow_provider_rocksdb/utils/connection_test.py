"""What the Test button of a connection says: a line of the database, and a line of the backup repository.

Nothing is written, locked or opened as a database. Both are looked at in threads, for a limited time: the button's
request is answered by the API server, from whose host the database's directory need not be seen.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_rocksdb.core.errors import CheckpointTimeoutError, RocksDBError
from airflow_provider_rocksdb.core.progress import format_bytes
from airflow_provider_rocksdb.hooks.storage import is_url, public_url

if TYPE_CHECKING:
    from airflow_provider_rocksdb.core.freshness import FoundBackup
    from airflow_provider_rocksdb.core.paths import DatabasePaths
    from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook

LIMIT_SECONDS = 10.0  # for both together
_MOVING_TRIES = 10
_SHOWN = 5  # column families

Line = tuple[bool, str]  # whether all is well, and what there is to say


def check_connection(hook: RocksDBHook) -> Line:
    """Look at what the connection names; well when it names anything, and all of it is well."""
    looks: dict[tuple[str, str], Callable[[], Line]] = {}
    try:
        settings = hook.read_settings()
        if settings.get("db_dir"):
            looks["Database", settings["db_dir"]] = lambda: describe_database(hook.get_paths())
        if place := settings.get("backup_dir"):
            place = public_url(place) if is_url(place) else place
            looks["Backup repository", place] = lambda: describe_repository(hook)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the connection is not well
        return False, _reword(error, hook)
    if not looks:
        return False, "Neither a DB directory nor a backup repository is named."
    lines = _look_in_time(looks, hook)
    return all(is_well for is_well, _ in lines), "\n".join(text for _, text in lines)


def _look_in_time(looks: Mapping[tuple[str, str], Callable[[], Line]], hook: RocksDBHook) -> list[Line]:
    found: dict[tuple[str, str], Line] = {}

    def look(what: tuple[str, str]) -> None:
        try:
            found[what] = looks[what]()
        except Exception as error:  # noqa: BLE001 -- whatever a driver raises, it is not reachable
            found[what] = False, _reword(error, hook)

    threads = [threading.Thread(target=look, args=(what,), daemon=True) for what in looks]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LIMIT_SECONDS
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    silent = False, f"no answer within {LIMIT_SECONDS:g} s."
    lines = []
    for kind, place in looks:
        is_well, text = found.get((kind, place), silent)
        lines.append((is_well, f"{kind} {place}: {text.removeprefix(f'{place}: ')}"))
    return lines


def describe_database(paths: DatabasePaths) -> Line:
    """Tell what a DB directory holds.

    :raises NotFoundError, NotADatabaseError: when it is none, as seen from this host.
    :raises CheckpointTimeoutError: when it moved on again and again while its MANIFEST was read.
    """
    from airflow_provider_rocksdb.core.durable import lock_owner, named_errors
    from airflow_provider_rocksdb.core.live_database import MovedOn, open_live_database

    snapshot = None
    with named_errors(), open_live_database(paths) as database:
        for _ in range(_MOVING_TRIES):
            with contextlib.suppress(MovedOn):
                snapshot = database.read_version()
                break
    if snapshot is None:
        raise CheckpointTimeoutError(f"moved on {_MOVING_TRIES} times while its MANIFEST was read; try again")
    owner = lock_owner(os.path.join(paths.db_dir, "LOCK"))
    state = "not open" if owner is None else f"open in process {owner or '(not visible here)'}"
    families = sorted(os.fsdecode(name) for name in snapshot.column_families)
    more = f" and {len(families) - _SHOWN} more" if len(families) > _SHOWN else ""
    size = format_bytes(sum(file.size for file in snapshot.files.values()))
    return True, (
        f"RocksDB on host {socket.gethostname()}, {state}, {size} in {len(snapshot.files)} SST and blob files; column "
        f"families {', '.join(families[:_SHOWN])}{more}; last sequence number in the MANIFEST {snapshot.last_sequence}."
    )


def describe_repository(hook: RocksDBHook) -> Line:
    """Tell which whole backup is the newest, and how old it is; that there is none yet is well.

    :raises InvalidArgumentError, AirflowNotFoundException: as :func:`.resolve_storage`.
    """
    from airflow_provider_rocksdb.core.freshness import find_backup
    from airflow_provider_rocksdb.core.inspection import State

    found = find_backup(*hook.get_storage())
    if found.state is State.COMPLETE:
        return True, _describe_backup(found)
    if found.state is State.INCOMPLETE and not found.passed_over:
        return True, "reachable; no backup yet."
    return False, f"{found.reason}."


def _describe_backup(found: FoundBackup) -> str:
    which = (
        "the database there" if found.layout == "directory" else f"the newest backup {found.backup_id or found.name}"
    )
    passed = f" Newer ones are not whole: {'; '.join(found.passed_over)}." if found.passed_over else ""
    try:
        made = datetime.fromisoformat(found.time).astimezone(UTC)
    except ValueError:
        return f"{which} is whole; its age is not known.{passed}"
    return f"{which} is {_format_age(datetime.now(UTC) - made)} old ({made:%Y-%m-%d %H:%M} UTC).{passed}"


def _format_age(age: timedelta) -> str:
    seconds = round(age.total_seconds())
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {name}"
    return f"{seconds} seconds"


def _reword(error: Exception, hook: RocksDBHook) -> str:
    """Say it as the form's reader needs it: he knows which connection, whose id is made up for the test."""
    text = str(error) if isinstance(error, RocksDBError) else f"{type(error).__name__}: {error}"
    return text.replace(f"connection {hook.rocksdb_conn_id!r}", "this connection")
