"""The Parquet example's task when something goes wrong: a record that cannot be decoded, a kill, damage."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import Run

parquet = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "example_dags" / "example_rocksdb_to_parquet.py"


class Place:
    """A repository with one backup, a place for Parquet files, a place for scratch; and the example for these."""

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "repository"
        self.parquet = directory / "parquet"
        self.scratch = directory / "scratch"
        self.scratch.mkdir()

    def load(self, dag_id: str) -> dict[str, Any]:
        """Load the example anew, its DAG under another id."""
        loaded = runpy.run_path(str(EXAMPLE))
        loaded["dag"].dag_id = dag_id
        return loaded

    def files(self) -> list[str]:
        return sorted(os.listdir(self.parquet)) if self.parquet.exists() else []


@pytest.fixture
def place(tmp_path: Path, live_db: Path, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    command = [sys.executable, "-m", "airflow_provider_rocksdb", "backup", str(live_db), str(made.repository)]
    subprocess.run(command, check=True, capture_output=True)
    connect("rocksdb_default", "rocksdb", extra={"backup_dir": str(made.repository)})
    monkeypatch.setenv("EXAMPLE_REPOSITORY", f"file://{made.repository}")
    monkeypatch.setenv("EXAMPLE_PARQUET", f"file://{made.parquet}")
    monkeypatch.setattr("tempfile.tempdir", str(made.scratch))
    return made


def read_numbers(place: Place) -> list[int]:
    (name,) = place.files()
    numbers: list[int] = parquet.read_table(place.parquet / name)["number"].to_pylist()
    return numbers


def test_a_record_that_cannot_be_decoded(run_dag: Callable[..., Run], place: Place) -> None:
    """When the decode function raises on one record, the task fails, and neither a Parquet file nor scratch is left."""
    loaded = place.load("parquet_undecodable")

    def decode(key: bytes, value: bytes) -> dict[str, Any]:
        if key == b"001050":
            raise ValueError(f"cannot decode {key!r}")
        return {"number": int(key), "value": value}

    loaded["to_parquet"].function.__globals__["decode"] = decode
    run = run_dag(loaded["dag"])
    assert run.states == {"to_parquet": "failed"}
    assert "cannot decode b'001050'" in run.log
    assert (place.files(), os.listdir(place.scratch)) == ([], [])


def test_a_damaged_backup(run_dag: Callable[..., Run], place: Place) -> None:
    """Of a damaged backup there is no Parquet file."""
    (sst,) = place.repository.glob("shared_checksum/*.sst")
    data = bytearray(sst.read_bytes())
    data[500] ^= 1
    sst.write_bytes(data)
    run = run_dag(place.load("parquet_damaged")["dag"])
    assert run.states == {"to_parquet": "failed"}
    assert "expected CRC32C" in run.log
    assert (place.files(), os.listdir(place.scratch)) == ([], [])


KILLED = """
import os, runpy, signal, sys, tempfile
tempfile.tempdir = sys.argv[2]
loaded = runpy.run_path(sys.argv[1])
def decode(key, value):
    if key == b"001050":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"number": int(key), "value": value}
function = loaded["to_parquet"].function
function.__globals__["decode"] = decode
function(None, {})
"""


def test_killed_and_tried_again(run_dag: Callable[..., Run], place: Place) -> None:
    """Killed in the middle, it leaves no file of the final name; the next try writes it, and clears what was left."""
    command = [sys.executable, "-c", KILLED, str(EXAMPLE), str(place.scratch)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == -9, done.stderr
    assert place.files() == ["incoming"]
    assert len(os.listdir(place.scratch)) == 1
    run = run_dag(place.load("parquet_killed")["dag"])
    assert run.states == {"to_parquet": "success"}, run.log
    assert run.xcom("to_parquet")["rows"] == 1100
    assert read_numbers(place) == list(range(1100))
    assert os.listdir(place.scratch) == []
