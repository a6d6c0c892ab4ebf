"""Which failures are worth another try: for ``retry_policy`` of Airflow 3.3 and later.

For tasks of any kind, such as a ``@task`` that uses the hook or the core. This provider's operators already spend no
retry on what is permanent, on every version of Airflow; to them the policy gives the delay after a network failure.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_rocksdb.core.driver_errors import is_full, is_missing, is_refusal
from airflow_provider_rocksdb.core.errors import CancelledError, CouldNotCheckError, RocksDBError, TransferError

if TYPE_CHECKING:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
else:
    try:
        from airflow.providers.common.compat.sdk import RetryPolicy
    except ImportError:  # before Airflow 3.3: the class is there, and nobody asks it
        RetryPolicy = object


class RocksDBRetryPolicy(RetryPolicy):
    """Fail at once what no retry mends: damage, what is not there, bad credentials; try the network again, later.

    =====================================================  =================================================
    failure                                                decision
    =====================================================  =================================================
    corrupt, incomplete, not found, refused, misused, …    fail, whatever ``retries`` are left
    storage kept failing, connection refused, time-out     retry after ``network_delay``
    another run holds the lock, no space, moved on         retry after the task's ``retry_delay``
    anything else, and what could not be checked           as without a policy
    =====================================================  =================================================

    In ``default_args`` it does no harm on an older Airflow, which knows no such argument and leaves it out::

        DAG(…, default_args={"retries": 5, "retry_policy": RocksDBRetryPolicy()})

    :param network_delay: how long to wait after a network failure.
    """

    def __init__(self, network_delay: timedelta = timedelta(minutes=5)) -> None:
        self.network_delay = network_delay

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 -- Airflow's signature, as the next two
        max_tries: int,  # noqa: ARG002
        context: Any = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide for a failure."""
        from airflow.providers.common.compat.sdk import RetryDecision

        if isinstance(exception, CancelledError | CouldNotCheckError):
            return RetryDecision.default()
        if isinstance(exception, RocksDBError) and not exception.transient:
            return RetryDecision.fail(f"{type(exception).__name__} is permanent")
        if isinstance(exception, TransferError):
            return RetryDecision.retry(self.network_delay, "the storage kept failing")
        if isinstance(exception, RocksDBError) or is_full(exception):
            return RetryDecision.retry(reason="it may pass")
        if isinstance(exception, AirflowNotFoundException) or is_missing(exception):
            return RetryDecision.fail("what is not there will not come by itself")
        if is_refusal(exception):
            return RetryDecision.fail("credentials or permissions were refused")
        if isinstance(exception, ConnectionError | TimeoutError):
            return RetryDecision.retry(self.network_delay, "the network failed")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return the policy as JSON-able values."""
        return {"network_delay": self.network_delay.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RocksDBRetryPolicy:
        """Return the policy that :meth:`serialize` was asked for."""
        return cls(timedelta(seconds=data["network_delay"]))
