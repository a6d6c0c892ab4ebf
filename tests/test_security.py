"""The threat model of the README, line by line: each has tests, here or where ``THREATS`` says."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.sftp import SFTPFileSystem

from airflow_provider_rocksdb.core.archive import upload_archive
from airflow_provider_rocksdb.core.checkpoint import delete_checkpoint
from airflow_provider_rocksdb.core.completeness import check_completeness
from airflow_provider_rocksdb.core.errors import RocksDBError
from airflow_provider_rocksdb.core.inspection import State
from airflow_provider_rocksdb.core.inventory import read_inventory
from airflow_provider_rocksdb.core.live_checkpoint import create_live_checkpoint
from airflow_provider_rocksdb.core.paths import DatabasePaths
from airflow_provider_rocksdb.core.repository import create_backup
from airflow_provider_rocksdb.core.restore import restore_backup
from airflow_provider_rocksdb.core.transfer import TransferOptions
from airflow_provider_rocksdb.core.verify import verify_backups
from tests.core.databases import build_stopped, run_child
from tests.servers import Server

LOCAL = fsspec.filesystem("file")
ONCE = TransferOptions(attempts=1)

# Lines of the threat model, and the tests that hold them.
THREATS: dict[str, list[str]] = {
    "hostile meta": ["core.test_restore_hostile.test_paths", "core.test_restore_hostile.test_sizes_that_lie"],
    "hostile archive": ["core.test_archive_hostile.test_types", "core.test_archive_hostile.test_bombs"],
    "hostile checkpoint directory": ["test_security.test_not_a_file", "test_security.test_record_without_end"],
    "swapped directory": ["test_security.test_swapped_while_it_is_deleted"],
    "code in data": ["test_security.test_nothing_is_unpickled", "core.test_completeness.test_no_value_is_decoded"],
    "damaged formats": ["fuzz.test_fuzz.test_fuzz", "core.test_archive_hostile.test_damage"],
    "credentials": [
        "test_security.test_wrong_password",
        "test_security.test_process_list",
        "airflow.test_security.test_nothing_keeps_a_credential",
        "airflow.test_transfer.test_s3_by_options",
        "test_cli.test_secrets_are_masked_at_every_depth",
    ],
    "user info in URLs": ["airflow.test_storage.test_credentials_in_the_url"],
    "permissions": ["test_security.test_permissions"],
    "templates": ["airflow.test_security.test_template_fields"],
}


@pytest.mark.parametrize("threat", THREATS)
def test_every_threat_has_tests(threat: str) -> None:
    """The tests that a line of the threat model names are there."""
    for name in THREATS[threat]:
        module, _, test = name.rpartition(".")
        if not module.startswith("airflow"):
            assert callable(getattr(importlib.import_module(f"tests.{module}"), test))
        else:
            path = Path(__file__).parent / f"{module.replace('.', '/')}.py"
            assert f"def {test}(" in path.read_text()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a stopped database, once."""
    return Path(build_stopped(str(tmp_path_factory.mktemp("security") / "db")))


@pytest.fixture
def db_dir(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "db"))


@pytest.fixture
def checkpoint_dir(db_dir: Path, tmp_path: Path) -> Path:
    create_live_checkpoint(DatabasePaths(str(db_dir)), str(tmp_path / "checkpoint"))
    return tmp_path / "checkpoint"


# hostile checkpoint directories


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


