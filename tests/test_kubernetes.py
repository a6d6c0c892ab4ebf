"""The Kubernetes examples: valid by the Kubernetes client's own models, with a command line that is right and runs."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_rocksdb.cli.arguments import parse_arguments
from airflow_provider_rocksdb.cli.storage import ENVIRONMENT_VARIABLE, read_storage_options

EXAMPLES = Path(__file__).parent.parent / "example_dags" / "kubernetes"
PRIMITIVES = {"bool": bool, "int": int, "str": str}


def decode(value: Any, kind: str, where: str) -> Any:
    """Make a value of the Kubernetes client's models of plain data; what a model does not know is an error."""
    from kubernetes.client import models

    if match := re.fullmatch(r"List\[(.*)\]", kind):
        assert isinstance(value, list), where
        return [decode(item, match[1], f"{where}[{index}]") for index, item in enumerate(value)]
    if match := re.fullmatch(r"Dict\[str, (.*)\]", kind):
        assert isinstance(value, dict), where
        return {key: decode(item, match[1], f"{where}.{key}") for key, item in value.items()}
    if kind in PRIMITIVES:
        assert type(value) is PRIMITIVES[kind], f"{where}: expected {kind}, got {value!r}"
        return value
    model = getattr(models, kind)
    names = {key: name for name, key in model.attribute_map.items()}
    assert set(value) <= set(names), f"{where}: {kind} has no {set(value) - set(names)}"
    arguments = {
        names[key]: decode(item, model.openapi_types[names[key]], f"{where}.{key}") for key, item in value.items()
    }
    return model(**arguments)  # which refuses where something required is missing


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """Read ``sidecar.yaml`` as models."""
    pytest.importorskip("kubernetes", reason="needs kubernetes")
    documents = yaml.safe_load_all((EXAMPLES / "sidecar.yaml").read_text())
    return {document["kind"]: decode(document, f"V1{document['kind']}", document["kind"]) for document in documents}


def test_decoder_is_strict() -> None:
    """What no model knows, a wrong type and a missing field are errors, at whatever depth."""
    pytest.importorskip("kubernetes", reason="needs kubernetes")
    for spec in ({"containers": [{"name": "a", "Image": "b"}]}, {"containers": [{"name": 1}]}, {"containers": [{}]}):
        with pytest.raises((AssertionError, ValueError)):
            decode({"spec": spec}, "V1Pod", "pod")


def test_sidecar_shares_user_and_volume(manifests: dict[str, Any]) -> None:
    """Both containers run as one user and mount the whole of one volume; secrets come from the Secret alone."""
    pod = manifests["StatefulSet"].spec.template.spec
    assert pod.security_context.run_as_user > 0
    service, backup = pod.containers
    assert not {c.security_context.run_as_user for c in pod.containers if c.security_context} - {None}
    shared = [mount for mount in backup.volume_mounts if mount.name == "data"]
    assert shared == service.volume_mounts
    assert [mount.sub_path for mount in shared] == [None]
    (claim,) = manifests["StatefulSet"].spec.volume_claim_templates
    assert {mount.name for mount in backup.volume_mounts} == {claim.metadata.name, *(v.name for v in pod.volumes)}
    variables = {variable.name: variable.value_from for variable in backup.env}
    reference = variables[ENVIRONMENT_VARIABLE].secret_key_ref
    assert reference.name == manifests["Secret"].metadata.name
    options = manifests["Secret"].string_data[reference.key]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT_VARIABLE, options)
        assert read_storage_options([], None) == json.loads(options)


def script_of(manifests: dict[str, Any]) -> str:
    _, backup = manifests["StatefulSet"].spec.template.spec.containers
    assert backup.command == ["/bin/sh", "-c"]
    (script,) = backup.args
    return str(script).replace("$(POD_NAME)", "service-0")  # as Kubernetes does


def test_sidecar_command_line(manifests: dict[str, Any]) -> None:
    """The command parses: a backup of the mounted database, with a retention policy."""
    (line,) = re.findall(r"python -m airflow_provider_rocksdb (.*) &", script_of(manifests))
    arguments = parse_arguments(shlex.split(line))
    assert (arguments.command, arguments.directory) == ("backup", "/data/db")
    assert arguments.backup_dir == "s3://bucket/service-0"
    assert (arguments.policy.keep_hourly, arguments.policy.keep_daily) == (24, 7)


def test_sidecar_loop(manifests: dict[str, Any], tmp_path: Path) -> None:
    """The loop, with other places, makes one backup after the other, and ends at once when its pod is stopped."""
    make = "import sys; from rocksdict import Rdict; Rdict(sys.argv[1])[1] = 2"
    subprocess.run([sys.executable, "-c", make, str(tmp_path / "db")], check=True)
    script = script_of(manifests).replace("/data", str(tmp_path)).replace("s3://bucket", str(tmp_path / "backups"))
    assert script.count("sleep 3600") == 1
    script = script.replace("sleep 3600", 'sleep "$PAUSE"')
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PAUSE": "0.1"}
    metas = tmp_path / "backups" / "service-0" / "meta"
    with subprocess.Popen(["/bin/sh", "-c", script], env=env, cwd=Path(__file__).parent.parent) as loop:
        deadline = time.monotonic() + 120
        while not (metas / "2").exists():
            assert loop.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(timeout=60) == 0
    assert not list(tmp_path.glob("db.checkpoints/*"))


def test_pod_override() -> None:
    """Each task's pod is on its service's node, with that one's volume, as its user, under a name that lasts."""
    client = pytest.importorskip("kubernetes.client", reason="needs kubernetes")
    names = runpy.run_path(str(EXAMPLES / "example_rocksdb_kubernetes.py"))
    dag = names["pod_override"]
    assert len(dag.tasks) == len(names["PODS"])
    for pod_name, task in zip(names["PODS"], dag.tasks, strict=True):
        override = task.executor_config["pod_override"]
        plain = client.ApiClient().sanitize_for_serialization(override)
        assert decode(plain, "V1Pod", pod_name) == override
        spec = override.spec
        (term,) = spec.affinity.pod_affinity.required_during_scheduling_ignored_during_execution
        assert term.label_selector.match_labels == {"statefulset.kubernetes.io/pod-name": pod_name}
        (container,) = spec.containers
        assert container.name == "base"  # the one that Airflow runs the task in
        assert [mount.name for mount in container.volume_mounts] == [volume.name for volume in spec.volumes]
        assert spec.volumes[0].persistent_volume_claim.claim_name == f"data-{pod_name}"
        assert spec.hostname.endswith(pod_name)


def test_pod_override_fits_the_sidecars_service(manifests: dict[str, Any]) -> None:
    """Pods, volume, path and user are those of the StatefulSet."""
    service = manifests["StatefulSet"]
    names = runpy.run_path(str(EXAMPLES / "example_rocksdb_kubernetes.py"))
    assert names["PODS"] == [f"{service.metadata.name}-{index}" for index in range(service.spec.replicas)]
    assert [claim.metadata.name for claim in service.spec.volume_claim_templates] == ["data"]
    spec = names["beside"]("service-0").spec
    theirs = service.spec.template.spec
    assert spec.security_context.run_as_user == theirs.security_context.run_as_user
    assert spec.containers[0].volume_mounts == theirs.containers[0].volume_mounts
    assert names["sidecar"].task_dict["has_backup"].operator_class.__name__ == "RocksDBBackupSensor"
