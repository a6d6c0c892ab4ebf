"""A TCP proxy on loopback with latency: ``python -m benchmarks.latency_proxy PORT MILLISECONDS`` prints its own port.

What it reads leaves half of the round trip later, in either direction; how much is on its way is limited only by the
memory of a long, fast line.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

_CHUNK_BYTES = 256 * 1024
_ON_THE_WAY = 256  # chunks of one direction of a connection


def pass_on(source: socket.socket, target: socket.socket, delay: float) -> None:
    """Send what comes from one socket to another, that much later; end with the source."""
    line: queue.Queue[tuple[float, bytes]] = queue.Queue(_ON_THE_WAY)

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = line.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    break
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    data = b"x"
    while data:
        try:
            data = source.recv(_CHUNK_BYTES)
        except OSError:
            data = b""
        line.put((time.monotonic() + delay, data))


def main() -> None:
    """Serve until killed."""
    port, milliseconds = int(sys.argv[1]), float(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for pair in ((client, server), (server, client)):
            threading.Thread(target=pass_on, args=(*pair, milliseconds / 2000), daemon=True).start()


@contextlib.contextmanager
def latency(port: int, milliseconds: float) -> Iterator[int]:
    """Run the proxy before a port as a process of its own; yield its port."""
    command = [sys.executable, "-m", "benchmarks.latency_proxy", str(port), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None  # noqa: S101 -- for the type checker
            yield int(child.stdout.readline())
        finally:
            child.kill()


if __name__ == "__main__":
    main()
