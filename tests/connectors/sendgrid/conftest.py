"""An integration with a SendGrid: the sandbox's, or a stand-in for answers that no sane account gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.sendgrid import SendGrid, contacts, limits
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, Organization
from churnguard_pipelines.records import Window
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.connectors.standin import StandIn, stand_in

NOW = 1_790_000_000
"""The stand-in's clock, epoch seconds."""
INTEGRATION = "acme-sendgrid"
OBJECTS = {item.name: item for item in SendGrid.objects}
KEY = "SG.canarycanarycanaryca.canarycanarycanarycanarycanarycanarycanaryc"
Row = dict[str, Any]
Register = Callable[..., IntegrationConfiguration]
_syncs = itertools.count(1)


@pytest.fixture
def connect(store: Store, organization: Organization) -> Register:
    """Stores an integration with a SendGrid at this URL; doing it again replaces it."""

    def connected(url: str, *, key: str = KEY, subuser: str | None = None, **sync: Any) -> IntegrationConfiguration:
        defaults = {"requests_per_minute": 60_000, "concurrent_requests": 2, "retry_attempts": 2, "retry_backoff": 0.01}
        made = configuration(
            INTEGRATION, provider_name="sendgrid", integration_type="email_marketing", base_url=url,
            credentials={
                "credential_type": "api_key", "api_key": key,
                "custom_fields": {"on_behalf_of": subuser} if subuser else {},
            },
            sync_config=defaults | sync,
        )  # fmt: skip
        replace_integration(store, made, actor="test")
        return made

    return connected


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """We may ask more often than SendGrid allows, and exports are ready at once."""
    monkeypatch.setattr(limits, "GENERAL", replace(limits.GENERAL, per_second=1000, burst=None))
    monkeypatch.setattr(limits, "OF_ACTIVITY", replace(limits.OF_ACTIVITY, per_second=1000, burst=None))
    monkeypatch.setattr(contacts, "FIRST_LOOK", 0.01)


@pytest.fixture
def account(sandbox: Sandbox, connect: Register, unhurried: None) -> AccountHandle:
    """Acme's, without limits."""
    handle = sandbox.sendgrid("acme")
    handle.unlimited()
    connect(sandbox.url, key=handle.key)
    return handle


@pytest.fixture
def sendgrid(connect: Register, unhurried: None) -> Iterator[StandIn]:
    """Every list of it is empty until a test says otherwise."""
    with stand_in() as provider:
        provider.now = NOW
        provider.anything = []
        provider.says["/v3/user/username"] = [{"username": "acme", "user_id": 7}]
        provider.says["/v3/marketing/field_definitions"] = [{"custom_fields": []}]
        connect(provider.url)
        yield provider


def sync(
    store: Store, *objects: str, mode: DataSyncMode = DataSyncMode.INCREMENTAL, window: Window | None = None
) -> SyncReport:
    name = f"sendgrid-{next(_syncs)}"
    return sync_integration(store, INTEGRATION, sync_id=name, mode=mode, objects=objects or None, window=window)


def errors_of(report: SyncReport) -> dict[str, str]:
    return {name: item.error for name, item in report.objects.items() if item.error}


def rows(store: Store, object: str) -> dict[str, Row]:
    """Those of ``raw.sendgrid_<object>`` by key, deleted ones too."""
    with store.organization("acme") as connection:
        key = OBJECTS[object].key
        found = connection.execute(sa.text(f'SELECT * FROM raw.sendgrid_{object} ORDER BY "{key}"'))
        return {row[key]: dict(row) for row in found.mappings()}


def live(store: Store, object: str) -> dict[str, Row]:
    return {key: row for key, row in rows(store, object).items() if row["deleted_at"] is None}


def position(store: Store, lane: str) -> dict[str, Any]:
    with store.organization("acme") as connection:
        statement = sa.text("SELECT position FROM ingest.checkpoints WHERE lane = :lane")
        return dict(connection.scalar(statement, {"lane": lane}))
