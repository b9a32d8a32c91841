"""What the dashboard and Prometheus say of streams, to whom they are shown."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route

from churnguard_pipelines.model import Organization
from churnguard_pipelines.monitoring.monitor import Monitor
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.api_keys import create_key
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.ingest import stream_progress
from churnguard_pipelines.store.ingest.stream_progress import Observed
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing
from tests.shelf import (
    configured,
    put,
    read_all,
    shelves,  # noqa: F401 - a fixture
)
from tests.webhook_gateway.api.conftest import Call, key_of
from webhook_gateway.dashboard import metrics
from webhook_gateway.dashboard.authentication import Authentication

pytestmark = pytest.mark.usefixtures("shelves")


@pytest.fixture
def streams(store: Store) -> None:
    """Acme's brought three messages, one of which was rejected; Globex's failed, and is behind."""
    for organization, stream_id in (("acme", "clicks"), ("globex", "orders")):
        add_organization(store, Organization(organization_id=organization, name=organization), actor="test")
        stream = configured(organization=organization, stream_id=stream_id, topics=[stream_id])
        put(topic=stream_id)
        managing.create(store, stream, actor="test")
    put('{"page": "a"}', '{"page": "b"}', "no json")
    read_all(store)
    STREAMS.set_state(store, "orders", StreamState.FAILED, "The topic is another one.", "Seek to earliest.")
    behind, not_behind = Lane("globex", "orders", "orders"), Lane("acme", "clicks", "clicks")
    stream_progress.observe(store, [Observed(behind, "90", 42, 4000.0), Observed(not_behind, "3", 0, 0.0)])


def test_streams_are_counted_and_each_key_sees_its_own(store: Store, call: Call, streams: None) -> None:
    every = call("GET", "/dashboard/metrics").json()["streams"]
    assert every == {
        "by_state": {"active": 1, "failed": 1}, "messages_per_second": 0.1, "lag_messages": 42, "lag_seconds": 4000.0,
    }  # fmt: skip
    acme = call("GET", "/dashboard/metrics", key_of(store, "acme")).json()
    assert acme["streams"]["by_state"] == {"active": 1}
    assert acme["errors"]["alerts"] == {"warning": 1}
    nobody = call("GET", "/dashboard/metrics", key_of(store, "nobody")).json()["streams"]
    assert nobody == {"by_state": {}, "messages_per_second": 0.0, "lag_messages": 0, "lag_seconds": None}


def test_a_stream_that_needs_somebody_is_an_alert(store: Store, call: Call, streams: None) -> None:
    failed, rejected = call("GET", "/dashboard/alerts").json()
    assert failed | {"since": None} == {
        "integration_id": "orders", "stream_id": "orders", "organization_id": "globex", "kind": "stream",
        "severity": "critical", "since": None, "cause": "it failed: The topic is another one.",
        "remedy": "Seek to earliest.",
    }  # fmt: skip
    assert (rejected["stream_id"], rejected["kind"], rejected["severity"]) == ("clicks", "rejected_records", "warning")
    assert [each["stream_id"] for each in call("GET", "/dashboard/alerts", key_of(store, "acme")).json()] == ["clicks"]
    parts = {part["component"]: part for part in call("GET", "/dashboard/health").json()["components"]}
    assert (parts["streams"]["ok"], parts["streams"]["cause"]) == (False, "1 of 2 are unhealthy")


def test_prometheus_reads_the_same_numbers_and_only_one_s_own(store: Store, streams: None) -> None:
    every = scraped(store, create_key(store, "prometheus", actor="test"))
    assert every["churnguard_streams", "failed"] == 1
    assert every["churnguard_stream_messages_per_second", "clicks"] == 3 / 60
    assert every["churnguard_stream_error_rate", "clicks"] == pytest.approx(1 / 3)
    assert every["churnguard_stream_buffer_utilization", "clicks"] == 0.25
    assert every["churnguard_stream_processing_seconds", "clicks"] > 0
    assert every["churnguard_stream_lag_messages", "orders"] == 42
    assert every["churnguard_stream_lag_seconds", "orders"] == 4000
    assert every["churnguard_stream_lag_messages_of_kind", "custom"] == 42
    assert every["churnguard_alerts", "orders"] == 1
    own = scraped(store, key_of(store, "acme"))
    assert own["churnguard_stream_lag_messages_of_kind", "custom"] == 0
    assert not [subject for _, subject in own if subject == "orders"]


def test_the_number_of_series_does_not_grow_with_that_of_streams(
    store: Store, streams: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MOST_STREAMS", 1)
    seen = scraped(store, create_key(store, "prometheus", actor="test"))
    shown = {subject for name, subject in seen if name.startswith("churnguard_stream_") and "of_kind" not in name}
    assert shown == {"orders"}, "who is furthest behind"


def scraped(store: Store, key: str) -> dict[tuple[str, str], float]:
    """By metric and the first of these labels that it has."""
    app = Authentication(Starlette(routes=[Route("/metrics", metrics.Metrics(Monitor(store, 60)).show)]), store)

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ours") as client:
            return await client.get("/metrics", headers={"Authorization": f"Bearer {key}"})

    labels = ("stream", "integration", "state", "kind")
    return {
        (sample.name, next((sample.labels[name] for name in labels if name in sample.labels), "")): sample.value
        for family in text_string_to_metric_families(asyncio.run(get()).text) for sample in family.samples
    }  # fmt: skip
