"""An S3 server that forgets the content of what it is given: a script that prints its port, for measuring uploads.

It answers what an upload asks (single and multipart PUT, HEAD, a listing), and keeps names and sizes only, so that
neither its disk nor its memory limits what is sent to it.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

_CHUNK_BYTES = 1024 * 1024

sizes: dict[str, int] = {}
parts: dict[str, dict[int, int]] = {}  # by upload id: sizes by part number
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        key, query = self._target()
        length = self._discard()
        with lock:
            if "partNumber" in query:
                parts[query["uploadId"]][int(query["partNumber"])] = length
            else:
                sizes[key] = length
        self._answer(200, headers={"ETag": '"0"'})

    def do_POST(self) -> None:
        key, query = self._target()
        self._discard()
        with lock:
            if "uploads" in query:
                upload_id = str(len(parts) + 1)
                parts[upload_id] = {}
                kind = "InitiateMultipartUploadResult"
            else:
                upload_id = query["uploadId"]
                sizes[key] = sum(parts[upload_id].values())
                kind = "CompleteMultipartUploadResult"
        self._answer(200, f"<{kind}><UploadId>{upload_id}</UploadId><ETag>0</ETag></{kind}>")

    def do_HEAD(self) -> None:
        key, _ = self._target()
        if key in sizes:
            self._answer(200, headers={"ETag": '"0"', "Content-Length": str(sizes[key])})
        else:
            self._answer(404)

    def do_GET(self) -> None:
        bucket, query = self._target()
        prefix = query.get("prefix", "")
        with lock:
            rows = [
                f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size></Contents>"
                for path, size in sorted(sizes.items())
                if (key := path.removeprefix(f"{bucket}/")).startswith(prefix)
            ]
        self._answer(200, f"<ListBucketResult><KeyCount>{len(rows)}</KeyCount>{''.join(rows)}</ListBucketResult>")

    def do_DELETE(self) -> None:
        key, query = self._target()
        with lock:
            if "uploadId" not in query:
                sizes.pop(key, None)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        pass

    def _target(self) -> tuple[str, dict[str, str]]:
        split = urlsplit(self.path)
        query = parse_qs(split.query, keep_blank_values=True)
        return split.path.strip("/"), {name: values[0] for name, values in query.items()}

    def _discard(self) -> int:
        length = left = int(self.headers.get("Content-Length", 0))
        while left:
            left -= len(self.rfile.read(min(_CHUNK_BYTES, left)))
        return length

    def _answer(self, status: int, text: str = "", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
