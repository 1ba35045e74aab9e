"""A webhook receiver that remembers what came and when. Used by conftest.py."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Post:
    """One POST: when (time.time()), its Idempotency-Key, its body; `taken` is whether it was answered 200."""

    at: float
    key: str
    body: dict[str, object]
    taken: bool

    @property
    def service(self) -> str:
        incident = self.body["incident"]
        assert isinstance(incident, dict)
        return str(incident["service"])


class Receiver:
    """Listens on loopback. `refuse` = n answers the next n POSTs with 503."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.refuse = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                taken = receiver.refuse <= 0
                receiver.refuse = max(0, receiver.refuse - 1)
                receiver.posts.append(Post(time.time(), self.headers.get("Idempotency-Key", ""), body, taken))
                self.send_response(200 if taken else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def of(self, service: str) -> list[Post]:
        """What came about a service."""
        return [post for post in list(self.posts) if post.service == service]

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
