"""A provider that says what a test wants it to say, also what no sane provider would. Real HTTP on a loopback port."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.serving import HttpServer, QuietHandler, serving

Query = dict[str, Any]
Said = Any | Callable[[Query], Any]


class StandIn:
    """``says``: what each path answers, one after the other, the last for ever; a callable is given the query.

    An answer is a JSON body, or ``(status, body)``, or ``(status, body, headers)``. A path that nobody told anything
    says ``anything``, an empty list. What is posted comes as the query does: its JSON under ``body``. ``now``: its
    clock in epoch seconds; None leaves the ``Date`` header out.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.now: int | None = 0
        self.says: dict[str, list[Said]] = {}
        self.anything: Said = {"object": "list", "data": [], "has_more": False}
        self.asked: list[tuple[str, Query]] = []
        self._lock = Lock()

    def answer(self, path: str, query: Query) -> tuple[int, Any, dict[str, str]]:
        with self._lock:
            self.asked.append((path, query))
            script = self.says.get(path, [self.anything])
            said = script.pop(0) if len(script) > 1 else script[0]
        made = said(query) if callable(said) else said
        status, body, *headers = made if isinstance(made, tuple) else (200, made)
        return status, body, headers[0] if headers else {}


@contextmanager
def stand_in() -> Iterator[StandIn]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            posted = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"null")
            self._answer({"body": posted})

        def do_GET(self) -> None:
            self._answer({})

        def _answer(self, posted: Query) -> None:
            asked = urlsplit(self.path)
            status, content, headers = provider.answer(asked.path, parse_qs(asked.query) | posted)
            body = json.dumps(content).encode()
            self.send_response_only(status)
            if provider.now is not None:
                self.send_header("Date", formatdate(provider.now, usegmt=True))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HttpServer(Handler)
    provider = StandIn(server.url)
    with serving(server):
        yield provider
