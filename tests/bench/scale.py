"""Ten thousand tenants with nine integrations each: what a quiet sync costs, how late one begins, what ticks and
Dagster's own storage cost.

The provider is in this process and answers from memory, through the real HTTP client: 95 of 100 syncs find nothing new,
the others one record. It stands in the place of Stripe, in a process of its own, so that Dagster's real definitions are
used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence

import httpx

from churnguard_pipelines.connectors.sdk import ApiConnector, ConnectionReport, Object, Reading
from churnguard_pipelines.engine.auth import ApiKey, Credential
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationType
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.records import Batch, Record, Window, columns
from churnguard_pipelines.store.postgres.database import Store
from tests.bench.harness import Row

AREA = "scale"
TENANTS, INTEGRATIONS_EACH = 10_000, 9
A_DAY = TENANTS * INTEGRATIONS_EACH * 24
A_SECOND = TENANTS * INTEGRATIONS_EACH / 3600
WITH_NEWS = 20  # one in so many syncs finds a record
QUIET_LANES, SHOWN_LANES = 1_000, 1_000
LATENESS_SECONDS = 120.0
TICKS = 5
OBJECTS = ("customers", "invoices")


class Memory(httpx.BaseTransport):
    """Answers at once, in this process."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": []}, request=request)


class Stripe(ApiConnector):
    """Not Stripe: two objects, one call each."""

    provider, kind, title = "stripe", IntegrationType.PAYMENT, "Stripe"
    objects = tuple(Object(name, f"/v1/{name}", columns(TEXT="name", TIMESTAMP="created")) for name in OBJECTS)
    reads = 0

    @classmethod
    def credential(cls, integration: IntegrationConfiguration) -> Credential:
        return ApiKey(integration)

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        return Quota(per_second=100.0)

    def identity(self) -> str:
        return "memory"

    def check(self) -> ConnectionReport:
        return ConnectionReport(self.integration.integration_id, "memory", ())

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        self.http.request("GET", f"http://127.0.0.1:9{item.path}", expect_json=True)
        Stripe.reads += 1
        news = [Record({"id": f"r{Stripe.reads}", "name": "x", "created": reading.started.isoformat()}, Stripe.reads)]
        yield Batch(news if Stripe.reads % (WITH_NEWS * len(OBJECTS)) == 0 else [], {"read": Stripe.reads})

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        return None


def run(store: Store) -> list[Row]:
    """In a process of its own, in which Stripe is another."""
    environment = os.environ | dagster_environment(store)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bench.scale"], env=environment, stdout=subprocess.PIPE, check=True
    )
    return [Row(**row) for row in json.loads(ended.stdout.splitlines()[-1])]
