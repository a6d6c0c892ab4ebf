"""What the README says is so: commands, DAG, output, parameters, errors, options, layout."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_rocksdb.cli.arguments import parse_arguments
from airflow_provider_rocksdb.cli.commands import COMMANDS
from airflow_provider_rocksdb.core import errors

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
EXAMPLE = (ROOT / "example_dags" / "example_rocksdb_backup.py").read_text()


def section(title: str) -> str:
    (text,) = re.findall(rf"^## {title}$\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return str(text)


def table(text: str) -> list[list[str]]:
    """Cells of a section's table rows, without its head."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_ci_runs_the_readmes_commands() -> None:
    """The README has one command for the demo and one for the tests, and .ci/run takes exactly these lines from it."""
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    script = (ROOT / ".ci" / "run").read_text()
    patterns = re.findall(r"readme_command '(.*?)'", script)
    found = [[line for line in lines if re.search(rf"^python3 -m venv .* {pattern}$", line)] for pattern in patterns]
    assert found == [[lines[0]], [lines[1]]]
    assert len(lines) == 2


def test_dag_is_the_examples() -> None:
    """The README's DAG is the example file's, line by line, and has about 20 lines."""
    (dag,) = [code for language, code in BLOCKS if language == "python"]
    imports, _, body = EXAMPLE.partition("START = ")
    code = imports[imports.index("from airflow.") :] + "START = " + body.partition("\nif __name__")[0].rstrip() + "\n"
    assert dag == "from datetime import UTC, datetime\n\n" + code
    assert len(dag.splitlines()) <= 25


def test_errors() -> None:
    """The table of errors names every error of the package once, and marks those that a retry can mend."""
    rows = {row[0].split("`")[1]: row for row in table(section("Errors, and what to do"))}
    classes = {name: c for name, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__}
    del classes["RocksDBError"]
    assert list(rows) == sorted(classes)
    assert {name for name, row in rows.items() if "(retried)" in row[0]} == {
        n for n, c in classes.items() if c.transient
    }
    assert all(cell for row in rows.values() for cell in row)


def test_shell_commands_parse() -> None:
    """Every shell command in the README is a right one, and every command is there."""
    lines = [line.lstrip(" $").removesuffix(" &") for _, code in BLOCKS for line in code.splitlines()]
    commands = [line for line in lines if line.startswith("python -m airflow_provider_rocksdb ")]
    assert {parse_arguments(shlex.split(line)[3:]).command for line in commands} == set(COMMANDS)


def test_exit_statuses() -> None:
    """The table of exit statuses is the program's."""
    from airflow_provider_rocksdb.__main__ import EXIT_STATUS

    rows = {int(row[0]): set(re.findall(r"`(\w+)`", row[1])) for row in table(section("From a shell"))}
    assert rows == {status: {state for state, s in EXIT_STATUS.items() if s == status} for status in (0, 1, 2, 3)}


def test_layout_is_the_tree() -> None:
    """The layout names every module of the package, and nothing that is not there."""
    (code,) = [code for _, code in BLOCKS if code.startswith("airflow_provider_rocksdb/")]
    named, parents = set(), []
    for line in filter(None, code.splitlines()):
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name]
        named.add("".join(parents[: depth + 1]))
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "airflow_provider_rocksdb").rglob("*.py")}
    assert {name for name in named if name.endswith(".py")} == {p for p in there if not p.endswith("__init__.py")}
    assert all((ROOT / name).exists() for name in named)


def test_operators_and_their_parameters() -> None:
    """The table of operators names each operator and sensor with its own parameters, all of them."""
    rows = table(section("Operators"))
    written = {re.findall(r"`(\w+)`", row[0])[0]: sorted(re.findall(r"`(\w+)`", row[2])) for row in rows}
    assert written == {name: sorted(own_parameters(name)) for name in written}
    defined = [
        node.name
        for folder in ("operators", "sensors", "transfers")
        for path in (ROOT / "airflow_provider_rocksdb" / folder).glob("*rocksdb*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(written) == sorted(defined)


def own_parameters(class_name: str) -> list[str]:
    """Parameters of a class and of its bases below RocksDBBaseOperator."""
    from airflow_provider_rocksdb.operators.base import RocksDBBaseOperator

    modules = ("operators.rocksdb", "sensors.rocksdb", "transfers.rocksdb_to_fsspec", "transfers.fsspec_to_rocksdb")
    found = [vars(importlib.import_module(f"airflow_provider_rocksdb.{name}")).get(class_name) for name in modules]
    (kind,) = {kind for kind in found if kind is not None}
    ours = [base for base in kind.__mro__ if base.__module__.startswith("airflow_provider_rocksdb.")]
    return [
        name
        for base in ours[: ours.index(RocksDBBaseOperator)]
        if "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    ]


def test_links_lead_somewhere() -> None:
    """Every link of the README to a file of the repository finds it."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.timeout(300)
def test_sidecar(tmp_path: Path) -> None:
    """The sidecar line, in a fresh venv, gives every command with three packages installed beside ours."""
    (line,) = [code.strip() for _, code in BLOCKS if code.startswith("pip install")]
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    env = {**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(["bash", "-euc", line], cwd=ROOT, env=env, check=True)
    listed = subprocess.run(["pip", "list", "--format=freeze"], env=env, check=True, capture_output=True, text=True)
    names = {line.partition("==")[0] for line in listed.stdout.splitlines()}
    assert names - {"pip", "setuptools", "wheel"} == {
        "airflow-provider-rocksdb",
        "fsspec",
        "google-crc32c",
        "rocksdict",
    }
    script = """
    python -c 'from rocksdict import Rdict; db = Rdict("db"); db[1] = 2; db.close()'
    python -m airflow_provider_rocksdb checkpoint db checkpoint
    python -m airflow_provider_rocksdb checkpoint db exclusive --mode exclusive
    python -m airflow_provider_rocksdb check checkpoint --level blocks
    python -m airflow_provider_rocksdb backup db repository
    test -s repository/meta/1
    """
    subprocess.run(["bash", "-euxc", script], cwd=tmp_path, env=env, check=True)
