"""The circuit breaker: a provider that fails too often is left alone for a while, by every process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Event

import pytest
from sqlalchemy import Connection

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.breaker import Breaker
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    CircuitOpen,
    PermissionMissing,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
    Stopped,
)
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest.breakers import BreakerRow, close_breaker, load_breaker
from churnguard_pipelines.store.ingest.ledger import finish_sync, start_sync
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.engine.conftest import FakeClock
from tests.engine.loopback import Answer, Api, as_json

INTEGRATION = "acme-stripe"
DOWN = ProviderUnavailable("Stripe is in trouble (503 on GET /v1/x).", remedy="Wait.")


@pytest.fixture(autouse=True)
def synced(store: Store, integration: IntegrationConfiguration) -> None:
    """The integration has synced before."""
    start_sync(store, "well", integration, "incremental", [])
    finish_sync(store, "well", "succeeded")


def make(store: Store, clock: FakeClock) -> Breaker:
    """As another process would make it: nothing remembered."""
    return Breaker(store, "acme", INTEGRATION, clock=clock)


def fail(breaker: Breaker, times: int, error: BaseException = DOWN) -> None:
    for _ in range(times):
        breaker.before_call()
        breaker.failure(error)


def seconds_left(breaker: Breaker, clock: FakeClock) -> float:
    with pytest.raises(CircuitOpen) as raised:
        breaker.before_call()
    assert raised.value.retry_at is not None
    return round(raised.value.retry_at.timestamp() - clock.now())


def test_it_opens_after_five_failures_in_a_row_and_says_why(store: Store, clock: FakeClock) -> None:
    breaker = make(store, clock)
    fail(breaker, 5)
    with pytest.raises(CircuitOpen) as raised:
        breaker.before_call()
    assert str(raised.value) == (
        "acme-stripe: skipped without a call, not tried again before 2023-11-14 22:14:20 UTC, "
        "after 5 failures in a row. The last one: Stripe is in trouble (503 on GET /v1/x). Wait."
    )


def test_the_next_process_sees_it(store: Store, clock: FakeClock) -> None:
    fail(make(store, clock), 3)
    fail(make(store, clock), 2, RateLimited("429"))
    assert seconds_left(make(store, clock), clock) == 60


def test_a_running_process_sees_within_a_second_what_another_found_out(store: Store, clock: FakeClock) -> None:
    running = make(store, clock)
    running.before_call()
    fail(make(store, clock), 5)
    clock.time += 1.1
    assert seconds_left(running, clock) == 59


def test_a_success_in_between_starts_the_count_anew(store: Store, clock: FakeClock) -> None:
    breaker = make(store, clock)
    fail(breaker, 4)
    breaker.before_call()
    breaker.success()
    fail(breaker, 4)
    breaker.before_call()


@pytest.mark.parametrize(
    "error", [PermissionMissing("403"), RequestRefused("404"), Stopped("stop"), ValueError("ours")]
)
def test_what_does_not_mean_that_the_provider_is_down_never_opens_it(
    store: Store, clock: FakeClock, error: BaseException
) -> None:
    breaker = make(store, clock)
    fail(breaker, 20, error)
    breaker.before_call()
    assert load_breaker(store, "acme", INTEGRATION) == BreakerRow()


def test_a_call_that_was_under_way_neither_closes_it_nor_lengthens_the_pause(store: Store, clock: FakeClock) -> None:
    breaker = make(store, clock)
    fail(breaker, 5)
    breaker.success()
    breaker.failure(DOWN)
    assert seconds_left(breaker, clock) == 60
    assert load_breaker(store, "acme", INTEGRATION).failures == 5


def test_one_that_has_not_synced_yet_is_tried_again_twice_a_minute(store: Store, clock: FakeClock) -> None:
    add_integration(store, configuration("new"), actor="test")
    breaker = Breaker(store, "acme", "new", clock=clock)
    fail(breaker, 5)
    for _ in range(10):
        assert seconds_left(breaker, clock) == 30
        clock.time += 31
        fail(breaker, 1)


def test_the_pause_doubles_up_to_an_hour(store: Store, clock: FakeClock) -> None:
    breaker = make(store, clock)
    fail(breaker, 5)
    pauses = []
    for _ in range(8):
        pauses.append(seconds_left(breaker, clock))
        clock.time += pauses[-1]
        fail(breaker, 1)
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]


class TestTheTry:
    """When the pause is over, one caller tries."""

    @pytest.fixture
    def waited_out(self, store: Store, clock: FakeClock) -> None:
        fail(make(store, clock), 5)
        clock.time += 60

    @pytest.mark.usefixtures("waited_out")
    def test_other_processes_are_refused_meanwhile(self, store: Store, clock: FakeClock) -> None:
        first, second = make(store, clock), make(store, clock)
        first.before_call()
        with pytest.raises(CircuitOpen):
            second.before_call()
        first.success()
        clock.time += 1.1
        second.before_call()
        assert load_breaker(store, "acme", INTEGRATION) == BreakerRow()

    @pytest.mark.usefixtures("waited_out")
    def test_other_threads_of_its_process_wait_for_the_outcome(self, store: Store, clock: FakeClock) -> None:
        breaker = make(store, clock)
        breaker.before_call()
        with ThreadPoolExecutor(3) as pool:
            others = [pool.submit(breaker.before_call) for _ in range(3)]
            assert not any(other.done() for other in others)
            breaker.success()
            assert [other.result(timeout=20) for other in others] == [None] * 3

    @pytest.mark.usefixtures("waited_out")
    def test_one_that_failed_is_one_for_all(self, store: Store, clock: FakeClock) -> None:
        breaker = make(store, clock)
        breaker.before_call()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(breaker.before_call)
            breaker.failure(DOWN)
            with pytest.raises(CircuitOpen):
                other.result(timeout=20)

    @pytest.mark.usefixtures("waited_out")
    def test_one_that_was_stopped_leaves_it_to_the_next(self, store: Store, clock: FakeClock) -> None:
        first = make(store, clock)
        first.before_call()
        first.failure(Stopped("stop"))
        make(store, clock).before_call()

    @pytest.mark.usefixtures("waited_out")
    def test_one_whose_process_died_is_replaced_after_ten_minutes(self, store: Store, clock: FakeClock) -> None:
        make(store, clock).before_call()
        clock.time += 599
        with pytest.raises(CircuitOpen):
            make(store, clock).before_call()
        clock.time += 1
        make(store, clock).before_call()

    @pytest.mark.usefixtures("waited_out")
    def test_an_answer_that_refuses_only_the_request_closes_it(self, store: Store, clock: FakeClock) -> None:
        breaker = make(store, clock)
        fail(breaker, 1, RequestRefused("404"))
        assert load_breaker(store, "acme", INTEGRATION) == BreakerRow()


def test_refused_credentials_open_it_at_once_until_a_person_acts(store: Store, clock: FakeClock) -> None:
    refused = AuthenticationFailed("Stripe refused the credentials.", remedy="Update them.")
    fail(make(store, clock), 1, refused)
    clock.time += 365 * 86400
    with pytest.raises(CircuitOpen, match=r"because the credentials were refused.*Update them") as raised:
        make(store, clock).before_call()
    assert raised.value.retry_at is None
    close_breaker(store, "acme", INTEGRATION)
    make(store, clock).before_call()


def test_one_organization_s_breaker_is_not_another_s(store: Store, clock: FakeClock) -> None:
    fail(make(store, clock), 5)
    Breaker(store, "globex", INTEGRATION, clock=clock).before_call()


class TestThroughTheClient:
    def test_a_broken_provider_is_called_no_more(self, store: Store, clock: FakeClock, api: Api) -> None:
        api.answers = [Answer(503)]
        breaker = make(store, clock)
        with HttpClient(
            AddressGuard(INTEGRATION, restricted=False), breaker=breaker, retry=RetryPolicy(attempts=1), clock=clock
        ) as http:
            errors: list[ChurnGuardError] = []
            for _ in range(7):
                with pytest.raises(ChurnGuardError) as raised:
                    http.request("GET", api.url)
                errors.append(raised.value)
        assert [type(error) for error in errors] == [ProviderUnavailable] * 5 + [CircuitOpen] * 2
        assert len(api.asked) == 10

    def test_a_clean_integration_costs_one_look_a_second(
        self, store: Store, clock: FakeClock, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = []
        organization = store.organization

        def noted(name: str) -> AbstractContextManager[Connection]:
            looks.append(name)
            return organization(name)

        monkeypatch.setattr(store, "organization", noted)
        with HttpClient(AddressGuard(INTEGRATION, restricted=False), breaker=make(store, clock), clock=clock) as http:
            for _ in range(30):
                clock.time += 0.1
                http.request("GET", api.url)
        assert len(looks) <= 4

    def test_a_stopped_run_does_not_wait_for_a_try(self, store: Store, clock: FakeClock, api: Api) -> None:
        fail(make(store, clock), 5)
        clock.time += 60
        breaker = make(store, clock)
        asked, answer = Event(), Event()

        def slow(_: object) -> Answer:
            asked.set()
            answer.wait(20)
            return as_json({})

        api.answers = [slow]
        with (
            HttpClient(AddressGuard(INTEGRATION, restricted=False), breaker=breaker, clock=clock) as http,
            ThreadPoolExecutor(2) as pool,
        ):
            trying = pool.submit(http.request, "GET", api.url)
            assert asked.wait(20)
            waiting = pool.submit(breaker.before_call)
            clock.cancelled.set()
            with pytest.raises(Stopped):
                waiting.result(timeout=20)
            answer.set()
            assert trying.result(timeout=20).status == 200
