"""CRMs against their simulated APIs: a million records by Bulk, HubSpot within its real limits, and syncs that find
nothing new."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.bench import pubsub, warehouse
from tests.bench.harness import Row
from tests.bench.provider import sandbox

AREA = "crm"
RECORDS = 1_000_000
HUBSPOT_RECORDS = 20_000
LATENCY_MS = 50
CEILING = 19.0  # calls a second that a private app of HubSpot's may make: 190 in ten seconds
SALESFORCE, HUBSPOT = "bench-salesforce", "bench-hubspot"
WRITER = "the warehouse's writer alone, records in memory, in this run"
LOOP = "one page after the other, nothing written"
AT_CEILING = f"{CEILING:g} calls a second, HubSpot's limit"


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id="bench-crm", name="Bench"), actor="bench")
    yield pubsub.row(store, AREA)
    yield from _hubspot(store)
    yield _bulk(store)


def _bulk(store: Store) -> Row:
    """The job is worked out before, as Salesforce works on its own machines."""
    writer = warehouse.Bench(store)
    writer.ours(fresh=True)
    floor = warehouse.ROWS / writer.ours(fresh=True)
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[float, float]] = context.Queue()
    with sandbox(bulk=RECORDS, latency_ms=0) as url:
        replace_integration(store, _salesforce(url), actor="bench")
        for _ in range(2):
            child = context.Process(target=_sync_in_child, args=(store.database_url, answers))
            child.start()
            seconds, peak = answers.get(timeout=1800)
            child.join()
            assert _forget(store) == RECORDS
    rate = RECORDS / seconds
    return Row(AREA, "salesforce_bulk_1m", "rows/s", rate, floor, WRITER, rate / floor, peak_mib=peak)


def _forget(store: Store) -> int:
    """Rows that there were; the next sync reads all again."""
    with store.operator() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM raw.salesforce_contact").scalar_one()
        connection.exec_driver_sql("DELETE FROM ingest.checkpoints WHERE integration_id = 'bench-salesforce'")
    with store.owner() as connection:
        connection.exec_driver_sql("TRUNCATE raw.salesforce_contact")
    return int(rows)


def _sync_in_child(database_url: str, answers: multiprocessing.Queue[tuple[float, float]]) -> None:
    store = Store.open(load_settings().model_copy(update={"database_url": None}))
    started = time.perf_counter()
    _sync(store, SALESFORCE)
    seconds = time.perf_counter() - started
    store.close()
    unit = 1 if sys.platform == "darwin" else 1024
    answers.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20))


def _hubspot(store: Store) -> list[Row]:
    with sandbox(bulk=HUBSPOT_RECORDS, latency_ms=LATENCY_MS, paths="/crm/*") as url:
        token = httpx.get(f"{url}/_hubspot/bulk", timeout=60).raise_for_status().json()["private_app_token"]
        replace_integration(store, _hubspot_integration(url, token), actor="bench")
        started = time.perf_counter()
        first = _sync(store, HUBSPOT)
        seconds = time.perf_counter() - started
        loop = _loop(url, token)
        started = time.perf_counter()
        idle = _sync(store, HUBSPOT)
        idle_seconds = time.perf_counter() - started
    calls = first.objects["contacts"].calls
    rate = HUBSPOT_RECORDS / seconds
    waits = idle.objects["contacts"].calls * LATENCY_MS / 1000
    return [
        Row(AREA, "hubspot_backfill_50ms", "rows/s", rate, loop, LOOP, rate / loop),
        Row(AREA, "hubspot_quota_used", "calls/s", calls / seconds, CEILING, AT_CEILING, calls / seconds / CEILING),
        Row(AREA, "hubspot_idle_sync", "ms", (idle_seconds - waits) * 1000, None, None, None),
    ]


def _loop(url: str, token: str) -> float:
    """Records a second."""
    read, after = 0, None
    started = time.perf_counter()
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        while True:
            cursor: dict[str, str] = {"after": after} if after else {}
            answer = client.get("/crm/v3/objects/contacts", params={"limit": 100, **cursor})
            if answer.status_code == 429:
                time.sleep(1)
                continue
            page = answer.raise_for_status().json()
            read += len(page["results"])
            after = page.get("paging", {}).get("next", {}).get("after")
            if after is None:
                return read / (time.perf_counter() - started)


def _sync(store: Store, integration_id: str) -> SyncReport:
    report = sync_integration(store, integration_id, sync_id=str(uuid.uuid4()))
    assert report.status == "succeeded", report
    return report


def _salesforce(url: str) -> IntegrationConfiguration:
    return _integration(SALESFORCE, url, {"access_token": "00Dsandbox_bulk"}, "Contact")


def _hubspot_integration(url: str, token: str) -> IntegrationConfiguration:
    return _integration(HUBSPOT, url, {"access_token": token}, "contacts")


def _integration(name: str, url: str, credentials: dict[str, Any], object: str) -> IntegrationConfiguration:
    return IntegrationConfiguration.model_validate(
        {
            "integration_id": name,
            "organization_id": "bench-crm",
            "integration_name": name,
            "integration_type": "crm",
            "provider_name": name.removeprefix("bench-"),
            "base_url": url,
            "credentials": {"credential_type": "bearer"} | credentials,
            "sync_config": {"requests_per_minute": 60_000, "concurrent_requests": 8, "objects": [object]},
        }
    )
