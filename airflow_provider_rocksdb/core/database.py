"""Opening a database with rocksdict: the one module that imports it.

Run as a program with a scratch directory, it reads every block of the key ranges that it is given on standard input,
``{"sequence_number": …, "ranges": {"<column family>": ["<hex>" or null, "<hex>" or null] or null, …}}``, and prints
``{"state": …, "reason": …}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.checkpoint import building
from airflow_provider_rocksdb.core.checkpoint_record import Checkpoint, CheckpointFile
from airflow_provider_rocksdb.core.errors import BusyError, InvalidArgumentError, NotSupportedError, RocksDBError
from airflow_provider_rocksdb.core.format.filename import ROCKSDICT_CONFIG, FileType, parse_file_name
from airflow_provider_rocksdb.core.live_database import MovedOn, Snapshot, open_live_database
from airflow_provider_rocksdb.core.paths import DatabasePaths

KeyRange = tuple[bytes | None, bytes | None]  # from the first key on, up to but without the second; None: the end

_MAX_OPEN_FILES = 256  # each holds its index and filter in memory

_NOT_DAMAGE = re.compile(
    "unknown|unsupported|not supported|newer version|merge.?operator|comparator|not compressed|IO error", re.IGNORECASE
)


def create_exclusive_checkpoint(
    paths: DatabasePaths,
    checkpoint_dir: str,
    *,
    database: Any = None,
    replace: bool = False,
    force: bool = False,
    allow_inside: bool = False,
    run: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Create a checkpoint of a database whose owner is stopped, or whose owner is the caller.

    Opens it read-write with its own options, flushes, and calls RocksDB's blocking ``CreateCheckpoint``. The result has
    no WAL.

    :param database: an ``Rdict`` that the caller's program already has open; it is used, and stays open.
    :raises BusyError: when another process has the database open; names its pid.
    :raises NotSupportedError: when rocksdict cannot open this database, or RocksDB cannot checkpoint it.
    :raises InvalidArgumentError: when ``database`` is closed, or open on another directory, or as in mode "live".
    :raises NotFoundError, NotADatabaseError, ExistsError: as in mode "live".
    """
    started = time.monotonic()
    with durable.named_errors():
        if database is not None:
            _check_same(database, paths.db_dir)
        with open_live_database(paths) as source:
            place = DatabasePaths(paths.db_dir, source.wal_dir, paths.db_paths, paths.cf_paths).absolute()
        with building(checkpoint_dir, place, replace=replace, force=force, allow_inside=allow_inside) as work:
            with contextlib.ExitStack() as stack:
                opened = database if database is not None else stack.enter_context(_open(place))
                _create_checkpoint(opened, work.path("db"), paths.db_dir)
            snapshot, changes = _adopt(work.directory, paths.db_dir)
            work.current = durable.read_small_file(work.path("CURRENT"))
            files = [_describe(work.directory, name) for name in work.names()]
            os.unlink(work.path("CURRENT"))
            work.checkpoint = Checkpoint(
                checkpoint_dir=os.path.abspath(checkpoint_dir),
                mode="exclusive",
                source=place.to_dict(),
                db_id=snapshot.db_id,
                sequence_number=snapshot.last_sequence,
                manifest=snapshot.manifest,
                files=tuple(files),
                wals=tuple(_wal_numbers(files)),
                options_changes=changes,
                seconds=round(time.monotonic() - started, 3),
                run=dict(run or {}),
            )
    return work.checkpoint


def _check_same(database: Any, db_dir: str) -> None:
    try:
        path = str(database.path())
    except Exception as error:  # noqa: BLE001 -- rocksdict raises plain Exception
        raise InvalidArgumentError(f"{db_dir}: the database given cannot be used: {error}") from None
    if os.path.realpath(path) != os.path.realpath(db_dir):
        raise InvalidArgumentError(f"{db_dir}: the database given is open on another directory, {path}")


