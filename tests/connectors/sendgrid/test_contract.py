"""What SendGrid publishes about itself, against what the connector asks."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jsonschema
import pytest

from churnguard_pipelines.sandbox.business.sending import KINDS
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import check_connection
from tests.connectors.sendgrid.conftest import INTEGRATION, Register, errors_of, sync
from tests.sandbox.sendgrid.contracts import described, operation_of, resolved

Seen = tuple[str, str, dict[str, list[str]], dict[str, str], bytes]


class Recorder(ThreadingHTTPServer):
    """Hands every request on to the sandbox and keeps it."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = httpx.Client(base_url=target)
        self.seen: list[Seen] = []


class _Forward(BaseHTTPRequestHandler):
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
        query = parse_qs(asked.query, keep_blank_values=True)
        self.server.seen.append((self.command, asked.path, query, headers, body))
        kept = {name: value for name, value in headers.items() if name in ("authorization", "on-behalf-of")}
        answer = self.server.target.request(self.command, self.path, headers=kept, content=body)
        self.send_response_only(answer.status_code)
        for name in ("content-type", "date"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def recorded(sandbox: Sandbox) -> Iterator[Recorder]:
    with Recorder(sandbox.url) as recorder:
        thread = threading.Thread(target=recorder.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield recorder
        finally:
            recorder.shutdown()
            thread.join()


def judge(method: str, path: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes) -> None:
    """The path is one of SendGrid's, every parameter is declared for it with a value that its schema takes, and what it
    requires is there."""
    description, operation = operation_of(method, path)
    declared = {each["name"]: each for each in operation["parameters"] if each["in"] == "query"}
    for name, values in query.items():
        assert name in declared, f"{path} takes no {name}"
        jsonschema.validate(_value(values, declared[name]["schema"]), declared[name]["schema"])
    for each in operation["parameters"]:
        if each.get("required") and each["in"] != "path":
            assert each["name"].lower() in ({*query} if each["in"] == "query" else headers), each["name"]
    if body:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.validate(json.loads(body), resolved(description, schema) | {"additionalProperties": False})


def _value(values: list[str], schema: dict[str, Any]) -> Any:
    if schema.get("type") == "array":
        return values
    (text,) = values if schema.get("type") != "string" or len(values) == 1 else (values[0],)
    return int(text) if schema.get("type") in ("integer", "number") and re.fullmatch(r"-?\d+", text) else text


@cache
def _families() -> set[str]:
    return {path for description in described().values() for path in description["paths"]}


def test_every_request_is_one_that_sendgrid_declares(
    store: Store, sandbox: Sandbox, account: AccountHandle, connect: Register
) -> None:
    described()
    with recorded(sandbox) as recorder:
        connect(f"http://127.0.0.1:{recorder.server_address[1]}", key=account.key)
        check_connection(store, INTEGRATION)
        account.act(lambda it: [it.sending.suppress("blocks", f"{n}@example.com", it.clock() - n) for n in range(700)])
        assert errors_of(sync(store)) == {}
        sandbox.account("acme").advance(7200)
        assert errors_of(sync(store)) == {}
    paths = {path for _, path, *_ in recorder.seen}
    assert {f"/v3/suppression/{kind}" for kind in KINDS} < paths
    assert any("/exports/" in path for path in paths)
    for method, path, query, headers, body in recorder.seen:
        if path.startswith("/v3/"):
            judge(method, path, query, headers, body)
            assert headers["authorization"] == f"Bearer {account.key}"
        else:
            assert "authorization" not in headers


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v3/suppression/bounce", {}),
        ("/v3/suppression/bounces", {"limit": ["501"]}),
        ("/v3/suppression/bounces", {"since": ["1"]}),
        ("/v3/templates", {"page_size": ["201"]}),
        ("/v3/templates", {}),
        ("/v3/stats", {"start_date": ["2026-01-01"], "aggregated_by": ["year"]}),
    ],
    ids=["path", "limit", "parameter", "page", "required", "enum"],
)
def test_the_judge_refuses_what_sendgrid_does_not_declare(path: str, query: dict[str, list[str]]) -> None:
    described()
    with pytest.raises((AssertionError, jsonschema.ValidationError)):
        judge("GET", path, query, {"accept": "application/json"}, b"")
