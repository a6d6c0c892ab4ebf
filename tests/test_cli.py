"""``python -m airflow_provider_rocksdb``, run as a child process against real databases and writers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import DBPath, Options, Rdict

from airflow_provider_rocksdb import __version__
from airflow_provider_rocksdb.cli import storage
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from tests.servers import S3Server

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "example_dags" / "rocksdb_demo.py"
COMMAND = [sys.executable, "-m", "airflow_provider_rocksdb"]


def run(*arguments: object, env: dict[str, str] | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, check=False
    )


def run_json(*arguments: object, status: int = 0, env: dict[str, str] | None = None) -> dict[str, Any]:
    done = run(*arguments, "--json", env=env)
    assert done.returncode == status, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    return result


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line on stderr that is the error; no traceback is above it."""
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def db_dir(tmp_path: Path) -> Path:
    """Make a database whose process has died: one SST file, and a WAL with keys of its own."""
    path = tmp_path / "db"
    write = f"""if True:
        import os
        from rocksdict import Options, Rdict
        database = Rdict({str(path)!r}, Options(raw_mode=True))
        for number in range(1500):
            if number == 1000:
                database.flush()
            database[b"%06d" % number] = b"value"
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", write], check=True)
    return path


@pytest.fixture
def live_db_dir(tmp_path: Path) -> Iterator[Path]:
    """Make a database that another process goes on writing."""
    path, acknowledged = tmp_path / "live", tmp_path / "acknowledged"
    with subprocess.Popen([sys.executable, str(DEMO), str(path), str(acknowledged)]) as writer:
        wait_for(lambda: acknowledged.exists() and acknowledged.stat().st_size == 8)
        yield path
        writer.kill()


def wait_for(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def keys(directory: Path) -> int:
    """Keys of a database directory, counted with every status checked; the directory is opened, so give a copy."""
    database = Rdict(str(directory), Options(raw_mode=True))
    iterator = database.iter()
    iterator.seek_to_first()
    count = 0
    while iterator.valid():
        count += 1
        iterator.next()
    iterator.status()
    del iterator
    database.close()
    return count


def listing(directory: Path) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(directory))] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("restore-everything",),
        ("checkpoint", "db"),
        ("checkpoint", "db", "there", "--mode", "sideways"),
        ("checkpoint", "db", "there", "--timeout-seconds", "0"),
        ("checkpoint", "db", "there", "--cf-path", "no equals sign"),
        ("checkpoint", "db", "there", "--mode", "exclusive", "--allow-copy"),
        ("check", "db", "--level", "deep"),
        ("backup", "db", "there", "--storage-option", "no equals sign"),
        ("backup", "db", "there", "--max-bytes-per-second", "fast"),
        ("backup", "db", "there", "--no-checkpoint", "--wal-dir", "wal"),
        ("backup", "db", "there", "--compression", "gzip"),
        ("backup", "db", "there", "--layout", "archive", "--compression", "bzip2"),
        ("backup", "db", "there", "--layout", "archive", "--compression-level", "20"),
        ("backup", "db", "there", "--layout", "archive", "--compression", "gzip", "--compression-threads", "2"),
        ("backup", "db", "there.tar.gz", "--layout", "archive", "--compression", "zstd"),
        ("backup", "db", "there.tar.zst"),
        ("backup", "db", ""),
        ("check", ""),
        ("checkpoint", "db", ""),
        ("check", "db", "--wal-dir", ""),
        ("backup", "db", "s3://user:secret@bucket/path"),
        ("backup", "db", "there", "--keep-last", "-2"),
        ("backup", "db", "there", "--keep-within", "soon"),
        ("backup", "db", "there", "--layout", "directory", "--keep-last", "2"),
        ("list",),
        ("list", "backups", "--wal-dir", "wal"),
        ("verify", "s3://user:secret@bucket/path"),
        ("verify", "backups", "--all", "--backup-id", "1"),
        ("verify", "backups", "--backup-id", "01"),
        ("verify", "backups", "--sample", "5"),
        ("verify", "backups", "--level", "checksums", "--sample", "101"),
        ("verify", "backups", "--level", "blocks"),
        ("restore", "repository"),
        ("restore", "repository", "db", "--backup-id", "0"),
        ("restore", "repository", "db", "--in-place"),
        ("restore", "repository", "db", "--delta"),
        ("restore", "s3://user:secret@bucket/path", "db"),
        ("backup", "db", "simplecache::s3://bucket/path"),
    ],
)
def test_usage_error(arguments: tuple[str, ...]) -> None:
    """A wrong command line ends with status 2 and one line on stderr, nothing on stdout."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "error: " in done.stderr
    assert "secret" not in done.stderr


