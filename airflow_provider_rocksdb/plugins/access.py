"""What of Airflow a viewer of the page may read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    ConnectionDetails,
    DagAccessEntity,
    DagDetails,
)

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from sqlalchemy.orm import Session


class Access:
    """The rights of one user, by Airflow's auth manager, each asked once."""

    def __init__(self, user: BaseUser, session: Session) -> None:
        self._user = user
        self._manager = get_auth_manager()
        self._dag_ids = self._manager.get_authorized_dag_ids(user=user, session=session)
        # Airflow 3.1 has no teams, and asks of each connection
        read = getattr(self._manager, "get_authorized_connections", None)
        self._conn_ids: set[str] | None = read(user=user, session=session) if read is not None else None
        self._runs: dict[str, bool] = {}

    def may_read_runs(self, dag_id: str) -> bool:
        """Whether the user may read a DAG and its task instances."""
        if dag_id not in self._dag_ids:
            return False
        if dag_id not in self._runs:
            self._runs[dag_id] = self._manager.is_authorized_dag(
                method="GET",
                access_entity=DagAccessEntity.TASK_INSTANCE,
                details=DagDetails(id=dag_id),
                user=self._user,
            )
        return self._runs[dag_id]

    def may_read_connection(self, conn_id: str, *, is_stored: bool) -> bool:
        """Whether the user may read a connection.

        :param is_stored: whether it is in Airflow's database; one of the environment belongs to no team.
        """
        if is_stored and self._conn_ids is not None:
            return conn_id in self._conn_ids
        return self._manager.is_authorized_connection(
            method="GET", details=ConnectionDetails(conn_id=conn_id), user=self._user
        )
