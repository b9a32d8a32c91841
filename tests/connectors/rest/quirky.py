"""A REST server with the habits of many: real HTTP on a loopback port, each path answered as a test says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.serving import HttpServer, QuietHandler, serving


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


Route = Callable[[Request], Any]
"""Gives a :class:`Reply`, or what becomes its JSON."""


class Quirky:
    """``routes``: path -> route; others answer 404. ``asked``: every request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.routes: dict[str, Route] = {}
        self.asked: list[Request] = []
        self._lock = Lock()

    def says(self, path: str, *replies: Any) -> None:
        """One after the other, the last for ever."""
        left = list(replies)

        def next_one(_request: Request) -> Any:
            return left.pop(0) if len(left) > 1 else left[0]

        self.routes[path] = next_one

    def answer(self, request: Request) -> Reply:
        with self._lock:
            self.asked.append(request)
            route = self.routes.get(request.path)
            made = route(request) if route else Reply(b'{"message": "not here"}', 404)
        return made if isinstance(made, Reply) else Reply(json.dumps(made).encode())


@contextmanager
def quirky_server() -> Iterator[Quirky]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            reply = server.answer(Request(self.command, parts.path, query, headers, body))
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": reply.type, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

    http = HttpServer(Handler)
    server = Quirky(http.url)
    with serving(http):
        yield server
