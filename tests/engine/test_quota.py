"""The shared rate budget: nobody goes faster than allowed, alone or together."""

from __future__ import annotations

import json
import subprocess
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate
from math import inf
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import (
    FLOOR,
    LEASE_SECONDS,
    Limits,
    Pace,
    Quota,
    QuotaGate,
    blocked,
    pace,
    recovered,
    refused,
    take,
)
from churnguard_pipelines.errors import RateLimited, Stopped
from churnguard_pipelines.orchestration.processes.environment import dagster_environment
from churnguard_pipelines.store.ingest.quotas import QuotaRow, locked_quota
from churnguard_pipelines.store.postgres.database import Store
from tests.engine.conftest import FakeClock
from tests.engine.loopback import Answer, Api

FULL = 1e6  # a bucket that has been quiet for long


def row(tokens: float = FULL, *, at: float = 0.0, rate: float = inf, blocked_until: float = 0.0) -> QuotaRow:
    return QuotaRow(rate, 1.0, tokens, at, blocked_until)


class TestThePace:
    @pytest.mark.parametrize(
        ("quota", "requests_per_minute", "rate", "capacity"),
        [
            (Quota(25), 60, 1.0, 1.0),  # the user's ceiling, exactly
            (Quota(25), 1, 1 / 60, 1.0),
            (Quota(25), 100_000, 20.0, 20.0),  # a fifth is left to the customer's other tools
            (Quota(25, reserve=0.0), 100_000, 25.0, 25.0),
            (Quota(100, burst=5), 100_000, 80.0, 5.0),
            (Quota(0.05), 60, 0.04, 1.0),
            (Quota(25), inf, 20.0, 20.0),  # nobody set one
        ],
    )
    def test_the_lower_of_both_ceilings_holds(
        self, quota: Quota, requests_per_minute: float, rate: float, capacity: float
    ) -> None:
        found = pace(quota, requests_per_minute)
        assert [found.rate, found.capacity] == pytest.approx([rate, capacity])

    @given(st.integers(1, 30_000))
    def test_the_user_s_ceiling_is_nearly_used_up(self, requests_per_minute: int) -> None:
        assert pace(Quota(10_000), requests_per_minute).rate * 60 >= 0.97 * requests_per_minute - 1


Schedule = list[tuple[float, int, int]]
"""(seconds of pause before it, which process asks, for how many calls one after the other)."""

schedules: st.SearchStrategy[Schedule] = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.01, 0.3, 0.49, 2.0, 30.0]), st.integers(0, 3), st.integers(1, 60)),
    min_size=1,
    max_size=25,
)


def granted(schedule: Schedule, pace: Pace) -> list[float]:
    """When each call goes; each process holds leased slots as a gate does, and uses them as late as it may."""
    shared, now, times = row(), 0.0, []
    held: list[deque[float]] = [deque() for _ in range(4)]
    for pause, process, calls in schedule:
        now += pause
        slots = held[process]
        for _ in range(calls):
            while slots and slots[0] + LEASE_SECONDS < now:
                slots.popleft()
            if not slots:
                shared, leased = take(shared, now, pace, pace.lease)
                slots.extend(leased)
            times.append(max(now, slots.popleft()))
    return sorted(times)


def most_in_a_minute(times: list[float]) -> int:
    return max(bisect_left(times, start + 60 - 1e-6) - first for first, start in enumerate(times))


@given(schedules, st.floats(0.02, 100), st.floats(1, 100))
def test_no_window_of_any_schedule_holds_more_than_burst_and_rate_allow(
    schedule: Schedule, rate: float, capacity: float
) -> None:
    # calls(window) <= capacity + rate * (length + LEASE_SECONDS) for all windows at once: how far the number of calls
    # runs ahead of the rate, against the furthest it was behind before.
    ahead = [number - rate * time for number, time in enumerate(granted(schedule, Pace(rate, capacity)))]
    furthest_behind = accumulate(ahead, min)
    assert all(
        here - behind + 1 <= capacity + rate * LEASE_SECONDS + 1e-6
        for here, behind in zip(ahead, furthest_behind, strict=True)
    )


@given(schedules, st.integers(1, 3000))
def test_no_minute_of_any_schedule_holds_more_than_requests_per_minute(
    schedule: Schedule, requests_per_minute: int
) -> None:
    assert most_in_a_minute(granted(schedule, pace(Quota(1000), requests_per_minute))) <= requests_per_minute


@pytest.mark.parametrize("requests_per_minute", [1, 59, 60, 61, 120, 150, 600, 3000])
def test_a_minute_of_callers_that_never_pause_is_full_and_not_more(requests_per_minute: int) -> None:
    hammering = [(0.49 if turn == 1 else 0.0, turn % 2, requests_per_minute) for turn in range(4)]
    most = most_in_a_minute(granted(hammering, pace(Quota(1000), requests_per_minute)))
    assert 0.97 * requests_per_minute - 1 <= most <= requests_per_minute