def test_version_and_help_need_no_arguments() -> None:
    """--version and --help print to stdout and end with status 0."""
    assert run("--version").stdout.strip() == __version__
    text = " ".join(run("backup", "--help").stdout.split())
    assert "exit status: 0 done or complete; 1 failed, incomplete or could not check; 2 usage; 3 corrupt" in text


def test_checkpoint_of_a_stopped_database(db_dir: Path, tmp_path: Path) -> None:
    """A live checkpoint of a stopped database holds all its keys, and leaves the database as it was."""
    before = listing(db_dir)
    result = run_json("checkpoint", db_dir, tmp_path / "checkpoint")
    assert (result["state"], result["checkpoint_dir"]) == ("done", str(tmp_path / "checkpoint"))
    assert listing(db_dir) == before
    assert keys(tmp_path / "checkpoint") == 1500


def test_checkpoint_of_a_running_database(live_db_dir: Path, tmp_path: Path) -> None:
    """A live checkpoint holds at least what the writer had acknowledged before; the line says where it is."""
    acknowledged = int.from_bytes((tmp_path / "acknowledged").read_bytes(), "little")
    done = run("checkpoint", live_db_dir, tmp_path / "checkpoint")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"done: {tmp_path / 'checkpoint'}: ")
    assert done.stdout.count("\n") == 1
    assert keys(tmp_path / "checkpoint") >= acknowledged > 0


def test_exclusive_checkpoint(db_dir: Path, live_db_dir: Path, tmp_path: Path) -> None:
    """Mode exclusive flushes a stopped database and makes a checkpoint without WAL; an open one it refuses."""
    result = run_json("checkpoint", db_dir, tmp_path / "checkpoint", "--mode", "exclusive")
    assert (result["state"], result["mode"]) == ("done", "exclusive")
    assert keys(tmp_path / "checkpoint") == 1500
    refused = run("checkpoint", live_db_dir, tmp_path / "other", "--mode", "exclusive")
    assert refused.returncode == 1
    assert "live" in last_line(refused)
    assert not (tmp_path / "other").exists()


def test_checkpoint_replaces_only_when_told(db_dir: Path, tmp_path: Path) -> None:
    """An existing checkpoint is an error that names it, until --replace is given."""
    target = tmp_path / "checkpoint"
    run_json("checkpoint", db_dir, target)
    inode = target.stat().st_ino
    refused = run("checkpoint", db_dir, target)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert str(target) in last_line(refused)
    assert target.stat().st_ino == inode
    run_json("checkpoint", db_dir, target, "--replace")
    assert target.stat().st_ino != inode
    assert keys(target) == 1500


def test_checkpoint_failure_is_one_line(tmp_path: Path) -> None:
    """A failure is one line on stderr and status 1; with --json stdout has its state and its error."""
    missing = tmp_path / "two\nlines\x1b[31m"
    done = run("checkpoint", missing, tmp_path / "checkpoint", "--json")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["error_type"]) == ("failed", "NotFoundError")
    assert str(missing) in result["error"]


def test_checkpoint_inside_the_database_must_be_allowed(db_dir: Path) -> None:
    """A checkpoint inside the DB directory is refused unless --allow-inside is given."""
    assert run("checkpoint", db_dir, db_dir / "checkpoint").returncode == 1
    run_json("checkpoint", db_dir, db_dir / "checkpoint", "--allow-inside")
    assert keys(db_dir / "checkpoint") == 1500


