"""Limits beside the account's rate: quotas that some calls have of their own, and connections that all processes with a
key share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import KEPT_SECONDS, Places, Quota, QuotaGate
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.locks import PlaceLocks
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


@pytest.fixture
def ours(store: Store) -> Iterator[Places]:
    places = Places(store, "places", 1)
    yield places
    places.close()


@pytest.fixture
def others(store: Store) -> Iterator[PlaceLocks]:
    """Of another process."""
    locks = PlaceLocks(store.database_url, "places", 1)
    yield locks
    locks.close()


def test_a_call_that_ends_hands_its_place_to_one_that_waits(ours: Places, others: PlaceLocks, clock: FakeClock) -> None:
    with ours.held(clock, lambda: 1):
        pass
    assert others.take() is None
    with ours.held(clock, lambda: 0):
        assert others.take() is None
    assert others.take() == 0, "nobody of ours waits any more"


def test_a_place_that_was_handed_on_for_its_time_is_left_for_others_to_find(
    ours: Places, others: PlaceLocks, clock: FakeClock
) -> None:
    with ours.held(clock, lambda: 1):
        clock.time += KEPT_SECONDS / 2
        assert others.take() is None
    with ours.held(clock, lambda: 1):
        clock.time += KEPT_SECONDS / 2
    assert not clock.waits
    assert others.take() == 0
    others.leave(0)
    with ours.held(clock, lambda: 1):
        assert clock.waits, "whoever looks meanwhile is there first"


def test_a_place_that_nobody_else_looks_for_is_handed_on_for_ever(
    ours: Places, others: PlaceLocks, clock: FakeClock
) -> None:
    for _ in range(3):
        with ours.held(clock, lambda: 1):
            clock.time += KEPT_SECONDS
    assert not clock.waits
    assert others.take() is None


def test_who_has_found_a_place_wants_none_any_more(ours: Places, others: PlaceLocks, clock: FakeClock) -> None:
    with ours.held(clock, lambda: 0):
        assert others.take() is None
    assert others.take() == 0
    others.leave(0)
    with ours.held(clock, lambda: 1):
        clock.time += KEPT_SECONDS
    assert others.take() is None, "it was handed on"


def test_what_is_kept_can_be_let_go(ours: Places, others: PlaceLocks, clock: FakeClock) -> None:
    with ours.held(clock, lambda: 1):
        pass
    ours.let_go()
    assert others.take() == 0


def test_two_processes_that_never_pause_have_no_more_than_there_are_and_both_get_on(store: Store) -> None:
    under_way, most, lock = 0, 0, Lock()

    def call(places: Places) -> None:
        nonlocal under_way, most
        with places.held(Clock(), lambda: 1):
            with lock:
                under_way += 1
                most = max(most, under_way)
            Clock().wait(0.002)
            with lock:
                under_way -= 1

    both = [Places(store, "shared", 3) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(call, both * 60):
            pass
        for each in both:
            each.close()
    assert 1 < most <= 3


def test_a_place_that_was_left_is_found_again(store: Store) -> None:
    several = PlaceLocks(store.database_url, "several", 3)
    assert [several.take() for _ in range(4)] == [0, 1, 2, None]
    several.leave(1)
    assert several.take() == 1
    several.close()
