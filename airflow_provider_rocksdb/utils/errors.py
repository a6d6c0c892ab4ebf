"""Where the core's errors become Airflow's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rocksdb.core.errors import CancelledError, CouldNotCheckError, RocksDBError


@contextlib.contextmanager
def retry_only_transient() -> Iterator[None]:
    """Turn the core's permanent errors into AirflowFailException, so that no retry is spent on them.

    Two that are not transient still leave their retries to the task: a kill says nothing of the next try, and what
    could not be checked now may be checked then.
    """
    try:
        yield
    except RocksDBError as error:
        if error.transient or isinstance(error, CancelledError | CouldNotCheckError):
            raise
        raise AirflowFailException(str(error)) from error
