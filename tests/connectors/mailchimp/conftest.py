"""Integrations of a Mailchimp: the sandbox's, or a stand-in for answers that no sane account gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.mailchimp import Mailchimp
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, Organization
from churnguard_pipelines.records import Window
from churnguard_pipelines.sandbox.mailchimp.handle import MailchimpAccount
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.connectors.standin import StandIn, stand_in

NOW = 1_790_000_000
"""The stand-in's clock, epoch seconds."""
INTEGRATION = "acme-mailchimp"
KEY = "0123456789abcdef0123456789abcdef-us21"
OBJECTS = {item.name: item for item in Mailchimp.objects}
Row = dict[str, Any]
Register = Callable[..., IntegrationConfiguration]
_syncs = itertools.count(1)


@pytest.fixture
def connect(store: Store, organization: Organization) -> Register:
    """Stores an integration with a Mailchimp at this URL; doing it again replaces it."""

    def connected(url: str | None, key: str = KEY, *, credentials: Any = None, **sync: Any) -> IntegrationConfiguration:
        defaults = {"concurrent_requests": 4, "retry_attempts": 2, "retry_backoff": 0.01}
        made = configuration(
            INTEGRATION, provider_name="mailchimp", integration_type="email_marketing", base_url=url,
            credentials=credentials or {"credential_type": "api_key", "api_key": key}, sync_config=defaults | sync,
        )  # fmt: skip
        replace_integration(store, made, actor="test")
        return made

    return connected


@pytest.fixture
def account(sandbox: Sandbox, connect: Register) -> MailchimpAccount:
    """Acme's account, which the integration may read all of."""
    handle = sandbox.mailchimp("acme")
    connect(sandbox.url, handle.api_key)
    return handle


@pytest.fixture
def mailchimp(connect: Register) -> Iterator[StandIn]:
    """Every list of it is empty until a test says otherwise."""
    with stand_in() as provider:
        provider.now = NOW
        provider.anything = {
            name: []
            for name in ("lists", "members", "merge_fields", "segments", "tags", "categories", "interests", "campaigns",
                         "reports", "emails", "automations", "sent_to", "unsubscribes")
        } | {"total_items": 0}  # fmt: skip
        provider.says["/3.0/"] = [{"account_id": "8d3a3db4d97663a9074efcc16"}]
        connect(provider.url)
        yield provider


def sync(
    store: Store, *objects: str, mode: DataSyncMode = DataSyncMode.INCREMENTAL, window: Window | None = None
) -> SyncReport:
    name = f"mailchimp-{next(_syncs)}"
    return sync_integration(store, INTEGRATION, sync_id=name, mode=mode, objects=objects or None, window=window)


def errors(report: SyncReport) -> dict[str, str | None]:
    return {name: item.error for name, item in report.objects.items() if item.error}


def live(store: Store, object: str) -> dict[str, Row]:
    """Those rows of ``raw.mailchimp_<object>`` by key that are not deleted."""
    with store.organization("acme") as connection:
        found = connection.execute(sa.text(f"SELECT * FROM raw.mailchimp_{object} WHERE deleted_at IS NULL"))
        return {row[OBJECTS[object].key]: dict(row) for row in found.mappings()}


def gone(store: Store, object: str) -> dict[str, str]:
    """Key -> how it was deleted."""
    with store.organization("acme") as connection:
        key = OBJECTS[object].key
        rows = connection.execute(sa.text(
            f"SELECT {key}, delete_kind FROM raw.mailchimp_{object} WHERE deleted_at IS NOT NULL"
        ))  # fmt: skip
        return {row[0]: row[1] for row in rows}
