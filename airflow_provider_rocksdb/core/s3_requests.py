"""Requests to S3 whose bodies the calling thread sends and receives itself.

s3fs has one event loop. There botocore makes, signs, judges and repeats each request, as for all of s3fs; and there
aiohttp would copy all data of all requests, in one thread and holding Python's lock. So the request that botocore wants
to be sent (its event ``before-send``) goes back to the thread that has asked, which sends it by botocore's own
synchronous session: that one copies less, and lets go of the lock while it waits for the network or the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from airflow_provider_rocksdb.core.s3_session import send_at_once

_LOOK_SECONDS = 0.2
_UNLIMITED: AbstractContextManager[Any] = contextlib.nullcontext()

_asking: ContextVar[_Call | None] = ContextVar("asking", default=None)
_clients: WeakSet[Any] = WeakSet()


def request(
    filesystem: Any,
    method: str,
    arguments: dict[str, Any],
    *,
    check: Callable[[], None] = lambda: None,
    slot: AbstractContextManager[Any] = _UNLIMITED,
) -> tuple[dict[str, Any], Any]:
    """Call S3; return the answer as botocore reads it, and urllib3's response, whose body may still have to be read.

    Nobody reads what is sent any more when this has returned.

    :param filesystem: an ``S3FileSystem`` of s3fs.
    :param method: of botocore's client.
    :param arguments: of that method, a ``Bucket`` among them; a ``Body`` that is a file is read from here, and before
        that by botocore in the event loop, where it needs a checksum.
    :param check: called a few times a second, in the event loop; what it raises breaks off the request.
    :param slot: held while the request is on its way, not while it is made and judged.
    :raises Exception: as s3fs translates it.
    """
    call = _Call()

    async def ask() -> Any:
        _asking.set(call)
        await filesystem.set_session()
        _redirect(await filesystem.get_s3(arguments["Bucket"]))
        asked = asyncio.ensure_future(filesystem._call_s3(method, **arguments))
        try:
            while not (await asyncio.wait({asked}, timeout=_LOOK_SECONDS))[0]:
                check()
        finally:
            call.stop()
            asked.cancel()
            await asyncio.wait({asked})
        return asked.result()

    answer = asyncio.run_coroutine_threadsafe(ask(), filesystem.loop)
    answer.add_done_callback(lambda _: call.exchanges.put(None))
    try:
        while (exchange := call.exchanges.get()) is not None:
            with slot:
                exchange()
    except BaseException:  # a time limit, say
        answer.cancel()
        raise
    return answer.result(), call.response


def _redirect(client: Any) -> None:
    """Have a client send by the thread that has called :func:`request`, if one has."""
    if client in _clients:
        return
    from airflow_provider_rocksdb.core.s3_http import Session  # only here is botocore sure to be there

    session = Session(client)

    async def send(request: Any, **_: Any) -> Any:
        call = _asking.get()
        return None if call is None else await call.send(session, request)

    send_at_once(client.meta.events)
    client.meta.events.register("before-send.s3", send)
    _clients.add(client)


class _Call:
    """One call of :func:`request`: what its thread shall do for the event loop."""

    def __init__(self) -> None:
        self.exchanges: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.response: Any = None
        self._lock = threading.Lock()
        self._socket: Any = None
        self._is_over = False

    async def send(self, session: Any, request: Any) -> Any:
        """Have the thread send a request of botocore's; return the answer."""
        done: Future[Any] = Future()

        def exchange() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                answer = self._exchange(session, request)
            except Exception as error:  # noqa: BLE001 -- raised where botocore waits
                done.set_exception(error)
            except BaseException:
                done.set_exception(ConnectionError("the request was interrupted"))
                raise
            else:
                done.set_result(answer)

        self.exchanges.put(exchange)
        answer = await asyncio.wrap_future(done)
        self.response = answer.raw
        return answer

    def _exchange(self, session: Any, request: Any) -> Any:
        try:
            return session.exchange(request, self._use)
        finally:
            with self._lock:  # before anybody hears of the answer: its stream may have to be read after :meth:`stop`
                self._socket = None

    def _use(self, connected: Any) -> None:
        with self._lock:
            if self._is_over:
                raise ConnectionError("the request was broken off")
            self._socket = connected

    def stop(self) -> None:
        """Let the thread wait for the network no longer."""
        with self._lock, contextlib.suppress(OSError):
            self._is_over = True
            if self._socket is not None:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
