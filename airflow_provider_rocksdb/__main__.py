"""``python -m airflow_provider_rocksdb``: the core from a shell, without Airflow.

Exit status: 0 done or complete; 1 failed, incomplete or could not check; 2 usage; 3 corrupt. The result goes to stdout,
an error is one line on stderr; ``verify`` also has a line on stdout for each problem. With ``--json`` stdout gets one
JSON object, but for a wrong command line, ``state`` first: ``done``, ``complete``, ``failed``, ``incomplete``,
``could_not_check`` or ``corrupt``.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from airflow_provider_rocksdb.cli import storage
from airflow_provider_rocksdb.cli.arguments import parse_arguments
from airflow_provider_rocksdb.cli.commands import COMMANDS, Outcome
from airflow_provider_rocksdb.cli.progress import one_line, printable, show_progress
from airflow_provider_rocksdb.core.errors import CorruptionError, CouldNotCheckError, IncompleteError, RocksDBError

EXIT_STATUS = {"done": 0, "complete": 0, "failed": 1, "incomplete": 1, "could_not_check": 1, "corrupt": 3}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    _open_standard_streams()
    stop = _stop_on_signal()
    arguments = parse_arguments(argv)
    arguments.storage_options = {}
    try:
        if "storage_option" in arguments:
            arguments.storage_options = storage.read_storage_options(
                arguments.storage_option, arguments.storage_options_file
            )
        with show_progress():
            outcome = COMMANDS[arguments.command](arguments, stop)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a command ends with one line, whatever happened
        outcome = _failure(error, arguments.command)
    try:
        _report(outcome, arguments)
    except OSError as error:  # nobody reads it, or it goes to a disk that is full
        sys.stderr.write(f"{arguments.command}: {outcome.state}, but the result cannot be written: {error}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end, too
        return EXIT_STATUS[outcome.state] or EXIT_STATUS["failed"]
    return EXIT_STATUS[outcome.state]


def _open_standard_streams() -> None:
    """Give a process whose caller has closed its output one that leads nowhere, and no file its descriptor.

    What cannot be encoded is written escaped.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 -- for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stop_on_signal() -> threading.Event:
    """Let SIGTERM and SIGINT end the command in good order, and a second SIGINT end it at once."""
    stop = threading.Event()

    def handle(number: int, _frame: Any) -> None:
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


def _failure(error: BaseException, command: str) -> Outcome:
    known = isinstance(error, RocksDBError | OSError)
    line = str(error) if known and str(error) else f"{type(error).__name__}: {error}"
    details = {"error": line, "error_type": type(error).__name__}
    match error:
        case CorruptionError():
            return Outcome("corrupt", line, details)
        case IncompleteError():
            return Outcome("incomplete", line, details)
        case _ if command in ("check", "verify") or isinstance(error, CouldNotCheckError):
            return Outcome("could_not_check", line, details)
        case _:
            return Outcome("failed", line, details)


def _report(outcome: Outcome, arguments: Any) -> None:
    failed = EXIT_STATUS[outcome.state] != 0
    line, details = outcome.line, outcome.details
    lines = storage.mask_secrets(list(outcome.lines), arguments.storage_options)
    if failed:  # what storage says about a failure may repeat what it was given
        line = storage.mask_secrets(line, arguments.storage_options)
        details = storage.mask_secrets(details, arguments.storage_options)
        sys.stderr.write(f"{arguments.command}: {outcome.state}: {one_line(line)}\n")
    if arguments.json:
        sys.stdout.write(json.dumps({"state": outcome.state, **details}) + "\n")
    else:
        sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
        if not failed:
            sys.stdout.write(f"{outcome.state}: {one_line(line)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
