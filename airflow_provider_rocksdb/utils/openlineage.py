"""What a task reads and writes, told to OpenLineage by the methods that Airflow's OpenLineage provider calls.

==================  =================================  =========================================
data                namespace                          name
==================  =================================  =========================================
a database          ``rocksdb://<host>``               the DB directory
a checkpoint        ``file://<host>``                  its directory
a local repository  ``file``                           its path
any other           ``<scheme>://<bucket or host>``    of an object store the key, else the path
==================  =================================  =========================================

The last three are OpenLineage's own (its "Dataset Naming" specification), and what Airflow makes of such an asset.
Facets: the version (a database's sequence number, a repository's backup id), the bytes and files that were read or
written, and of a verification what it found. Where the OpenLineage provider is not installed, nobody calls this.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_rocksdb.hooks.storage import public_url

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import InputDataset, OutputDataset
    from airflow.providers.openlineage.extractors import OperatorLineage

_OBJECT_STORES = {"s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gs", "gcs": "gs"}  # scheme: that of the specification


@dataclass(frozen=True)
class Data:
    """A database, a checkpoint or a repository; what is known of it, and of what was read or written there."""

    namespace: str
    name: str
    version: str | None = None
    size_bytes: int | None = None
    file_count: int | None = None
    problem: str | None = None  # of a verification; empty: none was found

    def at(self, version: object) -> Data:
        """Return the same at a version."""
        return replace(self, version=None if version is None else str(version))

    def moved(self, size_bytes: int | None, file_count: int | None) -> Data:
        """Return the same with what was read or written."""
        return replace(self, size_bytes=size_bytes, file_count=file_count)


@dataclass(frozen=True)
class Lineage:
    """What goes into a task and what comes out."""

    inputs: tuple[Data, ...] = ()
    outputs: tuple[Data, ...] = ()


class LineageMixin:
    """An operator that tells OpenLineage what it reads and writes: when it starts, completes or fails.

    What it has done is known from :meth:`keep_result`, in the process that ran ``execute``.
    """

    _result: Mapping[str, Any] | None = None

    def get_lineage(self, done: Mapping[str, Any] | None) -> Lineage:
        """Say what goes in and out; ``done``: the task's result, None before there is one."""
        raise NotImplementedError

    def keep_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Keep the result for the event at the task's end; return it."""
        self._result = result
        return result

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Name what will be read and written."""
        return _to_openlineage(self.get_lineage(None))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002 -- its signature
        """Name what was read and written, with how much and which version."""
        return _to_openlineage(self.get_lineage(self._result))

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002 -- its signature
        """Name what was to be read and written, and what is known of it."""
        return _to_openlineage(self.get_lineage(self._result))


def database_data(db_dir: str) -> Data:
    """Name a database on this host."""
    return Data(f"rocksdb://{socket.gethostname()}", os.path.abspath(db_dir))


def checkpoint_data(checkpoint_dir: str, hostname: str | None = None) -> Data:
    """Name a checkpoint; default: on this host."""
    return Data(f"file://{hostname or socket.gethostname()}", os.path.abspath(checkpoint_dir))


def repository_data(backup_dir: str) -> Data:
    """Name a backup repository, by its path or URL.

    :raises InvalidArgumentError: when the URL carries credentials.
    """
    url = public_url(backup_dir)
    if url.startswith("file://"):
        return Data("file", url.removeprefix("file://"))
    parts = urlsplit(url)
    scheme = _OBJECT_STORES.get(parts.scheme)
    namespace = f"{scheme or parts.scheme}://{parts.netloc}" if parts.netloc else parts.scheme
    path = parts.path.strip("/") if scheme else parts.path.rstrip("/")
    return Data(namespace, path or "/")


def _to_openlineage(lineage: Lineage) -> OperatorLineage[Any, Any]:
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(inputs=[*map(_to_input, lineage.inputs)], outputs=[*map(_to_output, lineage.outputs)])


def _to_input(data: Data) -> InputDataset:
    from airflow.providers.common.compat.openlineage.facet import InputDataset
    from openlineage.client.facet_v2 import data_quality_assertions_dataset, input_statistics_input_dataset

    facets: dict[str, Any] = {}
    if data.size_bytes is not None:
        facets["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            size=data.size_bytes, fileCount=data.file_count
        )
    if data.problem is not None:
        found = data_quality_assertions_dataset.Assertion(
            assertion="rocksdb_backup_is_whole", success=not data.problem, actual=data.problem or None
        )
        facets["dataQualityAssertions"] = data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet([found])
    return InputDataset(data.namespace, data.name, facets=_version_facet(data), inputFacets=facets)


def _to_output(data: Data) -> OutputDataset:
    from airflow.providers.common.compat.openlineage.facet import OutputDataset, OutputStatisticsOutputDatasetFacet

    facets: dict[str, Any] = {}
    if data.size_bytes is not None:
        facets["outputStatistics"] = OutputStatisticsOutputDatasetFacet(size=data.size_bytes, fileCount=data.file_count)
    return OutputDataset(data.namespace, data.name, facets=_version_facet(data), outputFacets=facets)


def _version_facet(data: Data) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    if data.version is None:
        return {}
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(data.version)}
