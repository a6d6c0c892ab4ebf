"""A writer process: writes numbers by the rules of :mod:`tests.torture.kinds` until it is killed.

How many numbers it has had acknowledged stands outside the database, in ``<place>/acknowledged`` (8 bytes, little
endian), written after each acknowledgement.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any, Protocol

from airflow_provider_rocksdb.core.paths import DatabasePaths
from tests.core.databases import edit_options
from tests.torture.kinds import (
    CHURN_LIFE,
    CHURN_PERIOD,
    DELETE_KEEP,
    DELETE_PERIOD,
    INGEST_FROM,
    INGEST_PERIOD,
    KINDS,
    PREPARE_AHEAD,
    SETTINGS,
    Kind,
    holders,
    hot_key,
    is_hot,
    is_ingested,
    is_transaction,
    key,
)

LIFE_SECONDS = (0.1, 0.6)  # of a writer that restarts: also shorter than its recovery
FAST_BYTES = 60_000  # what the first of two paths is to hold
_PR_SET_PDEATHSIG = 1

Entry = tuple[str, bytes, bytes]  # family, key, value


class Database(Protocol):
    """What a writer needs of a RocksDB, whichever library it comes from."""

    def write(self, entries: Iterable[Entry]) -> None: ...
    def create(self, family: str) -> None: ...
    def drop(self, family: str) -> None: ...
    def ingest(self, path: str, entries: Iterable[Entry]) -> None: ...
    def delete_files(self, families: Iterable[str], last: bytes) -> None: ...
    def prepare(self, name: str, entries: Iterable[Entry]) -> None: ...
    def commit(self, name: str) -> None: ...


class Rocksdict:
    """RocksDB 9.8 by rocksdict. What its options cannot say is written into an OPTIONS file first."""

    def __init__(self, kind: Kind, paths: DatabasePaths) -> None:
        import rocksdict

        self._module = rocksdict
        if not os.path.exists(paths.db_dir):
            self._create(kind, paths)
        options, families = rocksdict.Options.load_latest(paths.db_dir)
        self._options = families["a"]
        if paths.db_paths:
            limits = (FAST_BYTES, 1 << 40)
            options.set_db_paths([rocksdict.DBPath(path, limit) for path, limit in zip(paths.db_paths, limits)])  # noqa: B905
        self._database = rocksdict.Rdict(paths.db_dir, options, families)
        self._families = {name: self._database.get_column_family(name) for name in kind.families}
        self._handles = {name: self._database.get_column_family_handle(name) for name in kind.families}

    def _create(self, kind: Kind, paths: DatabasePaths) -> None:
        plain = self._module.Options(raw_mode=True)
        if paths.wal_dir:
            plain.set_wal_dir(paths.wal_dir)
        new = self._module.Rdict(paths.db_dir, plain)
        for name in kind.families[1:]:
            new.create_column_family(name, plain)
        new.close()
        edit_options(paths.db_dir, **(SETTINGS | {"format_version": "5"} | dict(kind.settings)))

    def write(self, entries: Iterable[Entry]) -> None:
        batch = self._module.WriteBatch(raw_mode=True)
        for family, name, value in entries:
            batch.put(name, value, self._handles[family])
        self._database.write(batch)

    def create(self, family: str) -> None:
        self._families[family] = self._database.create_column_family(family, self._options)
        self._handles[family] = self._database.get_column_family_handle(family)

    def drop(self, family: str) -> None:
        del self._families[family], self._handles[family]
        self._database.drop_column_family(family)

    def ingest(self, path: str, entries: Iterable[Entry]) -> None:
        sst = self._module.SstFileWriter(self._options)
        sst.open(path)
        for _, name, value in entries:
            sst[name] = value
        sst.finish()
        self._families["a"].ingest_external_file([path])
        os.unlink(path)

    def delete_files(self, families: Iterable[str], last: bytes) -> None:
        raise NotImplementedError

    def prepare(self, name: str, entries: Iterable[Entry]) -> None:
        raise NotImplementedError

    def commit(self, name: str) -> None:
        raise NotImplementedError


def open_database(kind: Kind, paths: DatabasePaths) -> Database:
    """Open a kind's database; create it when there is none."""
    if kind.engine == "9.8":
        return Rocksdict(kind, paths)
    from tests.torture.c_api import CDatabase

    return CDatabase(kind, paths)


