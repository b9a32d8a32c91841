"""CRMs against their simulated APIs: a million records by Bulk, HubSpot within its real limits, and syncs that find
nothing new."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from statistics import median

import httpx

from churnguard_pipelines.connectors.salesforce import Salesforce
from churnguard_pipelines.connectors.sdk import Reading
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.records import DataSyncMode
from churnguard_pipelines.store.control.integrations import get_integration, replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.sync import opened, sync_integration
from tests.bench import pubsub
from tests.bench.child import synced, synced_in_child
from tests.bench.harness import ROUNDS, Row
from tests.bench.provider import sandbox

AREA = "crm"
RECORDS = 1_000_000
IN_MEMORY = 200_000
HUBSPOT_RECORDS = 10_000
"""Of each object."""
LATENCY_MS = 50
CONNECTIONS = 10
"""For the objects of Salesforce, which limits only long requests at once; 5 unless somebody sets more."""
OURS = 19.0 * 0.9
"""Calls a second that a private app of HubSpot's may make, 190 in ten seconds, less the tenth that is left to the
customer's other tools."""
SALESFORCE, SALESFORCE_BULK, HUBSPOT = "bench-salesforce", "bench-salesforce-bulk", "bench-hubspot"
CONTACT = next(item for item in Salesforce.objects if item.name == "Contact")
OBJECTS = ("contacts", "companies", "tickets")
WRITER = "the warehouse's writer alone: Contact's own columns, records in memory, one transaction, in this run"
LOOP = "one page after the other, nothing written"
AT_CEILING = f"{OURS:g} calls a second: HubSpot's limit less the customer's share"


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id="bench-crm", name="Bench"), actor="bench")
    yield pubsub.row(store, AREA)
    yield from _hubspot(store)
    yield _salesforce_objects(store)
    yield _bulk(store)


def _bulk(store: Store) -> Row:
    """The job is worked out before, as Salesforce works on its own machines."""
    with sandbox(bulk=RECORDS, latency_ms=0) as url:
        made = _integration(SALESFORCE_BULK, url, "00Dsandbox_bulk", ["Contact"])
        replace_integration(store, made, actor="bench")
        floor = _writer(store)
        seconds, peak, _ = synced_in_child(SALESFORCE_BULK)
        assert _forget(store) == RECORDS
    rate = RECORDS / seconds
    return Row(AREA, "salesforce_bulk_1m", "rows/s", rate, floor, WRITER, rate / floor, peak_mib=peak)


def _writer(store: Store) -> float:
    """Rows a second, of the same records into the same table as the sync."""
    table, warehouse = Salesforce.table_of(CONTACT), Warehouse(store)
    warehouse.ensure(table)
    with opened(store, get_integration(store, SALESFORCE_BULK)) as use:
        reading = Reading(DataSyncMode.FULL, None, datetime.now(UTC))
        batches = use.connector.read(CONTACT, reading)
        records = list(islice((record for batch in batches for record in batch.records), IN_MEMORY))
        batches.close()
    rates = []
    for _ in range(3):
        _forget(store)
        started = time.perf_counter()
        mapped = Mapper(table).rows(records)
        with warehouse.transaction("bench-crm") as transaction:
            assert transaction.upsert(table, SALESFORCE_BULK, mapped.rows).written == IN_MEMORY
        rates.append(IN_MEMORY / (time.perf_counter() - started))
    _forget(store)
    return median(rates)


