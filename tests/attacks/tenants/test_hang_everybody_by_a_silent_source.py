"""A tenant's source accepts connections and never answers: that costs its own organization something, nobody else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from churnguard_pipelines import api
from churnguard_pipelines.api import ASKED_AT_ONCE_EACH
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.control.integrations import add_integration, find_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.attacks.tenants.silence import Silent, database, followed, silence
from tests.conftest import configuration
from tests.waiting import wait_for
from tests.webhook_gateway.dashboard.conftest import bearer, context, engine_on, served, sign_in  # noqa: F401 - a fixture
from webhook_gateway.dashboard.app import create_app
from webhook_gateway.dashboard.dagster_ui import PrincipalProcessContext

pytestmark = pytest.mark.timeout(120)

PROMPTLY = 10.0
HUNG = 100


@pytest.fixture
def silent() -> Iterator[Silent]:
    with silence() as server:
        yield server


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds for which a call waits for sources, shortened."""
    monkeypatch.setattr(api, "ANSWER_WITHIN", 2.0)
    return 2.0


@pytest.fixture
def address(store: Store, context: PrincipalProcessContext) -> Iterator[str]:  # noqa: F811
    with served(create_app(engine_on(store), context, secure=False)) as url:
        yield url


@pytest.fixture
def evil(store: Store, silent: Silent) -> str:
    """The key of an organization with twenty databases at a silent address."""
    add_organization(store, Organization(organization_id="evil", name="Evil Corp."), actor="test")
    for number in range(20):
        add_integration(store, database(f"evil-{number}", "evil", silent.port), actor="test")
    return create_key(store, "evil", actor="test", organization_id="evil")


@pytest.fixture
def good(store: Store, organization: Organization) -> str:
    """The key of an organization that minds its own business."""
    add_integration(store, configuration("acme-stripe", base_url="http://127.0.0.1:9"), actor="test")
    return create_key(store, "good", actor="test", organization_id="acme")


@contextmanager
def many(address: str, key: str, path: str, body: object, calls: int = HUNG) -> Iterator[list[httpx.Response]]:
    """So many calls at once, under way while the block runs; what came of them when it is left."""
    answers: list[httpx.Response] = []
    with ThreadPoolExecutor(calls) as pool:
        futures = [
            pool.submit(httpx.post, f"{address}{path}", json=body, headers=bearer(key), timeout=60)
            for _ in range(calls)
        ]
        yield answers
        answers += [future.result() for future in futures]


def everybody_else_is_served(address: str, key: str) -> None:
    began = time.monotonic()
    assert httpx.get(f"{address}/healthz", timeout=PROMPTLY).text == "ok"
    listed = httpx.get(f"{address}/api/integrations", headers=bearer(key), timeout=PROMPTLY)
    assert [each["integration_id"] for each in listed.json()] == ["acme-stripe"]
    assert httpx.get(f"{address}/api/dashboard/metrics", headers=bearer(key), timeout=PROMPTLY).status_code == 200
    with httpx.Client(base_url=address, headers={"Origin": address, "Sec-Fetch-Site": "same-origin"}) as browser:
        assert sign_in(browser, key).status_code == 303
    assert time.monotonic() - began < PROMPTLY


def test_testing_connections_that_never_answer(
    address: str,
    evil: str,
    good: str,
    silent: Silent,
) -> None:
    """With the product's own patience of half a minute: everybody else is asked meanwhile, again and again."""
    with many(address, evil, "/api/system/test-connections", None) as answers:
        assert silent.asked.wait(PROMPTLY)
        for _ in range(5):
            everybody_else_is_served(address, good)
        assert silent.callers <= ASKED_AT_ONCE_EACH, "no more threads hang than the organization's share"
        silent.close()
    assert {answer.status_code for answer in answers} <= {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) > HUNG / 2
    assert all(int(answer.headers["Retry-After"]) for answer in refused)


@pytest.mark.usefixtures("patience")
def test_the_caller_gets_an_answer_though_its_sources_give_none(
    address: str,
    evil: str,
) -> None:
    answer = httpx.post(f"{address}/api/system/test-connections", headers=bearer(evil), timeout=30)
    assert answer.status_code == 200
    assert Counter((each["ok"], each["cause"]) for each in answer.json()) == {
        (False, "its source did not answer within 2 s."): 20
    }
    again = httpx.post(f"{address}/api/system/test-connections", headers=bearer(evil), timeout=PROMPTLY)
    assert again.status_code == 429, "its threads still hang"


@pytest.mark.usefixtures("patience")
def test_starting_syncs_of_tables_that_only_a_silent_source_knows(
    address: str,
    evil: str,
    good: str,
) -> None:
    with many(address, evil, "/api/integrations/evil-0/sync", {"objects": ["users"]}, 40) as answers:
        everybody_else_is_served(address, good)
    titles = Counter((answer.status_code, answer.json()["title"].partition(".")[0]) for answer in answers)
    assert titles[422, "evil-0: its source did not answer within 2 s"] >= 1
    assert {status for status, _ in titles} <= {422, 429}


@pytest.mark.usefixtures("patience")
def test_removing_an_integration_whose_source_never_answers(
    address: str,
    evil: str,
    good: str,
    store: Store,
) -> None:
    """It is followed, so its source is told that nobody follows it any more; that it does not listen is its loss."""
    integration = find_integration(store, "evil-0")
    assert integration is not None
    followed(store, integration)
    answer = httpx.delete(f"{address}/api/integrations/evil-0", headers=bearer(evil), timeout=30)
    assert answer.status_code == 204
    assert find_integration(store, "evil-0") is None
    everybody_else_is_served(address, good)


def test_removing_integrations_whose_rows_are_locked(
    address: str,
    evil: str,
    good: str,
    store: Store,
) -> None:
    """As a change log locks them whose source begins a transaction and never ends it."""
    for number in range(20):
        add_integration(store, configuration(f"evil-stripe-{number}", organization_id="evil"), actor="test")
    with ThreadPoolExecutor(20) as pool:
        with store.operator() as connection:
            connection.exec_driver_sql(
                "SELECT FROM control.integrations WHERE integration_id ~ '^evil-stripe' FOR UPDATE"
            )
            removals = [
                pool.submit(
                    httpx.delete,
                    f"{address}/api/integrations/evil-stripe-{number}?purge=true",
                    headers=bearer(evil),
                    timeout=60,
                )
                for number in range(20)
            ]
            wait_for(lambda: _waiting_for_locks(store) >= 1)
            everybody_else_is_served(address, good)
            assert _waiting_for_locks(store) == 1
        assert {each.result().status_code for each in removals} <= {204, 429}


def _waiting_for_locks(store: Store) -> int:
    with store.operator() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one())


def test_one_wrong_configuration_among_others_is_its_own_problem(
    address: str,
    store: Store,
    good: str,
) -> None:
    """A port that is none raises no ``InvalidConfiguration`` in every driver."""
    for number, port in enumerate((99_999, -1, 0)):
        add_integration(store, database(f"acme-db-{number}", "acme", port), actor="test")
    answer = httpx.post(f"{address}/api/system/test-connections", headers=bearer(good), timeout=60)
    assert answer.status_code == 200
    assert {each["integration_id"]: each["ok"] for each in answer.json()} == dict.fromkeys(
        ("acme-stripe", "acme-db-0", "acme-db-1", "acme-db-2"), False
    )
