"""The Parquet example, run as a person runs it: its numbers are true, and so are the rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pyarrow import parquet

EXAMPLE = Path(__file__).parent.parent / "example_dags" / "example_rocksdb_to_parquet.py"


def test_parquet_example(tmp_path: Path) -> None:
    """Every key acknowledged before the backup is a row, a row group has a batch; no scratch and no part file stays."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    rows = re.findall(r"^  (\D+?) +([\d,]+) ", done.stdout, re.MULTILINE)
    found = {words: int(number.replace(",", "")) for words, number in rows}
    (directory,) = tmp_path.iterdir()
    (path,) = (directory / "parquet").iterdir()
    file = parquet.ParquetFile(path)
    assert 0 < found["acknowledged before the backup"] <= found["rows of the Parquet file"] == file.metadata.num_rows
    assert file.num_row_groups == -(-file.metadata.num_rows // 10_000)
    assert {len(value) for value in file.read(["value"])["value"].to_pylist()} == {100}
    assert found["written"] == path.stat().st_size
