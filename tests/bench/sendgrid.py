"""SendGrid against its simulated API: suppressed addresses within its real limits and beyond them, an export of half a
million contacts, and syncs that find nothing new."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx

from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from tests.bench.child import synced, synced_in_child
from tests.bench.harness import Row
from tests.bench.provider import sandbox

AREA = "saas"
ORGANIZATION, INTEGRATION = "bench-sendgrid", "bench-sendgrid"
ADDRESSES, CONTACTS = 120_000, 500_000
LATENCY_MS = 50
CEILING = 10.0  # calls a second: 600 a minute
MANY = 60_000  # calls a minute, for what the limits do not let one see
PAGE = 500
LOOP = "one page after the other by offset, nothing written"


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id=ORGANIZATION, name="Bench"), actor="bench")
    with sandbox(bulk=ADDRESSES, latency_ms=LATENCY_MS, paths="/v3/*") as url:
        key = httpx.get(f"{url}/_sendgrid/bulk", timeout=60).raise_for_status().json()["api_key"]
        yield from _within_limits(store, url, key)
        yield _beyond_limits(store, url, key)
    with sandbox(bulk=CONTACTS, latency_ms=0) as url:
        yield _export(store, url)


def _within_limits(store: Store, url: str, key: str) -> Iterator[Row]:
    seconds, report = _timed(store, url, key, "bounces")
    rate = report.objects["bounces"].calls / seconds
    at = f"{CEILING:g} calls a second, SendGrid's limit"
    yield Row(AREA, "sendgrid_quota_used", "calls/s", rate, CEILING, at, rate / CEILING)
    idle, report = _timed(store, url, key, "bounces")
    waits = report.objects["bounces"].calls * LATENCY_MS / 1000
    yield Row(AREA, "sendgrid_idle_sync", "ms", (idle - waits) * 1000, None, None, None)


def _beyond_limits(store: Store, url: str, key: str) -> Row:
    """What there is to gain by many connections, for an account that is allowed more."""
    limits = {"general": MANY, "marketing": MANY}
    httpx.patch(f"{url}/_sendgrid/bulk/limits", json=limits, timeout=60).raise_for_status()
    _forget(store, "bounces")
    seconds, _ = _timed(store, url, key, "bounces")
    loop = ADDRESSES / _loop(url, key)
    rate = ADDRESSES / seconds
    return Row(AREA, "sendgrid_backfill_50ms", "rows/s", rate, loop, LOOP, rate / loop)


def _loop(url: str, key: str) -> float:
    """Seconds."""
    started, offset = time.perf_counter(), 0
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        while True:
            parameters = {"limit": PAGE, "offset": offset}
            rows = client.get("/v3/suppression/bounces", params=parameters).raise_for_status().json()
            offset += len(rows)
            if len(rows) < PAGE:
                assert offset == ADDRESSES
                return time.perf_counter() - started


def _export(store: Store, url: str) -> Row:
    """The file is made beforehand, as SendGrid makes it on its machines."""
    key = httpx.get(f"{url}/_sendgrid/bulk", timeout=60).raise_for_status().json()["api_key"]
    replace_integration(store, _integration(url, key, "contacts"), actor="bench")
    seconds, peak, _ = synced_in_child(INTEGRATION)
    assert _rows(store, "contacts") == CONTACTS
    return Row(AREA, "sendgrid_contacts_500k", "rows/s", CONTACTS / seconds, None, None, None, peak_mib=peak)


def _timed(store: Store, url: str, key: str, object: str) -> tuple[float, SyncReport]:
    replace_integration(store, _integration(url, key, object), actor="bench")
    seconds, _, report = synced(store, INTEGRATION)
    return seconds, report


def _rows(store: Store, object: str) -> int:
    with store.operator() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM raw.sendgrid_{object}").scalar_one())


def _forget(store: Store, object: str) -> None:
    """The next sync reads all again."""
    with store.operator() as connection:
        connection.exec_driver_sql(f"DELETE FROM ingest.checkpoints WHERE integration_id = '{INTEGRATION}'")
    with store.owner() as connection:
        connection.exec_driver_sql(f"TRUNCATE raw.sendgrid_{object}")


def _integration(url: str, key: str, object: str) -> IntegrationConfiguration:
    made: dict[str, Any] = {
        "integration_id": INTEGRATION,
        "organization_id": ORGANIZATION,
        "integration_name": INTEGRATION,
        "integration_type": "email_marketing",
        "provider_name": "sendgrid",
        "base_url": url,
        "credentials": {"credential_type": "api_key", "api_key": key},
        "sync_config": {"requests_per_minute": MANY, "concurrent_requests": 8, "batch_size": 5000, "objects": [object]},
    }
    return IntegrationConfiguration.model_validate(made)
