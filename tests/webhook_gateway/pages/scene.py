"""An installation with something to see: brought by real syncs, inboxes and streams of real servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from churnguard_pipelines.analytics.mrr import compute_mrr
from churnguard_pipelines.model import IntegrationCredentials, Organization, SyncConfiguration
from churnguard_pipelines.records import Lane, Rejected
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.ingest import inbox, rejected, stream_progress
from churnguard_pipelines.store.ingest.stream_progress import Observed
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.shelf import configured, put, read_all

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>\u202e\x07{{ 7*7 }}"
"""What a source or a tenant may call something."""
OBJECTS = ["customers", "products", "prices", "subscriptions", "invoices", "invoice_items", "coupons"]


def add_stripe(store: Store, sandbox: Sandbox, name: str, api_key: str, objects: Sequence[str] = OBJECTS) -> None:
    """An integration of the organization of the same name."""
    add_organization(store, Organization(organization_id=name, name=name.title()), actor="test")
    credentials = IntegrationCredentials.model_validate({"credential_type": "api_key", "api_key": api_key})
    fast = SyncConfiguration(requests_per_minute=60_000, retry_attempts=0, objects=list(objects))
    made = configuration(
        name, organization_id=name, integration_name=f"{name.title()}'s Stripe", base_url=sandbox.url,
        credentials=credentials, sync_config=fast,
    )  # fmt: skip
    add_integration(store, made, actor="test")


def fill(store: Store, sandbox: Sandbox) -> None:
    """Acme is synced, has its MRR, a rejected record, events and a stream; Globex's key is refused, its stream behind.
    Both say hostile things."""
    add_stripe(store, sandbox, "acme", "rk_sandbox_acme")
    add_stripe(store, sandbox, "globex", "rk_sandbox_nobody", ["customers", "products"])
    assert sync_integration(store, "acme", sync_id="00000000-0000-4000-8000-000000000001").status == "succeeded"
    assert sync_integration(store, "globex", sync_id="00000000-0000-4000-8000-000000000002").status == "failed"
    compute_mrr(store, "acme", now=datetime.fromtimestamp(sandbox.account("acme").now, UTC))
    for name in ("acme", "globex"):
        reject(
            store, name, f"cus_{name}", f"the column `email` holds {HOSTILE}", {"id": f"cus_{name}", "name": HOSTILE}
        )
        deliver(store, name, f"evt_{name}", json.dumps({"id": f"evt_{name}", "type": "customer.updated", "x": HOSTILE}))
        stream = configured(organization=name, stream_id=f"{name}-clicks", name=HOSTILE, topics=[f"{name}-clicks"])
        put(topic=f"{name}-clicks")
        managing.create(store, stream, actor="test")
    put('{"page": "a"}', '{"page": "b"}', HOSTILE, topic="acme-clicks")
    read_all(store)
    STREAMS.set_state(store, "globex-clicks", StreamState.FAILED, HOSTILE, "Seek to earliest.")
    stream_progress.observe(store, [Observed(Lane("globex", "globex-clicks", "globex-clicks"), "90", 42, 4000.0)])


def reject(store: Store, name: str, key: str, reason: str, payload: Any) -> None:
    """A record of the integration and the organization of that name."""
    with store.organization(name) as connection:
        rejected.add(connection, Lane(name, name, "customers"), "customers", [Rejected(key, reason, payload)], None)


def deliver(store: Store, name: str, event_id: str, payload: str, event_type: str = "customer.updated") -> None:
    """An event to the inbox of the integration and the organization of that name."""
    row = (name, "stripe", name, "endpoint", event_id, event_type, "", payload)
    with store.operator() as connection:
        connection.exec_driver_sql(inbox.TAKE, tuple([value] for value in row))
