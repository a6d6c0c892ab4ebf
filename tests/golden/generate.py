"""Make golden databases: ``python tests/golden/generate.py WORK_DIR [NAME]...``; without names, those missing.

Each is written by a real program of another RocksDB (or LevelDB) and copied while that program has it open, as if the
process had died: ``<name>.tar.xz``. Beside it lies ``<name>.json``: what the program itself, its LOG and Debian's
``ldb`` 7.8 (package rocksdb-tools 7.8.3-2) say of it. WORK_DIR keeps the programs, which come from PyPI and npm:

=====================  ==============================================  =========  =================================
program                package                                         RocksDB    how
=====================  ==============================================  =========  =================================
faust-6.14             PyPI faust-streaming-rocksdb 0.9.3              6.14.6     Cython; its library through the C API
jni-6.20, jni-9.8      the jars in PyPI pyspark 3.2.4 and 4.3.0        6.20.3,    Java; their library through the C API
                                                                       9.8.4
aimrocks-6.29          PyPI aimrocks 0.5.2                             6.29.5     Cython; its library through the C API
rdbpython-6.29         PyPI rdbpython 0.2.7                            6.29.5     Cython
debian-7.8             Debian librocksdb7.8 7.8.3-2                    7.8.3      C API
rocksdict-…            PyPI rocksdict 0.3.2, 0.3.10, 0.3.16, 0.3.23,   7.4.4 to   Rust
                       0.3.29                                          9.8.4
rocksdbpy-9.9          PyPI rocksdb-py 0.0.6                           9.9.3      Rust
pyrex-10.7             PyPI pyrex-rocksdb 0.6.0                        10.7.5     C++ (pybind11)
amulet-11.1            PyPI amulet-rocksdb 1.0.6                       11.1.2     C++ (pybind11)
npm-rocksdb-6.17       npm rocksdb 5.2.1                               6.17.3     Node
npm-nxtedition-9.7     npm @nxtedition/rocksdb 12.2.12                 9.7.4      Node
npm-native-10.5        npm rocksdb-native 3.18.1                       10.5.1     Node
leveldb                npm classic-level 1.4.1                         (LevelDB)  Node
=====================  ==============================================  =========  =================================

They run on CPython 3.11 and x86-64 (manylinux), Node 20, a JDK of 11 or later.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent
WRITERS = PLACE / "writers"
LEFT_OUT = re.compile(r"LOG(\.old.*)?|LOCK")

Told = dict[str, Any]
Writer = Callable[[Path, Path], Told]


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, **environment}, check=True, timeout=600)
    return done.stdout.decode()


def pip(command: str, *arguments: str) -> None:
    run(sys.executable, "-m", "pip", command, "-q", "--no-deps", *arguments)


def pypi(work: Path, package: str) -> Path:
    """Install a package, without what it depends on."""
    place = work / package
    if not place.exists():
        pip("install", "--only-binary=:all:", f"--target={place}", package)
    return place


def npm(work: Path, package: str) -> Path:
    place = work / package.replace("/", "+")
    if not place.exists():
        place.mkdir()
        run("npm", "install", "--silent", "--ignore-scripts", "--no-audit", f"--prefix={place}", package)
    return place / "node_modules"


def rocksdb_jar(work: Path, pyspark: str) -> Path:
    """Take RocksDB's jar out of the source archive of a pyspark."""
    if not list(work.glob(f"{pyspark}/rocksdbjni-*.jar")):
        (work / pyspark).mkdir(exist_ok=True)
        pip("download", "--no-binary=:all:", f"--dest={work / pyspark}", pyspark)
        (archive,) = (work / pyspark).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            (member,) = (m for m in tar if "/rocksdbjni-" in m.name)
            (work / pyspark / Path(member.name).name).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
        archive.unlink()
    return next(work.glob(f"{pyspark}/rocksdbjni-*.jar"))


def c_api(find: Callable[[Path], Path], scenario: str) -> Writer:
    """C: one of the scenarios of ``writers/c_api.py``, by the shared library that ``find`` finds."""

    def write(work: Path, place: Path) -> Told:
        library = find(work)
        path = f"{library.parent}:{library.parent.parent / (library.parent.name + '.libs')}"
        told = run(sys.executable, WRITERS / "c_api.py", library, scenario, place, LD_LIBRARY_PATH=path)
        return dict(json.loads(told))

    return write


def library_of(package: str, pattern: str) -> Callable[[Path], Path]:
    return lambda work: next(pypi(work, package).glob(pattern))


def library_of_jar(pyspark: str) -> Callable[[Path], Path]:
    def find(work: Path) -> Path:
        place = work / pyspark
        shutil.unpack_archive(rocksdb_jar(work, pyspark), place, "zip")
        return place / "librocksdbjni-linux64.so"

    return find


def python(package: str, module: str) -> Writer:
    """Cython, Rust, C++: a Python package's own interface."""

    def write(work: Path, place: Path) -> Told:
        told = run(sys.executable, WRITERS / "bindings.py", module, place, PYTHONPATH=str(pypi(work, package)))
        return dict(json.loads(told))

    return write


