"""Writing, linking, cloning and copying files; whose lock it is."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rocksdict import Rdict

from airflow_provider_rocksdb.core import durable
from airflow_provider_rocksdb.core.errors import (
    AccessError,
    BusyError,
    CancelledError,
    ExistsError,
    NoSpaceError,
    RocksDBError,
)
from tests.core.databases import NOBODY, options, run_child

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and other users need root")


def test_write_file_replaces_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    """A written file has the new content, mode 0600, and no temporary file is left beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    durable.write_file(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_exclusive_write_keeps_what_is_there(tmp_path: Path) -> None:
    """An exclusive write of a taken name raises ExistsError and leaves the old content and no temporary file."""
    path = tmp_path / "file"
    durable.write_file(str(path), b"old", exclusive=True)
    with pytest.raises(ExistsError, match="already there"):
        durable.write_file(str(path), b"new", exclusive=True)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_one_of_many_exclusive_writers_wins(tmp_path: Path) -> None:
    """Of eight threads that write the same name exclusively one succeeds, and the file holds what that one wrote."""
    path = str(tmp_path / "file")
    won: list[int] = []

    def write(number: int) -> None:
        try:
            durable.write_file(path, b"%d" % number, exclusive=True)
        except ExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % number for number in won] == [Path(path).read_bytes()]
    assert os.listdir(tmp_path) == ["file"]


@needs_root
def test_write_file_without_space_leaves_the_old_content(tiny: str) -> None:
    """A write that runs out of space raises NoSpaceError with the path, and the old file and nothing else is there."""
    path = os.path.join(tiny, "file")
    durable.write_file(path, b"old")
    with pytest.raises(NoSpaceError, match=r"\.file\..*No space left"), durable.named_errors():
        durable.write_file(path, bytes(2 << 20))
    assert Path(path).read_bytes() == b"old"
    assert os.listdir(tiny) == ["file"]


@needs_root
def test_copy_without_space_leaves_nothing(tiny: str, tmp_path: Path) -> None:
    """A copy that runs out of space raises NoSpaceError naming the target, which is gone."""
    source = tmp_path / "source"
    source.write_bytes(bytes(2 << 20))
    with source.open("rb") as file, pytest.raises(NoSpaceError, match="target"), durable.named_errors():
        durable.copy_range(file.fileno(), os.path.join(tiny, "target"), 2 << 20)
    assert os.listdir(tiny) == []


@needs_root
def test_require_space_says_how_much_is_missing(tiny: str) -> None:
    """Too little free space is told with the bytes needed and available, before anything is written."""
    available = shutil.disk_usage(tiny).free
    durable.require_space(tiny, available)
    with pytest.raises(NoSpaceError, match=f"{available + 1} bytes are needed, {available} are available") as caught:
        durable.require_space(tiny, available + 1)
    assert caught.value.transient


def test_refusal_names_path_and_user(tmp_path: Path) -> None:
    """The operating system's refusal becomes an AccessError that names the path and the user."""
    said = rf"{tmp_path}/x: Permission denied \(as uid {os.geteuid()}\)"
    with pytest.raises(AccessError, match=said), durable.named_errors():
        raise PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/x")


