"""What a command line may say, and what it means.

Everything that can be judged without touching a disk or a network is judged here, so that it ends as exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_rocksdb import __version__
from airflow_provider_rocksdb.cli import storage
from airflow_provider_rocksdb.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = "python -m airflow_provider_rocksdb"

EPILOG = f"""exit status: 0 done or complete; 1 failed, incomplete or could not check; 2 usage; 3 corrupt.
Storage options also come from the environment variable {storage.ENVIRONMENT_VARIABLE} (a JSON object);
a file goes before it, and the command line before both."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line in one line and end with status 2."""
        sys.stderr.write(f"{self.prog}: error: {message}; --help lists the arguments\n")
        raise SystemExit(2)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one ends the process with status 2."""
    parser = Parser(PROGRAM, description="Back up RocksDB databases.", epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_checkpoint(commands)
    _add_check(commands)
    _add_backup(commands)
    arguments = parser.parse_args(argv)
    elsewhere = arguments.wal_dir or arguments.db_path or arguments.cf_path
    if elsewhere and arguments.command == "backup" and arguments.no_checkpoint:
        parser.error("--no-checkpoint uploads one directory: it goes with no --wal-dir, --db-path or --cf-path")
    if arguments.command == "backup":
        _check_archive_options(parser, arguments)
    if arguments.command == "checkpoint" and arguments.mode == "exclusive" and arguments.allow_copy:
        parser.error("--allow-copy goes with --mode live: RocksDB decides itself what it links")
    return arguments


def _check_archive_options(parser: Parser, arguments: argparse.Namespace) -> None:
    from airflow_provider_rocksdb.core.archive_layout import compression_of
    from airflow_provider_rocksdb.core.compression import check_compression

    named = compression_of(arguments.backup_dir)
    chosen, level, threads = arguments.compression, arguments.compression_level, arguments.compression_threads
    if arguments.layout != "archive":
        if (chosen, level, threads) != (None, None, None):
            parser.error("--compression, --compression-level and --compression-threads go with --layout archive")
        if named:
            parser.error(f"{arguments.backup_dir}: the name of an archive, which goes with --layout archive")
        return
    if chosen and named and chosen != named:
        parser.error(f"{arguments.backup_dir}: an archive of this name has --compression {named}, not {chosen}")
    try:
        check_compression(chosen or named or "zstd", level, threads)
    except InvalidArgumentError as error:
        parser.error(str(error))


def _add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=EPILOG, allow_abbrev=False
    )
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")
    command.add_argument("--wal-dir", metavar="DIR", help="where the WALs are (default: where OPTIONS says)")
    command.add_argument(
        "--db-path",
        action="append",
        default=[],
        metavar="DIR",
        help="RocksDB's db_paths: repeat in the order of the path ids",
    )
    command.add_argument(
        "--cf-path",
        action="append",
        default=[],
        type=_column_family_path,
        metavar="NAME=DIR",
        help="a column family's cf_paths: repeat in the order of the path ids",
    )
    return command


def _add_checkpoint(commands: Any) -> None:
    command = _add_command(commands, "checkpoint", "Make a checkpoint of a RocksDB database, which may be running.")
    command.add_argument("db_dir", metavar="DB_DIR")
    command.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", help="on the file system of DB_DIR, outside it")
    command.add_argument(
        "--mode",
        choices=["live", "exclusive"],
        default="live",
        help="exclusive opens a database that nobody else has open (default: live)",
    )
    command.add_argument("--replace", action="store_true", help="replace an older checkpoint once the new one is whole")
    _add_live_options(command)


def _add_check(commands: Any) -> None:
    command = _add_command(commands, "check", "Check that a checkpoint or a DB directory is a whole database.")
    command.add_argument("directory", type=_path_or_url, metavar="DIR_OR_URL")
    command.add_argument(
        "--level",
        choices=["files", "checksums", "blocks"],
        default="files",
        help="names and sizes; also checksums and WAL records; also every block (default: files)",
    )
    _add_timeout(command, 3600.0, "give up after so long")
    _add_storage_options(command)


def _add_backup(commands: Any) -> None:
    command = _add_command(commands, "backup", "Upload a database into a backup repository.")
    command.add_argument(
        "directory", metavar="DIR", help="a checkpoint of ours, or any DB directory, which may be running"
    )
    command.add_argument("backup_dir", type=_path_or_url, metavar="BACKUP_DIR", help="a path or an fsspec URL")
    command.add_argument(
        "--layout",
        choices=["backup_engine", "directory", "archive"],
        default="backup_engine",
        help="RocksDB's BackupEngine directory, incremental; the files as they are; or one compressed file, in the "
        "folder BACKUP_DIR as <DB directory's name>-<time>.tar.zst, or as BACKUP_DIR where that ends in .tar.zst, "
        ".tar.gz or .tar (default: backup_engine)",
    )
    command.add_argument(
        "--no-checkpoint", action="store_true", help="upload DIR itself: right only while nothing writes in it"
    )
    command.add_argument(
        "--allow-other-source", action="store_true", help="let BACKUP_DIR take a database that it did not hold before"
    )
    command.add_argument(
        "--max-bytes-per-second",
        type=_positive(int),
        metavar="N",
        help="upload no faster than this (default: no limit)",
    )
    _add_archive_options(command)
    _add_live_options(command)
    _add_storage_options(command)


def _add_archive_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--compression",
        choices=["zstd", "gzip", "none"],
        help="of an archive (default: what its name says, else zstd)",
    )
    command.add_argument(
        "--compression-level",
        type=_positive(int),
        metavar="N",
        help="1 to 19 for zstd (default: 3), 1 to 9 for gzip (default: 6)",
    )
    command.add_argument(
        "--compression-threads",
        type=_positive(int),
        metavar="N",
        help="threads that zstd compresses with (default: one for each processor, at most 4)",
    )


def _add_live_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-copy", action="store_true", help="copy files that can be neither linked nor reflinked"
    )
    command.add_argument(
        "--allow-inside",
        action="store_true",
        help="let the checkpoint lie inside the DB directory, for one that is a mount point",
    )
    _add_timeout(command, 300.0, "stop trying to checkpoint a database that changes too fast after so long")


def _add_timeout(command: argparse.ArgumentParser, default: float, text: str) -> None:
    command.add_argument(
        "--timeout-seconds",
        type=_positive(float),
        default=default,
        metavar="SECONDS",
        help=f"{text} (default: {default:g})",
    )


def _add_storage_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--storage-option",
        action="append",
        default=[],
        type=_storage_option,
        metavar="KEY=VALUE",
        help="an argument of the fsspec file system, as JSON where it is JSON, else as text; other users of this "
        "machine can see it, so no secrets here",
    )
    command.add_argument("--storage-options-file", metavar="FILE", help="a JSON object of such arguments")


def _positive(number: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = number(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
        return value

    return parse


def _path_or_url(text: str) -> str:
    try:
        storage.refuse_unsafe_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _storage_option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError("expected KEY=VALUE with a KEY")  # the text may be a secret
    return key, storage.decode_value(value)


def _column_family_path(text: str) -> tuple[str, str]:
    name, equals, directory = text.partition("=")
    if not equals or not name or not directory:
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, got {text!r}")
    return name, directory