IMPOSTORS: dict[str, Callable[[Path], Any]] = {
    "FIFO": os.mkfifo,
    "socket": _socket,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "link to nothing": lambda path: path.symlink_to("/nowhere"),
    "directory": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_not_a_file(checkpoint_dir: Path, impostor: str, tmp_path: Path) -> None:
    """What is not a file, under the name of any file of a checkpoint, is not waited for, read or sent anywhere."""
    before = read_inventory(str(checkpoint_dir))
    for path in sorted(checkpoint_dir.iterdir()):
        content = path.read_bytes()
        path.unlink()
        IMPOSTORS[impostor](path)
        found = check_completeness(str(checkpoint_dir), level="checksums")
        if path.name == "checkpoint.json":
            with contextlib.suppress(RocksDBError):  # can be done without
                read_inventory(str(checkpoint_dir))
        else:
            assert found.state is not State.COMPLETE
            with pytest.raises((RocksDBError, OSError)):
                read_inventory(str(checkpoint_dir))
        with pytest.raises((RocksDBError, OSError)):  # changed after it was looked at
            create_backup(before, LOCAL, str(tmp_path / "repository"), options=ONCE)
        assert not list(tmp_path.glob("repository/meta/*"))
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        path.write_bytes(content)
    assert check_completeness(str(checkpoint_dir)).state is State.COMPLETE


def test_record_without_end(checkpoint_dir: Path) -> None:
    """A record of a checkpoint that is larger than any is refused, and not read into memory."""
    with (checkpoint_dir / "checkpoint.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(RocksDBError, match=r"expected at most .* got 1099511627776"):
        delete_checkpoint(str(checkpoint_dir))


# a directory that is swapped for another while it is deleted


class Swapper:
    """Does something before the n-th file operation of this thread, as the interpreter's audit events tell them."""

    events = ("os.remove", "os.rename", "os.rmdir", "os.listdir", "os.scandir", "open")

    def __init__(self) -> None:
        self.count = self.at = 0
        self.action: Callable[[], None] | None = None
        sys.addaudithook(self._hook)  # can never be removed

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.action is None or event not in self.events:
            return
        self.count += 1
        if self.count == self.at:
            action, self.action = self.action, None
            action()

    @contextlib.contextmanager
    def before(self, number: int, action: Callable[[], None]) -> Iterator[None]:
        self.count, self.at, self.action = 0, number, action
        try:
            yield
        finally:
            self.action = None


SWAPPER = Swapper()


def _contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_swapped_while_it_is_deleted(checkpoint_dir: Path, db_dir: Path, tmp_path: Path, kind: str) -> None:
    """Whenever a link to a database, or a database itself, takes a checkpoint's name: the database is not touched."""
    template = shutil.copytree(checkpoint_dir, tmp_path / "template")
    victim, aside = tmp_path / "victim", tmp_path / "aside"
    shutil.copytree(db_dir, victim)
    before = _contents(victim)
    places = [checkpoint_dir, checkpoint_dir.with_name("checkpoint.tmp")]
    swapped = number = 0

    def swap() -> None:
        nonlocal swapped
        for place in places:
            if place.is_dir() and not place.is_symlink():
                swapped += 1
                place.rename(aside)
                if kind == "link":
                    place.symlink_to(victim)
                else:
                    victim.rename(place)
                return

    while True:
        number += 1
        with SWAPPER.before(number, swap), contextlib.suppress(RocksDBError, OSError):
            delete_checkpoint(str(checkpoint_dir))
        if SWAPPER.count < number:
            break
        where = next(place for place in (victim, *places) if place.is_dir() and not place.is_symlink())
        assert _contents(where) == before, f"swapped before operation {number}"
        where.rename(victim)
        for place in (*places, aside):
            if place.is_symlink():
                place.unlink()
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, checkpoint_dir)
    assert swapped > 10


# data is never code


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """Checking, backing up, verifying and restoring a database of pickled values finds no class for any of them."""
    code = """
from rocksdict import Rdict
database = Rdict(arguments["path"])
for number in range(100):
    database[f"key {number}"] = {"a": complex(1, number)}
database.flush()
database["another"] = complex(2, 3)
database.close()
"""
    assert run_child(code, path=str(tmp_path / "db")).returncode == 0
    found: list[Any] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "pickle.find_class":
            found.append(arguments)

    sys.addaudithook(hook)
    create_live_checkpoint(DatabasePaths(str(tmp_path / "db")), str(tmp_path / "checkpoint"))
    assert check_completeness(str(tmp_path / "checkpoint"), level="blocks").state is State.COMPLETE
    repository = str(tmp_path / "repository")
    create_backup(read_inventory(str(tmp_path / "checkpoint")), LOCAL, repository)
    for level in ("checksums", "restore"):
        assert verify_backups(LOCAL, repository, level=level).state is State.COMPLETE
    restore_backup(LOCAL, repository, DatabasePaths(str(tmp_path / "restored")))
    assert found == []
    pickle.loads(pickle.dumps(complex))  # noqa: S301 -- the hook works
    assert found
    watching = False


# credentials


@pytest.mark.parametrize("kind", ["sftp", "ftp", "webdav"])
def test_wrong_password(kind: str, request: pytest.FixtureRequest, checkpoint_dir: Path) -> None:
    """A password that is refused is in no error, and in none that led to it."""
    server: Server = request.getfixturevalue(f"{kind}_server")
    secret = "s3cr3t-th4t-n0b0dy-kn0ws"  # noqa: S105 -- no secret
    key, value = ("auth", ("somebody", secret)) if kind == "webdav" else ("password", secret)
    inventory, text = read_inventory(str(checkpoint_dir)), ""
    try:
        make = SFTPFileSystem if kind == "sftp" else fsspec.get_filesystem_class(kind)
        store = make(**{**server.storage_options, key: value}, skip_instance_cache=True)
        create_backup(inventory, store, server.place, options=ONCE)
    except Exception as error:  # noqa: BLE001 -- the driver's own, when it connects at once
        text = "".join(traceback.format_exception(error))
    assert text
    assert secret not in text


def test_process_list(checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process gets no credential: neither among its arguments nor in its environment."""
    monkeypatch.setenv("AIRFLOW_CONN_STORE", "s3://key:s3cr3t@bucket")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    started: list[str] = []
    real = subprocess.Popen

    def popen(command: Any, **settings: Any) -> Any:
        started.append(f"{command} {settings['env']}")
        return real(command, **settings)

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert check_completeness(str(checkpoint_dir), level="blocks").state is State.COMPLETE
    assert started
    assert "s3cr3t" not in str(started)


# permissions


def test_permissions(db_dir: Path, tmp_path: Path) -> None:
    """Whatever the umask: what we write has mode 0600, directories 0700; a linked file keeps its own."""
    for path in db_dir.iterdir():
        path.chmod(0o644)
    before = {path.name: path.stat().st_mode for path in db_dir.iterdir()}
    mask = os.umask(0)
    try:
        place = tmp_path / "new"
        create_live_checkpoint(DatabasePaths(str(db_dir)), str(place / "checkpoint"))
        inventory = read_inventory(str(place / "checkpoint"))
        create_backup(inventory, LOCAL, str(place / "repository"))
        upload_archive(inventory, LOCAL, str(place / "archives" / "db.tar.gz"))
        restore_backup(LOCAL, str(place / "repository"), DatabasePaths(str(place / "service" / "db")))
    finally:
        os.umask(mask)
    linked = {path.stat().st_ino for path in db_dir.iterdir()}
    wrong = {
        str(path.relative_to(place)): oct(path.stat().st_mode)
        for path in [place, *place.rglob("*")]
        if path.stat().st_ino not in linked and path.stat().st_mode & 0o777 != (0o700 if path.is_dir() else 0o600)
    }
    assert not wrong
    assert any(path.stat().st_ino in linked for path in (place / "checkpoint").iterdir())
    assert {path.name: path.stat().st_mode for path in db_dir.iterdir()} == before
