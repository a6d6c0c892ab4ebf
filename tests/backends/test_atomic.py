"""What is atomic on each backend, and what the code does where something is not: the table in core/storage.py."""

from __future__ import annotations

import contextlib
import threading

import fsspec
import pytest

from airflow_provider_rocksdb.core.storage import Storage
from tests.backends.backends import Backend
from tests.backends.proxy import proxy
from tests.servers import S3Server

EXCLUSIVE = {"local", "azure", "gcs"}  # of many who create a name, one succeeds; rclone's S3 ignores the condition
SHOWS_UNFINISHED = {"memory"}  # whose file is there from its first byte on


class BrokenOffError(Exception):
    pass


def storage_of(backend: Backend) -> Storage:
    storage = Storage(backend.filesystem, backend.root)
    storage.make_folders(("meta",))
    return storage


def test_create(backend: Backend) -> None:
    """A name that is taken stays as it is."""
    storage = storage_of(backend)
    storage.create("meta/1", b"first")
    with pytest.raises(FileExistsError):
        storage.create("meta/1", b"second")
    assert storage.read("meta/1") == b"first"
    assert storage.list("meta") == {"1": 5}


def test_many_create(backend: Backend) -> None:
    """Of many who create a name at once, one succeeds; where more do, just one finds its own when it reads it back."""
    storage = storage_of(backend)
    barrier, told = threading.Barrier(6), []

    def create(number: int) -> None:
        storage.own_file_system()  # where it connects, that is done before
        barrier.wait()
        try:
            storage.create("meta/1", b"content of %d" % number)
        except Exception as error:  # noqa: BLE001 -- of every driver's
            told.append((number, error))
        else:
            told.append((number, None))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, error in told if error is None]
    assert len(told) == 6
    if backend.name in EXCLUSIVE:
        assert len(winners) == 1
        assert all(error is None or isinstance(error, FileExistsError) for _, error in told)
    try:
        found = storage.read("meta/1")
    except Exception as error:
        # rclone's S3 may keep the bytes of one with the checksum of another: then nobody finds his own
        if (backend.name, type(error).__name__) != ("s3", "FlexibleChecksumError"):
            raise
        return
    assert len([number for number in winners if b"content of %d" % number == found]) == 1


def test_s3_condition(s3_server: S3Server) -> None:
    """On S3 the condition is asked for: rclone's server ignores it, others do not."""
    heads: list[bytes] = []

    def note(data: bytes) -> None:
        heads.append(data)

    with proxy(s3_server.port, note) as through:
        options = {**s3_server.storage_options, "endpoint_url": f"http://127.0.0.1:{through.port}"}
        Storage(fsspec.filesystem("s3", **options), s3_server.place).create("meta/1", b"first")
    put = next(head for head in heads if head.startswith(b"PUT "))
    assert b"\r\nif-none-match: *\r\n" in put.lower()


def test_unfinished(backend: Backend) -> None:
    """A file that is being written is not there under its name; one that failed leaves nothing."""
    storage, beside = storage_of(backend), Storage(backend.filesystem, backend.root)
    beside.drop_file_system()  # the connection of this one is busy
    with contextlib.suppress(BrokenOffError), storage.open_writer(storage.temporary_name("meta/1"), 20 << 20) as file:
        file.write(bytes(9 << 20))
        assert beside.list("meta") == ({"1": 9 << 20} if backend.name in SHOWS_UNFINISHED else {})
        raise BrokenOffError
    assert storage.list("meta") == {}
    assert storage.list("incoming") == {}


def test_replace(backend: Backend) -> None:
    """Writing a name anew replaces it."""
    storage = storage_of(backend)
    for data in (b"a longer one", b"short"):
        storage.write("meta/1", data)
        assert (storage.read("meta/1"), storage.list("meta")) == (data, {"1": len(data)})


def test_list_tree(backend: Backend) -> None:
    """Files at any depth are listed with their sizes, folders that are not there are empty, and gone is gone."""
    storage = storage_of(backend)
    storage.make_folders(("private", "private/1"))
    storage.write("private/1/CURRENT", b"x")
    assert storage.list_tree("private") == {"private/1/CURRENT": 1}
    assert storage.list("private") == {"1": None}
    assert (storage.size("private/1/CURRENT"), storage.size("private/1/none")) == (1, None)
    assert (storage.list("none"), storage.list_tree("none")) == ({}, {})
    storage.delete("private/1/CURRENT")
    storage.delete("private/1/CURRENT")
    with pytest.raises(FileNotFoundError):
        storage.read("private/1/CURRENT")
    storage.remove_folder("private/1")
    assert storage.list("private") == {}