class TestRefusals:
    PACE = Pace(20.0, 20.0)

    def test_a_refusal_halves_the_rate_and_closes_the_account_until_the_provider_says(self) -> None:
        after = refused(row(), 100.0, self.PACE, 7.0)
        assert (after.rate, after.blocked_until) == (10.0, 107.0)
        after, slots = take(after, 101.0, self.PACE, 3)
        assert slots == pytest.approx([107.1, 107.2, 107.3]), "and nothing was saved up meanwhile"

    def test_refusals_of_calls_that_were_under_way_together_count_once(self) -> None:
        after = row()
        for now in (100.0, 100.2, 100.9):
            after = refused(after, now, self.PACE, 1.0)
        assert (after.rate, after.blocked_until) == (10.0, 101.9)

    def test_the_rate_never_falls_to_nothing(self) -> None:
        after = row()
        for now in range(0, 200, 10):
            after = refused(after, float(now), self.PACE, 1.0)
        assert after.rate == 20.0 * FLOOR

    def test_successes_bring_it_back_slowly_and_not_beyond_the_ceiling(self) -> None:
        after = refused(row(), 100.0, self.PACE, 1.0)
        assert recovered(after, self.PACE, 10).rate == pytest.approx(10.4), "a second's worth adds 2 % of the ceiling"
        for _ in range(1000):
            after = recovered(after, self.PACE, 10)
        assert after.rate == inf
        assert take(after, 200.0, self.PACE, 1)[1] == [200.0]

    def test_a_shorter_pause_does_not_open_a_closed_account(self) -> None:
        assert blocked(row(blocked_until=200.0), 150.0).blocked_until == 200.0


ACCOUNT = "acct_1"
MakeGate = Callable[..., QuotaGate]


@pytest.fixture
def gate(store: Store) -> MakeGate:
    """A gate as another process would make it: it shares only the database."""

    def make(per_second: float = 1000.0, requests_per_minute: int = 1, **options: Any) -> QuotaGate:
        defaults: dict[str, Any] = {"concurrent_requests": 5, "clock": FakeClock(), "integration_id": "acme-stripe"}
        quota = Quota(per_second, reserve=options.pop("reserve", 0.2))
        return QuotaGate(
            store, "acme", "stripe", ACCOUNT, quota, requests_per_minute=requests_per_minute, **defaults | options
        )

    return make


def waited(gate: QuotaGate, calls: int = 1) -> float:
    """Seconds the gate made its caller wait."""
    clock = gate._clock
    before = clock.monotonic()
    for _ in range(calls):
        with gate.acquire():
            pass
    return clock.monotonic() - before


