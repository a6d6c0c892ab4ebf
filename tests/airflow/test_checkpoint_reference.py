"""Which checkpoint a task means."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.utils.checkpoint import CheckpointReference, default_checkpoint_dir, read_reference

RESULT = {"checkpoint_dir": "/ck", "hostname": "worker-7", "sequence_number": 9, "damage": []}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        ("", None),
        ("None", None),
        ("/ck", CheckpointReference("/ck")),
        ("s3://bucket/ck", CheckpointReference("s3://bucket/ck")),
        (RESULT, CheckpointReference("/ck", "worker-7")),
        (str(RESULT), CheckpointReference("/ck", "worker-7")),
        ({"checkpoint_dir": "/ck"}, CheckpointReference("/ck")),
    ],
)
def test_read(given: Any, meant: CheckpointReference | None) -> None:
    """A path, a URL, a create task's result and the text of one are understood; no XCom means nothing is said."""
    assert read_reference(given) == meant


@pytest.mark.parametrize("given", [7, [], {}, {"checkpoint_dir": None}, "{", "{1: __import__('os')}", "{" * 10_000])
def test_nonsense(given: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidArgumentError, match="checkpoint_dir"):
        read_reference(given)


def place(run_id: str, *, db_dir: str = "/data/db", dag_id: str = "dag", map_index: int = -1, **options: Any) -> str:
    ti = SimpleNamespace(dag_id=dag_id, run_id=run_id, map_index=map_index)
    return default_checkpoint_dir(db_dir, {"ti": ti}, **options)


def test_default_place() -> None:
    """The run's own place is beside the database, or in it when that is asked for, and tells DAG, run and map index."""
    run_id = "scheduled__2026-01-01T00:00:00+00:00"
    assert place(run_id) == "/data/db.checkpoints/dag__scheduled__2026-01-01T00-00-00+00-00"
    assert place(run_id, map_index=3).endswith("+00-00__3")
    assert place(run_id, inside=True) == "/data/db/.checkpoints/dag__scheduled__2026-01-01T00-00-00+00-00"


def test_default_place_of_a_linked_database(tmp_path: Path) -> None:
    """Where the DB directory is a symbolic link, the place is beside the directory itself: on its file system."""
    (tmp_path / "disk" / "db").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "db")
    assert place("run", db_dir=str(tmp_path / "link")) == f"{tmp_path}/disk/db.checkpoints/dag__run"


@pytest.mark.parametrize("run_id", ["../../etc", "a/b", "a b", "a\nb", "ä", "x" * 250, "ends.tmp", "a\0b"])
def test_unsafe_run_ids(run_id: str) -> None:
    """A run id that is no file name becomes one, and different ones stay different."""
    parent, _, name = place(run_id).rpartition("/")
    assert parent == "/data/db.checkpoints"
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 240
    assert not name.endswith(".tmp")
    assert place(run_id) != place(run_id.replace("/", "_").replace(" ", "_") + "_")
