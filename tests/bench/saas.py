"""E-mail tools against their simulated APIs, within their real limits, and syncs that find nothing new."""

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
from tests.bench import sendgrid
from tests.bench.harness import Row
from tests.bench.provider import sandbox

AREA = "saas"
LATENCY_MS = 50
MAILCHIMP, MAILCHIMP_MEMBERS = "bench-mailchimp", 50_000
MAILCHIMP_CEILING = 10 * 1000 / LATENCY_MS  # calls a second of a key's ten connections
LOOP = "one page after the other, nothing written"
AT_CEILING = f"{MAILCHIMP_CEILING:g} calls a second: ten connections, {LATENCY_MS} ms an answer"


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id="bench-saas", name="Bench"), actor="bench")
    yield from _mailchimp(store)
    yield from sendgrid.run(store)


def _mailchimp(store: Store) -> list[Row]:
    with sandbox(bulk=MAILCHIMP_MEMBERS, latency_ms=LATENCY_MS, paths="/3.0/*") as url:
        key = httpx.get(f"{url}/_mailchimp/bulk", timeout=120).raise_for_status().json()["api_key"]
        credentials = {"credential_type": "api_key", "api_key": key}
        integration = _integration(MAILCHIMP, url, credentials, ["members", "email_activity"])
        replace_integration(store, integration, actor="bench")
        seconds, members, peak = _timed_in_child(store, MAILCHIMP, "members")
        loop, activity_loop = _loop(url, key), _activity_loop(url, key)
        activity_seconds, activity_calls, _ = _timed_in_child(store, MAILCHIMP, "email_activity")
        started = time.perf_counter()
        idle = _sync(store, MAILCHIMP)
        idle_seconds = time.perf_counter() - started
    rate, calls = MAILCHIMP_MEMBERS / seconds, activity_calls / activity_seconds
    waits = sum(each.calls for each in idle.objects.values()) * LATENCY_MS / 1000
    assert members
    return [
        Row(AREA, "mailchimp_members_50ms", "rows/s", rate, loop, LOOP, rate / loop, peak_mib=peak),
        Row(AREA, "mailchimp_activity_50ms", "calls/s", calls, activity_loop, LOOP, calls / activity_loop),
        Row(AREA, "mailchimp_quota_used", "calls/s", calls, MAILCHIMP_CEILING, AT_CEILING, calls / MAILCHIMP_CEILING),
        Row(AREA, "mailchimp_idle_sync", "ms", (idle_seconds - waits) * 1000, None, None, None),
    ]


def _loop(url: str, key: str) -> float:
    """Records a second."""
    read, started = 0, time.perf_counter()
    with httpx.Client(base_url=url, auth=("bench", key), timeout=60) as client:
        [audience] = client.get("/3.0/lists").raise_for_status().json()["lists"]
        while True:
            parameters = {"count": "1000", "offset": str(read), "exclude_fields": "members._links,_links"}
            page = client.get(f"/3.0/lists/{audience['id']}/members", params=parameters).raise_for_status().json()
            read += len(page["members"])
            if len(page["members"]) < 1000:
                return read / (time.perf_counter() - started)


def _activity_loop(url: str, key: str, campaigns: int = 60) -> float:
    """Calls a second."""
    with httpx.Client(base_url=url, auth=("bench", key), timeout=60) as client:
        parameters = {"fields": "reports.id", "count": str(campaigns)}
        reports = client.get("/3.0/reports", params=parameters).raise_for_status().json()["reports"]
        started = time.perf_counter()
        for each in reports:
            client.get(f"/3.0/reports/{each['id']}/email-activity", params={"count": "1000"}).raise_for_status().json()
    return len(reports) / (time.perf_counter() - started)


def _timed_in_child(store: Store, integration_id: str, object: str) -> tuple[float, int, float]:
    """Seconds and calls of a sync of one object in a process of its own, and that process's peak memory in MiB."""
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[float, int, float]] = context.Queue()
    child = context.Process(target=_sync_in_child, args=(integration_id, object, answers))
    child.start()
    answer = answers.get(timeout=600)
    child.join()
    return answer


def _sync_in_child(integration_id: str, object: str, answers: multiprocessing.Queue[tuple[float, int, float]]) -> None:
    store = Store.open(load_settings().model_copy(update={"database_url": None}))
    started = time.perf_counter()
    report = _sync(store, integration_id, object)
    seconds = time.perf_counter() - started
    store.close()
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    answers.put((seconds, report.objects[object].calls, peak))


def _sync(store: Store, integration_id: str, *objects: str) -> SyncReport:
    report = sync_integration(store, integration_id, sync_id=str(uuid.uuid4()), objects=objects or None)
    assert report.status == "succeeded", report
    return report


def _integration(name: str, url: str, credentials: dict[str, Any], objects: list[str]) -> IntegrationConfiguration:
    return IntegrationConfiguration.model_validate(
        {
            "integration_id": name,
            "organization_id": "bench-saas",
            "integration_name": name,
            "integration_type": "email_marketing",
            "provider_name": name.removeprefix("bench-"),
            "base_url": url,
            "credentials": credentials,
            "sync_config": {"requests_per_minute": 60_000, "concurrent_requests": 10, "objects": objects},
        }
    )
