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
from airflow_provider_rocksdb.core.format.backup_meta import decode_backup_id
from airflow_provider_rocksdb.core.retention import RetentionPolicy, parse_duration

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
    parser = Parser(
        PROGRAM, description="Back up RocksDB databases, and restore them.", epilog=EPILOG, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_checkpoint(commands)
    _add_check(commands)
    _add_backup(commands)
    _add_restore(commands)
    _add_list(commands)
    _add_verify(commands)
    _add_prune(commands)
    arguments = parser.parse_args(argv)
    if "check" in arguments:
        arguments.check(arguments, parser)
    return arguments


def _check_checkpoint(arguments: argparse.Namespace, parser: Parser) -> None:
    if arguments.mode == "exclusive" and arguments.allow_copy:
        parser.error("--allow-copy goes with --mode live: RocksDB decides itself what it links")


def _check_backup(arguments: argparse.Namespace, parser: Parser) -> None:
    if arguments.no_checkpoint and (arguments.wal_dir or arguments.db_path or arguments.cf_path):
        parser.error("--no-checkpoint uploads one directory: it goes with no --wal-dir, --db-path or --cf-path")
    _check_archive_options(parser, arguments)
    _read_policy(arguments, parser)
    if arguments.policy is not None and arguments.layout != "backup_engine":
        parser.error(f"--keep-…: goes with --layout backup_engine, and not with {arguments.layout}")


def _check_restore(arguments: argparse.Namespace, parser: Parser) -> None:
    if (arguments.delta or arguments.in_place) and not arguments.replace:
        parser.error("--delta and --in-place go with --replace: they are about the database that is there")


def _check_verify(arguments: argparse.Namespace, parser: Parser) -> None:
    if arguments.sample and arguments.level != "checksums":
        parser.error("--sample goes with --level checksums")


def _check_prune(arguments: argparse.Namespace, parser: Parser) -> None:
    _read_policy(arguments, parser)
    if arguments.policy is None:
        parser.error("prune needs a policy: give at least one --keep-… option")


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
    return command


def _add_database_command(
    commands: Any, name: str, text: str, *, wal_dir: str = "where the WALs are (default: where OPTIONS says)"
) -> argparse.ArgumentParser:
    command = _add_command(commands, name, text)
    command.add_argument("--wal-dir", type=_path, metavar="DIR", help=wal_dir)
    command.add_argument(
        "--db-path",
        action="append",
        default=[],
        type=_path,
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
    command = _add_database_command(
        commands, "checkpoint", "Make a checkpoint of a RocksDB database, which may be running."
    )
    command.add_argument("db_dir", type=_path, metavar="DB_DIR")
    command.add_argument(
        "checkpoint_dir", type=_path, metavar="CHECKPOINT_DIR", help="on the file system of DB_DIR, outside it"
    )
    command.add_argument(
        "--mode",
        choices=["live", "exclusive"],
        default="live",
        help="exclusive opens a database that nobody else has open (default: live)",
    )
    command.add_argument("--replace", action="store_true", help="replace an older checkpoint once the new one is whole")
    _add_live_options(command)
    command.set_defaults(check=_check_checkpoint)


def _add_check(commands: Any) -> None:
    command = _add_database_command(commands, "check", "Check that a checkpoint or a DB directory is a whole database.")
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
    command = _add_database_command(commands, "backup", "Upload a database into a backup repository.")
    command.add_argument(
        "directory", type=_path, metavar="DIR", help="a checkpoint of ours, or any DB directory, which may be running"
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
    _add_rate(command, "upload")
    _add_archive_options(command)
    _add_live_options(command)
    _add_retention_options(command)
    _add_grace_period(command)
    _add_storage_options(command)
    command.set_defaults(check=_check_backup, dry_run=False)


def _add_restore(commands: Any) -> None:
    command = _add_database_command(
        commands,
        "restore",
        "Restore a database; what was there stays until the new one is whole.",
        wal_dir="the restored database's wal_dir (default: its WALs lie in DB_DIR)",
    )
    command.add_argument(
        "backup_dir",
        type=_path_or_url,
        metavar="BACKUP_DIR",
        help="a repository, a directory with a database as it is, or an archive",
    )
    command.add_argument("db_dir", type=_path, metavar="DB_DIR")
    command.add_argument(
        "--backup-id", type=_backup_id, metavar="N", help="which backup (default: the newest that is valid)"
    )
    command.add_argument(
        "--replace", action="store_true", help="replace the database that is there, if nobody has it open"
    )
    command.add_argument(
        "--delta",
        action="store_true",
        help="take over files of the database that is there, where their checksum is right",
    )
    command.add_argument(
        "--in-place",
        action="store_true",
        help="remove the database that is there first, where there is no room for two: if that fails, there is none",
    )
    _add_rate(command, "download")
    _add_storage_options(command)
    command.set_defaults(check=_check_restore)


def _add_rate(command: argparse.ArgumentParser, verb: str) -> None:
    command.add_argument(
        "--max-bytes-per-second",
        type=_positive(int),
        metavar="N",
        help=f"{verb} no faster than this (default: no limit)",
    )


def _add_list(commands: Any) -> None:
    command = _add_command(commands, "list", "List the backups of a repository, with what each takes and misses.")
    command.add_argument(
        "backup_dir", type=_path_or_url, metavar="BACKUP_DIR", help="a path or an fsspec URL; a folder of archives, too"
    )
    _add_storage_options(command)


def _add_verify(commands: Any) -> None:
    command = _add_command(commands, "verify", "Verify that backups are there, and are what they were.")
    command.add_argument(
        "backup_dir",
        type=_path_or_url,
        metavar="BACKUP_DIR",
        help="a repository, a directory with a database as it is, an archive, or a folder of archives",
    )
    which = command.add_mutually_exclusive_group()
    which.add_argument("--backup-id", type=_backup_id, metavar="N", help="which backup (default: the newest)")
    which.add_argument("--all", action="store_true", help="every backup")
    command.add_argument(
        "--level",
        choices=["files", "checksums", "restore"],
        default="files",
        help="names and sizes; also read every file and compare its CRC32C; or restore each backup into a scratch "
        "directory and read every block of it; of an archive, every level reads all (default: files)",
    )
    command.add_argument(
        "--sample",
        type=_percent,
        metavar="PERCENT",
        help="with --level checksums: read that part of all files, each day another: 5 reads everything in 20 days",
    )
    command.add_argument(
        "--scratch-dir", metavar="DIR", help="where --level restore restores (default: TMPDIR or /tmp)"
    )
    _add_rate(command, "read")
    _add_timeout(command, 3600.0, "give up reading the blocks of a restored backup after so long")
    _add_storage_options(command)
    command.set_defaults(check=_check_verify)


def _add_prune(commands: Any) -> None:
    command = _add_command(
        commands, "prune", "Delete backups by policy, and what was marked as needed by none a grace period ago."
    )
    command.add_argument("backup_dir", type=_path_or_url, metavar="BACKUP_DIR", help="a path or an fsspec URL")
    _add_retention_options(command)
    _add_grace_period(command)
    command.add_argument("--dry-run", action="store_true", help="only print what would be done")
    _add_storage_options(command)
    command.set_defaults(check=_check_prune)


def _add_retention_options(command: argparse.ArgumentParser) -> None:
    """Add the rules of a retention policy, which :func:`_read_policy` reads."""
    group = command.add_argument_group("backups to keep (restic's rules; -1: no limit; periods are those of UTC)")
    group.add_argument("--keep-last", type=_count, default=0, metavar="N", help="the newest N")
    for period in ("hour", "day", "week", "month", "year"):
        name = "daily" if period == "day" else f"{period}ly"
        group.add_argument(
            f"--keep-{name}", type=_count, default=0, metavar="N", help=f"the newest of each {period}, for N {period}s"
        )
    group.add_argument(
        "--keep-within", metavar="DURATION", help="all that are younger than the newest less this, such as 2y5m7d3h"
    )


def _add_grace_period(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--grace-period",
        type=_grace_seconds,
        default="1d",
        metavar="DURATION",
        help="delete what was seen unreferenced so long ago, in days and hours; below 1h only when no backup runs at "
        "the same time (default: 1d)",
    )


def _read_policy(arguments: argparse.Namespace, parser: Parser) -> None:
    """Make one policy of the rules; None when there is none."""
    rules = {name: value for name, value in vars(arguments).items() if name.startswith("keep_")}
    try:
        arguments.policy = RetentionPolicy(**rules) if any(rules.values()) else None
    except InvalidArgumentError as error:
        parser.error(str(error))


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


def _backup_id(text: str) -> int:
    backup_id = decode_backup_id(text)
    if backup_id is None:
        raise argparse.ArgumentTypeError(f"expected a backup id, got {text!r}")
    return backup_id


def _percent(text: str) -> float:
    value = _positive(float)(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"expected at most 100, got {text!r}")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -2
    if value < -1:
        raise argparse.ArgumentTypeError(f"expected a number from 0, or -1 for no limit, got {text!r}")
    return value


def _grace_seconds(text: str) -> float:
    if text == "0":
        return 0.0
    try:
        duration = parse_duration(text)
    except InvalidArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if duration.years or duration.months:
        raise argparse.ArgumentTypeError(f"expected days and hours, such as 1d12h, or 0, got {text!r}")
    return duration.days * 86400.0 + duration.hours * 3600.0


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty text")
    return text


def _path_or_url(text: str) -> str:
    _path(text)
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
