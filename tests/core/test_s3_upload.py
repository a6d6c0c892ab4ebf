"""Local files sent to S3 as they lie there: to a real server, encrypted too, and to one that takes no more."""

from __future__ import annotations

import base64
import io
import os
import socket
import ssl
import subprocess
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import google_crc32c
import pytest

from airflow_provider_rocksdb.core import s3_upload
from airflow_provider_rocksdb.core.errors import CancelledError, CorruptionError, IncompleteError
from airflow_provider_rocksdb.core.retry import check_stop
from airflow_provider_rocksdb.core.storage import Storage
from airflow_provider_rocksdb.core.transfer import Meter, TransferOptions, UploadItem, upload_files
from tests.programs import find_program
from tests.servers import S3Server, serve

MIB = 1 << 20
ONCE = TransferOptions(attempts=1)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_upload, "_PART_BYTES", 5 * MIB)  # S3 takes no smaller ones


@pytest.fixture
def storage(s3_server: S3Server) -> Storage:
    filesystem = fsspec.filesystem("s3", **s3_server.storage_options, skip_instance_cache=True)
    return Storage(filesystem, s3_server.place)


def make_item(directory: Path, size: int, **arguments: Any) -> UploadItem:
    source = directory / "000007.sst"
    source.write_bytes(os.urandom(size))
    return UploadItem(str(source), "folder/000007.sst", size, **arguments)


def send(storage: Storage, item: UploadItem, stop: threading.Event | None = None) -> int:
    return upload_files([item], storage, options=ONCE, stop=stop).crc32c[item.name]


def assert_sent(storage: Storage, item: UploadItem, crc: int) -> None:
    data = Path(item.source).read_bytes()
    assert crc == google_crc32c.value(data)
    assert storage.read(item.name) == data