def test_checkpoint_of_a_damaged_wal(db_dir: Path, tmp_path: Path) -> None:
    """Damage inside a WAL is copied as it is, reported in one line, and status 3."""
    wal = flip_byte_in_wal(db_dir)
    done = run("checkpoint", db_dir, tmp_path / "checkpoint", "--json")
    assert done.returncode == 3
    assert "damaged" in last_line(done)
    result = json.loads(done.stdout)
    assert result["state"] == "corrupt"
    assert result["damage"]
    assert (tmp_path / "checkpoint" / wal.name).stat().st_size == wal.stat().st_size


def test_checkpoint_with_directories_elsewhere(tmp_path: Path) -> None:
    """--wal-dir and --db-path, repeated in the order of the path ids, find a database's files in several places."""
    options = Options(raw_mode=True)
    options.set_write_buffer_size(64 * 1024)
    options.set_wal_dir(str(tmp_path / "wal"))
    options.set_db_paths([DBPath(str(tmp_path / "first"), 1), DBPath(str(tmp_path / "second"), 1 << 40)])
    database = Rdict(str(tmp_path / "db"), options)
    for number in range(4000):
        database[b"%06d" % (number * 7 % 4000)] = os.urandom(400)
    wait_for(lambda: list((tmp_path / "second").glob("*.sst")))  # a compaction puts them there
    database[b"in the WAL"] = b"value"
    refused = run("checkpoint", tmp_path / "db", tmp_path / "refused")
    assert (refused.returncode, "db_path" in last_line(refused)) == (1, True)
    paths = ["--wal-dir", tmp_path / "wal", "--db-path", tmp_path / "first", "--db-path", tmp_path / "second"]
    run_json("checkpoint", tmp_path / "db", tmp_path / "checkpoint", *paths)
    database.close()
    assert keys(tmp_path / "checkpoint") == 4001


@pytest.mark.parametrize("level", ["files", "checksums", "blocks"])
def test_check_complete(db_dir: Path, tmp_path: Path, level: str) -> None:
    """A whole checkpoint is complete at every level: status 0, and a line that says what was looked at."""
    run_json("checkpoint", db_dir, tmp_path / "checkpoint")
    result = run_json("check", tmp_path / "checkpoint", "--level", level)
    assert (result["state"], result["level"], result["wals"]) == ("complete", level, "checkpoint.json")
    done = run("check", f"file://{tmp_path}/checkpoint", "--level", "checksums")
    assert (done.returncode, done.stdout.startswith(f"complete: file://{tmp_path}/checkpoint: ")) == (0, True)


