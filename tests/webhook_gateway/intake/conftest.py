"""The gateway as a process on a free port, its PostgreSQL, and a provider that signs."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from churnguard_pipelines.model import Organization
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import WebhookEndpoint, add_endpoint
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.waiting import PATIENCE_SECONDS, wait_for

SECRET = "whsec_of_the_tests"


def stripe_event(id: str, kind: str = "customer.updated", created: int = 1_790_000_000, **fields: Any) -> bytes:
    record = {"id": "cus_1", "object": "customer", "created": 1_700_000_000, **fields}
    event = {
        "id": id, "object": "event", "type": kind, "created": created, "api_version": "2026-05-27.dahlia",
        "data": {"object": record},
    }  # fmt: skip
    return json.dumps(event).encode()


def stripe_headers(body: bytes, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Signed as docs.stripe.com/webhooks#verify-manually says."""
    moment = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={moment},v1={digest}", "Content-Type": "application/json; charset=utf-8"}


@dataclass
class Gateway:
    """The process; ``start`` and ``kill`` it."""

    store: Store
    variables: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.port = self.port or free_port()
        environment = dagster_environment(self.store) | {"WEBHOOK_SERVER_PORT": str(self.port)} | self.variables
        self.process = subprocess.Popen([sys.executable, "-m", "webhook_gateway.intake"], env=environment)
        wait_for(self.answers)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "it ended"
        try:
            return httpx.get(f"{self.url}/webhooks/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, sign)
            self.process.wait(PATIENCE_SECONDS)

    def post(
        self, body: bytes, organization: str = "acme", provider: str = "stripe", **arguments: Any
    ) -> httpx.Response:
        arguments.setdefault("headers", stripe_headers(body))
        return httpx.post(f"{self.url}/webhooks/{provider}/{organization}", content=body, timeout=20, **arguments)


@pytest.fixture
def endpoint(store: Store) -> WebhookEndpoint:
    """acme's Stripe, its integration and its endpoint."""
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    add_integration(store, configuration("acme"), actor="test")
    return add_endpoint(store, organization_id="acme", provider="stripe", secret=SECRET, actor="test")


@pytest.fixture
def make_gateway(store: Store, endpoint: WebhookEndpoint) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(**variables: str) -> Gateway:
        gateway = Gateway(store, {"WEBHOOK_RATE_LIMIT_PER_MINUTE": "1000000"} | variables)
        made.append(gateway)
        gateway.start()
        return gateway

    yield make
    for gateway in made:
        gateway.kill(signal.SIGTERM)


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway()


def inbox(store: Store, columns: str = "event_id") -> list[Any]:
    """What the inbox holds, in order."""
    with store.operator() as connection:
        rows = connection.exec_driver_sql(f"SELECT {columns} FROM ingest.webhook_inbox ORDER BY sequence").all()
    return [row[0] if len(row) == 1 else tuple(row) for row in rows]
