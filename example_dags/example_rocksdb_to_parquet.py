"""On each new backup of a RocksDB database, write its records to a Parquet file, and emit an asset event for that.

The connection ``rocksdb_default`` says where the backup repository is; ``decode`` is yours to write. Needs the extra
``parquet``. Run as a script, this file makes a database with a writer, a backup of it and an Airflow of its own, runs
the DAG and prints what came of it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

if __name__ == "__main__":  # before Airflow is imported: it gets a home of its own
    from rocksdb_demo import Demo

    demo = Demo(os.path.dirname(os.path.abspath(__file__)))
    os.environ["EXAMPLE_REPOSITORY"] = f"file://{demo.database.backup_dir}"
    os.environ["EXAMPLE_PARQUET"] = f"file://{demo.directory}/parquet"

from airflow.providers.common.compat.sdk import DAG, Asset, task

from airflow_provider_rocksdb.core import open_output
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook
from airflow_provider_rocksdb.hooks.storage import resolve_storage

REPOSITORY = Asset(os.environ.get("EXAMPLE_REPOSITORY", "s3://my-bucket/rocksdb"))
PARQUET = Asset(os.environ.get("EXAMPLE_PARQUET", "s3://my-bucket/parquet"))


def decode(key: bytes, value: bytes) -> dict[str, Any]:
    """Make a row of a record."""
    return {"number": int(key), "value": value}


@task(outlets=[PARQUET])
def to_parquet(triggering_asset_events: Any = None, outlet_events: Any = None) -> dict[str, Any]:
    """Write the newest backup of the events, or of the repository, as one file that is there whole or not at all."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([("number", pa.int64()), ("value", pa.binary())])
    events = [event for events in (triggering_asset_events or {}).values() for event in events]
    backup_id = max((event.extra["backup_id"] for event in events), default=None)
    rows = 0
    with RocksDBHook().open_backup(backup_id) as backup:
        url = f"{PARQUET.uri}/{backup.sequence_number:012d}.parquet"
        with open_output(*resolve_storage(url)) as file, ParquetWriter(file, schema) as writer:
            for batch in backup.iter_batches():
                table = pa.RecordBatch.from_pylist([decode(key, value) for key, value in batch], schema)
                writer.write_batch(table)  # a row group
                rows += len(batch)
    result = {"url": url, "rows": rows, "backup_id": backup_id}
    outlet_events[PARQUET].extra = result
    return result


START = datetime(2026, 1, 1, tzinfo=UTC)

with DAG(
    "example_rocksdb_to_parquet", schedule=[REPOSITORY], start_date=START, catchup=False, max_active_runs=1
) as dag:
    to_parquet()

if __name__ == "__main__":
    demo.run_parquet(dag)
