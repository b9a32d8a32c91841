"""A proxy before a simulated provider that keeps every request, to hold it against what the provider publishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx

from churnguard_pipelines.sandbox.serve import Sandbox
from tests.serving import HttpServer, QuietHandler, serving

_OF_THE_CONNECTION = {"connection", "accept-encoding", "content-length"}


class Asked(NamedTuple):
    """``headers``: names in lower case."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes


class Recorder(HttpServer):
    def __init__(self, target: str) -> None:
        super().__init__(_Forward)
        self.target = httpx.Client(base_url=target, headers={"accept-encoding": "identity"})
        self.seen: list[Asked] = []


class _Forward(QuietHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Recorder

    def do_GET(self) -> None:
        self._forward(b"")

    def do_POST(self) -> None:
        self._forward(self.rfile.read(int(self.headers["content-length"])))

    def _forward(self, body: bytes) -> None:
        asked = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qsl(asked.query, keep_blank_values=True)
        self.server.seen.append(Asked(self.command, asked.path, query, headers, body))
        kept = {name: value for name, value in headers.items() if name not in _OF_THE_CONNECTION}
        answer = self.server.target.request(self.command, self.path, headers=kept, content=body)
        self.send_response_only(answer.status_code)  # without a Date of its own: the answer has one
        for name in ("content-type", "date", "stripe-version"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)


@contextmanager
def recorded(sandbox: Sandbox) -> Iterator[Recorder]:
    recorder = Recorder(sandbox.url)
    with serving(recorder), recorder.target:
        yield recorder
