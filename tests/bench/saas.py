"""E-mail tools against their simulated APIs, within their real limits, and syncs that find nothing new."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import httpx

from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.bench import due_at_once, sendgrid
from tests.bench.child import synced, synced_in_child
from tests.bench.harness import Row
from tests.bench.provider import sandbox

AREA = "saas"
LATENCY_MS = 50
MAILCHIMP, MAILCHIMP_MEMBERS = "bench-mailchimp", 50_000
CONNECTIONS = 10
"""Of a key."""
LOOP = "one page after the other, nothing written"
AT_CEILING = f"{CONNECTIONS} connections that never pause: {CONNECTIONS} times the loop, which has one"
AT_ONCE = f"{CONNECTIONS} bare connections at once, nothing written"


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id="bench-saas", name="Bench"), actor="bench")
    yield from _mailchimp(store)
    yield from sendgrid.run(store)
    yield from due_at_once.rows(store)


def _mailchimp(store: Store) -> Iterator[Row]:
    with sandbox(bulk=MAILCHIMP_MEMBERS, latency_ms=LATENCY_MS, paths="/3.0/*") as url:
        key = httpx.get(f"{url}/_mailchimp/bulk", timeout=120).raise_for_status().json()["api_key"]
        credentials = {"credential_type": "api_key", "api_key": key}
        integration = _integration(MAILCHIMP, url, credentials, ["members", "email_activity"])
        replace_integration(store, integration, actor="bench")
        members = synced_in_child(MAILCHIMP, "members")
        rate, loop = members.report.objects["members"].counts.read / members.seconds, _loop(url, key)
        yield Row(AREA, "mailchimp_members_50ms", "rows/s", rate, loop, LOOP, rate / loop, peak_mib=members.peak_mib)
        activity_loop = _activity_loop(url, key)
        activity = synced_in_child(MAILCHIMP, "email_activity")
        calls = activity.report.objects["email_activity"].calls / activity.seconds
        yield Row(AREA, "mailchimp_activity_50ms", "calls/s", calls, activity_loop, LOOP, calls / activity_loop)
        ceiling, bare = CONNECTIONS * activity_loop, _activity_at_once(url, key)
        yield Row(AREA, "mailchimp_quota_used", "calls/s", calls, ceiling, AT_CEILING, calls / ceiling)
        yield Row(AREA, "mailchimp_at_once", "calls/s", calls, bare, AT_ONCE, calls / bare)
        idle = synced(store, MAILCHIMP)
        waits = sum(each.calls for each in idle.report.objects.values()) * LATENCY_MS / 1000
        yield Row(AREA, "mailchimp_idle_sync", "ms", (idle.seconds - waits) * 1000, None, None, None)


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
        reports = _reports(client, campaigns)
        started = time.perf_counter()
        for each in reports:
            _activity(client, each)
    return len(reports) / (time.perf_counter() - started)


def _activity_at_once(url: str, key: str, campaigns: int = 1000) -> float:
    """Calls a second of as many connections as a key may have, each in a thread."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(base_url=url, auth=("bench", key), timeout=60)) for _ in range(CONNECTIONS)
        ]
        reports = _reports(clients[0], campaigns)
        waiting: SimpleQueue[httpx.Client] = SimpleQueue()
        for client in clients:
            waiting.put(client)

        def read(report: str) -> None:
            client = waiting.get()
            _activity(client, report)
            waiting.put(client)

        with ThreadPoolExecutor(CONNECTIONS) as threads:
            started = time.perf_counter()
            list(threads.map(read, reports))
            return len(reports) / (time.perf_counter() - started)


def _reports(client: httpx.Client, most: int) -> list[str]:
    parameters = {"fields": "reports.id", "count": str(most)}
    return [each["id"] for each in client.get("/3.0/reports", params=parameters).raise_for_status().json()["reports"]]


def _activity(client: httpx.Client, report: str) -> None:
    client.get(f"/3.0/reports/{report}/email-activity", params={"count": "1000"}).raise_for_status().json()


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
            "sync_config": {"requests_per_minute": 60_000, "concurrent_requests": CONNECTIONS, "objects": objects},
        }
    )
