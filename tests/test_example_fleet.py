"""The fleet example, run as a person runs it: every database has two backups that hold what was acknowledged before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "example_dags" / "example_rocksdb_fleet_backup.py"


def test_fleet_example(tmp_path: Path) -> None:
    """Two runs back up three databases; nothing acknowledged is lost; the second sends less; no checkpoint stays."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    rows = re.findall(r"^  (rocksdb_\w+) +([\d,]+) keys +([\d,]+) keys +([\d,]+)$", done.stdout, re.MULTILINE)
    names = ["rocksdb_users", "rocksdb_orders", "rocksdb_events"]
    assert [name for name, *_ in rows] == names * 2
    numbers = [[int(number.replace(",", "")) for number in row] for _, *row in rows]
    assert all(0 < acknowledged <= held for acknowledged, held, _ in numbers)
    assert all(second[2] < first[2] for first, second in zip(numbers[:3], numbers[3:], strict=True))
    (directory,) = tmp_path.iterdir()
    for name in names:
        assert sorted(path.name for path in (directory / name / "repository" / "meta").iterdir()) == ["1", "2"]
        assert not list((directory / name).glob("db.checkpoints/*"))
