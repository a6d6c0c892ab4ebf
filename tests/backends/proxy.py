"""A TCP proxy on loopback that counts what goes through it, and may answer in a server's place."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator

_REQUEST_LINE = re.compile(rb"(?:^|\n)[A-Z]+ [^\r\n]+ HTTP/1\.[01]\r\n")

Answer = Callable[[bytes], bytes | None]


class Proxy:
    """Passes connections on to a port of this host.

    ``answer`` is given the beginning of a request and may return a whole response; the connection then ends.
    """

    def __init__(self, port: int, answer: Answer = lambda _: None) -> None:
        self.requests = self.connections = 0
        self._target, self._answer = port, answer
        self._stalled = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """From now on, swallow what comes."""
        self._stalled.set()

    def close(self) -> None:
        """Accept nothing more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if from_client:
                    with self._lock:
                        self.requests += len(_REQUEST_LINE.findall(data))
                    response = self._answer(data)
                    if response is not None:
                        source.sendall(response)
                        break
                if not self._stalled.is_set():
                    target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(port: int, answer: Answer = lambda _: None) -> Iterator[Proxy]:
    """Run a proxy until the block ends."""
    made = Proxy(port, answer)
    try:
        yield made
    finally:
        made.close()


def http_response(status: str, body: str, kind: str = "application/json") -> bytes:
    """Return a whole response after which the connection ends."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()
