"""Archives that are damaged or were made to harm: only this package's errors, nothing outside what a checkpoint has."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_rocksdb.core import archive_layout
from airflow_provider_rocksdb.core.archive_layout import (
    BLOCK_BYTES,
    LIST_NAME,
    ArchiveFile,
    ArchiveRecord,
    compression_of,
    decode_header,
    decode_record,
    encode_end,
    encode_header,
    is_member_name,
    max_record_bytes,
    padding,
    stream_bytes,
)
from airflow_provider_rocksdb.core.archive_reader import check_archive, extract_archive
from airflow_provider_rocksdb.core.compression import decompress, open_compressor
from airflow_provider_rocksdb.core.errors import CorruptionError, NoSpaceError

SST, CURRENT = ("000001.sst", b"s" * 700), ("CURRENT", b"MANIFEST-000002\n")
Members = Sequence[tuple[str | bytes, bytes]]


def list_of(members: Members, **changes: Any) -> bytes:
    files = tuple(ArchiveFile(str(name), len(data), crc32c(data)) for name, data in members)
    values = json.loads(ArchiveRecord("1.0", "id", 7, files).encode())
    return json.dumps({**values, **changes}).encode()


def member(name: str | bytes, data: bytes) -> bytes:
    """Make a member; a name that is bytes is a header already."""
    header = encode_header(name, len(data), 1) if isinstance(name, str) else name
    return header + data + bytes(padding(len(data)))


def stream(members: Members, listed: Members | None = None) -> bytes:
    """Tar stream of members and of the list that belongs to them, or to others."""
    body = b"".join(member(*item) for item in members)
    body += member(LIST_NAME, list_of(members if listed is None else listed))
    return body + encode_end(len(body))


def typed(kind: bytes, name: str = "000001.sst", **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, setting in fields.items():
        setattr(info, field, setting)
    return info.tobuf(tarfile.GNU_FORMAT)[-BLOCK_BYTES:]


class Store(MemoryFileSystem):
    """One archive in memory, and what was taken out of it."""

    cachable = False

    def __init__(self, data: bytes, ending: str = ".tar") -> None:
        super().__init__(global_store=False)
        self.name = f"/x{ending}"
        self.pipe_file(self.name, data)
        self.taken: dict[str, bytes] = {}

    def extract(self, **limits: Any) -> Any:
        @contextlib.contextmanager
        def take(name: str, size: int) -> Iterator[io.BytesIO]:
            file = io.BytesIO()
            yield file
            assert name not in self.taken
            self.taken[name] = file.getvalue()
            assert len(self.taken[name]) == size

        return extract_archive(self, self.name, take, **limits)


def refusal(data: bytes, ending: str = ".tar", **limits: Any) -> tuple[str, set[str]]:
    """Message of the CorruptionError that an archive makes, and the files that were whole before."""
    store = Store(data, ending)
    with pytest.raises(CorruptionError) as caught:
        store.extract(**limits)
    assert str(caught.value).startswith(f"memory:///x{ending}: ")
    return str(caught.value), set(store.taken)


def test_helper_makes_good_archives() -> None:
    """What the tests below change is read without an error when it is not changed."""
    store = Store(stream([SST, CURRENT]))
    result = store.extract()
    assert store.taken == dict([SST, CURRENT])
    assert (result.db_id, result.sequence_number, result.file_count, result.total_bytes) == ("id", 7, 2, 716)


@pytest.mark.parametrize(
    "header",
    [
        typed(tarfile.SYMTYPE, linkname="/etc/passwd"),
        typed(tarfile.LNKTYPE, linkname="../CURRENT"),
        typed(tarfile.CHRTYPE, devmajor=1, devminor=3),
        typed(tarfile.BLKTYPE, devmajor=8),
        typed(tarfile.FIFOTYPE),
        typed(tarfile.DIRTYPE),
        typed(tarfile.AREGTYPE, name="000001.sst/"),
        typed(tarfile.CONTTYPE),
        typed(tarfile.GNUTYPE_SPARSE),
        typed(tarfile.GNUTYPE_LONGNAME, name="././@LongLink"),
        typed(tarfile.GNUTYPE_LONGLINK, name="././@LongLink"),
        typed(tarfile.XHDTYPE, name="PaxHeaders/x", size=1 << 40),
        typed(tarfile.XGLTYPE, name="pax_global_header", size=1 << 40),
        typed(b"V"),
        typed(b"\xff"),
    ],
)
def test_types(header: bytes) -> None:
    """Links, devices, FIFOs, directories, sparse files and long names are refused before any content."""
    message, taken = refusal(stream([CURRENT, (header, b"")]))
    name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
    assert f"{name!r} has type" in message
    assert taken == {"CURRENT"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "/000001.sst",
        "/etc/passwd",
        "../000001.sst",
        "./000001.sst",
        "a/000001.sst",
        "a/../000001.sst",
        "..\\000001.sst",
        "C:000001.sst",
        "000001.sst\n",
        " 000001.sst",
        "000001.SST",
        "\u0660\u0661.sst",
        "99999999999999999999.sst",
        "LOCK",
        "LOG",
        "LOG.old.1",
        "000001.dbtmp",
        "METADB-000001",
        "checkpoint.json.tmp",
        "checkpoint-files.json2",
        "script.sh",
        "authorized_keys",
        "a" * 100,
    ],
)
def test_names(name: str) -> None:
    """A name that no file of a checkpoint has is refused, and named in the error."""
    message, taken = refusal(stream([CURRENT, (name, b"x")]))
    assert f"{name!r} is no file of a checkpoint" in message
    assert taken == {"CURRENT"}


def test_name_in_two_fields() -> None:
    """A directory in a POSIX header's prefix field counts as part of the name."""
    info = tarfile.TarInfo(f"{'a' * 90}/{'b' * 60}/000001.sst")
    message, _ = refusal(stream([(info.tobuf(tarfile.USTAR_FORMAT), b"")]))
    assert f"{'b' * 60}/000001.sst' is no file" in message


