"""Whether a process that wrote itself down is gone: only when that can be proved."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace

import pytest

from airflow_provider_rocksdb.core.process_record import ProcessRecord, decode_process
from tests.core.databases import run_child, start_child

RECORD = """
from airflow_provider_rocksdb.core.process_record import ProcessRecord
print(ProcessRecord.of_this().encode().decode(), end="", flush=True)
"""


def test_running_and_gone() -> None:
    """A process that runs is not gone; once it was killed and its parent knows it, it is."""
    child = start_child(RECORD + "import sys; sys.stdin.read()")
    assert child.stdout is not None
    record = decode_process(child.stdout.readline().encode())
    assert record is not None
    assert (record.pid, record.is_gone()) == (child.pid, False)
    child.kill()
    child.communicate()
    assert record.is_gone()


def test_pid_used_again() -> None:
    """A process that has the pid, and began at another time, is another one."""
    own = ProcessRecord.of_this()
    assert not own.is_gone()
    assert replace(own, start_time="1").is_gone()


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"namespace": "pid:[1]"}, {"start_time": ""}])
def test_cannot_be_told(change: dict[str, str]) -> None:
    """Of another host, another container, or a system that tells no start times, nothing can be proved."""
    record = decode_process(run_child(RECORD).stdout.encode())
    assert record is not None
    assert record.is_gone()
    assert not replace(record, **change).is_gone()  # type: ignore[arg-type]  # all of them are texts


def test_of_another_user() -> None:
    """A process that must not be signalled is not gone."""
    done = run_child(
        """
from airflow_provider_rocksdb.core.process_record import decode_process
print(decode_process(arguments["record"].encode()).is_gone())
""",
        uid=65534,
        record=ProcessRecord.of_this().encode().decode(),
    )
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"null", b"[]", b"{}", b"[" * 100_000]
    + [
        json.dumps({**json.loads(ProcessRecord.of_this().encode()), **change}).encode()
        for change in (
            {"pid": -1},
            {"pid": 0},
            {"pid": True},
            {"pid": "1"},
            {"pid": 1 << 40},
            {"hostname": 1},
            {"x": 1},
        )
    ],
    ids=itertools.count(),  # the content names this process, which every worker of xdist has another of
)
def test_what_is_no_record(data: bytes) -> None:
    """Anything else is no record; a pid that would stand for a group, or all, is none either."""
    assert decode_process(data) is None


def test_round_trip() -> None:
    """A record comes back as it was."""
    record = ProcessRecord.of_this()
    assert record.pid == os.getpid()
    assert decode_process(record.encode()) == record