@contextlib.contextmanager
def _open(paths: DatabasePaths) -> Iterator[Any]:
    """Open a stopped database read-write with its own options, leaving rocksdict's own file as it was."""
    import rocksdict

    owner = durable.lock_owner(os.path.join(paths.db_dir, "LOCK"))
    if owner is not None:
        raise BusyError(
            f"{paths.db_dir}: process {owner or '(not visible here)'} has it open (LOCK); stop it, or use mode "
            "'live', which checkpoints a database while another process writes it"
        )
    config = os.path.join(paths.db_dir, ROCKSDICT_CONFIG)
    before = durable.read_small_file(config) if os.path.exists(config) else None
    try:
        options, families = rocksdict.Options.load_latest(paths.db_dir)
        options.set_wal_dir(paths.wal_dir or paths.db_dir)
        if paths.db_paths:
            options.set_db_paths([rocksdict.DBPath(path, 0) for path in paths.db_paths])
        database = rocksdict.Rdict(paths.db_dir, options, families)
    except Exception as error:  # noqa: BLE001 -- rocksdict raises plain Exception
        raise NotSupportedError(
            f"{paths.db_dir}: rocksdict cannot open it: {error}; use mode 'live', which opens nothing"
        ) from None
    finally:
        _restore_config(config, before)
    try:
        yield database
    finally:
        database.close()
        _restore_config(config, before)


def _restore_config(path: str, before: bytes | None) -> None:
    """Undo rocksdict's rewriting of its file: it would change how the owner's program decodes its own database."""
    if before is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    elif durable.read_small_file(path) != before:
        durable.write_file(path, before)


def _create_checkpoint(database: Any, target: str, db_dir: str) -> None:
    import rocksdict

    try:
        database.flush()
        rocksdict.Checkpoint(database).create_checkpoint(target)
    except Exception as error:  # noqa: BLE001 -- rocksdict raises plain Exception
        raise NotSupportedError(
            f"{db_dir}: RocksDB cannot checkpoint it: {error}; mode 'live' handles db_paths and cf_paths, too"
        ) from None


def _adopt(directory: str, db_dir: str) -> tuple[Snapshot, dict[str, object]]:
    """Move RocksDB's checkpoint up into our directory, with OPTIONS for a copy and rocksdict's own file."""
    made = os.path.join(directory, "db")
    with open_live_database(DatabasePaths(made, wal_dir=made)) as copy:
        try:
            snapshot = copy.read_version()
        except MovedOn as moved:
            raise RocksDBError(f"{made}: RocksDB made a checkpoint that cannot be read: {moved}") from None
        changes: dict[str, object] = {}
        if copy.options is not None:
            content, changes = copy.options.for_copy(snapshot.column_families)
            durable.write_file(os.path.join(made, copy.options_name), content)
    with contextlib.suppress(FileNotFoundError):  # of what this process opened it with, in some versions of rocksdict
        os.unlink(os.path.join(made, ROCKSDICT_CONFIG))
    config = os.path.join(db_dir, ROCKSDICT_CONFIG)
    if os.path.exists(config):
        durable.create_file(os.path.join(directory, ROCKSDICT_CONFIG), durable.read_small_file(config))
    for name in os.listdir(made):
        os.rename(os.path.join(made, name), os.path.join(directory, name))
    os.rmdir(made)
    return snapshot, changes


def _describe(directory: str, name: str) -> CheckpointFile:
    status = os.stat(os.path.join(directory, name))
    return CheckpointFile(name, status.st_size, "link" if status.st_nlink > 1 else "written")


def _wal_numbers(files: list[CheckpointFile]) -> list[int]:
    parsed = [parse_file_name(file.name) for file in files]
    return sorted(name.number for name in parsed if name and name.type is FileType.WAL)


def read_ranges(directory: str, sequence_number: int, ranges: Mapping[str, KeyRange | None]) -> tuple[str, str]:
    """Read every key and value of column families; returns a state by its value, and the reason.

    :param sequence_number: of the last write that the files hold.
    :param ranges: by column family, None for nothing of it; one that is not named is read whole.

    Never asks for a decoded value: in rocksdict's own mode that would unpickle what an untrusted backup holds.
    """
    import rocksdict

    try:
        names = rocksdict.Rdict.list_cf(directory)
        database = _open_read_only(directory, names, sequence_number)
    except Exception as error:  # noqa: BLE001 -- rocksdict raises plain Exception
        return judge(error)
    for name in names:
        keys = ranges.get(name, (None, None))
        if keys is None:
            continue
        try:
            iterator = _iterate(database, name, *keys)
            while iterator.valid():
                iterator.next()
            iterator.status()
        except Exception as error:  # noqa: BLE001 -- rocksdict raises plain Exception
            state, reason = judge(error)
            return state, f"column family {name!r}: {reason}"
    return "complete", ""


