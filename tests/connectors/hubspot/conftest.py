"""A stand-in for HubSpot with an account of nothing, for answers that no sane account gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.hubspot import HubSpot, limits
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, Organization
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.connectors.standin import StandIn, stand_in

NOW = 1_790_000_000
"""The stand-in's clock, epoch seconds."""
INTEGRATION = "acme-hubspot"
OBJECTS = {item.name: item for item in HubSpot.objects}
TOKEN = "pat-eu1-canary"
Row = dict[str, Any]
Register = Callable[..., IntegrationConfiguration]
_syncs = itertools.count(1)


@pytest.fixture
def connect(store: Store, organization: Organization) -> Register:
    """Stores an integration with a HubSpot at this URL; doing it again replaces it."""

    def connected(url: str, *, credentials: Any = None, api_version: str | None = None, **sync: Any) -> Any:
        defaults = {"requests_per_minute": 60_000, "concurrent_requests": 1, "retry_attempts": 2, "retry_backoff": 0.01}
        made = configuration(
            INTEGRATION, provider_name="hubspot", integration_type="crm", base_url=url, api_version=api_version,
            credentials=credentials or {"credential_type": "bearer", "access_token": TOKEN},
            sync_config=defaults | sync,
        )  # fmt: skip
        replace_integration(store, made, actor="test")
        return made

    return connected


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """We may ask more often than HubSpot allows."""
    monkeypatch.setattr(limits, "GENERAL", replace(limits.GENERAL, per_second=1000, burst=None))
    monkeypatch.setattr(limits, "SEARCHES", replace(limits.SEARCHES, per_second=1000, burst=None))


@pytest.fixture
def hubspot(connect: Register, unhurried: None) -> Iterator[StandIn]:
    """Every list of it is empty until a test says otherwise."""
    with stand_in() as provider:
        provider.now = NOW
        provider.anything = {"results": []}
        provider.says["/account-info/v3/details"] = [{"portalId": 424242, "timeZone": "Europe/Berlin"}]
        provider.says["/crm/v3/lists/search"] = [{"lists": [], "hasMore": False}]
        connect(provider.url)
        yield provider


def sync(
    store: Store, *objects: str, mode: DataSyncMode = DataSyncMode.INCREMENTAL, window: Window | None = None
) -> SyncReport:
    name = f"hubspot-{next(_syncs)}"
    return sync_integration(store, INTEGRATION, sync_id=name, mode=mode, objects=objects or None, window=window)


def rows(store: Store, object: str) -> dict[str, Row]:
    """Those of ``raw.hubspot_<object>`` by key, deleted ones too."""
    with store.organization("acme") as connection:
        key = OBJECTS[object].key
        found = connection.execute(sa.text(f'SELECT * FROM raw.hubspot_{object} ORDER BY "{key}"'))
        return {row[key]: dict(row) for row in found.mappings()}


def live(store: Store, object: str) -> dict[str, Row]:
    return {key: row for key, row in rows(store, object).items() if row["deleted_at"] is None}


def gone(store: Store, object: str) -> dict[str, str]:
    """Key -> how it was deleted."""
    return {key: row["delete_kind"] for key, row in rows(store, object).items() if row["deleted_at"] is not None}


def position(store: Store, lane: str) -> dict[str, Any]:
    with store.organization("acme") as connection:
        statement = sa.text("SELECT position FROM ingest.checkpoints WHERE lane = :lane")
        return dict(connection.scalar(statement, {"lane": lane}))


def record(number: int, *, updated: int = (NOW - 7200) * 1000, **properties: Any) -> Row:
    """As a list or a batch shows it. ``updated``: milliseconds."""
    return {
        "id": str(number), "createdAt": iso(updated), "updatedAt": iso(updated), "archived": False,
        "properties": properties,
    }  # fmt: skip


def iso(milliseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