def test_new_files_are_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New files are whole, each by one fsync of a descriptor open since its writing, and a taken name is refused.

    An empty one has nothing to wait for.
    """
    (tmp_path / "source").write_bytes(b"0123456789")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with durable.NewFiles() as files, (tmp_path / "source").open("rb") as source:
        files.create(str(tmp_path / "written"), b"content")
        assert files.copy(source.fileno(), str(tmp_path / "copied"), 4) == 4
        assert files.copy(source.fileno(), str(tmp_path / "cut"), 11) == 10
        files.truncate(str(tmp_path / "cut"), 3)
        files.create(str(tmp_path / "empty"), b"")
        files.create(str(tmp_path / "discarded"), b"content")
        files.discard(str(tmp_path / "discarded"))
        assert synced == []
        files.sync()
        with pytest.raises(FileExistsError):
            files.create(str(tmp_path / "source"), b"")
    assert synced == [str(tmp_path / name) for name in ("written", "copied", "cut")]
    assert (tmp_path / "written").read_bytes() == b"content"
    assert (tmp_path / "copied").read_bytes() == b"0123"
    assert (tmp_path / "cut").read_bytes() == b"012"
    assert (tmp_path / "empty").read_bytes() == b""
    assert not (tmp_path / "discarded").exists()


def test_copy_range_copies_a_prefix(tmp_path: Path) -> None:
    """Exactly the first bytes asked for are copied; a shorter source says how many there were."""
    (tmp_path / "source").write_bytes(b"0123456789")
    with (tmp_path / "source").open("rb") as file:
        assert durable.copy_range(file.fileno(), str(tmp_path / "part"), 4) == 4
        assert durable.copy_range(file.fileno(), str(tmp_path / "all"), 40) == 10
    assert (tmp_path / "part").read_bytes() == b"0123"
    assert (tmp_path / "all").read_bytes() == b"0123456789"


def test_copy_range_never_overwrites(tmp_path: Path) -> None:
    """A copy onto a name that is taken fails and leaves that file as it was."""
    (tmp_path / "source").write_bytes(b"source")
    (tmp_path / "target").write_bytes(b"target")
    with (tmp_path / "source").open("rb") as file, pytest.raises(FileExistsError):
        durable.copy_range(file.fileno(), str(tmp_path / "target"), 6)
    assert (tmp_path / "target").read_bytes() == b"target"


def test_stopped_copy_leaves_nothing(tmp_path: Path) -> None:
    """A copy that is told to stop after its first chunk raises CancelledError and removes what it wrote."""
    (tmp_path / "source").write_bytes(bytes(durable.COPY_CHUNK_BYTES * 2))
    stop = threading.Event()
    with (
        (tmp_path / "source").open("rb") as file,
        pytest.raises(CancelledError, match=r"after \d+ of"),
    ):
        durable.copy_range(
            file.fileno(),
            str(tmp_path / "target"),
            durable.COPY_CHUNK_BYTES * 2,
            stop=stop,
            on_chunk=lambda chunk: stop.set(),
        )
    assert os.listdir(tmp_path) == ["source"]


def test_link_file_follows_a_symbolic_link(tmp_path: Path) -> None:
    """Linking a symbolic link links the file it leads to, not the symbolic link itself."""
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "name").symlink_to("real")
    (tmp_path / "target").mkdir()
    source, target = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "target", os.O_RDONLY)
    durable.link_file(source, "name", target)
    os.close(source)
    os.close(target)
    assert not (tmp_path / "target" / "name").is_symlink()
    assert (tmp_path / "target" / "name").samefile(tmp_path / "real")


def test_clone_where_the_file_system_cannot(tmp_path: Path) -> None:
    """Where blocks cannot be shared (between two file systems at least) cloning answers False and leaves no file."""
    place = tmp_path if os.stat(tmp_path).st_dev != os.stat("/dev/shm").st_dev else Path("/var/tmp")  # noqa: S108
    source = Path("/dev/shm") / f"clone-{os.getpid()}"  # noqa: S108 -- a file system in memory
    source.write_bytes(b"content")
    target = place / f"clone-{os.getpid()}"
    try:
        with source.open("rb") as file:
            assert durable.clone_file(file.fileno(), str(target)) is False
        assert not target.exists()
    finally:
        source.unlink()


def test_clone_shares_blocks(reflinking: str) -> None:
    """On btrfs and XFS cloning answers True, and the clone has the content, mode 0600 and its own inode."""
    source = Path(reflinking, "source")
    source.write_bytes(b"content" * 10000)
    with source.open("rb") as file:
        assert durable.clone_file(file.fileno(), f"{reflinking}/target") is True
    target = Path(reflinking, "target")
    assert target.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not target.samefile(source)


def test_exchange_swaps_two_directories(tmp_path: Path) -> None:
    """After an exchange each name leads to the other's directory."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    durable.exchange_directories(str(tmp_path / "first"), str(tmp_path / "second"))
    assert os.listdir(tmp_path / "first") == ["second"]
    assert os.listdir(tmp_path / "second") == ["first"]


