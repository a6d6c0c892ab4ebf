"""The example, run as a person runs it: its numbers are true, and stock RocksDB restores what it leaves."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_meta
from tests.programs import run_ldb

EXAMPLE = Path(__file__).parent.parent / "example_dags" / "example_rocksdb_backup.py"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the example as a script with an empty environment and a place of its own."""
    place = tmp_path_factory.mktemp("example")
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "TMPDIR": str(place)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=env, cwd=place, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert [path.name for path in place.iterdir()] == [directory_of(done.stdout).name]  # nothing in the home itself
    return done.stdout


def directory_of(text: str) -> Path:
    (path,) = re.findall(r" Delete (\S+) when ", text)
    return Path(path)


def numbers(text: str, words: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(rf"{words} +([\d,]+)", text)]


def test_nothing_acknowledged_is_lost(printed: str) -> None:
    """Each backup holds at least the keys acknowledged before its run began; the writer went on in between."""
    acknowledged, held = numbers(printed, "acknowledged before it began"), numbers(printed, r"held by backup \d")
    assert len(acknowledged) == len(held) == 2
    assert acknowledged[0] <= held[0] <= acknowledged[1] <= held[1]
    assert acknowledged[0] < acknowledged[1]


def test_second_backup_is_incremental(printed: str) -> None:
    """What was printed as sent is what lies in the repository, and the second run sent less than the first."""
    sent = numbers(printed, "sent to the repository")
    repository = directory_of(printed) / "repository"
    files = [path for path in repository.rglob("*") if path.is_file()]
    assert sum(sent) == sum(path.stat().st_size for path in files)
    assert 0 < sent[1] < sent[0] / 2


def test_tree_is_the_repository(printed: str) -> None:
    """The printed tree names every file of the repository with its size, and nothing else."""
    repository = directory_of(printed) / "repository"
    tree = {
        path: int(size.replace(",", "")) for size, path in re.findall(r"^ +([\d,]+)  (\S+)$", printed, re.MULTILINE)
    }
    assert tree == {str(p.relative_to(repository)): p.stat().st_size for p in repository.rglob("*") if p.is_file()}
    assert {"meta/1", "meta/2"} <= set(tree)


def test_held_is_true_by_stock_rocksdb(printed: str) -> None:
    """The printed command restores the last backup with stock RocksDB, which finds as many keys as were printed."""
    (command,) = re.findall(r"^  (ldb restore .*)$", printed, re.MULTILINE)
    run_ldb(*shlex.split(command)[1:])
    keys = run_ldb("scan", f"--db={directory_of(printed) / 'restored'}", "--no_value").splitlines()
    assert len(keys) == numbers(printed, r"held by backup \d")[-1]
    assert keys[-1].rstrip(" :") == f"{len(keys) - 1:012d}"


def test_checkpoints_are_gone(printed: str) -> None:
    """The teardown has deleted the checkpoints, and the database directory holds nothing of ours."""
    directory = directory_of(printed)
    assert not list(directory.glob("db.checkpoints/*"))
    assert not list((directory / "db").rglob("*checkpoint*"))


def test_backups_name_their_run(printed: str) -> None:
    """Each backup's metadata says which DAG run made it."""
    for backup_id in (1, 2):
        meta = decode_backup_meta((directory_of(printed) / "repository" / "meta" / str(backup_id)).read_bytes())
        assert b"example_rocksdb_backup" in meta.metadata
