"""What an example needs to be run as a script: databases with a writer each, and an Airflow home, in one new directory.

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

KEYS_BEFORE = 200_000  # written as fast as it goes, before the first backup
KEYS_PER_BATCH = 100
PAUSE_SECONDS = 0.01  # between batches from then on
VALUE_BYTES = 100


class Database:
    """A database with a writer process that goes on until this process ends, and its backup repository."""

    def __init__(self, directory: Path) -> None:
        self.db_dir = directory / "db"
        self.backup_dir = directory / "repository"
        self._acknowledged = directory / "acknowledged"
        directory.mkdir(exist_ok=True)
        command = [sys.executable, __file__, str(self.db_dir), str(self._acknowledged)]
        self._writer = subprocess.Popen(command)
        atexit.register(self._writer.terminate)
        print(f"Process {self._writer.pid} writes into {self.db_dir}, without a pause until the end.", flush=True)

    @property
    def connection(self) -> str:
        """The Airflow connection that names its directories."""
        extra = {"db_dir": str(self.db_dir), "backup_dir": str(self.backup_dir)}
        return json.dumps({"conn_type": "rocksdb", "extra": extra})

    def wait(self) -> None:
        """Wait until it is large enough for a first backup."""
        while self.acknowledged() < KEYS_BEFORE:
            if self._writer.poll() is not None:
                raise SystemExit("the writer process ended too early")
            time.sleep(0.05)

    def acknowledged(self) -> int:
        """How many keys the writer says it has written; told outside the database."""
        try:
            return int.from_bytes(self._acknowledged.read_bytes(), "little")
        except FileNotFoundError:
            return 0

    def files(self) -> dict[str, int]:
        """List the repository, with sizes."""
        root = self.backup_dir
        return {str(p.relative_to(root)): p.stat().st_size for p in sorted(root.rglob("*")) if p.is_file()}


class Demo:
    """A directory with everything in it.

    :param databases: connection ids of several databases, each in a directory of that name; default: one.
    """

    def __init__(self, dags_folder: str, databases: Sequence[str] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rocksdb-backup-"))
        self.log = self.directory / "airflow.log"
        directories = {conn_id: self.directory / conn_id for conn_id in databases}
        self.databases = {
            conn_id: Database(directory)
            for conn_id, directory in (directories or {"rocksdb_default": self.directory}).items()
        }
        self.database = next(iter(self.databases.values()))
        os.environ |= {
            "AIRFLOW_HOME": str(self.directory / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": dags_folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **{f"AIRFLOW_CONN_{conn_id.upper()}": item.connection for conn_id, item in self.databases.items()},
        }
        for database in self.databases.values():
            database.wait()
        with self.log.open("w") as log:
            subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], stdout=log, stderr=log, check=True)

    def run(self, dag: Any, *, runs: int = 2) -> None:
        """Run a DAG that makes one backup, several times, and print what came of it."""
        database = self.database
        for number in range(1, runs + 1):
            acknowledged, files_before = database.acknowledged(), database.files()
            self._test(dag, f"Run {number} of DAG {dag.dag_id}")
            new = {path: size for path, size in database.files().items() if path not in files_before}
            held = count_keys(database.backup_dir, number, self.directory / f"links-{number}")
            print(f"  acknowledged before it began  {acknowledged:>12,} keys")
            print(f"  held by backup {number}              {held:>12,} keys, from the first to the last without a gap")
            print(f"  sent to the repository        {sum(new.values()):>12,} bytes in {len(new)} files")
            print(
                f"  the repository had            {sum(files_before.values()):>12,} bytes in {len(files_before)} files"
            )
            if held < acknowledged:
                raise SystemExit(f"backup {number} lost {acknowledged - held} acknowledged keys")
        self._print_repository()

    def run_fleet(self, dag: Any, *, runs: int = 2) -> None:
        """Run a DAG that makes one backup of each database, several times, and print what came of it."""
        for number in range(1, runs + 1):
            acknowledged = {name: database.acknowledged() for name, database in self.databases.items()}
            files_before = {name: database.files() for name, database in self.databases.items()}
            self._test(dag, f"Run {number} of DAG {dag.dag_id}")
            print("  connection       acknowledged before  held by the backup       sent bytes")
            for name, database in self.databases.items():
                sent = sum(size for path, size in database.files().items() if path not in files_before[name])
                held = count_keys(database.backup_dir, number, self.directory / f"links-{name}-{number}")
                print(f"  {name:<15} {acknowledged[name]:>15,} keys {held:>14,} keys {sent:>16,}")
                if held < acknowledged[name]:
                    raise SystemExit(f"{name}: backup {number} lost {acknowledged[name] - held} acknowledged keys")
        self._print_end()

    def run_restore(self, dag: Any) -> None:
        """Make a backup, run a DAG that restores it beside the database, and print what came of it."""
        database = self.database
        acknowledged = database.acknowledged()
        self._back_up()
        self._test(dag, f"Run of DAG {dag.dag_id}")
        current = Path(f"{database.db_dir}.current")
        restored = current.resolve()
        size = sum(path.stat().st_size for path in restored.iterdir())
        held = count_database(restored, "the restored database")
        print(f"  acknowledged before the backup {acknowledged:>12,} keys")
        print(f"  held by the restored database  {held:>12,} keys, from the first to the last without a gap")
        print(f"  written                        {size:>12,} bytes into {restored}")
        print(f"  {current} leads there.")
        if held < acknowledged:
            raise SystemExit(f"the restored database lost {acknowledged - held} acknowledged keys")
        self._print_end()

    def run_parquet(self, dag: Any) -> None:
        """Make a backup, run a DAG that writes it as a Parquet file, and print what came of it."""
        from pyarrow import parquet

        acknowledged = self.database.acknowledged()
        self._back_up()
        self._test(dag, f"Run of DAG {dag.dag_id}")
        (path,) = (self.directory / "parquet").iterdir()
        file = parquet.ParquetFile(path)
        numbers, groups = file.read(columns=["number"])["number"].to_pylist(), file.num_row_groups
        if numbers != list(range(len(numbers))):
            raise SystemExit(f"{path}: its numbers have gaps")
        print(f"  acknowledged before the backup {acknowledged:>12,} keys")
        print(f"  rows of the Parquet file       {len(numbers):>12,} rows without a gap, in {groups} row groups")
        print(f"  written                        {path.stat().st_size:>12,} bytes into {path}")
        if len(numbers) < acknowledged:
            raise SystemExit(f"{path} lacks {acknowledged - len(numbers)} acknowledged keys")
        self._print_end()

    def run_alert(self, dag: Any) -> None:
        """Run a DAG that alerts before there is any backup, make one, run it again, and print what came of it."""
        self._test(dag, f"Run of DAG {dag.dag_id} without any backup", "failed")
        alerts = [line for line in self.log.read_text().splitlines() if " ALERT " in f" {line}"]
        print(*(f"  {line[line.index('ALERT') :].partition('  [')[0]}" for line in alerts), sep="\n")
        self._back_up()
        self._test(dag, f"Run of DAG {dag.dag_id} with a fresh backup")
        self._print_end()

    def _back_up(self) -> None:
        """Make a backup from the shell."""
        backup = ["backup", str(self.database.db_dir), str(self.database.backup_dir)]
        with self.log.open("a") as log:
            subprocess.run(
                [sys.executable, "-m", "airflow_provider_rocksdb", *backup], stdout=log, stderr=log, check=True
            )

    def _test(self, dag: Any, what: str, expected: str = "success") -> None:
        """Run a DAG in this process; print how it ended."""
        start = time.monotonic()
        with _output_into(self.log):
            state = dag.test().state
        print(f"\n{what}: {state} in {time.monotonic() - start:.1f} s")
        if state != expected:
            raise SystemExit(f"{self.log} says why")

    def _print_repository(self) -> None:
        print(f"\nThe repository {self.database.backup_dir}:")
        for path, size in self.database.files().items():
            print(f"  {size:>12,}  {path}")
        print("\nStock RocksDB restores it (Debian: apt-get install rocksdb-tools):")
        print(f"  ldb restore --db={self.directory / 'restored'} --backup_dir={self.database.backup_dir}")
        self._print_end()

    def _print_end(self) -> None:
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