def test_name_that_is_not_utf8() -> None:
    """A name that is not UTF-8 is refused, and the error can be printed."""
    header = typed(tarfile.REGTYPE, name="x\udcff")
    message, _ = refusal(stream([(header, b"")]))
    assert message.encode()


def changed(offset: int, data: bytes) -> bytes:
    """Header with some bytes changed and a checksum that fits."""
    block = bytearray(encode_header("000001.sst", 700, 1))
    block[offset : offset + len(data)] = data
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return bytes(block)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (changed(124, b"\xff" * 12), "has -1 bytes"),
        (changed(124, b"\x80" + b"\x7f" * 11), "the archive is cut"),
        (changed(124, b"notoctal\0\0\0\0"), "not a tar header"),
        (changed(0, b"CURRENT\0"), "'CURRENT' is there twice"),
        (encode_header("000001.sst", 700, 1)[:-1] + b"x", "bad checksum"),
        (b"x" * BLOCK_BYTES, "not a tar header"),
    ],
)
def test_headers(header: bytes, message: str) -> None:
    """A header that lies about its size, repeats a name or is no header is refused."""
    assert message in refusal(stream([CURRENT, (header, b"s" * 700)]))[0]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([SST], "'CURRENT is there, and is not listed"),
        ([SST, CURRENT, ("000003.sst", b"")], "'000003.sst' is listed, and is not there"),
        ([SST, SST, CURRENT], "3 files are listed, 2 are there"),
        ([("000001.sst", b"s" * 701), CURRENT], "000001.sst: expected 701 bytes"),
        ([("000001.sst", b"t" * 700), CURRENT], "000001.sst: expected 700 bytes with CRC32C"),
        ([], "000001.sst is there, and is not listed; CURRENT is there"),
    ],
)
def test_lists(listed: Members, message: str) -> None:
    """What is not listed with its size and checksum, and what is listed and not there, is corrupt."""
    assert message.strip("'") in refusal(stream([SST, CURRENT], listed))[0].replace("'CURRENT", "CURRENT")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 50_000,
        b'{"format": ' + b"9" * 5000 + b"}",
        list_of([SST, CURRENT], format=2),
        list_of([SST, CURRENT], files=None),
        list_of([SST, CURRENT], files=[1]),
        list_of([SST, CURRENT], files=[{"name": "CURRENT"}]),
        list_of([SST, CURRENT], files=[{"name": 1, "size": 1, "crc32c": 1}]),
        list_of([SST, CURRENT], files=[{"name": "CURRENT", "size": -1, "crc32c": 1}]),
        list_of([SST, CURRENT], files=[{"name": "CURRENT", "size": True, "crc32c": 1}]),
        list_of([SST, CURRENT], files=[{"name": "CURRENT", "size": 1.0, "crc32c": 1}]),
        list_of([SST, CURRENT], db_id=None),
        list_of([SST, CURRENT], sequence_number="7"),
        list_of([SST, CURRENT], more=1),
    ],
)
def test_what_is_no_list(data: bytes) -> None:
    """A list that is no list of ours is corrupt."""
    body = member(*SST) + member(*CURRENT) + member(LIST_NAME, data)
    assert f"{LIST_NAME}: not a list" in refusal(body + encode_end(len(body)))[0]


