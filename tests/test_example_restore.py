"""The restore example, run as a person runs it: its numbers are true, and what it hands over is whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from airflow_provider_rocksdb.core.completeness import check_completeness

EXAMPLE = Path(__file__).parent.parent / "example_dags" / "example_rocksdb_restore.py"


def test_restore_example(tmp_path: Path) -> None:
    """Nothing acknowledged before the backup is lost; what was handed over is whole; the home itself stays empty."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    rows = re.findall(r"^  (\D+?) +([\d,]+) ", done.stdout, re.MULTILINE)
    found = {words: int(number.replace(",", "")) for words, number in rows}
    assert 0 < found["acknowledged before the backup"] <= found["held by the restored database"]
    (directory,) = tmp_path.iterdir()
    current = directory / "db.current"
    assert current.resolve() == directory / "db.restored"
    assert found["written"] == sum(path.stat().st_size for path in current.iterdir())
    assert check_completeness(str(current), level="checksums").state == "complete"
    assert not (directory / "db.restored.tmp").exists()
