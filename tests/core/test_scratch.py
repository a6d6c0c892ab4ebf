"""Blocks read by several processes, each its part of the keys."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from airflow_provider_rocksdb.core import scratch
from airflow_provider_rocksdb.core.completeness import State, check_completeness
from airflow_provider_rocksdb.core.errors import CancelledError
from tests.core.databases import flip, names, options, read_version, wait_until


@pytest.fixture
def four_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide however small a database is, and however few cores there are."""
    monkeypatch.setattr(scratch, "_BYTES_A_PROCESS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Make a database of two column families, each with files that overlap and files that do not."""
    path = str(tmp_path / "db")
    opened = Rdict(path, options(disable_auto_compactions=True))
    opened.create_column_family("wide", options(disable_auto_compactions=True))
    for family in (opened, opened.get_column_family("wide")):
        for first in range(0, 500, 100):
            for number in range(first, first + 100):
                family[b"%06d" % number] = bytes(50)
            family.flush()
        for number in range(0, 500, 7):
            family[b"%06d" % number] = b"again"
        family.flush()
    opened.close()
    return path


def check(path: str) -> State:
    return check_completeness(path, level="blocks").state


@pytest.mark.usefixtures("four_processes")
def test_every_block_is_read(database: str) -> None:
    """A flipped bit in any file's block is found, whichever process it falls to."""
    assert len(scratch._divide(read_version(database))) == 4
    assert check(database) is State.COMPLETE
    tables = names(database, ".sst")
    assert len(tables) == 12
    for name in tables:
        flip(Path(database) / name, 20)
        assert check(database) is State.CORRUPT, name
        flip(Path(database) / name, 20)


@pytest.mark.usefixtures("four_processes")
def test_parts_meet(database: str) -> None:
    """The ranges of a column family go from its start to its end, each from where the one before ends."""
    parts = scratch._divide(read_version(database))
    for family in ("default", "wide"):
        ranges = [part[family] for part in parts]
        assert all(keys is not None for keys in ranges)
        bounds = [keys for keys in ranges if keys]
        assert (bounds[0][0], bounds[-1][1]) == (None, None)
        assert [end for _, end in bounds[:-1]] == [first for first, _ in bounds[1:]]
        assert [first for first, _ in bounds[1:]] == sorted({first for first, _ in bounds[1:] if first})


@pytest.mark.usefixtures("four_processes")
def test_one_large_file(tmp_path: Path) -> None:
    """What cannot be divided is read by one process, and the others read nothing of it."""
    database = Rdict(str(tmp_path / "db"), options())
    database[b"key"] = b"value"
    database.close()
    assert [part["default"] for part in scratch._divide(read_version(str(tmp_path / "db")))] == [
        (None, None),
        None,
        None,
        None,
    ]


@pytest.mark.usefixtures("four_processes")
def test_another_order(tmp_path: Path) -> None:
    """A column family whose keys are not in the order of their bytes is not divided, and is read."""
    path = str(tmp_path / "db")
    own = Options()  # with rocksdict's comparator
    own.set_disable_auto_compactions(True)
    opened = Rdict(path, own)
    for number in range(4):
        opened[number] = "value"
        opened.flush()
    opened.close()
    assert [part["default"] for part in scratch._divide(read_version(path))] == [(None, None), None, None, None]
    assert check_completeness(path, level="blocks").reason == ""
    flip(Path(path) / names(path, ".sst")[-1], 20)
    assert check(path) is State.CORRUPT


def test_small_is_not_divided(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read faster than another process starts is read by one, however many cores there are."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert len(scratch._divide(read_version(database))) == 1


@pytest.mark.usefixtures("four_processes")
def test_stopping_ends_every_process(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to stop, every process is gone when the check ends."""
    (tmp_path / "modules").mkdir()
    code = f"import os, time; open(f'{tmp_path}/{{os.getpid()}}.pid', 'w'); time.sleep(600)"
    (tmp_path / "modules" / "sleeping_child.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr(scratch, "CHILD_MODULE", "sleeping_child")
    stop = threading.Event()

    def set_when_all_run() -> None:
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 4)
        stop.set()

    threading.Thread(target=set_when_all_run).start()
    with pytest.raises(CancelledError):
        check_completeness(database, level="blocks", stop=stop)
    for path in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)