def node(package: str) -> Writer:
    """JavaScript: an npm package's own interface."""

    def write(work: Path, place: Path) -> Told:
        name = package.rpartition("@")[0]
        command = f"NODE_PATH={npm(work, package)} node {WRITERS / 'node.js'} {name} {place}; test $? = 137"
        return dict(json.loads(run("sh", "-c", command)))

    return write


def java(pyspark: str) -> Writer:
    """Java: RocksDB's own interface; atomic flushes, a recycled WAL, a name that is not UTF-8."""

    def write(work: Path, place: Path) -> Told:
        told = run("java", "-cp", rocksdb_jar(work, pyspark), WRITERS / "Golden.java", place)
        return dict(json.loads(told))

    return write


def upgraded(work: Path, place: Path) -> Told:
    """LevelDB, then C: what ``leveldb`` has written, opened by RocksDB (Debian's asserts against that)."""
    with tempfile.TemporaryDirectory() as other:
        node("classic-level@1.4.1")(work, Path(other))
        shutil.copytree(Path(other, "db"), place / "work" / "db")
    return c_api(AIMROCKS, "upgraded")(work, place)


def DEBIAN(_: Path) -> Path:  # noqa: N802 -- reads as the constants beside it
    return Path("/usr/lib/x86_64-linux-gnu/librocksdb.so.7.8")


FAUST = library_of("faust-streaming-rocksdb==0.9.3", "*.libs/librocksdb-*")
AIMROCKS = library_of("aimrocks==0.5.2", "aimrocks/librocksdb.so")
JNI_6_20 = library_of_jar("pyspark==3.2.4")
JNI_9_8 = library_of_jar("pyspark==4.3.0")

PROGRAMS: dict[str, Writer] = {
    **{
        f"faust-6.14-{scenario}": c_api(FAUST, scenario)
        for scenario in ("many_edits", "blobs", "recycled_wal", "atomic_flush", "two_paths", "ingested")
    },
    "faust-6.14": python("faust-streaming-rocksdb==0.9.3", "faust"),
    "npm-rocksdb-6.17": node("rocksdb@5.2.1"),
    "jni-6.20": java("pyspark==3.2.4"),
    "jni-6.20-rolled": c_api(JNI_6_20, "rolled"),
    "jni-6.20-blobs": c_api(JNI_6_20, "blobs"),
    "aimrocks-6.29": python("aimrocks==0.5.2", "aimrocks"),
    "rdbpython-6.29": python("rdbpython==0.2.7", "rdbpy"),
    **{
        f"aimrocks-6.29-{scenario}": c_api(AIMROCKS, scenario)
        for scenario in ("many_edits", "blobs", "tracked_wals", "big_records")
    },
    "rocksdict-7.4": python("rocksdict==0.3.2", "rocksdict"),
    "leveldb": node("classic-level@1.4.1"),
    "aimrocks-6.29-upgraded": upgraded,
    **{
        f"debian-7.8-{scenario}": c_api(DEBIAN, scenario)
        for scenario in (
            "many_edits",
            "blobs",
            "atomic_flush",
            "compressed_wal",
            "compressed_recycled_wal",
            "tracked_wals",
            "two_paths",
            "ingested",
        )
    },
    "rocksdict-8.0": python("rocksdict==0.3.10", "rocksdict"),
    "rocksdict-8.6": python("rocksdict==0.3.16", "rocksdict"),
    "rocksdict-9.0": python("rocksdict==0.3.23", "rocksdict"),
    "npm-nxtedition-9.7": node("@nxtedition/rocksdb@12.2.12"),
    "jni-9.8": java("pyspark==4.3.0"),
    **{
        f"jni-9.8-{scenario}": c_api(JNI_9_8, scenario)
        for scenario in (
            "blobs",
            "compressed_recycled_wal",
            "compressed_wal",
            "tracked_wals",
            "two_paths",
            "ingested",
            "timestamps",
            "two_phase",
            "tables",
            "atomic_flush",
        )
    },
    "rocksdict-9.8": python("rocksdict==0.3.29", "rocksdict"),
    "rocksdbpy-9.9": python("rocksdb-py==0.0.6", "rocksdbpy"),
    "npm-native-10.5": node("rocksdb-native@3.18.1"),
    "pyrex-10.7": python("pyrex-rocksdb==0.6.0", "pyrex"),
    "amulet-11.1": python("amulet-rocksdb==1.0.6", "amulet"),
}


# What the programs and their LOG say, in one form.


def parse_sstables(text: str) -> tuple[dict[int, list[int]], list[int]]:
    """Read the property ``rocksdb.sstables``: files by number, with size and level; numbers of blob files."""
    files, level = {}, -1
    for line in text.splitlines():
        if match := re.match(r"--- level (\d+) ---", line):
            level = int(match[1])
        elif match := re.match(r" (\d+):(\d+)\[", line):
            files[int(match[1])] = [int(match[2]), level]
    return files, [int(number) for number in re.findall(r"blob_file_number: (\d+)", text)]


