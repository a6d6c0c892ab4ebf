"""Who may import whom, what the core offers, and how large a room may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "airflow_provider_rocksdb"
CORE = sorted((PACKAGE / "core").rglob("*.py"))
SHELL = [PACKAGE / "__main__.py", *sorted((PACKAGE / "cli").rglob("*.py"))]
FORMAT = sorted((PACKAGE / "core" / "format").glob("*.py"))

BLOCK_AIRFLOW = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ImportError("airflow is blocked here")
sys.meta_path.insert(0, Block())
"""


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", CORE + SHELL, ids=module_name)
def test_no_airflow(path: Path) -> None:
    """No module of the core or of the shell commands has an import of Airflow in it, at whatever depth."""
    assert not [name for name in imported_modules(path) if name.partition(".")[0] == "airflow"]


def test_works_with_airflow_blocked() -> None:
    """Every module of the core and of the shell commands imports in a process in which Airflow cannot be imported."""
    names = [module_name(path) for path in CORE + SHELL]
    code = BLOCK_AIRFLOW + f"import importlib\nfor name in {names}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rocksdict_has_one_importer() -> None:
    """Only core/database.py imports rocksdict."""
    importers = [path for path in sorted(PACKAGE.rglob("*.py")) if "rocksdict" in imported_modules(path)]
    assert importers == [PACKAGE / "core" / "database.py"]


@pytest.mark.parametrize("path", FORMAT, ids=module_name)
def test_formats_do_no_io(path: Path) -> None:
    """A format module opens no file, reads no clock, starts no thread and logs nothing."""
    roots = {name.partition(".")[0] for name in imported_modules(path)}
    assert not roots & {"io", "logging", "os", "pathlib", "shutil", "subprocess", "tempfile", "threading", "time"}
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [
        call.id for call in calls if isinstance(call, ast.Name) and call.id in ("open", "print", "exec", "eval")
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_no_module_over_500_lines(path: Path) -> None:
    """No module is longer than 500 lines."""
    assert len(path.read_text().splitlines()) <= 500


def test_core_surface() -> None:
    """The core offers these names, each of them there, and typed as what it is at runtime."""
    from airflow_provider_rocksdb import core

    assert set(core.__all__) == SURFACE
    assert [name for name in core.__all__ if not callable(getattr(core, name))] == []
    tree = ast.parse((PACKAGE / "core" / "__init__.py").read_text())
    typed = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if alias.asname
    }
    assert typed == {name: getattr(core, name).__module__ for name in core.__all__}


def test_core_surface_is_lazy() -> None:
    """Importing the core imports neither fsspec nor rocksdict."""
    code = "import sys, airflow_provider_rocksdb.core as core; print({'fsspec', 'rocksdict'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


SURFACE = {
    "BackupResult",
    "BackupUsage",
    "Checkpoint",
    "Completeness",
    "DatabasePaths",
    "DatabaseReader",
    "FoundBackup",
    "Inventory",
    "NewBackups",
    "PruneResult",
    "RestoreResult",
    "RetentionPolicy",
    "RocksDBError",
    "TransferOptions",
    "VerifyReport",
    "check_completeness",
    "create_backup",
    "create_exclusive_checkpoint",
    "create_live_checkpoint",
    "delete_checkpoint",
    "find_backup",
    "find_new_backups",
    "list_backups",
    "list_usage",
    "open_backup",
    "open_checkpoint",
    "open_output",
    "prune_backups",
    "read_checkpoint",
    "read_inventory",
    "restore_backup",
    "temporary_checkpoint_dir",
    "upload_archive",
    "upload_checkpoint",
    "upload_directory",
    "verify_backups",
}
