"""A provider that says what a test wants it to say, also what no sane provider would. Real HTTP on a loopback port."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Query = dict[str, list[str]]
Said = Any | Callable[[Query], Any]


class StandIn:
    """``says``: what each path answers, one after the other, the last for ever; a callable is given the query.

    An answer is a JSON body, or ``(status, body)``. A path that nobody told anything is an empty list. ``now``: its
    clock in epoch seconds; None leaves the ``Date`` header out.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.now: int | None = 0
        self.says: dict[str, list[Said]] = {}
        self.asked: list[tuple[str, Query]] = []
        self._lock = Lock()

    def answer(self, path: str, query: Query) -> tuple[int, Any]:
        with self._lock:
            self.asked.append((path, query))
            script = self.says.get(path, [{"object": "list", "data": [], "has_more": False}])
            said = script.pop(0) if len(script) > 1 else script[0]
        made = said(query) if callable(said) else said
        return made if isinstance(made, tuple) else (200, made)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            status, content = provider.answer(asked.path, parse_qs(asked.query))
            body = json.dumps(content).encode()
            self.send_response_only(status)
            if provider.now is not None:
                self.send_header("Date", formatdate(provider.now, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    provider = StandIn(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
