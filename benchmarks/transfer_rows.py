"""Rows about moving backups: to a disk and to S3, the first, the second, and back."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.databases import checkpoint, make_database
from benchmarks.harness import OURS, Row, Sample, run
from benchmarks.latency_proxy import latency
from benchmarks.sizes import Bench
from benchmarks.storage import S3, count_server, rclone, restic, s3_server, s5cmd
from tests.programs import find_program

LOCAL = json.dumps({"protocol": "file"})
WORKERS = 4
LAYOUT = "backup_engine"
MILLISECONDS = 50


def local(bench: Bench) -> Iterator[Row]:
    """Yield a first backup to a disk beside ``ldb backup``, and its restore beside ``ldb restore``."""
    database, source, repository, restored = map(bench.place, ("db", "checkpoint", "repository", "restored"))
    stock, stock_source = bench.place("stock"), bench.place("stock-checkpoint")
    make_database(database, bench.sizes.local_files, bench.sizes.local_file_bytes)
    checkpoint(database, source)
    _link(source, stock_source)
    for workers in (1, 4):
        contenders = {
            OURS: _ours("upload", source, LOCAL, repository, LAYOUT, workers),
            "ldb backup": _ldb("backup", f"--db={stock_source}", f"--backup_dir={stock}", f"--num_threads={workers}"),
        }
        samples = bench.alternate(contenders, prepare=lambda: _remove(repository, stock))
        yield Row(f"first backup to a disk, {workers} at a time", samples, {"ldb backup": 1.0})
    _remove(repository, stock)
    _ours("upload", source, LOCAL, repository, LAYOUT, WORKERS)()
    _remove(database, source, stock_source)  # there is room for the data twice
    contenders = {
        OURS: _ours("restore", LOCAL, repository, restored, WORKERS),
        "ldb restore": _ldb("restore", f"--db={restored}", f"--backup_dir={repository}", f"--num_threads={WORKERS}"),
    }
    samples = bench.alternate(contenders, prepare=lambda: _remove(restored))
    yield Row("restore from a disk, CRC checked", samples, {"ldb restore": 1.0})
    _remove(restored)
    contenders = {
        OURS: _ours("verify", LOCAL, repository, WORKERS),
        "VerifyBackup": lambda: run([str(_verify_backup(bench)), str(repository), str(WORKERS)]),
    }
    yield Row("verify checksums on a disk", bench.alternate(contenders), {"VerifyBackup": 1.0})
    _remove(repository)


def s3(bench: Bench) -> Iterator[Row]:
    """Yield the first backup to S3 on loopback, its restore, and an archive."""
    source = _make_checkpoint(bench, bench.sizes.s3_files, bench.sizes.local_file_bytes)
    restored = bench.place("restored")
    yield _first(bench, source, "first backup to S3", milliseconds=0, put=True)
    with s3_server(bench.place("s3") / "buckets") as server:
        _empty(server.buckets)
        _ours("upload", source, server.options, "bucket/there", LAYOUT, WORKERS)()
        contenders = {
            OURS: _ours("restore", server.options, "bucket/there", restored, WORKERS),
            "rclone copy": _program(rclone("copy", "there:bucket/there", str(restored), WORKERS), server),
        }
        samples = bench.alternate(contenders, prepare=lambda: _remove(restored))
        yield Row("restore from S3, CRC checked", samples, {"rclone copy": 1.0})
        tar = f"tar -C {shlex.quote(str(source))} -c . | zstd -q -T0"
        rcat = f"{tar} | {find_program('rclone')} rcat there:bucket/a.tar.zst"
        contenders = {
            OURS: _ours("upload", source, server.options, "bucket/a.tar.zst", "archive", WORKERS),
            "tar, zstd -T0, rclone rcat": _program(["bash", "-o", "pipefail", "-c", rcat], server),
        }
        contenders = {name: count_server(contender) for name, contender in contenders.items()}
        samples = bench.alternate(contenders, prepare=lambda: _empty(server.buckets))
        yield Row("archive .tar.zst to S3", samples, {"tar, zstd -T0, rclone rcat": 1.0})
    _remove(bench.place("s3"), source, restored)


def far(bench: Bench) -> Iterator[Row]:
    """Yield first backups to S3 through 50 ms of latency: many small files, and few large ones."""
    sizes = bench.sizes
    for count, file_bytes in ((sizes.small_files, sizes.small_file_bytes), (sizes.large_files, sizes.large_file_bytes)):
        source = _make_checkpoint(bench, count, file_bytes)
        what = f"first backup to S3, {MILLISECONDS} ms away, {count:,} files of {file_bytes / 1e6:g} MB"
        yield _first(bench, source, what, milliseconds=MILLISECONDS, put=False)
        _remove(bench.place("s3"), source)


def second(bench: Bench) -> Iterator[Row]:
    """Yield second backups: with nothing new to a disk and to S3 50 ms away, and with 1 % new."""
    sizes, database = bench.sizes, bench.place("db")
    count = sizes.unchanged_files
    make_database(database, count, sizes.small_file_bytes)
    first, then = (checkpoint(database, bench.place(f"checkpoint-{number}")) for number in range(2))
    yield _second_local(bench, first, then)
    _remove(database, first, then)
    count = sizes.small_files  # rclone asks for each by a request of its own
    make_database(database, count, sizes.small_file_bytes)
    first, then = (checkpoint(database, bench.place(f"checkpoint-{number}")) for number in range(2))
    yield _second_far(bench, first, then, f"{count:,} files, nothing new")
    _remove(database, first, then)
    count, new = sizes.grown_files, max(1, sizes.grown_files // 100)
    make_database(database, count, sizes.grown_file_bytes)
    first = checkpoint(database, bench.place("checkpoint-0"))
    make_database(database, new, sizes.grown_file_bytes, first=count)
    then = checkpoint(database, bench.place("checkpoint-1"))
    yield _second_far(bench, first, then, f"{count + new:,} files, {new * sizes.grown_file_bytes / 1e6:g} MB new")
    _remove(database, first, then)


def _second_local(bench: Bench, first: Path, then: Path) -> Row:
    repository, stock = bench.place("repository"), bench.place("stock")
    first_stock, then_stock = _link(first, bench.place("stock-1")), _link(then, bench.place("stock-2"))

    def ours(source: Path) -> Callable[[], Sample]:
        return _ours("upload", source, LOCAL, repository, LAYOUT, WORKERS)

    def theirs(source: Path) -> Callable[[], Sample]:
        return _ldb("backup", f"--db={source}", f"--backup_dir={stock}", f"--num_threads={WORKERS}")

    ours(first)()
    theirs(first_stock)()
    prepare = _keep(repository, stock)
    contenders = {OURS: ours(then), "ldb backup": theirs(then_stock)}
    samples = bench.alternate(contenders, prepare=prepare)
    _remove(repository, stock, first_stock, then_stock, *map(_kept, (repository, stock)))
    title = f"second backup to a disk, {bench.sizes.unchanged_files:,} files, nothing new"
    return Row(title, samples, {"ldb backup": 1.0})


def _second_far(bench: Bench, first: Path, then: Path, what: str) -> Row:
    buckets, cache, current = bench.place("s3") / "buckets", bench.place("restic-cache"), bench.place("current")
    bucket = buckets / "bucket"

    def with_restic(source: Path, env: Mapping[str, str]) -> Sample:
        os.rename(source, current)  # by its path restic knows that it has seen a directory
        try:
            return run(restic("backup", "--ignore-ctime", str(current), cache=cache, workers=WORKERS), env=env)
        finally:
            os.rename(current, source)

    def far(work: Callable[[S3], Sample]) -> Callable[[], Sample]:
        def measure() -> Sample:
            with _new_server(buckets, MILLISECONDS) as server:
                return work(server)

        return measure

    bucket.mkdir(parents=True)  # what is there first gets there without a server
    _ours("upload", first, LOCAL, bucket / "ours", LAYOUT, WORKERS)()
    run(["cp", "-r", "--preserve=timestamps", str(first), str(bucket / "rclone")])
    at_home = {**S3(0, buckets).env, "RESTIC_REPOSITORY": str(bucket / "restic")}
    run(restic("init", cache=cache, workers=WORKERS), env=at_home)
    with_restic(first, at_home)
    copy = rclone("copy", str(then), "there:bucket/rclone", WORKERS)
    contenders = {
        OURS: far(lambda server: _ours("upload", then, server.options, "bucket/ours", LAYOUT, WORKERS)()),
        "rclone copy": far(lambda server: _program(copy, server)()),
        "restic backup": far(lambda server: with_restic(then, server.env)),
    }
    samples = bench.alternate(contenders, prepare=_keep(bucket, cache))
    _remove(bench.place("s3"), cache, _kept(cache))
    return Row(f"second backup to S3, {MILLISECONDS} ms away, {what}", samples, {"rclone copy": 1.0})


def _keep(*directories: Path) -> Callable[[], None]:
    """Remember what directories hold; return a function that puts it back."""
    for directory in directories:
        _link(directory, _kept(directory))

    def put_back() -> None:
        for directory in directories:
            _remove(directory)
            _link(_kept(directory), directory)

    return put_back


def _kept(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.kept")


def _first(bench: Bench, source: Path, what: str, *, milliseconds: int, put: bool) -> Row:
    buckets = bench.place("s3") / "buckets"

    def on_server(work: Callable[[S3], Callable[[], Sample]]) -> Callable[[], Sample]:
        def measure() -> Sample:
            with _new_server(buckets, milliseconds) as server:
                return count_server(work(server))()

        return measure

    def put_by_s3fs(server: S3) -> Callable[[], Sample]:
        command = [sys.executable, "-m", "benchmarks.theirs", "put", str(source), server.options, "bucket/there"]
        return lambda: run(command)

    contenders = {
        OURS: on_server(lambda server: _ours("upload", source, server.options, "bucket/there", LAYOUT, WORKERS)),
        "rclone copy": on_server(
            lambda server: _program(rclone("copy", str(source), "there:bucket/there", WORKERS), server)
        ),
        "s5cmd cp": on_server(lambda server: _program(s5cmd(f"{source}/", "s3://bucket/there/", WORKERS), server)),
    }
    targets = {"rclone copy": 1.0, "s5cmd cp": 1.0}
    if put:
        contenders["s3fs put"] = on_server(put_by_s3fs)
        targets["s3fs put"] = 1.9
    return Row(what, bench.alternate(contenders, prepare=lambda: _empty(buckets)), targets)


@contextlib.contextmanager
def _new_server(buckets: Path, milliseconds: int) -> Iterator[S3]:
    """Run a server, so far away, that has seen nothing yet: it remembers what it lists."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(s3_server(buckets, "--dir-cache-time", "1h"))
        if milliseconds:
            server = S3(stack.enter_context(latency(server.port, milliseconds)), buckets)
        yield server


