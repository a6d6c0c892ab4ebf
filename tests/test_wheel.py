"""What is shipped: a wheel, as an index gets it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "airflow_provider_rocksdb"


def test_wheel(tmp_path: Path) -> None:
    """The wheel holds every file of the package, templates and style sheets too, and names both entry points."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    files = {str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith(f"{PACKAGE}/")} == {
        name for name in files if not name.endswith(".pyc")
    }
    assert {f"{PACKAGE}/plugins/templates/overview.html", f"{PACKAGE}/plugins/static/page.css"} <= set(names)
    assert "[airflow.plugins]" in points
    assert "[apache_airflow_provider]" in points
