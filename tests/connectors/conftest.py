"""The simulated Stripe over HTTP and a real PostgreSQL: what a sync makes of the one is read from the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.connectors.stripe import Stripe
from churnguard_pipelines.model import (
    CredentialType,
    DataSyncMode,
    IntegrationConfiguration,
    IntegrationCredentials,
    Organization,
    SyncConfiguration,
)
from churnguard_pipelines.records import ColumnType, Window
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.sources.homes import temporary_home

ANCHOR = int(datetime(2026, 9, 17, 10, 30, tzinfo=UTC).timestamp())
SCALE = 0.03
OBJECTS = {item.name: item for item in Stripe.objects}

Row = dict[str, Any]
Register = Callable[..., IntegrationConfiguration]
_syncs = itertools.count(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Both businesses, small; nothing new happens and nothing breaks."""
    with serve(tmp_path_factory.mktemp("sandbox"), seed=7, anchor=ANCHOR, scale=SCALE) as served:
        yield served


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The same businesses for one test, to change and to break."""
    with serve(tmp_path_factory.mktemp("sandbox"), seed=7, anchor=ANCHOR, scale=SCALE) as served:
        yield served


@pytest.fixture
def home_of_source() -> Iterator[Path]:
    """For a server of a customer's that may be killed."""
    with temporary_home() as folder:
        yield folder


@pytest.fixture
def home_of_ours() -> Iterator[Path]:
    """For an installation of ours that may be killed."""
    with temporary_home() as folder:
        yield folder


@pytest.fixture
def register(store: Store, organization: Organization) -> Register:
    """Stores an integration with a sandbox; registering it again replaces its credentials."""

    def registered(
        sandbox: Sandbox,
        key: str = "rk_sandbox_acme",
        *,
        url: str | None = None,
        custom_fields: dict[str, str] | None = None,
        **sync: object,
    ) -> IntegrationConfiguration:
        defaults: dict[str, object] = {
            "requests_per_minute": 60_000,
            "concurrent_requests": 4,
            "retry_attempts": 2,
            "retry_backoff": 0.01,
        }
        credentials = {"credential_type": CredentialType.API_KEY, "api_key": key, "custom_fields": custom_fields or {}}
        made = configuration(
            base_url=url or sandbox.url,
            credentials=IntegrationCredentials.model_validate(credentials),
            sync_config=SyncConfiguration.model_validate(defaults | sync),
        )
        replace_integration(store, made, actor="test")
        return made

    return registered


def sync(
    store: Store,
    *objects: str,
    mode: DataSyncMode = DataSyncMode.INCREMENTAL,
    window: Window | None = None,
    sync_id: str | None = None,
) -> SyncReport:
    """One sync of the integration, of every object if none is named."""
    return sync_integration(
        store,
        "acme-stripe",
        sync_id=sync_id or f"sync-{next(_syncs)}",
        mode=mode,
        objects=objects or None,
        window=window,
    )


def rows(store: Store, object: str, *, suffix: str = "") -> list[Row]:
    """The rows of ``raw.stripe_<object>``, deleted ones too, in the order of their keys."""
    with store.organization("acme") as connection:
        found = connection.execute(sa.text(f"SELECT * FROM raw.stripe_{object}{suffix} ORDER BY id"))
        return [dict(row) for row in found.mappings()]


def live(store: Store, object: str) -> dict[str, Row]:
    """Those that are not deleted, by key."""
    return {row["id"]: row for row in rows(store, object) if row["deleted_at"] is None}


def path_of(object: str) -> str:
    """Where the sandbox lists the object."""
    return OBJECTS[object].path.removeprefix("/v1/")


def statuses(report: SyncReport) -> dict[str, str]:
    return {name: item.status for name, item in report.objects.items()}


def difference(item: Object, row: Row, sent: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Column -> (stored, sent) where a row does not say what the provider sent; a column that is null says nothing."""
    wrong: dict[str, tuple[Any, Any]] = {}
    for column in item.columns:
        expected = _at(sent, column.source_path.split("."))
        stored = row[column.name]
        if column.type is ColumnType.TIMESTAMP and stored is not None:
            stored = int(stored.timestamp())
        if column.type is ColumnType.NUMERIC and expected is not None:
            stored, expected = float(stored), float(expected)
        if stored != expected:
            wrong[column.name] = stored, expected
    taken = {column.source_path.split(".")[0] for column in item.columns} | {item.key}
    beyond = {name: value for name, value in sent.items() if name not in taken and value is not None}
    extra = {name: value for name, value in (row["extra"] or {}).items() if name not in taken and value is not None}
    if beyond != extra:
        wrong["extra"] = extra, beyond
    return wrong


def _at(node: Any, path: Sequence[str]) -> Any:
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node
