"""The storages, asked beside the page, which never waits long for one.

None is asked twice within a minute, unless a backup was made since. A storage that hangs holds one thread, a daemon,
until its driver gives up; until then nobody asks it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow_provider_rocksdb.plugins.facts import Answer

WAIT_SECONDS = 3.0
KEEP_SECONDS = 60.0
_AT_A_TIME = 16


@dataclass
class _Question:
    """One question that a thread is asking, or has asked."""

    asked: float = field(default_factory=time.time)
    done: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None

    def is_old(self, keep_seconds: float, changed: float) -> bool:
        """Whether it has an answer from before a change, or from too long ago."""
        return self.done.is_set() and (self.asked < changed or time.time() - self.asked > keep_seconds)


class Storages:
    """Answers of storages, by connection id.

    :param ask: asks the storage of a connection; may take as long as it likes, and raise anything.
    """

    def __init__(
        self, ask: Callable[[str], Answer], *, wait_seconds: float = WAIT_SECONDS, keep_seconds: float = KEEP_SECONDS
    ) -> None:
        self._ask = ask
        self._wait_seconds = wait_seconds
        self._keep_seconds = keep_seconds
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(_AT_A_TIME)
        self._questions: dict[str, _Question] = {}

    def ask_all(self, changes: Mapping[str, float]) -> dict[str, Answer]:
        """Return an answer for each; those that have none in time say so.

        :param changes: by connection id, when the repository is known to have changed last, in seconds since 1970.
        """
        questions = {conn_id: self._question(conn_id, changed) for conn_id, changed in changes.items()}
        deadline = time.monotonic() + self._wait_seconds
        for question in questions.values():
            question.done.wait(max(deadline - time.monotonic(), 0))
        late = Answer(problem=f"it did not answer within {self._wait_seconds:g} seconds")
        return {conn_id: question.answer or late for conn_id, question in questions.items()}

    def _question(self, conn_id: str, changed: float) -> _Question:
        with self._lock:
            question = self._questions.get(conn_id)
            if question is not None and not question.is_old(self._keep_seconds, changed):
                return question
            question = self._questions[conn_id] = _Question()
            threading.Thread(target=self._run, args=(conn_id, question), daemon=True, name=f"storage {conn_id}").start()
            return question

    def _run(self, conn_id: str, question: _Question) -> None:
        try:
            with self._slots:
                question.answer = self._ask(conn_id)
        except Exception as error:  # noqa: BLE001 -- whatever a driver raises, the page says it
            question.answer = Answer(problem=f"{type(error).__name__}: {error}")
        question.done.set()


def ask_storage(conn_id: str) -> Answer:
    """List the backups of a connection's repository, with what they take; or say why not, without credentials."""
    from airflow.providers.common.compat.sdk import redact

    from airflow_provider_rocksdb.core.errors import RocksDBError
    from airflow_provider_rocksdb.core.repository_usage import list_usage
    from airflow_provider_rocksdb.hooks.rocksdb import RocksDBHook

    try:
        return Answer(list_usage(*RocksDBHook(conn_id).get_storage()))
    except RocksDBError as error:
        return Answer(problem=str(redact(str(error))))
    except Exception as error:  # noqa: BLE001 -- whatever a driver raises
        return Answer(problem=str(redact(f"{type(error).__name__}: {error}")))
