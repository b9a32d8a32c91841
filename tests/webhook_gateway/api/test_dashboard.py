"""The dashboard's numbers through a real HTTP client: everything in them was put there by a real sync."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.model import IntegrationCredentials, Organization, SyncConfiguration
from churnguard_pipelines.monitoring.monitor import Monitor
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.connectors.standin import stand_in
from tests.webhook_gateway.api.conftest import Call, key_of
from webhook_gateway.api import rate
from webhook_gateway.api.app import create_api
from webhook_gateway.api.dashboard import parts_of
from webhook_gateway.dashboard.authentication import Authentication
from webhook_gateway.dashboard.metrics import Metrics

OBJECTS = ["customers", "products"]


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as served:
        yield served


@pytest.fixture
def synced(store: Store, sandbox: Sandbox) -> Sandbox:
    """Acme was synced; Globex's key is refused."""
    for name, api_key in (("acme", "rk_sandbox_acme"), ("globex", "rk_sandbox_nobody")):
        add_organization(store, Organization(organization_id=name, name=name), actor="test")
        credentials = IntegrationCredentials.model_validate({"credential_type": "api_key", "api_key": api_key})
        fast = SyncConfiguration(requests_per_minute=60_000, retry_attempts=0, objects=OBJECTS)
        add_integration(
            store,
            configuration(
                name, organization_id=name, base_url=sandbox.url, credentials=credentials, sync_config=fast
            ),
            actor="test",
        )  # fmt: skip
    sync_integration(store, "acme", sync_id="run-1")
    assert sync_integration(store, "globex", sync_id="run-2").status == "failed"
    return sandbox


def test_everything_is_counted_and_each_key_sees_its_own(store: Store, call: Call, synced: Sandbox) -> None:
    own = sum(synced.account("acme").counts()[name] for name in OBJECTS)
    every = call("GET", "/dashboard/metrics").json()
    assert every["integrations"] == {"active": 1, "authentication_failed": 1}
    assert (every["health"]["healthy"], every["health"]["unhealthy"]) == (1, 1)
    assert every["throughput"] == {
        "records_per_second": 0.0, "running_syncs": 0, "records_read": own, "records_written": own, "webhook_events": 0,
    }  # fmt: skip
    assert (every["errors"]["syncs_failed"], every["errors"]["alerts"]["critical"]) == (1, 2)
    assert every["resources"]["database_bytes"] > 1_000_000
    assert [(day["read"], day["succeeded"], day["failed"]) for day in every["trends"]] == [(own, 1, 1)]

    acme = call("GET", "/dashboard/metrics", key=key_of(store, "acme")).json()
    assert acme["integrations"] == {"active": 1}
    assert (acme["health"]["score"], acme["errors"]["syncs_failed"], acme["resources"]) == (100, 0, None)
    nobody = call("GET", "/dashboard/metrics", key=key_of(store, "nobody")).json()
    assert (nobody["integrations"], nobody["health"]["score"], nobody["trends"]) == ({}, None, [])


def test_each_integration_has_a_summary_with_the_reasons_of_its_score(call: Call, synced: Sandbox) -> None:
    well, ill = call("GET", "/dashboard/integrations").json()
    assert (well["integration_id"], well["health"]["status"], well["alerts"]) == ("acme", "healthy", 0)
    assert (ill["integration_id"], ill["health"]["status"]) == ("globex", "unhealthy")
    reasons = {reason["kind"]: reason for reason in ill["health"]["reasons"]}
    assert reasons["credentials"] == {
        "kind": "credentials", "score": 0, "cause": "the provider refuses the credentials",
    }  # fmt: skip
    assert ill["latest_sync"]["status"] == "failed"


def test_an_integration_is_shown_in_detail(store: Store, call: Call, synced: Sandbox) -> None:
    detail = call("GET", "/dashboard/integration/acme").json()
    objects = {item["name"]: item for item in detail["objects"]}
    assert list(objects) == OBJECTS
    assert objects["customers"]["rows"] == synced.account("acme").counts()["customers"]
    assert 0 <= objects["customers"]["freshness_seconds"] < 60
    assert [item["sync_id"] for item in detail["recent_syncs"]] == ["run-1"]
    assert detail["quota"]["blocked_until"] is None
    assert call("GET", "/dashboard/integration/acme", key=key_of(store, "globex")).status_code == 404
    assert call("GET", "/dashboard/integration/nothing").status_code == 404


