"""Places where tests of the core need more than an empty directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.databases import build_stopped, mounted
from tests.programs import find_program


@pytest.fixture
def in_memory() -> Iterator[str]:
    """Make a directory in memory, where thousands of changes wait for no disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield place


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[str]:
    """Mount a file system of one MiB."""
    with mounted(tmp_path / "tiny", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as place:
        yield place


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[str]:
    """Mount a file system of 64 MiB."""
    with mounted(tmp_path / "other", "-t", "tmpfs", "-o", "size=64m", "tmpfs") as place:
        yield place


@pytest.fixture(params=["btrfs", "xfs"])
def reflinking(request: pytest.FixtureRequest, public_path: Path) -> Iterator[str]:
    """Mount a file system that shares blocks between files."""
    make = find_program(f"mkfs.{request.param}")
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    image = public_path / "image"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run([make, "-q", str(image)], check=True, capture_output=True)
    try:
        with mounted(public_path / "reflinking", "-o", "loop", str(image)) as place:
            yield place
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cannot be mounted here: {error.stderr!r}")


@pytest.fixture
def public_path() -> Iterator[Path]:
    """Make a directory that every user may enter, which pytest's own are not."""
    place = Path(tempfile.mkdtemp(prefix="public-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def stopped_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the database that ``db_dir`` copies."""
    return build_stopped(str(tmp_path_factory.mktemp("template") / "db"))


@pytest.fixture
def db_dir(tmp_path: Path, stopped_template: str) -> str:
    """Copy a database whose process has died: keys 0-999 in an SST file, 1000-1499 in the WAL."""
    path = str(tmp_path / "db")
    shutil.copytree(stopped_template, path)
    return path
