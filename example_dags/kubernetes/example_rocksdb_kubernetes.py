"""Kubernetes, in two ways: wait for what the sidecars of ``sidecar.yaml`` back up, or back up in pods of Airflow's own.

With the KubernetesExecutor, the tasks of the second DAG run beside the service: on its node, with its volume, as its
user. It takes the place of the sidecar, and has repositories of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from kubernetes.client import models as k8s

from airflow_provider_rocksdb.operators.rocksdb import RocksDBBackupOperator
from airflow_provider_rocksdb.sensors.rocksdb import RocksDBBackupSensor

PODS = ["service-0", "service-1"]
START = datetime(2026, 1, 1, tzinfo=UTC)


def beside(pod: str) -> k8s.V1Pod:
    """Return what a task's pod needs to see the volume of another pod."""
    same_node = k8s.V1PodAffinityTerm(
        label_selector=k8s.V1LabelSelector(match_labels={"statefulset.kubernetes.io/pod-name": pod}),
        topology_key="kubernetes.io/hostname",
    )
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=f"data-{pod}")
    return k8s.V1Pod(
        spec=k8s.V1PodSpec(
            hostname=f"backup-{pod}",  # the same in every run: a repository takes backups from one host
            affinity=k8s.V1Affinity(
                pod_affinity=k8s.V1PodAffinity(required_during_scheduling_ignored_during_execution=[same_node])
            ),
            security_context=k8s.V1PodSecurityContext(run_as_user=1000, run_as_group=1000, fs_group=1000),
            containers=[
                k8s.V1Container(name="base", volume_mounts=[k8s.V1VolumeMount(name="data", mount_path="/data")])
            ],
            volumes=[k8s.V1Volume(name="data", persistent_volume_claim=claim)],
        )
    )


with DAG("example_rocksdb_sidecar", schedule="@hourly", start_date=START, catchup=False) as sidecar:
    RocksDBBackupSensor.partial(
        task_id="has_backup", storage_conn_id="aws_default", max_age=timedelta(hours=3), deferrable=True, timeout=1800
    ).expand(backup_dir=[f"s3://bucket/{pod}" for pod in PODS])

with DAG("example_rocksdb_pod", schedule="@hourly", start_date=START, catchup=False, max_active_runs=1) as pod_override:
    for pod in PODS:
        RocksDBBackupOperator(
            task_id=f"backup_{pod}",
            db_dir="/data/db",
            backup_dir=f"s3://bucket/by-airflow/{pod}",
            storage_conn_id="aws_default",
            retention={"keep_hourly": 24, "keep_daily": 7},
            retries=2,
            executor_config={"pod_override": beside(pod)},
        )
