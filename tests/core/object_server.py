"""A small HTTP server that has one object under every name, and can break off."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DATA = os.urandom(3_000_000)


@dataclass
class ObjectServer:
    """What it serves: ``DATA``, and what it was asked.

    ``breaks`` are the bytes after which its next answers break off, ``statuses`` what it answers before any of that.
    """

    url: str = ""
    etag: str = '"one"'
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)  # ranges of the GETs
    conditions: list[str | None] = field(default_factory=list)  # and what they require
    connections: set[Any] = field(default_factory=set)


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Run it."""
    state = ObjectServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(200, DATA, 0)

        def do_GET(self) -> None:
            state.connections.add(self.client_address)
            asked, condition = self.headers["Range"], self.headers["If-Match"]
            state.asked.append(asked)
            state.conditions.append(condition)
            if state.statuses:
                self.answer(state.statuses.pop(0), b"", 0)
            elif condition not in (None, state.etag):
                self.answer(412, b"", 0)
            else:
                match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
                data = DATA[int(match[1]) : int(match[2] or len(DATA)) + 1] if match else DATA
                kept = state.breaks.pop(0) if state.breaks else len(data)
                self.answer(206 if match else 200, data, kept)
                self.close_connection = kept < len(data)

        def answer(self, status: int, data: bytes, kept: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", state.etag)
            self.end_headers()
            self.wfile.write(data[:kept])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield state
        http.shutdown()