def test_place_of_the_list() -> None:
    """The list is the last member and there once; an archive without it is cut or another's."""
    whole, end = member(*CURRENT) + member(LIST_NAME, list_of([CURRENT])), encode_end(0)
    assert "must be the last" in refusal(whole + member(*SST) + end)[0]
    assert "must be the last" in refusal(whole + member(LIST_NAME, list_of([CURRENT])) + end)[0]
    assert f"has no {LIST_NAME}" in refusal(member(*CURRENT) + end)[0]
    assert f"has no {LIST_NAME}" in refusal(end)[0]
    assert "the archive is cut" in refusal(b"")[0]
    assert "is listed, and is not there" in refusal(member(LIST_NAME, list_of([CURRENT])) + end)[0]


def test_end() -> None:
    """After the list come zeros in whole blocks, two at least and not without end; anything else is corrupt."""
    whole = member(*CURRENT) + member(LIST_NAME, list_of([CURRENT]))
    for zeros in (2 * BLOCK_BYTES, 20 * BLOCK_BYTES):
        Store(whole + bytes(zeros)).extract()
    for end in (b"", bytes(BLOCK_BYTES), bytes(1023), bytes(1025), bytes(2048) + b"x", bytes(1 << 21)):
        refusal(whole + end)
    assert "up to the next block" in refusal(whole[:BLOCK_BYTES] + b"MANIFEST-000002\nx" + bytes(495) + whole[1024:])[0]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.zst"])
def test_cut_at_every_byte(ending: str) -> None:
    """An archive that is cut anywhere is corrupt."""
    data = pack(stream([SST, CURRENT]), ending)
    last = (
        len(data) if ending != ".tar" else data.rindex(b"}") + 1
    )  # of a plain one, some zeros at the end may be missing
    for length in range(0, last, 1 if ending != ".tar" else 7):
        refusal(data[:length], ending)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.zst"])
def test_followed(ending: str) -> None:
    """Anything after the end is corrupt, a second stream with zeros in it too."""
    data = pack(stream([SST, CURRENT]), ending)
    for more in (b"x", data, pack(stream([SST, CURRENT]), ".tar.gz"), *([] if ending == ".tar" else [b"\0"])):
        message, _ = refusal(data + more, ending)
        assert "something follows" in message or "whole blocks" in message


def pack(data: bytes, ending: str) -> bytes:
    compression = compression_of(f"x{ending}")
    assert compression is not None
    compressor = open_compressor(compression)
    return compressor.compress(data) + compressor.flush()


def test_other_programs_streams() -> None:
    """A stream that the programs' own libraries compressed is read as well."""
    data = stream([SST, CURRENT])
    for ending, packed in ((".tar.gz", gzip.compress(data)), (".tar.zst", zstd.compress(data))):
        assert Store(packed, ending).extract().file_count == 2


