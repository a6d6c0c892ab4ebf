"""Where the core's errors become Airflow's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    get_current_context,
    redact,
)

from airflow_provider_rocksdb.core.errors import CancelledError, CouldNotCheckError, RocksDBError

FAILURE_KEY = "rocksdb_failure"
"""Key of the XCom that says why a try failed; Airflow itself keeps that in the log alone."""

_MAX_REASON = 1000  # characters
_TOLD = (RocksDBError, AirflowFailException, AirflowNotFoundException, AirflowSensorTimeout, OSError)


@contextlib.contextmanager
def retry_only_transient() -> Iterator[None]:
    """Turn the core's permanent errors into AirflowFailException, so that no retry is spent on them.

    Two that are not transient still leave their retries to the task: a kill says nothing of the next try, and what
    could not be checked now may be checked then. XCom ``rocksdb_failure`` tells the reason.
    """
    try:
        yield
    except _TOLD as error:
        _tell_failure(error)
        is_permanent = isinstance(error, RocksDBError) and not error.transient
        if is_permanent and not isinstance(error, CancelledError | CouldNotCheckError):
            raise AirflowFailException(str(error)) from error
        raise


def _tell_failure(error: Exception) -> None:
    reason = str(redact(str(error) or type(error).__name__))[:_MAX_REASON]
    with contextlib.suppress(Exception):  # what failed matters more
        get_current_context()["ti"].xcom_push(key=FAILURE_KEY, value=reason)
