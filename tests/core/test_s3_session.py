"""What is set up in a session with S3 before it connects, and what stays as botocore has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec
import pytest
from aiobotocore.session import AioSession
from botocore.utils import parse_timestamp

from airflow_provider_rocksdb.core.drivers import find_read_options
from airflow_provider_rocksdb.core.errors import InvalidArgumentError
from airflow_provider_rocksdb.core.repository_listing import list_backups
from airflow_provider_rocksdb.core.s3_session import read_time
from airflow_provider_rocksdb.core.storage import Storage
from tests.backends.proxy import proxy
from tests.core.repositories import ONCE
from tests.servers import S3Server

TIMES = [
    "2009-10-12T17:50:30.000Z",
    "2009-10-12T17:50:30Z",
    "2009-10-12T17:50:30.123456Z",
    "2009-10-12T17:50:30.123456789Z",
    "2009-10-12T17:50:30+02:00",
    "Wed, 12 Oct 2009 17:50:00 GMT",
    "2009-10-12T",
    "20091012T175030Z",
    "20091012",
    "1255369830",
    1255369830,
    1255369830.5,
]


def open_s3(server: S3Server, **options: Any) -> Any:
    return fsspec.filesystem("s3", **{**server.storage_options, **options}, skip_instance_cache=True)


@pytest.mark.parametrize("value", TIMES)
def test_times(value: str | float) -> None:
    """Times are read as botocore reads them, in whatever way they are written."""
    assert read_time(value) == parse_timestamp(value)
    assert read_time(value).utcoffset() == parse_timestamp(value).utcoffset()


@pytest.mark.parametrize("value", ["", "yesterday", "2009-10-12T99:00:00Z", None])
def test_no_times(value: Any) -> None:
    """What is no time for botocore is none."""
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        parse_timestamp(value)
    with pytest.raises(type(theirs.value)):
        read_time(value)


def test_listing(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing tells times without botocore's parser, which takes most of the time of a long one."""
    storage = Storage(open_s3(s3_server), s3_server.place)
    storage.write("folder/name", b"content")
    monkeypatch.setattr("dateutil.parser.parse", None)
    modified = storage.list_entries("folder")["name"].modified
    assert modified is not None
    assert abs(datetime.fromtimestamp(modified, UTC) - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize("is_connected", [False, True])
def test_given_session(s3_server: S3Server, is_connected: bool) -> None:
    """A session that somebody has brought stays his; a client that is there already works on."""
    session = AioSession()
    filesystem = open_s3(s3_server, session=session)
    if is_connected:
        filesystem.ls(s3_server.place.partition("/")[0])
    Storage(filesystem, s3_server.place).write("name", b"content")
    assert filesystem.session is session
    assert Storage(filesystem, s3_server.place).list("") == {"name": 7}


def test_unknown_option(s3_server: S3Server) -> None:
    """An option that nobody knows is a wrong use, said when the storage is used."""
    with pytest.raises(InvalidArgumentError, match="no_such_option"):
        list_backups(open_s3(s3_server, no_such_option=1), s3_server.place, options=ONCE)


def test_no_question_before_a_body(s3_server: S3Server) -> None:
    """A small file is sent by one request, of which the body does not wait until it is asked for."""
    heads: list[bytes] = []
    with proxy(s3_server.port, lambda data: heads.append(data)) as through:
        filesystem = open_s3(s3_server, endpoint_url=f"http://127.0.0.1:{through.port}")
        Storage(filesystem, s3_server.place).write("name", b"content")
    assert [head.split(b" ", 1)[0] for head in heads if b" HTTP/1.1\r\n" in head] == [b"PUT"]
    assert not [head for head in heads if b"100-continue" in head.lower()]


def test_older_s3fs() -> None:
    """A version of s3fs that cannot read in several parts at a time is not told to read in one."""

    class Older:
        async def _cat_file(self, path: str, version_id: Any = None, start: Any = None, end: Any = None) -> None: ...

    assert find_read_options(Older) == {}


def test_one_request_for_a_small_file(s3_server: S3Server) -> None:
    """A small file is read by one request: its size is not asked for first."""
    with proxy(s3_server.port) as through:
        storage = Storage(open_s3(s3_server, endpoint_url=f"http://127.0.0.1:{through.port}"), s3_server.place)
        storage.write("name", b"content")
        through.requests = 0
        assert storage.read("name") == b"content"
        assert through.requests == 1
