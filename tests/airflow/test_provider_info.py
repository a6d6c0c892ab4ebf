"""What Airflow reads of this provider before it imports any of it, and what it costs to import it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

import airflow_provider_rocksdb
from airflow_provider_rocksdb.get_provider_info import CONNECTION_FIELDS, get_provider_info
from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook

PACKAGE = Path(airflow_provider_rocksdb.__file__).parent
WING = ["assets", "hooks", "operators", "policies", "sensors", "transfers", "triggers", "utils"]
MODULES = [
    f"airflow_provider_rocksdb.{folder}.{path.stem}"
    for folder in WING
    for path in sorted((PACKAGE / folder).glob("*.py"))
    if path.stem != "__init__"
]


def dotted_paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from dotted_paths(item)
    elif isinstance(value, list):
        for item in value:
            yield from dotted_paths(item)
    elif isinstance(value, str) and value.startswith("airflow_provider_rocksdb."):
        yield value


def test_schema() -> None:
    """The metadata is what Airflow's schema asks for, and JSON."""
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(get_provider_info())), schema)


@pytest.mark.parametrize("path", dotted_paths(get_provider_info()))
def test_dotted_paths(path: str) -> None:
    """Every dotted path in the metadata leads to something."""
    try:
        importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_every_module_is_named() -> None:
    """Every module with hooks, operators, sensors, triggers or transfers is in the metadata."""
    named = set(dotted_paths(get_provider_info()))
    helpers = {"airflow_provider_rocksdb.hooks.storage", "airflow_provider_rocksdb.operators.base"}
    elsewhere = (".assets.", ".policies.", ".utils.")
    assert {name for name in MODULES if not any(part in name for part in elsewhere)} - helpers <= named


def test_entry_point() -> None:
    """Airflow finds the metadata by the entry point, under the distribution's name."""
    (point,) = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.value.startswith("airflow_provider_rocksdb")
    ]
    assert point.dist is not None
    assert point.load()()["package-name"] == point.dist.name == "airflow-provider-rocksdb"


FORM = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
(form,) = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "rocksdb"]
print(form.model_dump_json())
"""


def test_connection_form() -> None:
    """The connection type has a form with the provider's fields, in each Airflow's own way of making one."""
    if find_spec("airflow.api_fastapi") is None:  # Airflow 2
        widgets = ProvidersManager().connection_form_widgets
        assert {f"extra__rocksdb__{name}" for name in CONNECTION_FIELDS} <= set(widgets)
        return
    # in a process of its own: Airflow 3.1 makes no forms in one that has looked for a hook before
    done = subprocess.run([sys.executable, "-c", FORM], stdout=subprocess.PIPE, text=True, check=True)
    form = json.loads(done.stdout.splitlines()[-1])
    assert form["hook_name"] == "RocksDB"
    assert list(form["extra_fields"]) == list(CONNECTION_FIELDS)
    for name, (label, _, example) in CONNECTION_FIELDS.items():
        field = form["extra_fields"][name]
        assert field["schema"]["title"] == label
        assert example in field["description"]


def test_hook_says_the_same() -> None:
    """The hook's own form methods, for Airflow before 3.2, give the same fields."""
    pytest.importorskip("wtforms")
    pytest.importorskip("flask_appbuilder")
    assert list(RocksDBHook.get_connection_form_widgets()) == list(CONNECTION_FIELDS)


def test_ui_behaviour() -> None:
    """The hook's field behaviour is that of the metadata."""
    (connection,) = get_provider_info()["connection-types"]
    behaviour = RocksDBHook.get_ui_field_behaviour()
    assert behaviour["hidden_fields"] == connection["ui-field-behaviour"]["hidden-fields"]
    assert behaviour["placeholders"] == connection["ui-field-behaviour"]["placeholders"]


def test_imports_are_light() -> None:
    """A DAG file that imports all of the provider imports neither RocksDB, CRC code, a driver, nor OpenLineage."""
    code = f"""
import importlib, sys
for name in {MODULES}: importlib.import_module(name)
heavy = {{"adlfs", "aiobotocore", "boto3", "botocore", "gcsfs", "google_crc32c", "paramiko", "rocksdict", "s3fs"}}
heavy.add("openlineage")
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
