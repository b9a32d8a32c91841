"""Back-fills from the simulated Stripe: against a sequential paging loop, and the memory of a million records."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import orjson

from churnguard_pipelines.model import (
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
    SyncConfiguration,
)
from churnguard_pipelines.store.control.integrations import remove_integration, replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.bench.child import synced, synced_in_child
from tests.bench.harness import Row, compare
from tests.bench.provider import sandbox

RECORDS = 50_000
MANY_RECORDS = 1_000_000
PAGE_LATENCY_MS = 50
INTEGRATION = "bench-stripe"
KEY = "rk_sandbox_bulk"


def integration(url: str) -> IntegrationConfiguration:
    return IntegrationConfiguration.model_validate(
        {
            "integration_id": INTEGRATION,
            "organization_id": INTEGRATION,
            "integration_name": "Stripe",
            "integration_type": IntegrationType.PAYMENT,
            "provider_name": "stripe",
            "base_url": url,
            "credentials": IntegrationCredentials.model_validate({"credential_type": "api_key", "api_key": KEY}),
            "sync_config": SyncConfiguration(requests_per_minute=60_000, concurrent_requests=16),
        }
    )


def backfill(store: Store, url: str, expected: int) -> float:
    """A first sync of `customers`: everything but the start of a process. Returns seconds."""
    replace_integration(store, integration(url), actor="bench")
    seconds, _, report = synced(store, INTEGRATION, "customers")
    assert report.objects["customers"].counts.written == expected, report
    remove_integration(store, INTEGRATION, actor="bench", purge=True)
    return seconds


def sequential_loop(url: str, expected: int) -> float:
    """What a careful script does: one connection, pages of 100 one after the other; it does not even write."""
    started = time.perf_counter()
    read, after = 0, None
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        while True:
            cursor: dict[str, str] = {"starting_after": after} if after else {}
            page = orjson.loads(client.get("/v1/customers", params={"limit": 100, **cursor}).content)
            read += len(page["data"])
            if not page["has_more"]:
                break
            after = page["data"][-1]["id"]
    assert read == expected
    return time.perf_counter() - started


def memory(store: Store) -> Row:
    with sandbox(bulk=MANY_RECORDS, latency_ms=0) as url:
        replace_integration(store, integration(url), actor="bench")
        seconds, peak, report = synced_in_child(INTEGRATION, "customers")
        assert report.objects["customers"].counts.written == MANY_RECORDS, report
        remove_integration(store, INTEGRATION, actor="bench", purge=True)
    return Row("stripe", "backfill_1m_memory", "rows/s", MANY_RECORDS / seconds, None, None, None, peak_mib=peak)


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id=INTEGRATION, name="Bench"), actor="bench")
    with sandbox(bulk=RECORDS, latency_ms=PAGE_LATENCY_MS) as url:
        yield compare(
            "stripe",
            "backfill_50ms",
            "rows/s",
            RECORDS,
            lambda: backfill(store, url, RECORDS),
            lambda: sequential_loop(url, RECORDS),
            "one page after the other, nothing written",
        )
    yield memory(store)