class Writer:
    """One process's work."""

    def __init__(self, kind: Kind, place: str, seed: int) -> None:
        self._kind = kind
        self._random = random.Random(seed)  # noqa: S311 -- any values will do
        self._noise = self._random.randbytes(1 << 20)
        self._place = place
        self._acknowledged = os.open(os.path.join(place, "acknowledged"), os.O_RDWR | os.O_CREAT, 0o600)
        self._database = open_database(kind, kind.paths(place))

    def run(self) -> None:
        """Write for ever, in bursts, at the kind's rate in the mean."""
        number = int.from_bytes(os.pread(self._acknowledged, 8, 0), "little")
        while True:
            burst = max(1, self._random.randint(1, self._kind.rate // 10))
            end = number + burst
            while number < end:
                number = self._step(number)
                os.pwrite(self._acknowledged, number.to_bytes(8, "little"), 0)
            time.sleep(self._random.random() * 2 * burst / self._kind.rate)

    def _step(self, number: int) -> int:
        """Write one number, or a run of them that comes in one file; return the next one."""
        kind, database = self._kind, self._database
        self._before(number)
        if is_ingested(kind, number):
            end = number + INGEST_PERIOD - INGEST_FROM
            database.ingest(
                os.path.join(self._place, "ingested.sst"),
                [entry for n in range(number, end) for entry in self._entries(n)],
            )
            return end
        if is_transaction(kind, number):
            database.commit(str(number))
        else:
            database.write(self._entries(number))
        return number + 1

    def _before(self, number: int) -> None:
        kind, database = self._kind, self._database
        if kind.feature == "churn" and number:
            if number % CHURN_PERIOD == 0:
                database.create(f"churn-{number:08d}")
            first = number - CHURN_LIFE
            if first > 0 and first % CHURN_PERIOD == 0:
                database.drop(f"churn-{first:08d}")
        elif kind.feature == "delete_files" and number and number % DELETE_PERIOD == 0:
            database.delete_files(kind.families, key(number - DELETE_KEEP - 1))
        elif is_transaction(kind, number + PREPARE_AHEAD):
            database.prepare(str(number + PREPARE_AHEAD), self._entries(number + PREPARE_AHEAD))

    def _entries(self, number: int) -> list[Entry]:
        entries = []
        for family in holders(self._kind, number):
            entries.append((family, key(number), self._value(number, self._kind.value_bytes(family))))
            if is_hot(self._kind, number):
                entries.append((family, hot_key(number), self._value(number, 60)))
        return entries

    def _value(self, number: int, size: int) -> bytes:
        start = self._random.randrange(len(self._noise) - size)
        return key(number) + self._noise[start : start + size]


def main(arguments: dict[str, Any]) -> None:
    """Write until killed, or until the parent is gone."""
    _die_with_parent()
    kind, place, seed = KINDS[arguments["kind"]], arguments["place"], arguments["seed"]
    while kind.restarts:
        seed += 1
        pid = os.fork()
        if not pid:
            break
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGALRM:
            sys.exit(f"the writer ended by itself, with wait status {status}")
    if not kind.restarts:
        Writer(kind, place, seed).run()
    _die_with_parent()
    life_seconds = random.Random(seed).uniform(*LIFE_SECONDS)  # noqa: S311 -- any moment will do
    if os.path.exists(kind.paths(place).db_dir):  # while it is created it is left alone
        signal.setitimer(signal.ITIMER_REAL, life_seconds)
    writer = Writer(kind, place, seed)
    signal.setitimer(signal.ITIMER_REAL, life_seconds)
    writer.run()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except Exception:  # noqa: BLE001 -- whatever it is, RocksDB is not to tidy up
        traceback.print_exc()
        os._exit(1)