@pytest.mark.parametrize("level", ["files", "checksums", "blocks"])
def test_check_with_relative_directories(
    db_dir: Path, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative --wal-dir and --db-path mean what they mean to the shell, at every level."""
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": str(ROOT)}
    done = run("check", "db", "--wal-dir", "./db", "--db-path", "db", "--level", level, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_blocks_of_a_file_url(db_dir: Path, tmp_path: Path) -> None:
    """A file:// URL is a directory of this host, so that every level can be had."""
    run_json("checkpoint", db_dir, tmp_path / "checkpoint")
    assert run_json("check", f"file://{tmp_path}/checkpoint", "--level", "blocks")["state"] == "complete"


def test_foreign_file_called_as_our_record(db_dir: Path, tmp_path: Path) -> None:
    """A database in which a program keeps a checkpoint.json of its own is checked and backed up as any other."""
    (db_dir / "checkpoint.json").write_text('{"step": 1}')
    assert run_json("check", db_dir)["state"] == "complete"
    assert run_json("backup", db_dir, tmp_path / "repository")["sequence_number"] == 1500
    assert run_json("backup", db_dir, tmp_path / "repository-2", "--no-checkpoint")["sequence_number"] == 1500


@pytest.mark.parametrize("layout", ["backup_engine", "directory", "archive"])
def test_backup_never_into_the_database(db_dir: Path, tmp_path: Path, layout: str) -> None:
    """A repository in the DB directory, or in the checkpoint, is refused; nothing is written there."""
    run_json("checkpoint", db_dir, tmp_path / "checkpoint")
    before = sorted(db_dir.iterdir())
    for source, place in (
        (db_dir, db_dir),
        (db_dir, db_dir / "backups"),
        (tmp_path / "checkpoint", db_dir / "backups"),
    ):
        done = run("backup", source, place, "--layout", layout)
        assert (done.returncode, "which is being backed up" in last_line(done)) == (1, True)
    assert run("backup", tmp_path / "checkpoint", tmp_path / "checkpoint" / "backups").returncode == 1
    assert sorted(db_dir.iterdir()) == before


def test_repository_knows_a_database_by_its_full_path(
    db_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One database named in two ways is one database."""
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": str(ROOT)}
    run_json("backup", "db", "repository", env=environment)
    assert run_json("backup", f"{db_dir}/", "repository", env=environment)["backup_id"] == 2


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_output(db_dir: Path, tmp_path: Path, redirection: str) -> None:
    """A caller that closes a standard stream still gets the work done and its status, without a traceback."""
    command = f"{shlex.join(COMMAND)} checkpoint {db_dir} {tmp_path}/checkpoint --json {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert keys(tmp_path / "checkpoint") == 1500


@pytest.mark.parametrize("output", [">/dev/full", "| sleep 0"])
def test_output_that_fails(db_dir: Path, output: str) -> None:
    """A result that cannot be written is one line and status 1."""
    command = f"set -o pipefail; (sleep 0.2; {shlex.join(COMMAND)} check {db_dir} --json) {output}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch("check: complete, but the result cannot be written: .*\n", done.stderr)


def test_output_that_cannot_be_encoded(db_dir: Path) -> None:
    """Names that the terminal's encoding has not are written escaped."""
    moved = db_dir.rename(db_dir.with_name("d\u00e9"))
    done = run("check", moved, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, r"d\xe9: " in done.stdout) == (0, True)


def test_check_incomplete(db_dir: Path) -> None:
    """A database without one of its SST files is incomplete: status 1, and the line names the file."""
    (sst,) = db_dir.glob("*.sst")
    sst.unlink()
    done = run("check", db_dir)
    assert (done.returncode, done.stdout) == (1, "")
    assert last_line(done).startswith("check: incomplete: ")
    assert sst.name in last_line(done)


def test_check_corrupt(db_dir: Path) -> None:
    """A damaged WAL record is corrupt at level checksums: status 3, state in the JSON."""
    flip_byte_in_wal(db_dir)
    assert run_json("check", db_dir)["state"] == "complete"
    assert run_json("check", db_dir, "--level", "checksums", status=3)["state"] == "corrupt"


def test_check_could_not_look(tmp_path: Path) -> None:
    """A directory that is not there, or no file system to look at it, is never a success."""
    assert run_json("check", tmp_path / "nothing", status=1)["state"] == "incomplete"
    unknown = run_json("check", "unheard-of://bucket/path", status=1)
    assert (unknown["state"], "unheard-of" in unknown["error"]) == ("could_not_check", True)


def test_bar(db_dir: Path, tmp_path: Path) -> None:
    """On a terminal a bar is drawn over itself, and log lines of the transfer are not."""
    here, there = os.openpty()
    command = [*COMMAND, "backup", str(db_dir), str(tmp_path / "repository")]
    with subprocess.Popen(command, stderr=there, stdout=subprocess.DEVNULL) as child:
        os.close(there)
        shown = b""
        with contextlib.suppress(OSError):  # what a terminal says when nobody holds its other end
            while piece := os.read(here, 65536):
                shown += piece
    os.close(here)
    assert child.returncode == 0, shown
    text = shown.decode()
    assert re.search(r"\r\x1b\[K\[#{20}\] 100% uploaded 8 of 8 files", text)
    assert f"{tmp_path / 'repository'}: uploaded" not in text


def test_backup_and_prune(db_dir: Path, tmp_path: Path) -> None:
    """With --keep-… backups beyond the policy are deleted after the upload, and the plan is printed."""
    for _ in range(2):
        run_json("backup", db_dir, tmp_path / "repository")
    done = run("backup", db_dir, tmp_path / "repository", "--keep-last", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +1  .*  remove  no rule keeps it$", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].startswith(f"done: {tmp_path / 'repository'}: backup 3, ")
    result = run_json("backup", db_dir, tmp_path / "repository", "--keep-last", "1")
    assert (result["backup_id"], result["prune"]["removed_backups"]) == (4, [2, 3])


def test_backup_into_an_archive(db_dir: Path, tmp_path: Path) -> None:
    """An archive goes into the folder under the database's name and the time, or under the name given."""
    result = run_json("backup", db_dir, tmp_path / "there", "--layout", "archive")
    (archive,) = (tmp_path / "there").iterdir()
    assert re.fullmatch(r"db-\d{8}T\d{6}\.\d{3}Z\.tar\.zst", archive.name)
    assert (result["state"], result["archive"], result["reused"]) == ("done", str(archive), False)
    (tmp_path / "back").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "back"], check=True)
    assert keys(tmp_path / "back") == 1500
    named = tmp_path / "x.tar.gz"
    done = run("backup", db_dir, named, "--layout", "archive", "--compression-level", 9)
    assert (done.returncode, done.stdout.startswith(f"done: {named}: ")) == (0, True)
    restored = run_json("restore", named, tmp_path / "restored")
    assert (restored["layout"], restored["backup_id"], keys(tmp_path / "restored")) == ("archive", None, 1500)
    assert run_json("restore", named, tmp_path / "other", "--backup-id", "1", status=1)["state"] == "failed"
    refused = run("backup", db_dir, named, "--layout", "archive")
    assert refused.returncode == 1
    assert "is already there, and is not this checkpoint's" in last_line(refused)


def flip_byte_in_wal(directory: Path) -> Path:
    """Damage a record in the middle of the only WAL."""
    (wal,) = directory.glob("*.log")
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 1
    wal.write_bytes(data)
    return wal


@pytest.fixture
def repository(db_dir: Path, tmp_path: Path) -> Path:
    run_json("backup", db_dir, tmp_path / "repository")
    return tmp_path / "repository"


def test_restore(repository: Path, tmp_path: Path) -> None:
    """The newest backup is restored, and one line says what was; with --json it is an object."""
    done = run("restore", repository, tmp_path / "restored")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert done.stdout.startswith(f"done: {tmp_path / 'restored'}: backup 1 of {repository}, ")
    assert "downloaded" in done.stderr
    result = run_json("restore", repository, tmp_path / "again", "--backup-id", "1")
    assert (result["state"], result["backup_id"], result["layout"]) == ("done", 1, "backup_engine")
    assert keys(tmp_path / "restored") == keys(tmp_path / "again") == 1500


def test_restore_replaces_only_when_told(repository: Path, db_dir: Path) -> None:
    """A database that is there is an error that names it, until --replace is given; --delta takes over its files."""
    refused = run("restore", repository, db_dir)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert last_line(refused).startswith(f"restore: failed: {db_dir}: is already there")
    result = run_json("restore", repository, db_dir, "--replace", "--delta")
    assert (result["replaced"], result["reused_files"]) == (True, 1)
    result = run_json("restore", repository, db_dir, "--replace", "--in-place")
    assert (result["replaced"], keys(db_dir)) == (True, 1500)


def test_restore_of_a_running_database(repository: Path, live_db_dir: Path) -> None:
    """A database that a process has open is not replaced, and the error names its pid."""
    refused = run("restore", repository, live_db_dir, "--replace")
    assert refused.returncode == 1
    assert re.search(r"process \d+ has the database open", last_line(refused))


def test_restore_elsewhere(repository: Path, tmp_path: Path) -> None:
    """--wal-dir, --db-path and --cf-path put files where the database's own options look for them."""
    wal_dir, fast, slow = (tmp_path / name for name in ("wal", "fast", "slow"))
    paths = ["--wal-dir", wal_dir, "--db-path", fast, "--db-path", slow]
    run_json("restore", repository, tmp_path / "restored", *paths)
    assert [len(list(place.glob(f"*.{kind}"))) for place, kind in ((wal_dir, "log"), (fast, "sst"))] == [1, 1]
    assert run_json("check", tmp_path / "restored", *paths, "--level", "blocks")["state"] == "complete"
    run_json("restore", repository, tmp_path / "by-family", "--cf-path", f"default={tmp_path / 'default'}")
    assert len(list((tmp_path / "default").glob("*.sst"))) == 1


def test_restore_of_a_damaged_backup(repository: Path, tmp_path: Path) -> None:
    """A damaged object is corrupt, status 3, and named; a missing one is incomplete; nothing is made."""
    (sst,) = (repository / "shared_checksum").iterdir()
    data = bytearray(sst.read_bytes())
    data[100] ^= 1
    sst.write_bytes(data)
    done = run("restore", repository, tmp_path / "restored")
    assert (done.returncode, sst.name in last_line(done)) == (3, True)
    sst.unlink()
    assert run_json("restore", repository, tmp_path / "restored", status=1)["state"] == "incomplete"
    assert run_json("restore", repository, tmp_path / "restored", "--backup-id", 9, status=1)["state"] == "failed"
    assert not (tmp_path / "restored").exists()


def test_restore_is_stopped(repository: Path, tmp_path: Path) -> None:
    """SIGTERM ends a restore in good order: status 1, one line, and nothing is left."""
    command = [
        *COMMAND,
        "restore",
        str(repository),
        str(tmp_path / "place" / "restored"),
        "--max-bytes-per-second",
        "999",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as restoring:
        wait_for((tmp_path / "place" / "restored.tmp").exists)
        restoring.send_signal(signal.SIGTERM)
        _, stderr = restoring.communicate(timeout=60)
    assert (restoring.returncode, "stopped" in stderr.splitlines()[-1]) == (1, True)
    assert list((tmp_path / "place").iterdir()) == []


def test_restore_from_s3(db_dir: Path, tmp_path: Path, s3_server: S3Server) -> None:
    """A round trip through S3, with the credentials in the environment."""
    env = {storage.ENVIRONMENT_VARIABLE: json.dumps(s3_server.storage_options)}
    run_json("backup", db_dir, s3_server.url, env=env)
    assert run_json("restore", s3_server.url, tmp_path / "restored", env=env)["backup_dir"] == s3_server.url
    assert keys(tmp_path / "restored") == 1500


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("text", "text"),
        ("true", True),
        ("2022", 2022),
        ('"2022"', "2022"),
        ("0022", "0022"),
        ("NaN", "NaN"),
        ('{"endpoint_url": "http://127.0.0.1:1"}', {"endpoint_url": "http://127.0.0.1:1"}),
        ("{", "{"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_storage_option_values(text: str, value: Any) -> None:
    """A storage option's value is JSON where it is JSON, else the text itself."""
    assert storage.decode_value(text) == value


def test_storage_options_have_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file goes before the environment, and the command line before both."""
    file = tmp_path / "options.json"
    file.write_text('{"b": "file", "c": "file"}')
    monkeypatch.setenv(storage.ENVIRONMENT_VARIABLE, '{"a": "environment", "b": "environment", "c": "environment"}')
    options = storage.read_storage_options([("c", "command line")], str(file))
    assert options == {"a": "environment", "b": "file", "c": "command line"}


@pytest.mark.parametrize("content", ["not JSON: s3cret", '["s3cret"]', '{"key": "s3cret"', "\udcff"])
def test_bad_storage_options_are_not_repeated(tmp_path: Path, content: str) -> None:
    """A storage options file that is no JSON object is refused, and the message does not repeat what is in it."""
    file = tmp_path / "options.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InvalidArgumentError, match=r"options\.json: expected a JSON object") as caught:
        storage.read_storage_options([], str(file))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/path",
        "s3://key:sec/ret@bucket/path",
        "s3://key:sec/r",
        "sftp://user@host/path",
        "sftp://user:secret@host:22/path",
        "simplecache::s3://bucket/path",
        "zip://a.zip::s3://bucket/path",
    ],
)
def test_unsafe_urls(url: str) -> None:
    """A URL with a user, a password or a chain of file systems is refused without repeating the password."""
    with pytest.raises(InvalidArgumentError) as caught:
        storage.refuse_unsafe_url(url)
    assert "secret" not in str(caught.value)
    assert "sec/r" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["/a/path::with@signs", "s3://bucket/a@b:c", "sftp://host:2022/path", "sftp://[::1]:2022/path", "memory://a"]
)
def test_safe_urls(url: str) -> None:
    """Ports, IPv6 addresses, and signs in a path are no user and no chain."""
    storage.refuse_unsafe_url(url)


def test_secrets_are_masked_at_every_depth() -> None:
    """Values of storage options are taken out of a failure's text; addresses, flags and short values stay."""
    options = {
        "key": "AKIA",
        "anon": False,
        "n": 12,
        "client_kwargs": {"endpoint_url": "http://here", "token": "tok/en"},
    }
    value = {"error": "AKIA at http://here: tok/en is False 12", "problems": ["AKIA"]}
    masked = storage.mask_secrets(value, options)
    assert masked == {"error": "*** at http://here: *** is False 12", "problems": ["***"]}


@pytest.fixture
def backup_dir(db_dir: Path, tmp_path: Path) -> Path:
    """Make a repository of two backups."""
    for _ in range(2):
        run_json("backup", db_dir, tmp_path / "backups")
    return tmp_path / "backups"


def test_list(backup_dir: Path) -> None:
    """A list is a table with a row for each backup; with --json an object with a list of them."""
    done = run("list", backup_dir)
    assert (done.returncode, done.stdout.count("\n")) == (0, 4)
    head, first, second, last = done.stdout.splitlines()
    columns = "ID TIME SEQUENCE FILES BYTES OWN BYTES STATE LAYOUT DB ID HOST RUN"
    assert " ".join(head.split()) == columns
    assert (first.split()[0], second.split()[0]) == ("1", "2")
    assert first.index(" complete ") == second.index(" complete ") == head.index(" STATE")
    assert last == f"done: {backup_dir}: 2 backups"
    result = run_json("list", backup_dir)
    assert [(item["backup_id"], item["state"], item["sequence_number"]) for item in result["backups"]] == [
        (1, "complete", 1500),
        (2, "complete", 1500),
    ]


def test_list_says_what_is_missing(backup_dir: Path) -> None:
    """A backup of which a file is missing has a line below its row; an unreadable one has its reason there."""
    next(backup_dir.glob("private/1/MANIFEST-*")).unlink()
    (backup_dir / "meta" / "2").write_bytes(b"\x1b[31m")
    done = run("list", backup_dir)
    _, first, missing, second, reason, _ = done.stdout.splitlines()
    assert (first.split()[0], second.split()[0]) == ("1", "2")
    assert missing.startswith("  private/1/MANIFEST-")
    assert "meta/2" in reason
    assert "\x1b" not in done.stdout
    assert run("list", backup_dir.parent / "nothing").stdout == f"done: {backup_dir.parent / 'nothing'}: 0 backups\n"
    assert run_json("list", "unheard-of://bucket/path", status=1)["state"] == "failed"


@pytest.mark.parametrize("arguments", [("--all",), ("--backup-id", "1"), ("--level", "checksums", "--sample", "50")])
def test_verify(backup_dir: Path, arguments: tuple[str, ...]) -> None:
    """A whole repository is complete: status 0, and how much was read."""
    assert run_json("verify", backup_dir, *arguments)["state"] == "complete"
    done = run("verify", f"file://{backup_dir}", *arguments)
    assert done.stdout.startswith(f"complete: file://{backup_dir}: ")
    assert "; read " in done.stdout


def test_verify_damage(backup_dir: Path) -> None:
    """Damage is status 3, what is missing 1; each problem is a line on stdout, and stderr has one line."""
    next(backup_dir.glob("private/1/MANIFEST-*")).unlink()
    assert run("verify", backup_dir).returncode == 0
    assert run_json("verify", backup_dir, "--all", status=1)["state"] == "incomplete"
    flip_byte_in_wal(backup_dir / "private" / "2")
    done = run("verify", backup_dir, "--all", "--level", "checksums")
    assert done.returncode == 3
    assert [line[:10] for line in done.stdout.splitlines()] == ["private/2/", "private/1/"]
    assert last_line(done).startswith("verify: corrupt: ")
    result = run_json("verify", backup_dir, "--all", "--level", "checksums", status=3)
    assert [problem["state"] for problem in result["problems"]] == ["corrupt", "incomplete"]


def test_verify_nothing(tmp_path: Path) -> None:
    """Where there is no backup, or no file system to look at, verification never succeeds."""
    assert run_json("verify", tmp_path / "nothing", status=1)["state"] == "incomplete"
    assert run_json("verify", "unheard-of://bucket/path", status=1)["state"] == "could_not_check"
