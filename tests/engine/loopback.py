"""A real HTTP server on a free loopback port that answers what a test tells it to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.serving import HttpServer, QuietHandler, serving


@dataclass
class Asked:
    """A request as the server saw it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def form(self) -> dict[str, str]:
        return {name: found[0] for name, found in parse_qs(self.body.decode()).items()}


@dataclass
class Answer:
    """``length``: the Content-Length to claim where it differs from the truth."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    length: int | None = None


def as_json(content: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **named})


class Api:
    """``answers``: one after the other, the last for ever; a callable decides by the request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer | Callable[[Asked], Answer]] = [Answer()]
        self.asked: list[Asked] = []
        self._lock = Lock()

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            chosen = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return chosen(asked) if callable(chosen) else chosen


@contextmanager
def serve() -> Iterator[Api]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            port = self.client_address[1]
            answer = api.answer(
                Asked(
                    self.command,
                    parts.path,
                    parse_qs(parts.query),
                    httpx.Headers(dict(self.headers.items())),
                    body,
                    port,
                )
            )
            self.send_response_only(answer.status)
            if "Date" not in answer.headers:
                self.send_header("Date", self.date_time_string())
            for name, value in answer.headers.items():
                self.send_header(name, value)
            claimed = len(answer.body) if answer.length is None else answer.length
            self.send_header("Content-Length", str(claimed))
            self.end_headers()
            self.wfile.write(answer.body)
            if claimed != len(answer.body):
                self.close_connection = True

        do_GET = do_POST = do_DELETE = handle_any

    class Server(HttpServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that hung up, as some tests make it do

    server = Server(Handler)
    api = Api(server.url)
    with serving(server):
        yield api