def list_uploads(storage: Storage) -> list[Any]:
    """Multipart uploads that were begun and neither completed nor given up."""
    bucket = storage.root.partition("/")[0]
    try:
        uploads: list[Any] = storage.filesystem.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])
    except FileNotFoundError:  # how rclone's server says that there are none
        return []
    return uploads


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 10 * MIB - 1, 10 * MIB, 15 * MIB + 1])
def test_sizes(storage: Storage, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of every size come as they are: below two parts by one request, else in parts."""
    methods, call = [], type(storage.filesystem)._call_s3

    async def counted(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        methods.append(method)
        return await call(self, method, *arguments, **options)

    monkeypatch.setattr(type(storage.filesystem), "_call_s3", counted)
    item = make_item(tmp_path, size)
    crc = send(storage, item)
    monkeypatch.undo()
    expected = ["put_object"] if size < 10 * MIB else ["upload_part"] * -(-size // (5 * MIB))
    assert [method for method in methods if method in ("put_object", "upload_part")] == expected
    assert_sent(storage, item, crc)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Make a certificate for this machine; return it and its key."""
    directory = tmp_path_factory.mktemp("certificate")
    certificate, key = str(directory / "certificate.pem"), str(directory / "key.pem")
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([find_program("openssl"), *request, *names], check=True, capture_output=True)
    return certificate, key


def connect(port: int, certificate: str, **config: str) -> Storage:
    """Return a storage on a server with TLS."""
    client = {"region_name": "us-east-1", "verify": certificate}
    options = {"key": "who", "secret": "secret", "endpoint_url": f"https://127.0.0.1:{port}", "client_kwargs": client}
    return Storage(fsspec.filesystem("s3", **options, config_kwargs=config), "bucket/there")


@pytest.mark.parametrize("size", [MIB, 12 * MIB])
def test_encrypted(certificate: tuple[str, str], tmp_path: Path, size: int) -> None:
    """Over TLS, as a server gets it that takes no checksum behind a body: rclone's is one."""
    (tmp_path / "buckets" / "bucket").mkdir(parents=True)
    options = ("--auth-key", "who,secret", "--cert", certificate[0], "--key", certificate[1])
    with serve("s3", tmp_path / "buckets", *options) as port:
        storage = connect(port, certificate[0], request_checksum_calculation="when_required")
        item = make_item(tmp_path, size)
        assert_sent(storage, item, send(storage, item))


def test_checksum_behind_the_body(certificate: tuple[str, str], tmp_path: Path) -> None:
    """As Amazon gets it: the body in pieces of HTTP's, made of pieces of S3's, whose last line is a checksum."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            assert "Expect" not in self.headers
            assert self.headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
            pieces = []
            while length := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            got.append(b"".join(pieces))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        item = make_item(tmp_path, 3 * MIB + 1)
        crc = send(connect(http.server_address[1], certificate[0]), item)
        http.shutdown()
    stream, data = io.BytesIO(got[0]), b""
    while length := int(stream.readline(), 16):
        data += stream.read(length)
        stream.readline()
    assert data == Path(item.source).read_bytes()
    assert crc == google_crc32c.value(data)
    checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big"))
    assert stream.readline() == b"x-amz-checksum-crc32:" + checksum + b"\r\n"


@pytest.mark.parametrize("size", [MIB, 12 * MIB])
def test_other_content(storage: Storage, tmp_path: Path, size: int) -> None:
    """A file with another CRC32C than it must have makes no object, and leaves no upload."""
    with pytest.raises(CorruptionError, match="expected CRC32C 1, got"):
        send(storage, make_item(tmp_path, size, crc32c=1))
    assert storage.list("folder") == {}
    assert list_uploads(storage) == []


@pytest.mark.parametrize("change", [-1, 1])
def test_other_size(storage: Storage, tmp_path: Path, change: int) -> None:
    """A file that has another size than it must have is refused."""
    item = make_item(tmp_path, MIB)
    os.truncate(item.source, MIB + change)
    with pytest.raises(IncompleteError, match=f"expected {MIB} bytes, got {MIB + change}"):
        send(storage, item)
    assert storage.list("folder") == {}


def test_cut_meanwhile(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that gets shorter while it is read makes no object."""
    item, read = make_item(tmp_path, 12 * MIB), s3_upload._FileBody._read

    def cutting(body: Any, position: int, length: int) -> bytes:
        os.truncate(item.source, 11 * MIB)
        return read(body, position, length)

    monkeypatch.setattr(s3_upload._FileBody, "_read", cutting)
    with pytest.raises(IncompleteError, match="it was changed meanwhile"):
        send(storage, item)
    assert storage.list("folder") == {}
    assert list_uploads(storage) == []


@pytest.fixture
def stalled() -> Iterator[Storage]:
    """Yield a storage on a server that takes the beginning of the first request, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.listen()
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return
                taken[-1].recv(1000)

        threading.Thread(target=take, daemon=True).start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        login = {"key": "who", "secret": "secret", "client_kwargs": {"region_name": "us-east-1"}}
        yield Storage(fsspec.filesystem("s3", endpoint_url=endpoint, **login, skip_instance_cache=True), "bucket/there")
        listener.shutdown(socket.SHUT_RDWR)
        for end in taken:
            end.close()


SIZE_NO_BUFFER_TAKES = 64 * MIB


def test_server_takes_no_more(stalled: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops taking bytes is given up after some time, which no time-out of the driver sees."""
    monkeypatch.setattr(s3_upload, "_PART_BYTES", 2 * SIZE_NO_BUFFER_TAKES)
    monkeypatch.setattr(s3_upload, "SILENCE_SECONDS", 1)
    with pytest.raises(Exception, match="the server has taken nothing for 1 s"):
        send(stalled, make_item(tmp_path, SIZE_NO_BUFFER_TAKES))


def test_stopped(stalled: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that asks to stop does not wait for the request."""
    monkeypatch.setattr(s3_upload, "_PART_BYTES", 2 * SIZE_NO_BUFFER_TAKES)
    stop = threading.Event()
    timer = threading.Timer(1.0, stop.set)
    timer.start()
    with pytest.raises(CancelledError):
        send(stalled, make_item(tmp_path, SIZE_NO_BUFFER_TAKES), stop)
    timer.join()


def test_stream_stopped(stalled: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream does not wait for the parts that are on their way when the caller asks to stop."""
    monkeypatch.setattr(stalled.filesystem, "call_s3", lambda *_, **__: {"UploadId": "one"})
    stop = threading.Event()
    timer = threading.Timer(1.0, stop.set)
    size = 9000 * SIZE_NO_BUFFER_TAKES  # so that a part is as large
    timer.start()
    with (
        pytest.raises(CancelledError),
        stalled.open_writer("stream", size, check_stop=lambda: check_stop(stop)) as file,
    ):
        file.write(bytes(2 * SIZE_NO_BUFFER_TAKES))
    timer.join()


def write(storage: Storage, data: bytes, piece: int = 700_001) -> None:
    with storage.open_writer("stream", len(data)) as file:
        for start in range(0, len(data), piece):
            assert file.write(data[start : start + piece]) == len(data[start : start + piece])


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 50 * MIB + 7])
def test_streams(storage: Storage, size: int) -> None:
    """A stream comes as it was written: below a part by one request, else in parts of one size, which R2 requires."""
    data = os.urandom(size)
    write(storage, data)
    assert storage.read("stream") == data
    assert list_uploads(storage) == []


