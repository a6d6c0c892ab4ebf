"""A MANIFEST's unique ids against the session ids in the SST files themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from rocksdict import Options, Rdict, SstFileWriter

from airflow_provider_rocksdb.core.format.filename import table_file_name
from airflow_provider_rocksdb.core.format.table_properties import read_session_id
from airflow_provider_rocksdb.core.format.unique_id import lower_session_of_text, lower_session_of_unique_id
from tests.core.databases import read_version


def test_against_real_files(tmp_path: Path) -> None:
    """Of flushed, compacted and ingested files, by three sessions, the MANIFEST's half is that in the file."""
    path, ingested = str(tmp_path / "db"), str(tmp_path / "ingested.sst")
    options = Options(raw_mode=True)
    options.set_disable_auto_compactions(True)
    for session in range(3):
        database = Rdict(path, options)
        database[b"%d" % session] = b"value"
        database.flush()
        if session == 1:
            database.compact_range(None, None)
        database.close()
    writer = SstFileWriter(options=options)
    writer.open(ingested)
    writer[b"z"] = b"value"
    writer.finish()
    database = Rdict(path, options)
    database.ingest_external_file([ingested])
    database.close()
    found = set()
    for table in read_version(path).column_families[0].tables.values():
        data = (Path(path) / table_file_name(table.number)).read_bytes()
        session_id = read_session_id(lambda offset, length, data=data: data[offset : offset + length], len(data))  # type: ignore[misc]
        assert session_id is not None
        found.add(lower_session_of_text(session_id))
        assert lower_session_of_unique_id(table.unique_id) == lower_session_of_text(session_id) is not None
    assert len(found) >= 3


@pytest.mark.parametrize("text", ["", "A" * 12, "A" * 25, "É" * 20, "A_B" * 6, " " * 20])
def test_no_session_id(text: str) -> None:
    """What RocksDB would not decode has no lower half."""
    assert lower_session_of_text(text) is None


@pytest.mark.parametrize(
    ("text", "lower"),
    [
        ("0" * 13, 0),
        ("1" + "0" * 12, 1 << 62),
        ("5" + "0" * 12, 1 << 62),  # what is above two bits belongs to the upper half
        ("0000" + "0" * 11 + "Z", 35),
        ("3" + "1Z141Z3C1Z3C", (3 << 62) | (int("1Z141Z3C1Z3C", 36) & (1 << 62) - 1)),
        ("Z" * 24, (35 % 4 << 62) | (36**12 - 1 & (1 << 62) - 1)),
    ],
)
def test_lower_half(text: str, lower: int) -> None:
    """Two bits of the first number, 62 of the second."""
    assert lower_session_of_text(text) == lower


@pytest.mark.parametrize("unique_id", [b"", bytes(16), b"\1" * 15, b"\1" * 24])
def test_no_unique_id(unique_id: bytes) -> None:
    """A null id, or one that is not of 16 bytes, tells nothing."""
    assert lower_session_of_unique_id(unique_id) is None
