"""Fifty integrations of all providers that are due in the same moment: how long each waits, and how long it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx

from churnguard_pipelines.model import IntegrationConfiguration, Organization
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.bench.child import synced
from tests.bench.harness import Row
from tests.bench.provider import sandbox

AREA = "saas"
ORGANIZATIONS = 10
LATENCY_MS, SCALE = 50, 0.05
KINDS = {
    "stripe": "payment", "salesforce": "crm", "hubspot": "crm", "mailchimp": "email_marketing",
    "sendgrid": "email_marketing",
}  # fmt: skip
SESSION = """
import sys
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.due import DueSyncs
from churnguard_pipelines.syncing.session import Session
store = Store.open(load_settings(), migrate=False)
Session(store, sys.argv[1], DueSyncs(store, sys.argv[1], sys.argv[1])).run()
"""
_TIMES = """
SELECT extract(epoch FROM started_at - %s)::float, extract(epoch FROM finished_at - started_at)::float, status
  FROM ingest.syncs WHERE organization_id LIKE 'due-%%' AND started_at > %s AND status IN ('succeeded', 'partial')
"""


def rows(store: Store) -> Iterator[Row]:
    with sandbox(scale=SCALE, latency_ms=LATENCY_MS, paths="/*") as url:
        _as_many_portals(url)
        made = [each for number in range(ORGANIZATIONS) for each in _integrations(store, url, f"due-{number}")]
        with ThreadPoolExecutor(8) as pool:  # first syncs have runs of their own
            list(pool.map(lambda each: synced(store, each.integration_id), made))
        with store.operator() as connection:
            statement = (
                "UPDATE control.integrations SET next_due_at = clock_timestamp() WHERE organization_id LIKE 'due-%%'"
            )
            connection.exec_driver_sql(statement)
            due: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        sessions = [subprocess.Popen([sys.executable, "-c", SESSION, name], env=dict(os.environ)) for name in KINDS]
        assert not any(session.wait(600) for session in sessions)
        with store.operator() as connection:
            times = connection.exec_driver_sql(_TIMES, (due, due)).all()
    assert len(times) == len(made), f"{len(times)} of {len(made)}"
    whole = f"{sum(status == 'succeeded' for *_, status in times)} of {len(times)} read every object"
    for name, seconds in (("due_50_wait", [each[0] for each in times]), ("due_50_run", [each[1] for each in times])):
        ordered = sorted(seconds)
        p50, p99 = ordered[len(ordered) // 2], ordered[-1]
        yield Row(AREA, name, "s (longest)", p99, None, whole, None, p50 * 1000, p99 * 1000)


def _as_many_portals(url: str) -> None:
    """In life no two organizations have the same portal of HubSpot, so none keeps count of another's calls there; the
    one that is simulated takes as much as theirs would together."""
    limits = httpx.get(f"{url}/_hubspot/acme", timeout=60).raise_for_status().json()["limits"]
    theirs = {name: ORGANIZATIONS * limits[name] for name in ("per_interval", "searches")}
    httpx.patch(f"{url}/_hubspot/acme/limits", json=theirs, timeout=60).raise_for_status()


def _integrations(store: Store, url: str, organization_id: str) -> list[IntegrationConfiguration]:
    """One of each provider; all organizations share the simulated accounts, and the ten connections of their key."""
    add_organization(store, Organization(organization_id=organization_id, name=organization_id), actor="bench")
    credentials: dict[str, dict[str, Any]] = {
        "stripe": {"credential_type": "api_key", "api_key": "rk_sandbox_acme"},
        "salesforce": {"credential_type": "bearer", "access_token": "00Dsandbox_acme"},
        "hubspot": {"credential_type": "bearer", "access_token": _told(url, "hubspot", "private_app_token")},
        "mailchimp": {"credential_type": "api_key", "api_key": _told(url, "mailchimp", "api_key")},
        "sendgrid": {"credential_type": "api_key", "api_key": _told(url, "sendgrid", "api_key")},
    }
    made = [
        IntegrationConfiguration.model_validate({
            "integration_id": f"{organization_id}-{provider}", "organization_id": organization_id,
            "integration_name": provider, "integration_type": kind, "provider_name": provider, "base_url": url,
            "credentials": credentials[provider],
            "sync_config": {"exclude": ["messages"] if provider == "sendgrid" else []},
        })
        for provider, kind in KINDS.items()
    ]  # fmt: skip
    for each in made:
        replace_integration(store, each, actor="bench")
    return made


def _told(url: str, provider: str, field: str) -> str:
    return str(httpx.get(f"{url}/_{provider}/acme", timeout=60).raise_for_status().json()[field])
