"""``prune`` from a shell, as a child process on a real repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

COMMAND = [sys.executable, "-m", "airflow_provider_rocksdb"]


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make three backups of a small database."""
    database = Rdict(str(tmp_path / "db"), Options(raw_mode=True))
    database[b"key"] = b"value"
    database.close()
    for _ in range(3):
        run("backup", tmp_path / "db", tmp_path / "repository")
    return tmp_path / "repository"


def metas(repository: Path) -> list[str]:
    return sorted(os.listdir(repository / "meta"))


def test_plan_is_printed(repository: Path) -> None:
    """A dry run prints a line for each backup, with what happens to it and why, and deletes nothing."""
    lines = run("prune", repository, "--keep-last", 2, "--keep-yearly", "-1", "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["backup", "3", "2", "1"]
    assert [line.split()[2:] for line in lines[1:-1]] == [
        ["keep", "last,", "yearly"],
        ["keep", "last"],
        ["keep", "oldest", "yearly"],
    ]
    assert lines[-1].startswith(f"done: {repository}: 0 of 3 backups would be removed; ")
    assert metas(repository) == ["1", "2", "3"]


def test_prune(repository: Path) -> None:
    """Backups that no rule keeps are deleted at once, their objects when they were marked for the grace period."""
    result = json.loads(run("prune", repository, "--keep-within", "1d", "--keep-last", 1, "--json").stdout)
    assert (result["state"], result["removed_backups"]) == ("done", [])
    result = json.loads(run("prune", repository, "--keep-last", 1, "--json").stdout)
    assert (result["removed_backups"], result["removed"]["objects"]) == ([1, 2], 0)
    assert [item["action"] for item in result["plan"]] == ["keep", "remove", "remove"]
    assert metas(repository) == ["3"]
    for path in repository.rglob("*"):
        os.utime(path, (path.stat().st_atime - 7200, path.stat().st_mtime - 7200))
    waiting = json.loads(run("prune", repository, "--keep-last", 1, "--json", "--grace-period", "3h").stdout)
    assert waiting["waiting"] == result["marked"]
    done = run("prune", repository, "--keep-last", 1, "--grace-period", "1h")
    assert f"{result['marked']['objects']} ({result['marked']['bytes']} bytes) were deleted" in done.stdout
    assert os.listdir(repository / "private") == ["3"]


def test_after_a_backup(repository: Path) -> None:
    """``backup --keep-last 2`` makes a backup and prunes, and says both, for a reader and for a program."""
    command = ("backup", repository.parent / "db", repository, "--keep-last", 2)
    result = json.loads(run(*command, "--json").stdout)
    assert (result["state"], result["backup_id"], result["prune"]["removed_backups"]) == ("done", 4, [1, 2])
    assert metas(repository) == ["3", "4"]
    lines = run(*command).stdout.splitlines()
    assert [line.split()[2] for line in lines[1:4]] == ["keep", "keep", "remove"]
    assert lines[-1].startswith(f"done: {repository}: backup 5, ")
    assert metas(repository) == ["4", "5"]
    (repository / "meta" / "4").write_bytes(b"damaged")
    line = run(*command, status=1).stderr.splitlines()[-1]
    assert line.startswith(f"backup: could_not_check: {repository}: backup 6, ")
    assert "no object is marked or deleted while a meta cannot be read" in line


def test_unreadable_meta(repository: Path) -> None:
    """A meta that cannot be read shows in the table, and ends the command with status 1 after the rest is done."""
    (repository / "meta" / "2").write_bytes(b"damaged\x1b[31m")
    done = run("prune", repository, "--keep-last", 1, status=1)
    assert metas(repository) == ["2", "3"]
    assert "could_not_check" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("prune: ")
    assert [line for line in done.stdout.splitlines() if line.split()[:2] == ["2", "keep"]]
    assert "\x1b" not in done.stdout + done.stderr
    result = json.loads(run("prune", repository, "--keep-last", 1, "--json", status=1).stdout)
    assert [item["backup_id"] for item in result["unreadable"]] == [2]


def test_no_repository(tmp_path: Path) -> None:
    """A place without any backup is an error, also for a dry run."""
    for dry in ((), ("--dry-run",)):
        done = run("prune", tmp_path / "nowhere", "--keep-last", 1, *dry, status=1)
        assert "is this the backup repository" in done.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--keep-last", "0"),
        ("--keep-last", "-2"),
        ("--keep-daily", "seven"),
        ("--keep-within", "1w"),
        ("--keep-last", "1", "--grace-period", "1m"),
        ("--keep-last", "1", "--grace-period", "soon"),
        ("--keep-last", "1", "--wal-dir", "x"),
    ],
)
def test_usage_error(arguments: tuple[str, ...]) -> None:
    """A policy that keeps nothing, or makes no sense, ends with status 2 and one line on stderr."""
    done = run("prune", "repository", *arguments, status=2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def parse(*arguments: str) -> Any:
    from airflow_provider_rocksdb.cli.arguments import parse_arguments

    return parse_arguments(["prune", "repository", *arguments])


def test_every_rule() -> None:
    """Each rule of a policy has its option, and the grace period is in days and hours."""
    rules = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
    arguments = parse(
        *(text for n, rule in enumerate(rules, 1) for text in (f"--keep-{rule}", str(n))), "--keep-within", "2y5m"
    )
    policy = arguments.policy
    assert [getattr(policy, f"keep_{rule}") for rule in rules] == [1, 2, 3, 4, 5, 6]
    assert policy.keep_within == "2y5m"
    assert arguments.grace_period == 86400
    assert parse("--keep-last", "1", "--grace-period", "1d12h").grace_period == 129600
    assert parse("--keep-last", "1", "--grace-period", "0").grace_period == 0