def _salesforce_objects(store: Store) -> Row:
    """All objects of an organization of some size, read again in whole by who knows their tables, as the sessions do
    that work what is due."""
    with sandbox(scale=0.1, latency_ms=LATENCY_MS, paths="/services/*") as url:
        made = _integration(SALESFORCE, url, "00Dsandbox_acme", None, concurrent_requests=CONNECTIONS)
        replace_integration(store, made, actor="bench")
        synced(store, SALESFORCE)
        names, warehouse = list(synced(store, SALESFORCE).report.objects), Warehouse(store)
        rates, loops = [], []
        for _ in range(1 + ROUNDS):  # the first warms up
            started = time.perf_counter()
            report = sync_integration(
                store, SALESFORCE, sync_id=str(uuid.uuid4()), mode=DataSyncMode.FULL, warehouse=warehouse
            )
            rates.append(sum(item.calls for item in report.objects.values()) / (time.perf_counter() - started))
            loops.append(_one_call_after_the_other(url, "00Dsandbox_acme", names))
    rate, loop = median(rates[1:]), median(loops[1:])
    is_ = f"describe and query, one call after the other, nothing written; ours with {CONNECTIONS} connections"
    return Row(AREA, "salesforce_50ms", "calls/s", rate, loop, is_, rate / loop)


def _one_call_after_the_other(url: str, token: str, names: list[str]) -> float:
    """Calls a second."""
    calls, started = 0, time.perf_counter()
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        for name in names:
            told = client.get(f"/services/data/v65.0/sobjects/{name}/describe").raise_for_status().json()
            fields = [each["name"] for each in told["fields"] if each["type"] not in ("address", "location")]
            query = {"q": f"SELECT {', '.join(fields)} FROM {name}"}
            client.get("/services/data/v65.0/query", params=query).raise_for_status()
            calls += 2
    return calls / (time.perf_counter() - started)


def _forget(store: Store) -> int:
    """Rows that there were; the next sync reads all again."""
    with store.operator() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM raw.salesforce_contact").scalar_one()
        connection.exec_driver_sql("DELETE FROM ingest.checkpoints WHERE integration_id = 'bench-salesforce-bulk'")
    with store.owner() as connection:
        connection.exec_driver_sql("TRUNCATE raw.salesforce_contact")
    return int(rows)


def _hubspot(store: Store) -> Iterator[Row]:
    with sandbox(bulk=HUBSPOT_RECORDS, latency_ms=LATENCY_MS, paths="/crm/*") as url:
        token = httpx.get(f"{url}/_hubspot/bulk", timeout=60).raise_for_status().json()["private_app_token"]
        replace_integration(store, _integration(HUBSPOT, url, token, list(OBJECTS)), actor="bench")
        seconds, _, first = synced(store, HUBSPOT)
        rows = sum(item.counts.read for item in first.objects.values())
        assert rows == HUBSPOT_RECORDS * len(OBJECTS)
        rate, loop = rows / seconds, rows / sum(_loop(url, token, name) for name in OBJECTS)
        yield Row(AREA, "hubspot_backfill_50ms", "rows/s", rate, loop, LOOP, rate / loop)
        calls = sum(item.calls for item in first.objects.values()) / seconds
        yield Row(AREA, "hubspot_quota_used", "calls/s", calls, OURS, AT_CEILING, calls / OURS)
        idle_seconds, _, idle = synced(store, HUBSPOT)
        waits = max(item.calls for item in idle.objects.values()) * LATENCY_MS / 1000
        yield Row(AREA, "hubspot_idle_sync", "ms", (idle_seconds - waits) * 1000, None, None, None)


def _loop(url: str, token: str, name: str) -> float:
    """Seconds."""
    after = None
    started = time.perf_counter()
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        while True:
            cursor: dict[str, str] = {"after": after} if after else {}
            answer = client.get(f"/crm/v3/objects/{name}", params={"limit": 100, **cursor})
            if answer.status_code == 429:
                time.sleep(1)
                continue
            after = answer.raise_for_status().json().get("paging", {}).get("next", {}).get("after")
            if after is None:
                return time.perf_counter() - started


def _integration(
    name: str, url: str, token: str, objects: list[str] | None, **sync_config: int
) -> IntegrationConfiguration:
    return IntegrationConfiguration.model_validate(
        {
            "integration_id": name,
            "organization_id": "bench-crm",
            "integration_name": name,
            "integration_type": "crm",
            "provider_name": name.split("-")[1],
            "base_url": url,
            "credentials": {"credential_type": "bearer", "access_token": token},
            "sync_config": {"objects": objects, **sync_config},
        }
    )
