"""A proxy in front of a real server, whose network fails by a schedule.

For HTTP it understands where a request and an answer end, and so can lose the answer to what was done, cut a body, or
answer with a server's own errors. For anything else it passes bytes on, and can stop passing them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Fault = Literal["reset", "lost answer", "cut body", "500", "503", "slow down", "stall"]

_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
_CLOSE = b"Connection: close\r\nContent-Length: "
_ANSWERS: dict[str, bytes] = {
    "500": b"HTTP/1.1 500 Internal Server Error\r\n%b0\r\n\r\n" % _CLOSE,
    "503": b"HTTP/1.1 503 Service Unavailable\r\n%b0\r\n\r\n" % _CLOSE,
    "slow down": b"HTTP/1.1 503 Slow Down\r\n%b%d\r\n\r\n%b" % (_CLOSE, len(_SLOW_DOWN), _SLOW_DOWN),
}
_BLOCK = 256 * 1024


@dataclass
class Network:
    """How a proxy's network is: what fails, how often, and what it was asked.

    :param rate: share of the requests that fail.
    :param latency_seconds: that each request takes longer.
    :param is_stalled: nothing is passed on any more, and no connection is closed.
    """

    port: int = 0
    seed: int = 0
    rate: float = 0.0
    faults: tuple[Fault, ...] = ("reset", "lost answer", "cut body", "500", "503", "slow down", "stall")
    latency_seconds: float = 0.0
    is_stalled: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    rounds: int = 0  # how often there was a request and no other was on its way
    failed: Counter[str] = field(default_factory=Counter)
    _asked: Counter[str] = field(default_factory=Counter)
    _under_way: int = 0

    def ask(self, head: bytes) -> Fault | None:
        line = head.partition(b"\r\n")[0].decode("latin-1")
        self.requests[line.partition(" ")[0]] += 1
        line = re.sub(r"[0-9a-f]{12,}", "*", line)
        self._asked[line] += 1
        digest = hashlib.sha256(f"{self.seed} {line} {self._asked[line]}".encode()).digest()
        if int.from_bytes(digest[:4], "big") >= self.rate * 2**32:
            return None
        fault = self.faults[digest[4] % len(self.faults)]
        self.failed[fault] += 1
        return fault

    async def wait(self) -> None:
        """Let a request be on its way for as long as it takes."""
        self.rounds += not self._under_way
        self._under_way += 1
        await asyncio.sleep(self.latency_seconds)
        self._under_way -= 1


@contextlib.contextmanager
def http_proxy(port: int) -> Iterator[Network]:
    """Run a proxy in front of an HTTP server on loopback."""
    with _serve(lambda network: _Http(network, port).serve) as network:
        yield network


@contextlib.contextmanager
def tcp_proxy(port: int) -> Iterator[Network]:
    """Run a proxy in front of any server on loopback; it can stall."""
    with _serve(lambda network: _Tcp(network, port).serve) as network:
        yield network


_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.contextmanager
def _serve(make: Callable[[Network], _Serve]) -> Iterator[Network]:
    network, loop, ready = Network(), asyncio.new_event_loop(), threading.Event()
    work = make(network)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await work(reader, writer)
        writer.transport.abort()

    async def begin() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024 * 1024)
        network.port = server.sockets[0].getsockname()[1]
        ready.set()

    def run() -> None:
        loop.create_task(begin())
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield network
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


class _Http:
    def __init__(self, network: Network, port: int) -> None:
        self.network = network
        self.port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._serve_one(reader, writer):
            pass

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        fault = self.network.ask(head)
        if fault == "stall" or self.network.is_stalled:
            await asyncio.sleep(3600)
        if fault == "reset":
            return _reset(writer)
        if b"100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(_length(head))
        await self.network.wait()
        if fault in _ANSWERS:
            answer = _ANSWERS[fault]
            writer.write(answer[: answer.index(b"\r\n\r\n") + 4] if head.startswith(b"HEAD") else answer)
            await writer.drain()
            return False
        answer = await self._forward(head, body)
        if fault == "lost answer":
            return _reset(writer)
        if fault == "cut body":
            start = answer.index(b"\r\n\r\n") + 4
            writer.write(answer[: start + (len(answer) - start) // 2])
            await writer.drain()
            return _reset(writer) if len(answer) == start else False
        writer.write(answer)
        await writer.drain()
        return False

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        head = re.sub(rb"(?im)^(connection|expect):[^\r]*\r\n", b"", head[:-2]) + b"Connection: close\r\n\r\n"
        upstream, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head + body)
            await writer.drain()
            return await upstream.read(-1)
        finally:
            writer.close()


def _length(head: bytes) -> int:
    found = re.search(rb"(?im)^content-length: *(\d+)", head)
    assert found or b"chunked" not in head.lower(), head
    return int(found[1]) if found else 0


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Close a connection as a dying host does, with RST."""
    plug = writer.get_extra_info("socket")
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


class _Tcp:
    def __init__(self, network: Network, port: int) -> None:
        self.network = network
        self.port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await asyncio.gather(self._pass_on(reader, to_server), self._pass_on(upstream, writer))
        finally:
            to_server.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_BLOCK):
            if self.network.is_stalled:
                await asyncio.sleep(3600)
            await asyncio.sleep(self.network.latency_seconds)
            writer.write(data)
            await writer.drain()
        writer.close()


def draw_network(network: Network, seed: int) -> None:
    """Give a proxy's network a seeded schedule."""
    numbers = random.Random(seed)  # noqa: S311 -- no secret
    network.seed, network.rate = seed, numbers.choice([0.02, 0.1, 0.2])