@pytest.fixture
def trips(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each transaction."""
    made: list[str] = []
    organization = store.organization

    def noted(name: str) -> AbstractContextManager[Connection]:
        made.append(name)
        return organization(name)

    monkeypatch.setattr(store, "organization", noted)
    return made


class TestTheGate:
    """Against the database; real time passes there, so waits are exact to a few seconds of a minute."""

    def test_processes_share_one_account(self, gate: MakeGate) -> None:
        assert waited(gate()) == 0.0
        assert waited(gate()) == pytest.approx(60, abs=15)
        assert waited(gate()) == pytest.approx(120, abs=15)

    def test_other_accounts_and_organizations_have_their_own(self, gate: MakeGate, store: Store) -> None:
        waited(gate())
        for organization, name in (("acme", "acct_2"), ("globex", ACCOUNT)):
            other = QuotaGate(
                store,
                organization,
                "stripe",
                name,
                Quota(10),
                requests_per_minute=1,
                concurrent_requests=1,
                clock=FakeClock(),
            )
            assert waited(other) == 0.0

    def test_a_fast_integration_asks_the_database_once_for_ten_calls(self, gate: MakeGate, trips: list[str]) -> None:
        assert waited(gate(per_second=25, requests_per_minute=100_000), calls=40) <= 1.0 + LEASE_SECONDS
        assert len(trips) <= 4

    def test_a_refusal_closes_the_account_for_every_process(self, gate: MakeGate) -> None:
        first, second = (gate(requests_per_minute=6000) for _ in range(2))
        waited(first)
        first.observe(429, {"retry-after": "120"})
        assert waited(first) == pytest.approx(120, abs=15), "slots leased before are void"
        assert waited(second) == pytest.approx(120, abs=15)

    def test_a_thread_that_waited_for_its_slot_when_the_refusal_came_waits_on(self, gate: MakeGate) -> None:
        one = gate()
        waited(one)
        clock = one._clock
        assert isinstance(clock, FakeClock)
        original = clock.wait

        def refusal_meanwhile(seconds: float) -> None:
            original(seconds)
            if len(clock.waits) == 1:
                one.observe(429, {"retry-after": "250"})

        clock.wait = refusal_meanwhile  # type: ignore[method-assign]
        assert waited(one) >= 60 + 250 - 15

    def test_a_pause_longer_than_a_run_should_wait_is_an_error_that_says_until_when(self, gate: MakeGate) -> None:
        one, other = gate(), gate()
        one.observe(429, {"retry-after": "86400"})
        for each in (one, other):
            with pytest.raises(RateLimited, match=r"used up until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC") as raised:
                waited(each)
            assert raised.value.integration_id == "acme-stripe"

    def test_the_rate_comes_back_with_successes(self, gate: MakeGate, store: Store) -> None:
        one = gate(per_second=100, requests_per_minute=100_000, max_wait=1e9)
        one.observe(429, {})
        for _ in range(20):
            waited(one, calls=40)
            for _ in range(40):
                one.observe(200, {})
        with locked_quota(store, "acme", "stripe", ACCOUNT, capacity=1.0) as shared:
            assert 40.0 < shared.row.rate < 80.0

    def test_no_more_calls_at_once_than_configured(self, gate: MakeGate) -> None:
        one = gate(requests_per_minute=100_000, concurrent_requests=2)
        inside, third = Barrier(3), []

        def hold() -> None:
            with one.acquire():
                inside.wait(20)
                inside.wait(20)

        def come_third() -> None:
            waited(one)
            third.append(1)

        with ThreadPoolExecutor(3) as pool:
            holders = [pool.submit(hold) for _ in range(2)]
            inside.wait(20)
            late = pool.submit(come_third)
            assert not third
            assert not late.done()
            inside.wait(20)
            late.result(20)
            for holder in holders:
                holder.result(20)
        assert third == [1]

    def test_a_stopped_run_does_not_wait(self, gate: MakeGate) -> None:
        one = gate()
        one._clock.cancelled.set()
        with pytest.raises(Stopped):
            waited(one)


class TestTheProvidersOwnFigures:
    @staticmethod
    def read(headers: Mapping[str, str]) -> Limits | None:
        if "x-limit" not in headers:
            return None
        return Limits(
            remaining=float(headers["x-remaining"]), limit=float(headers["x-limit"]), window=10.0, reset_after=100.0
        )

    def test_they_replace_the_starting_guess(self, gate: MakeGate) -> None:
        one = gate(per_second=0.001, requests_per_minute=100_000, read_limits=self.read)
        waited(one)
        one.observe(200, {"x-limit": "1000", "x-remaining": "900"})
        assert one.left == 900
        assert waited(one, calls=10) < 60, "at 0.0008 a second it would be hours"

    def test_a_share_of_the_window_is_left_to_the_customer_s_other_tools(self, gate: MakeGate) -> None:
        one, other = (gate(requests_per_minute=6000, read_limits=self.read, reserve=0.2) for _ in range(2))
        waited(one)
        one.observe(200, {"x-limit": "1000", "x-remaining": "201"})
        assert waited(one) < 10
        one.observe(200, {"x-limit": "1000", "x-remaining": "200"})
        assert waited(one) == pytest.approx(100, abs=15)
        assert waited(other) == pytest.approx(100, abs=15)

    def test_they_show_in_the_client_s_metrics(self, gate: MakeGate, api: Api, clock: FakeClock) -> None:
        api.answers = [Answer(headers={"X-Limit": "1000", "X-Remaining": "700"})]
        one = gate(requests_per_minute=6000, read_limits=self.read)
        with HttpClient(AddressGuard("acme-stripe", restricted=False), quota=one, clock=clock) as http:
            http.request("GET", api.url)
        assert http.metrics.quota_left == 700


CALLER = """
import json, sys, time
from churnguard_pipelines.engine.quota import Quota, QuotaGate
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store

store = Store.open(load_settings(), migrate=False)
gate = QuotaGate(store, "acme", "stripe", sys.argv[1], Quota(20, reserve=0), requests_per_minute=100_000,
                 concurrent_requests=1)
times = []
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    with gate.acquire():
        times.append(time.time())
print(json.dumps(times), flush=True)
store.close()
"""


@contextmanager
def callers(store: Store, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    variables = dagster_environment(store)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, ACCOUNT],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_two_processes_together_keep_the_pace(store: Store) -> None:
    with callers(store, 2) as processes:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        times = sorted(time for process in processes for time in json.loads(process.stdout.readline()))  # type: ignore[union-attr]
    assert len(times) == 80
    slack = 2  # clocks of threads that wake late, never of the bucket
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= 20 + 20 * (times[last] - start + LEASE_SECONDS) + slack