def test_an_integration_made_just_now_has_its_detail_at_once(store: Store, call: Call, synced: Sandbox) -> None:
    call("GET", "/dashboard/integrations")  # from now on this picture is kept
    add_integration(store, configuration("new"), actor="test")
    assert call("GET", "/dashboard/integration/new").json()["health"] == {
        "status": "unknown", "score": None,
        "reasons": call("GET", "/dashboard/integration/new").json()["health"]["reasons"],
    }  # fmt: skip


def test_alerts_say_what_since_when_and_what_to_do(store: Store, call: Call, synced: Sandbox) -> None:
    alerts = call("GET", "/dashboard/alerts").json()
    assert {alert["kind"] for alert in alerts} >= {"credentials", "breaker"}
    assert all(alert["remedy"] and alert["since"] and alert["integration_id"] == "globex" for alert in alerts)
    assert [alert["severity"] for alert in alerts] == sorted(alert["severity"] for alert in alerts)
    assert call("GET", "/dashboard/alerts", key=key_of(store, "acme")).json() == []


def test_health_names_the_parts_that_do_not_run(call: Call, synced: Sandbox) -> None:
    health = call("GET", "/dashboard/health").json()
    parts = {part["component"]: part for part in health["components"]}
    assert health["status"] == "unhealthy"
    assert (parts["database"]["ok"], parts["daemon"]["ok"], parts["gateway"]["ok"]) == (True, False, False)
    assert "no sign of life" in parts["daemon"]["cause"]
    assert "does not answer" in parts["gateway"]["cause"]
    assert parts["integrations"]["cause"] == "1 of 2 are unhealthy"


def test_a_proxy_for_the_world_outside_is_not_asked_for_our_own_parts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with stand_in() as gateway:
        store.settings = store.settings.model_copy(update={"gateway_url": gateway.url})
        parts = {part.component: part for part in asyncio.run(parts_of(store))}
    assert parts["gateway"].cause == "it answers 200"
    assert [path for path, _ in gateway.asked] == ["/webhooks/health"]


LABELS = ("integration", "outcome", "status", "provider")
"""What tells the series of a metric apart, the first of these that it has."""


def test_prometheus_reads_the_same_numbers_and_only_one_s_own(store: Store, synced: Sandbox) -> None:
    app = Authentication(Starlette(routes=[Route("/metrics", Metrics(Monitor(store, 60)).show)]), store)

    def scraped(key: str) -> dict[tuple[str, str], float]:
        async def get() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ours") as client:
                return await client.get("/metrics", headers={"Authorization": f"Bearer {key}"})

        answer = asyncio.run(get())
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return {
            (sample.name, next((sample.labels[name] for name in LABELS if name in sample.labels), "")): sample.value
            for family in text_string_to_metric_families(answer.text) for sample in family.samples
        }  # fmt: skip

    every = scraped(create_key(store, "prometheus", actor="test"))
    assert every["churnguard_breaker_open", "globex"] == 1
    assert every["churnguard_alerts", "globex"] == 1
    assert not [name for name, subject in every if subject == "acme"], "who is well is counted only"
    assert every["churnguard_integrations", "healthy"] == 1
    assert every["churnguard_overdue_of_provider", "stripe"] == 0
    assert every["churnguard_database_bytes", ""] > 1_000_000
    own = scraped(key_of(store, "acme"))
    assert own["churnguard_records_last_24_hours", "read"] > 0
    assert not [name for name, subject in own if subject == "globex" or "database" in name]


def test_a_key_that_calls_too_often_is_told_when_to_come_back(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "CALLS_PER_MINUTE", 3)
    engine = IntegrationEngine(settings)
    app = Authentication(Starlette(routes=[Mount("/api", create_api(engine))]), store)
    busy, calm = (create_key(store, name, actor="test") for name in ("busy", "calm"))

    async def answers(key: str, calls: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ours") as client:
            headers = {"Authorization": f"Bearer {key}"}
            return [await client.get("/api/dashboard/alerts", headers=headers) for _ in range(calls)]

    *taken, refused = asyncio.run(answers(busy, 4))
    assert [answer.status_code for answer in taken] == [200, 200, 200]
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["content-type"] == "application/problem+json"
    assert asyncio.run(answers(calm, 1))[0].status_code == 200
    asyncio.run(engine.close())