def test_parts_at_once(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a stream are sent at the same time, as many as memory is meant for, and no more."""
    under_way, most, lock, send = 0, 0, threading.Lock(), s3_upload._Upload.send

    def counted(self: Any, body: Any, **options: Any) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        send(self, body, **options)
        with lock:
            under_way -= 1

    monkeypatch.setattr(s3_upload._Upload, "send", counted)
    write(storage, bytes(80 * MIB), MIB)
    assert most == 3


def test_stream_breaks_off(storage: Storage) -> None:
    """A stream that its writer leaves by an error makes no object, and leaves no upload."""
    pieces: list[bytes] = []
    with pytest.raises(IndexError), storage.open_writer("stream", 50 * MIB) as file:
        file.write(bytes(20 * MIB) + pieces[file.write(bytes(9 * MIB))])
    assert storage.list("") == {}
    assert list_uploads(storage) == []


def test_part_fails(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that cannot be sent fails the stream, sooner or later, and leaves nothing."""
    request = s3_upload.request

    def failing(filesystem: Any, method: str, arguments: dict[str, Any], **options: Any) -> Any:
        if arguments.get("PartNumber") == 2:
            raise ConnectionError("broken")
        return request(filesystem, method, arguments, **options)

    monkeypatch.setattr(s3_upload, "request", failing)
    with pytest.raises(ConnectionError, match="broken"):
        write(storage, bytes(18 * MIB))
    monkeypatch.undo()
    assert storage.list("") == {}
    assert list_uploads(storage) == []


def test_limited(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate limit counts what is sent, once, in small pieces; not what is read before that for a checksum."""
    counted, throttle = [], Meter.throttle

    def count(meter: Meter, length: int) -> None:
        counted.append(length)
        throttle(meter, length)

    monkeypatch.setattr(Meter, "throttle", count)
    item = make_item(tmp_path, MIB)
    options = TransferOptions(attempts=1, max_bytes_per_second=500_000)
    assert_sent(storage, item, upload_files([item], storage, options=options).crc32c[item.name])
    assert sum(counted) == MIB
    assert max(counted) <= 125_000


def test_limited_to_little(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a rate limit lets nothing be sent for longer than a server may be silent is not the server's silence."""
    monkeypatch.setattr(s3_upload, "SILENCE_SECONDS", 0.5)
    item = make_item(tmp_path, 40_000)
    options = TransferOptions(attempts=1, max_bytes_per_second=12_000)
    assert_sent(storage, item, upload_files([item], storage, options=options).crc32c[item.name])
