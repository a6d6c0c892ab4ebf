"""The alert example, run as a person runs it: it fires when no backup ever ran, and not when there is a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "example_dags" / "example_rocksdb_backup_alert.py"


def test_alert_example(tmp_path: Path) -> None:
    """Without any run of a backup DAG the alert is raised, and names what is missing; after a backup it is not."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    before, _, after = done.stdout.partition("Run of DAG example_rocksdb_backup_alert with a fresh backup: success")
    (line,) = (line for line in before.splitlines() if "ALERT" in line)
    assert "ALERT rocksdb_default: " in line
    assert "a complete backup not older than 1 day, 2:00:00: there is none at all" in line
    assert after
    assert "ALERT" not in after