def test_wrong_ending() -> None:
    """A stream that is not what the name says is corrupt."""
    packed = {ending: pack(stream([SST, CURRENT]), ending) for ending in (".tar", ".tar.gz", ".tar.zst")}
    for ending in packed:
        for other, data in packed.items():
            if other != ending:
                refusal(data, ending)


def test_limit() -> None:
    """Files larger together than allowed are refused by what their headers declare, before anything is written."""
    store = Store(stream([SST, CURRENT]))
    with pytest.raises(NoSpaceError, match="'CURRENT' have 716 bytes, 715 are allowed"):
        store.extract(max_total_bytes=715)
    assert set(store.taken) == {"000001.sst"}
    assert Store(stream([SST, CURRENT])).extract(max_total_bytes=716).total_bytes == 716
    huge = Store(encode_header("000001.sst", 1 << 60, 1))
    with pytest.raises(NoSpaceError, match=f"{1 << 60} bytes"):
        huge.extract(max_total_bytes=1 << 30)
    assert huge.taken == {}


def bomb(ending: str, head: bytes, zeros: int) -> bytes:
    """Compress a header and very many zeros."""
    compression = compression_of(f"x{ending}")
    assert compression is not None
    compressor = open_compressor(compression)
    parts = [compressor.compress(head)]
    parts += [compressor.compress(bytes(1 << 20)) for _ in range(zeros >> 20)]
    return b"".join([*parts, compressor.flush()])


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.zst"])
@pytest.mark.parametrize(
    ("head", "message"),
    [
        (encode_header("000001.sst", 1 << 40, 1), "the archive is cut"),
        (encode_header(LIST_NAME, 1 << 40, 1), f"{LIST_NAME} has {1 << 40} bytes, for 0 files"),
        (typed(tarfile.XHDTYPE, name="x", size=1 << 40), "has type"),
        (b"", f"has no {LIST_NAME}"),
        (member(LIST_NAME, list_of([])), "must be the last"),
    ],
)
def test_bombs(ending: str, head: bytes, message: str) -> None:
    """128 MiB of zeros in a small file cost a few MiB of memory, wherever they are put."""
    store = Store(bomb(ending, head, 128 << 20), ending)
    assert store.size(store.name) < 1 << 18
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match=message):
            check_archive(store, store.name)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_zstd_window() -> None:
    """A frame that asks for a window of 2 GiB is refused, not given it."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + b"\x01\x00\x00"
    assert "damaged" in refusal(frame, ".tar.zst")[0]


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than any checkpoint has end the reading."""
    monkeypatch.setattr(archive_layout, "MAX_MEMBERS", 100)
    members = [(f"{number:06d}.sst", b"") for number in range(101)]
    assert "more than 100 files" in refusal(stream(members))[0]
    assert Store(stream(members[:100])).extract().file_count == 100


def test_targets_own_errors() -> None:
    """An error of the target goes through as it is, and its block ends with it; so does damage in the middle."""
    seen = []

    class Full(contextlib.AbstractContextManager["Full"]):
        def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
            seen.append(kind)

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    store = Store(stream([SST, CURRENT]))
    with pytest.raises(OSError, match="No space left") as caught:
        extract_archive(store, store.name, lambda name, size: Full())
    assert (type(caught.value), seen) == (OSError, [OSError])


def test_target_that_takes_little() -> None:
    """A target that takes less than it is given at a time gets everything all the same."""
    got = bytearray()

    class Slow(contextlib.AbstractContextManager["Slow"]):
        def __exit__(self, *_: object) -> None:
            pass

        def write(self, data: bytes) -> int:
            got.extend(data[:100])
            return min(100, len(data))

    store = Store(stream([SST, CURRENT]))
    extract_archive(store, store.name, lambda name, size: Slow())
    assert bytes(got) == SST[1] + CURRENT[1]