def read_log(directory: Path) -> Told:
    """Read what RocksDB has written into its LOG: its version, every SST file, and the session that made it."""
    logs = [*sorted(directory.glob("LOG.old*")), *directory.glob("LOG")]
    text = "".join(path.read_text(errors="replace") for path in logs)
    created: dict[str, list[int]] = {}
    deleted: set[str] = set()
    sessions: dict[str, str] = {}
    for line in re.findall(r"EVENT_LOG_v1 (\{.*\})", text):
        event = json.loads(line)
        number = str(event.get("file_number"))
        if event["event"] == "table_file_creation":
            created[number] = [event["file_size"], -1]
            sessions[number] = event.get("table_properties", {}).get("db_session_id", "")
        elif event["event"] == "table_file_deletion":
            deleted.add(number)
    version = re.search(r"RocksDB version: (\S+)", text)
    return {
        "version": version[1] if version else None,
        "live_files": {number: file for number, file in created.items() if number not in deleted},
        "session_ids": sessions,
    }


def ldb(*arguments: str) -> str:
    done = subprocess.run(["ldb", *arguments], capture_output=True, timeout=60, check=False)
    return done.stdout.decode("latin-1") + done.stderr.decode("latin-1")


def dump_manifest(manifest: Path) -> Told:
    """Ask ``ldb manifest_dump``: the numbers, and each column family; empty where it cannot read it."""
    text = ldb("manifest_dump", f"--path={manifest}")
    numbers = re.search(
        r"next_file_number (\d+) last_sequence (\d+)  prev_log_number (\d+) max_column_family \d+ "
        r"min_log_number_to_keep (\d+)",
        text,
    )
    if not numbers:
        return {}
    names = ("next_file_number", "last_sequence", "prev_log_number", "min_log_number_to_keep")
    sections = re.split(r'-+ Column family "(.*)"  \(ID (\d+)\) -+', text)[1:]
    families = {}
    for name, _, body in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        head = re.search(r"log number: (\d+)\ncomparator: <?([^>\n]*)", body)
        assert head
        families[name] = {
            "log_number": int(head[1]),
            "comparator": head[2],
            "files": {n: int(size) for n, size in re.findall(r"^ (\d+):(\d+)\[", body, re.MULTILINE)},
            "blobs": {
                n: int(size) + 62
                for n, size in re.findall(r"^blob_file_number: (\d+) .*? total_blob_bytes: (\d+) ", body, re.MULTILINE)
            },
        }
    return {**{name: int(value) for name, value in zip(names, numbers.groups(), strict=True)}, "families": families}


def dump_wal(wal: Path) -> list[int] | None:
    """Ask ``ldb dump_wal``: records, first sequence number, one above the last; None where it finds no record."""
    text = ldb("dump_wal", f"--walfile={wal}", "--header")
    rows = [(int(s), int(c)) for s, c in re.findall(r"^(\d+),(\d+),\d+,\d+,", text, re.MULTILINE)]
    return [len(rows), rows[0][0], max(s + c for s, c in rows)] if rows else None


def describe(place: Path, told: Told) -> Told:
    """Bring what was told of the database in ``place/db`` into one form."""
    directory = place / "db"
    log = read_log(directory)
    live, blobs = told.get("live_files"), None
    if "sstables" in told:
        parsed = {name: parse_sstables(text) for name, text in told["sstables"].items()}
        live = {name: files for name, (files, _) in parsed.items()}
        if any(numbers for _, numbers in parsed.values()):
            blobs = {name: numbers for name, (_, numbers) in parsed.items()}
    manifest = directory / (directory / "CURRENT").read_text().strip()
    identity = directory / "IDENTITY"
    return {
        "version": log["version"],
        "db_id": identity.read_text() if identity.exists() else None,
        "latest_sequence_number": told["latest_sequence_number"],
        "live_files": live if live is not None else {"*": log["live_files"]},
        "live_blobs": blobs,
        "session_ids": log["session_ids"],
        "manifest_dump": dump_manifest(manifest),
        "wals": {path.name: dump_wal(path) for path in sorted(directory.glob("*.log"))},
    }


def pack(place: Path, name: str) -> None:
    """Write the archive, the same bytes for the same files."""

    def strip(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
        member.mode = 0o755 if member.isdir() else 0o644
        return None if LEFT_OUT.fullmatch(Path(member.name).name) else member

    with (
        lzma.open(PLACE / f"{name}.tar.xz", "wb", preset=9 | lzma.PRESET_EXTREME) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for part in ("db", "fast", "slow"):
            if (place / part).exists():
                tar.add(place / part, part, filter=strip)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the golden databases.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("names", nargs="*", choices=[*PROGRAMS, []], metavar="NAME")
    arguments = parser.parse_args()
    work = arguments.work_dir.resolve()
    for name in arguments.names or [name for name in PROGRAMS if not (PLACE / f"{name}.json").exists()]:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            expected = describe(place, PROGRAMS[name](work, place))
            pack(place, name)
        (PLACE / f"{name}.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {expected['version']}, {(PLACE / f'{name}.tar.xz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