def open_iterator(
    directory: str, column_family: str, sequence_number: int, from_key: bytes | None, to_key: bytes | None
) -> Any:
    """Open a scratch directory read-only; return an iterator at the first key of a range of a column family.

    Nothing but this family and ``default``, which RocksDB always opens, need have its files there. Few files are open
    at a time, and every checksum is verified. A database without rocksdict's own file is opened raw.

    :param sequence_number: of the last write that the files hold.
    :raises NotSupportedError: when RocksDB cannot apply all of them.
    :raises Exception: as rocksdict does.
    """
    return _iterate(_open_read_only(directory, [column_family], sequence_number), column_family, from_key, to_key)


def _iterate(database: Any, column_family: str, from_key: bytes | None, to_key: bytes | None) -> Any:
    import rocksdict

    family = database if column_family == "default" else database.get_column_family(column_family)
    read_options = rocksdict.ReadOptions()
    read_options.set_verify_checksums(True)
    read_options.fill_cache(False)  # type: ignore[call-arg]  # the stub forgets it
    read_options.set_total_order_seek(True)  # whatever the prefix extractor, in the order of the whole keys
    if to_key is not None:
        read_options.set_iterate_upper_bound(to_key)
    iterator = family.iter(read_options)
    if from_key is None:
        iterator.seek_to_first()
    else:
        iterator.seek(from_key)
    return iterator


def _open_read_only(directory: str, names: Iterable[str], sequence_number: int) -> Any:
    """Open column families of a database read-only, with its own options where this RocksDB can read them.

    :raises NotSupportedError: when RocksDB, which says nothing then, has stopped replaying before the last write.
    """
    import rocksdict

    wanted = {"default", *names}
    try:
        options, families = rocksdict.Options.load_latest(directory, ignore_unknown_options=True)
    except Exception:  # noqa: BLE001 -- no OPTIONS, or values of another version: RocksDB's defaults read most databases
        options = rocksdict.Options(raw_mode=_is_raw(directory))
        families = dict.fromkeys(wanted, options)
    options.set_max_open_files(_MAX_OPEN_FILES)
    options.set_skip_stats_update_on_db_open(True)
    families = {name: families[name] for name in wanted}
    database = rocksdict.Rdict(directory, options, families, access_type=rocksdict.AccessType.read_only())
    got = database.latest_sequence_number()
    if got < sequence_number:
        raise NotSupportedError(
            f"RocksDB replayed the WALs up to sequence number {got}, expected {sequence_number}: it cannot apply a "
            "record; does the database have a merge operator of its own?"
        )
    return database


def _is_raw(directory: str) -> bool:
    """Whether a database is to be opened raw: always, unless rocksdict's own file says otherwise."""
    try:
        config = json.loads(durable.read_small_file(os.path.join(directory, ROCKSDICT_CONFIG)))
        return bool(config["raw_mode"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return True


def _decode_range(keys: list[str | None] | None) -> KeyRange | None:
    if keys is None:
        return None
    from_key, to_key = (None if key is None else bytes.fromhex(key) for key in keys)
    return from_key, to_key


def judge(error: Exception) -> tuple[str, str]:
    """Tell damage from what this RocksDB merely cannot read; returns a state by its value, and the reason."""
    text = str(error)
    is_damage = text.startswith("Corruption") and not _NOT_DAMAGE.search(text)
    return ("corrupt" if is_damage else "could_not_check"), text


if __name__ == "__main__":
    request = json.load(sys.stdin)
    parts = {name: _decode_range(keys) for name, keys in request["ranges"].items()}
    found, why = read_ranges(sys.argv[1], request["sequence_number"], parts)
    sys.stdout.write(json.dumps({"state": found, "reason": why}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # nothing that RocksDB does on its way out may change the answer
