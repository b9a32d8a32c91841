"""Some calls have a quota of their own beside the account's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import Quota, QuotaGate
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.postgres.database import Store
from tests.engine.conftest import FakeClock
from tests.engine.loopback import Answer, Api

MakeGate = Callable[[str], QuotaGate]


@pytest.fixture
def gate(store: Store, organization: Organization) -> MakeGate:
    def make(account: str) -> QuotaGate:
        options: dict[str, Any] = {"requests_per_minute": 60_000, "concurrent_requests": 5, "clock": FakeClock()}
        return QuotaGate(store, organization.organization_id, "hubspot", account, Quota(1000), **options)

    return make


def waits(gate: QuotaGate) -> float:
    clock = gate._clock
    assert isinstance(clock, FakeClock)
    return sum(clock.waits)


def test_a_refusal_closes_the_budget_of_its_call_alone(gate: MakeGate, api: Api, clock: FakeClock) -> None:
    general, search = gate("acme"), gate("acme/search")
    api.answers = [Answer(429, headers={"Retry-After": "60"}), Answer()]
    guard = AddressGuard("acme-hubspot", restricted=False)
    with HttpClient(guard, quota=general, budgets={"search": search}, clock=clock) as http:
        http.request("GET", api.url, budget="search")
        http.request("GET", api.url)
    assert waits(search) == pytest.approx(60, abs=5)
    assert waits(general) < 1
