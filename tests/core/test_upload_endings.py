"""Backups and archives that end at any moment: killed, by an I/O error, by an exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.databases import DYING, ENDINGS, run_child
from tests.core.repositories import build_old, grow, list_with_aimrocks, take

EACH_ENDING = (
    """
from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.transfer import TransferOptions
from airflow_provider_rocksdb.core.verify import verify_backups
"""
    + DYING
    + """
local, place, kind = LocalFileSystem(), arguments["place"], arguments["kind"]
old, new = (read_inventory(path) for path in arguments["checkpoints"])
archive = place + "/new.tar.zst"

def work():
    if kind == "archive":
        upload_archive(new, local, archive, options=TransferOptions(backoff_seconds=0))
    else:
        create_backup(new, local, place, options=TransferOptions(backoff_seconds=0))

def judge(number):
    where = archive if kind == "archive" else place
    report = verify_backups(local, where, level="files")
    assert not report.problems, (number, report)

number, died = 0, True
while died:
    shutil.rmtree(place, ignore_errors=True)
    if kind == "second":
        create_backup(old, local, place)
    died = dies(work, number, arguments["ending"])
    metas = os.listdir(place + "/meta") if os.path.isdir(place + "/meta") else []
    if os.path.lexists(archive) or any(name.isdecimal() for name in metas):
        judge(number)
    work()
    judge(number)
    number += 1
print(number)
"""
)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["first", "second", "archive"])
def test_ended_anywhere(in_memory: str, kind: str, ending: str) -> None:
    """Ended before any change of the file system, an upload leaves only whole backups, and a second one succeeds."""
    database = build_old(f"{in_memory}/db")
    take(database.path(), f"{in_memory}/old")
    grow(database, 2000, 2500)
    take(database.path(), f"{in_memory}/new")
    database.close()
    checkpoints, place = [f"{in_memory}/old", f"{in_memory}/new"], f"{in_memory}/place"
    done = run_child(EACH_ENDING, place=place, kind=kind, checkpoints=checkpoints, ending=ending)
    assert done.stderr == ""
    assert int(done.stdout) > 10
    if kind != "archive":
        assert list_with_aimrocks(Path(place)) == {"first": [1, 2], "second": [1, 2, 3]}[kind]
