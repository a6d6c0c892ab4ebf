"""A transfer of large files keeps its memory bounded. The same with 2 GiB a file: ``benchmarks/upload_memory.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import S3Server
from tests.transfer_memory import make_files, measure, s3_sink

LIMIT_BYTES = 256 << 20


@pytest.mark.parametrize("kind", ["s3", "local"])
def test_upload(kind: str, tmp_path: Path) -> None:
    """A process that uploads six files of 96 MiB, four at a time, stays under 256 MiB above a bare interpreter."""
    make_files(tmp_path / "files", 6, 96 << 20)
    with s3_sink() as options:
        protocol, options, place = (
            ("s3", options, "bucket/there") if kind == "s3" else ("file", {}, f"{tmp_path}/there")
        )
        result = measure("files", tmp_path / "files", protocol, options, place)
    assert result["bytes"] > 6 * (96 << 20)
    assert result["peak_bytes"] < LIMIT_BYTES


@pytest.mark.parametrize("ending", [".tar.zst", ".tar.gz", ".tar"])
def test_archive(ending: str, tmp_path: Path, s3_server: S3Server) -> None:
    """An archive of 64 MiB that nothing compresses is written to S3, and read from there, within the same limit."""
    make_files(tmp_path / "files", 2, 32 << 20, random=True)
    for what in ("archive", "check"):
        place = f"{s3_server.place}/x{ending}"
        result = measure(what, tmp_path / "files", "s3", s3_server.storage_options, place)
        assert result["peak_bytes"] < LIMIT_BYTES, what