def _make_checkpoint(bench: Bench, count: int, file_bytes: int) -> Path:
    database, made = bench.place("db"), bench.place("checkpoint")
    make_database(database, count, file_bytes)
    checkpoint(database, made)
    shutil.rmtree(database)
    return made


def _ours(verb: str, *arguments: object) -> Callable[[], Sample]:
    command = [sys.executable, "-m", "benchmarks.ours", verb, *map(str, arguments)]
    return lambda: run(command)


def _ldb(verb: str, *arguments: str) -> Callable[[], Sample]:
    return lambda: run([find_program("ldb"), verb, *arguments, "--ignore_unknown_options"])


def _program(command: list[str], server: S3) -> Callable[[], Sample]:
    return lambda: run(command, env=server.env)


def _link(source: Path, target: Path) -> Path:
    """Make a copy for ldb, which opens what it backs up; the SST files are hard links."""
    run(["cp", "-r", "--link", str(source), str(target)])
    return target


def _verify_backup(bench: Bench) -> Path:
    """Compile stock RocksDB's verification (Debian: ``g++ librocksdb-dev``) once."""
    program = bench.place("verify_backup")
    if not program.exists():
        source = Path(__file__).with_name("verify_backup.cc")
        run(["g++", "-O2", "-std=c++17", "-o", str(program), str(source), "-lrocksdb"])
    return program


def _empty(buckets: Path) -> None:
    _remove(buckets / "bucket")
    (buckets / "bucket").mkdir(parents=True)


def _remove(*directories: Path) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