ARCHIVES = {ending: pack(stream([SST, CURRENT]), ending) for ending in (".tar", ".tar.gz", ".tar.zst")}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage(data: st.DataObject) -> None:
    """Flipped, cut, doubled and swapped bytes: a CorruptionError, or every file as it was; never another error."""
    ending = data.draw(st.sampled_from(sorted(ARCHIVES)))
    damaged = bytearray(ARCHIVES[ending])
    places = st.integers(0, len(damaged) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        start, end = sorted((data.draw(places), data.draw(places)))
        match data.draw(st.sampled_from(["flip", "flip", "cut", "drop", "insert"])):
            case "flip" if start < len(damaged):
                damaged[start] ^= data.draw(st.integers(1, 255))
            case "cut":
                del damaged[start:]
            case "drop":
                del damaged[start:end]
            case "insert":
                damaged[start:start] = data.draw(st.binary(max_size=600))
    store = Store(bytes(damaged), ending)
    try:
        store.extract(max_total_bytes=1 << 20)
    except (CorruptionError, NoSpaceError):
        assert all(is_member_name(name) for name in store.taken)
    else:
        assert store.taken == dict([SST, CURRENT])


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=BLOCK_BYTES, max_size=BLOCK_BYTES))
def test_any_header(block: bytes) -> None:
    """Whatever a header's bytes are, with a checksum that fits: a plain file with a good name, or a CorruptionError."""
    sound = block[:148] + b"%06o\0 " % tarfile.calc_chksums(block)[0] + block[156:]
    for header in (block, sound):
        with contextlib.suppress(CorruptionError):
            decode_header(header, "x")


@given(
    st.sampled_from(["000001.sst", "CURRENT", "checkpoint.json", LIST_NAME]),
    st.integers(0, 2**87),
    st.integers(0, 2**40),
)
def test_header_round_trip(name: str, size: int, mtime: int) -> None:
    """A header is read back as it was made, also of more than 8 GiB; tar's own reader agrees."""
    block = encode_header(name, size, mtime)
    assert len(block) == BLOCK_BYTES
    assert decode_header(block, "x") == (name, size)
    info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    assert (info.name, info.size, info.mtime, info.mode, info.uid, info.uname) == (name, size, mtime, 0o600, 0, "")


@given(
    st.lists(
        st.builds(
            ArchiveFile,
            st.from_regex(r"[0-9]{6,20}\.sst", fullmatch=True),
            st.integers(0, 2**63),
            st.integers(0, 2**32 - 1),
        )
    )
)
def test_record_round_trip(files: list[ArchiveFile]) -> None:
    """A list is read back as it was made, and is never larger than it may be."""
    record = ArchiveRecord("1.0", "id", 7, tuple(files))
    assert decode_record(record.encode(), "x") == record
    assert len(record.encode()) <= max_record_bytes(len(files))


@given(st.lists(st.integers(0, 5000), max_size=5))
def test_stream_length(sizes: list[int]) -> None:
    """The length that is told to a storage beforehand is the stream's."""
    members = [(f"{number:06d}.sst", bytes(size)) for number, size in enumerate(sizes)]
    assert stream_bytes(sizes, len(list_of(members))) == len(stream(members))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=3000), piece=st.integers(1, 700))
def test_compression_round_trip(compression: Any, content: bytes, piece: int) -> None:
    """Whatever the pieces in which it comes, what was compressed comes out again."""
    compressor = open_compressor(compression)
    packed = compressor.compress(content) + compressor.flush()
    pieces = (packed[start : start + piece] for start in range(0, len(packed), piece))
    assert b"".join(decompress(pieces, compression, "x")) == content


def test_large_pieces() -> None:
    """What is decompressed comes in pieces of a MiB, however little they were made of."""
    for compression in ("gzip", "zstd"):
        packed = bomb({"gzip": ".tar.gz", "zstd": ".tar.zst"}[compression], b"", 16 << 20)
        sizes = [len(piece) for piece in decompress([packed], compression, "x")]  # type: ignore[arg-type]
        assert sum(sizes) == 16 << 20
        assert max(sizes) <= 1 << 20


def test_nothing_is_written_for_a_check(tmp_path: Path) -> None:
    """A check leaves the folder as it was."""
    (tmp_path / "x.tar").write_bytes(ARCHIVES[".tar"])
    assert check_archive(LocalFileSystem(), str(tmp_path / "x.tar")).total_bytes == 716
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]
