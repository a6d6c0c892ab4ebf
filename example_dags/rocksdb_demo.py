"""What an example needs to be run as a script: a database with a writer, and an Airflow home, all in one new directory.

Airflow itself needs nothing of this: its DAG is in the example alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEYS_BEFORE = 200_000  # written as fast as it goes, before the first backup
KEYS_PER_BATCH = 100
PAUSE_SECONDS = 0.01  # between batches from then on
VALUE_BYTES = 100


class Demo:
    """A directory with everything in it, and a writer process that goes on until this process ends."""

    def __init__(self, dags_folder: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rocksdb-backup-"))
        self.db_dir = self.directory / "db"
        self.backup_dir = self.directory / "repository"
        self.log = self.directory / "airflow.log"
        self._acknowledged = self.directory / "acknowledged"
        connection = {"conn_type": "rocksdb", "extra": {"db_dir": str(self.db_dir), "backup_dir": str(self.backup_dir)}}
        os.environ |= {
            "AIRFLOW_HOME": str(self.directory / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": dags_folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_ROCKSDB_DEFAULT": json.dumps(connection),
        }
        self._start_writer()
        with self.log.open("w") as log:
            subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], stdout=log, stderr=log, check=True)

    def _start_writer(self) -> None:
        command = [sys.executable, __file__, str(self.db_dir), str(self._acknowledged)]
        writer = subprocess.Popen(command)
        atexit.register(writer.terminate)
        print(f"Process {writer.pid} writes into {self.db_dir}, without a pause until the end.", flush=True)
        while self.acknowledged() < KEYS_BEFORE:
            if writer.poll() is not None:
                raise SystemExit("the writer process ended too early")
            time.sleep(0.05)

    def acknowledged(self) -> int:
        """How many keys the writer says it has written; told outside the database."""
        try:
            return int.from_bytes(self._acknowledged.read_bytes(), "little")
        except FileNotFoundError:
            return 0

    def run(self, dag: Any, *, runs: int = 2) -> None:
        """Run a DAG that makes one backup, several times, and print what came of it."""
        for number in range(1, runs + 1):
            acknowledged, files_before, start = self.acknowledged(), self._files(), time.monotonic()
            with _output_into(self.log):
                state = dag.test().state
            seconds = time.monotonic() - start
            print(f"\nRun {number} of DAG {dag.dag_id}: {state} in {seconds:.1f} s")
            if state != "success":
                raise SystemExit(f"{self.log} says why")
            new = {path: size for path, size in self._files().items() if path not in files_before}
            held = count_keys(self.backup_dir, number, self.directory / f"links-{number}")
            print(f"  acknowledged before it began  {acknowledged:>12,} keys")
            print(f"  held by backup {number}              {held:>12,} keys, from the first to the last without a gap")
            print(f"  sent to the repository        {sum(new.values()):>12,} bytes in {len(new)} files")
            print(
                f"  the repository had            {sum(files_before.values()):>12,} bytes in {len(files_before)} files"
            )
            if held < acknowledged:
                raise SystemExit(f"backup {number} lost {acknowledged - held} acknowledged keys")
        self._print_repository()

    def run_restore(self, dag: Any) -> None:
        """Make a backup, run a DAG that restores it beside the database, and print what came of it."""
        acknowledged = self.acknowledged()
        command = [sys.executable, "-m", "airflow_provider_rocksdb", "backup", str(self.db_dir), str(self.backup_dir)]
        with self.log.open("a") as log:
            subprocess.run(command, stdout=log, stderr=log, check=True)
        start = time.monotonic()
        with _output_into(self.log):
            state = dag.test().state
        print(f"\nRun of DAG {dag.dag_id}: {state} in {time.monotonic() - start:.1f} s")
        if state != "success":
            raise SystemExit(f"{self.log} says why")
        current = Path(f"{self.db_dir}.current")
        restored = current.resolve()
        size = sum(path.stat().st_size for path in restored.iterdir())
        held = count_database(restored, "the restored database")
        print(f"  acknowledged before the backup {acknowledged:>12,} keys")
        print(f"  held by the restored database  {held:>12,} keys, from the first to the last without a gap")
        print(f"  written                        {size:>12,} bytes into {restored}")
        print(f"  {current} leads there.")
        if held < acknowledged:
            raise SystemExit(f"the restored database lost {acknowledged - held} acknowledged keys")
        print(f"Airflow's log is {self.log}. Delete {self.directory} when you have seen enough.")

    def _files(self) -> dict[str, int]:
        root = self.backup_dir
        return {str(p.relative_to(root)): p.stat().st_size for p in sorted(root.rglob("*")) if p.is_file()}

    def _print_repository(self) -> None:
        print(f"\nThe repository {self.backup_dir}:")
        for path, size in self._files().items():
            print(f"  {size:>12,}  {path}")
        print("\nStock RocksDB restores it (Debian: apt-get install rocksdb-tools):")
        print(f"  ldb restore --db={self.directory / 'restored'} --backup_dir={self.backup_dir}")
        print(f"Airflow's log is {self.log}. Delete {self.directory} when you have seen enough.")


@contextlib.contextmanager
def _output_into(log: Path) -> Iterator[None]:
    """Send what this process prints, at whatever depth, to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, descriptor in enumerate(saved, start=1):
            os.dup2(descriptor, target)
            os.close(descriptor)


def count_keys(backup_dir: Path, backup_id: int, scratch: Path) -> int:
    """Open a backup as a directory of hard links, read every block, and count keys, which must have no gap."""
    from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_meta

    scratch.mkdir()
    for file in decode_backup_meta((backup_dir / "meta" / str(backup_id)).read_bytes()).files:
        directory, _, name = file.path.rpartition("/")
        if directory == "shared_checksum":
            name = name.partition("_")[0] + "." + name.rpartition(".")[2]
        os.link(backup_dir / file.path, scratch / name)
    return count_database(scratch, f"backup {backup_id}")


def count_database(db_dir: Path, what: str) -> int:
    """Open a database, read every block, and count keys, which must have no gap."""
    from rocksdict import AccessType, Options, Rdict, ReadOptions

    database = Rdict(str(db_dir), Options(raw_mode=True), access_type=AccessType.read_only())
    reading = ReadOptions()
    reading.set_verify_checksums(True)
    count, iterator = 0, database.iter(reading)
    iterator.seek_to_first()
    while iterator.valid():
        if iterator.key() != b"%012d" % count:
            raise SystemExit(f"{what}: expected key {count}, got {iterator.key()!r}")
        count += 1
        iterator.next()
    iterator.status()
    del iterator
    database.close()
    return count


def write_for_ever(db_dir: str, acknowledged: str) -> None:
    """Write numbered keys, and after each batch say, outside the database, how many are in."""
    from rocksdict import BlockBasedOptions, Options, Rdict, WriteBatch

    table = BlockBasedOptions()
    table.set_format_version(5)  # so that RocksDB 7.8's tools, as Debian has them, can read it
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(4 * 1024 * 1024)
    database = Rdict(db_dir, options)
    descriptor = os.open(acknowledged, os.O_WRONLY | os.O_CREAT)
    count, parent = 0, os.getppid()
    while os.getppid() == parent:
        batch = WriteBatch(raw_mode=True)
        for number in range(count, count + KEYS_PER_BATCH):
            batch.put(b"%012d" % number, os.urandom(VALUE_BYTES))
        database.write(batch)
        count += KEYS_PER_BATCH
        os.pwrite(descriptor, count.to_bytes(8, "little"), 0)
        if count >= KEYS_BEFORE:
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    write_for_ever(sys.argv[1], sys.argv[2])
