"""Receivers of Airflow's metrics on loopback: what StatsD and an OpenTelemetry collector would be sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

EXPECTED = {
    ("rocksdb.checkpoint.duration", "backup"),
    ("rocksdb.checkpoint.copied_bytes", "backup"),
    ("rocksdb.upload.duration", "backup"),
    ("rocksdb.upload.bytes", "backup"),
    ("rocksdb.upload.bytes_per_second", "backup"),
    ("rocksdb.backup.age", "fresh"),
    ("rocksdb.backup.age", "too_old"),
    ("rocksdb.verification.failures", "verify"),
}

Metrics = dict[tuple[str, str], tuple[float, dict[str, str]]]  # by name and task: value, tags


@contextlib.contextmanager
def statsd() -> Iterator[tuple[dict[str, str], Metrics]]:
    """Listen as StatsD does; yield Airflow's settings for it, and what arrives."""
    metrics: Metrics = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def receive() -> None:
            while packet := server.recv(65536):
                for line in packet.decode().splitlines():
                    name, _, rest = line.partition(":")
                    name, *tags = name.split(",")
                    if name.startswith("airflow.rocksdb."):
                        print(line)
                        values = dict(tag.split("=") for tag in tags)
                        value = float(rest.partition("|")[0])
                        metrics[name.removeprefix("airflow."), values["task_id"]] = value, values

        thread = threading.Thread(target=receive)
        thread.start()
        port = server.getsockname()[1]
        settings = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(port)}
        settings["STATSD_INFLUXDB_ENABLED"] = "True"  # so that there are tags
        try:
            yield {f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()}, metrics
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"", ("127.0.0.1", port))
            thread.join()


@contextlib.contextmanager
def opentelemetry() -> Iterator[tuple[dict[str, str], Metrics]]:
    """Receive as an OpenTelemetry collector does; yield Airflow's settings for it, and what arrives."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    metrics: Metrics = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportMetricsServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            scopes = (scope for resource in request.resource_metrics for scope in resource.scope_metrics)
            for metric in (metric for scope in scopes for metric in scope.metrics):
                if metric.name.startswith("airflow.rocksdb."):
                    kind = getattr(metric, metric.WhichOneof("data"))
                    for point in kind.data_points:
                        tags = {tag.key: tag.value.string_value for tag in point.attributes}
                        value = getattr(point, "sum", None) or point.as_double or point.as_int
                        print(metric.name, tags, value)
                        metrics[metric.name.removeprefix("airflow."), tags["task_id"]] = value, tags

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    try:
        yield environment, metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def check_metrics(metrics: Metrics, done: dict[str, Any]) -> None:
    """Check that every metric of DAG "measured" has arrived, with its tags and the numbers of the backup's result."""
    assert set(metrics) == EXPECTED
    for (_, task_id), (_, tags) in metrics.items():
        assert tags.items() >= {"dag_id": "measured", "task_id": task_id, "conn_id": "rocksdb_default"}.items()
    values = {key: value for key, (value, _) in metrics.items()}
    assert values["rocksdb.upload.bytes", "backup"] == done["uploaded_bytes"]
    assert values["rocksdb.checkpoint.copied_bytes", "backup"] == done["checkpoint"]["copied_bytes"]
    assert values["rocksdb.checkpoint.duration", "backup"] == pytest.approx(1000 * done["checkpoint"]["seconds"])
    assert values["rocksdb.upload.duration", "backup"] == pytest.approx(1000 * done["seconds"])
    rate = done["uploaded_bytes"] / done["seconds"]
    assert values["rocksdb.upload.bytes_per_second", "backup"] == pytest.approx(rate, rel=0.01)
    assert values["rocksdb.verification.failures", "verify"] == 1
