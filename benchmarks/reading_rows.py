"""Rows about reading: blocks, a MANIFEST, and what a DAG file imports."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from benchmarks.databases import checkpoint, make_database
from benchmarks.harness import OURS, Row, run
from benchmarks.manifest_reading import write_manifest
from benchmarks.sizes import Bench
from tests.programs import find_program

MODULES = ("operators.rocksdb", "sensors.rocksdb", "transfers.rocksdb_to_fsspec", "transfers.fsspec_to_rocksdb")
READ_MANIFEST = """
import os, sys
from airflow_provider_rocksdb.core.format.manifest import ManifestReader
path, steps = sys.argv[1], int(sys.argv[2])
reader, size = ManifestReader(os.path.basename(path)), os.path.getsize(path)
with open(path, "rb") as file:
    for step in range(1, steps + 1):
        reader.read(lambda offset, length: os.pread(file.fileno(), length, offset), size * step // steps)
"""


def blocks(bench: Bench) -> Iterator[Row]:
    """Yield a check of every block beside a loop over all keys."""
    database, made = bench.place("db"), bench.place("checkpoint")
    make_database(database, bench.sizes.local_files, bench.sizes.local_file_bytes)
    checkpoint(database, made)
    ours = [sys.executable, "-m", "benchmarks.ours", "blocks", str(made)]
    theirs = [sys.executable, "-m", "benchmarks.theirs", "iterate", str(database)]
    contenders = {OURS: lambda: run(ours), "a loop over rocksdict": lambda: run(theirs)}
    yield Row("check of every block", bench.alternate(contenders), {"a loop over rocksdict": 1.0})
    shutil.rmtree(made)
    shutil.rmtree(database)


def manifest(bench: Bench) -> Iterator[Row]:
    """Yield reading of a large MANIFEST, at once and as it grows."""
    path = bench.place("MANIFEST-000005")
    write_manifest(path, bench.sizes.manifest_bytes)
    for steps, how in ((1, "at once"), (1000, "as it grows, 1,000 times")):
        ours = [sys.executable, "-c", READ_MANIFEST, str(path), str(steps)]
        theirs = [find_program("ldb"), "manifest_dump", f"--path={path}"]
        contenders = {OURS: lambda ours=ours: run(ours), "ldb manifest_dump": lambda theirs=theirs: run(theirs)}
        samples = bench.alternate(contenders)
        yield Row(f"MANIFEST of {path.stat().st_size / 1e6:.0f} MB, {how}", samples)
    path.unlink()


def imports(bench: Bench) -> Iterator[Row]:
    """Yield what a DAG file's import of every operator adds to that of Airflow's SDK."""
    ours = "import airflow.sdk, " + ", ".join(f"airflow_provider_rocksdb.{module}" for module in MODULES)
    contenders = {
        OURS: lambda: run([sys.executable, "-c", ours]),
        "import airflow.sdk alone": lambda: run([sys.executable, "-c", "import airflow.sdk"]),
    }
    yield Row("import of all operators in a DAG file", bench.alternate(contenders, times=2))