def test_exchange_with_nothing_fails(tmp_path: Path) -> None:
    """An exchange with a name that is not there raises FileNotFoundError and changes nothing."""
    (tmp_path / "first").mkdir()
    with pytest.raises(FileNotFoundError):
        durable.exchange_directories(str(tmp_path / "first"), str(tmp_path / "second"))
    assert os.listdir(tmp_path) == ["first"]


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``renameat2`` fail as on a file system that lacks RENAME_EXCHANGE."""
    monkeypatch.setattr(durable, "_RENAME_EXCHANGE", 1 << 10)  # an unknown flag: EINVAL, by the kernel itself


def test_exchange_by_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses an atomic exchange, plain renames swap the two names, and nothing is left aside."""
    without_exchange(monkeypatch)
    test_exchange_swaps_two_directories(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["first", "second"]


def test_failed_exchange_by_renames_undoes_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second of the plain renames fails, both directories are as they were and the error says so."""
    without_exchange(monkeypatch)
    (tmp_path / "second").mkdir()
    with pytest.raises(RocksDBError, match="both are as they were"):
        durable.exchange_directories(str(tmp_path / "first"), str(tmp_path / "second"))
    assert os.listdir(tmp_path) == ["second"]


def test_a_directory_is_locked_once(tmp_path: Path) -> None:
    """A directory's lock is held against another process until its descriptor is closed."""
    descriptor = durable.lock_directory(str(tmp_path))
    code = "print('busy' if isinstance(attempt(), BusyError) else 'free')"
    attempt = """
def attempt():
    try:
        durable.lock_directory(arguments["path"])
    except BusyError as error:
        return error
"""
    assert run_child(attempt + code, path=str(tmp_path)).stdout == "busy\n"
    with pytest.raises(BusyError, match="another run is building"):
        durable.lock_directory(str(tmp_path))
    os.close(descriptor)
    assert run_child(attempt + code, path=str(tmp_path)).stdout == "free\n"


HOLDER = "import sys; from rocksdict import Rdict; d = Rdict(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


def test_lock_owner_names_the_process(tmp_path: Path) -> None:
    """The owner of a database is named by its pid, and nobody owns it after it has ended."""
    path = str(tmp_path / "db")
    lock = os.path.join(path, "LOCK")
    assert durable.lock_owner(lock) is None
    child = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert durable.lock_owner(lock) == child.pid
        child.kill()
    assert durable.lock_owner(lock) is None


def test_lock_owner_keeps_this_process_own_lock(tmp_path: Path) -> None:
    """Asking for the owner inside the owning process answers its own pid and does not release its lock."""
    path = str(tmp_path / "db")
    database = Rdict(path, options())
    assert durable.lock_owner(os.path.join(path, "LOCK")) == os.getpid()
    child = subprocess.run([sys.executable, "-c", HOLDER, path], capture_output=True, text=True, input="", check=False)
    assert "lock" in child.stderr
    assert child.returncode != 0
    database.close()


@needs_root
def test_lock_owner_takes_no_right_to_write(public_path: Path) -> None:
    """A user who may only read learns the owner's pid; one who may not read gets AccessError."""
    path = str(public_path / "db")
    database = Rdict(path, options())
    code = """
with durable.named_errors():
    print(durable.lock_owner(arguments["lock"]))
"""
    lock = os.path.join(path, "LOCK")
    os.chmod(lock, 0o644)
    assert run_child(code, uid=NOBODY, lock=lock).stdout == f"{os.getpid()}\n"
    os.chmod(lock, 0o600)
    assert "AccessError" in run_child(code, uid=NOBODY, lock=lock).stderr
    database.close()
