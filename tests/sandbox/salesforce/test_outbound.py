"""Outbound messages of the simulated Salesforce, as our gateway's scheme reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import orjson
import pytest

from churnguard_pipelines.sandbox.serve import Sandbox
from webhook_gateway.schemes.salesforce import Salesforce
from webhook_gateway.schemes.sdk import Delivery


def delivery(url: str, body: bytes) -> Delivery:
    return Delivery("POST", url, {"content-type": "text/xml"}, body, received_at=0)


ACKNOWLEDGEMENT = Salesforce().accepted(delivery("", b"")).body


class Endpoint:
    """Answers with what `answers` has, then with an acknowledgement."""

    def __init__(self) -> None:
        self.bodies: Queue[bytes] = Queue()
        self.answers: list[bytes] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = endpoint.answers.pop(0) if endpoint.answers else ACKNOWLEDGEMENT
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                endpoint.bodies.put(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/webhooks/salesforce/acme?secret=s"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self) -> list[dict[str, Any]]:
        return [
            orjson.loads(event.payload)
            for event in Salesforce().events(delivery(self.url, self.bodies.get(timeout=20)))
        ]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_change_is_told_until_it_is_acknowledged(sandbox: Sandbox, endpoint: Endpoint) -> None:
    account = sandbox.account("acme")
    endpoint.answers.append(b"<Ack>false</Ack>")
    sandbox.salesforce.outbound.send("acme", "Account", endpoint.url, ["Name", "Phone", "SystemModstamp"])
    company = account.crm("create", kind="company", name="Here & there")
    first, second = endpoint.next(), endpoint.next()
    assert first == second
    assert first[0]["sObject"]["type"] == "Account"
    assert first[0]["sObject"]["Name"] == "Here & there"
    assert "Phone" not in first[0]["sObject"]
    assert first[0]["OrganizationId"].startswith("00D5g0acme")
    account.crm("delete", kind="company", id=company)
    account.crm("create", kind="lead", last_name="Of no rule")
    account.crm("create", kind="company", name="Next", phone="1")
    (third,) = endpoint.next()
    assert (third["sObject"]["Name"], third["sObject"]["Phone"]) == ("Next", "1")


def test_a_burst_comes_in_messages_of_a_hundred_with_the_values_of_now(sandbox: Sandbox, endpoint: Endpoint) -> None:
    account = sandbox.account("acme")
    company = account.crm("create", kind="company", name="Here", employees=0)
    sandbox.salesforce.outbound.send("acme", "Account", endpoint.url, ["NumberOfEmployees"])

    def burst(_: object) -> None:
        for number in range(150):
            account.crm("update", kind="company", id=company, employees=number + 1)

    account.act(burst)
    told = [endpoint.next(), endpoint.next()]
    assert [len(message) for message in told] == [100, 50]
    assert {each["sObject"]["NumberOfEmployees"] for message in told for each in message} == {"150"}
