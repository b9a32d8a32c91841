"""An organization of Salesforce's that a test makes up, and an integration that reads it into a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.model import CredentialType, DataSyncMode, IntegrationCredentials, SyncConfiguration
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.integrations import get_integration, replace_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.connectors.salesforce.org import STRING, Org
from tests.engine.loopback import serve

_syncs = itertools.count(1)
NAME = "acme-crm"


@pytest.fixture
def org() -> Iterator[Org]:
    with serve() as api:
        made = Org(api)
        made.has("Account", {"Name": STRING, "Industry": STRING, "MasterRecordId": "reference"})
        yield made


class Reader:
    """The integration, and what it made of the organization."""

    def __init__(self, store: Store, org: Org) -> None:
        self.store, self.org = store, org

    def configure(self, *objects: str, credentials: dict[str, Any] | None = None, **more: Any) -> None:
        """To read these objects with the organization's session, unless other credentials are given."""
        top = {name: more.pop(name) for name in ("api_version", "base_url") if name in more}
        sync: dict[str, Any] = {
            "requests_per_minute": 60_000, "concurrent_requests": 4, "retry_attempts": 1, "retry_backoff": 0.01,
            "objects": list(objects) or ["Account"],
        }  # fmt: skip
        given = credentials or {"credential_type": CredentialType.BEARER, "access_token": "session"}
        made = configuration(
            NAME, provider_name="salesforce", integration_type="crm",
            credentials=IntegrationCredentials.model_validate(given),
            sync_config=SyncConfiguration.model_validate(sync | more),
            **{"base_url": self.org.url} | top,
        )  # fmt: skip
        replace_integration(self.store, made, actor="test")

    def sync(
        self, *objects: str, mode: DataSyncMode = DataSyncMode.INCREMENTAL, window: Window | None = None
    ) -> SyncReport:
        return sync_integration(
            self.store, NAME, sync_id=f"sf-{next(_syncs)}", mode=mode, objects=objects or None, window=window
        )

    def later(self, **time: float) -> SyncReport:
        """A sync after some time, else after the ten minutes in which reads may lag."""
        self.org.passes(**time or {"minutes": 10})
        report = self.sync()
        assert report.status == "succeeded", report.error
        return report

    def rows_after_sync(self) -> int:
        self.sync()
        return len(self.alive())

    def rows(self, table: str = "account") -> dict[str, dict[str, Any]]:
        with self.store.organization("acme") as connection:
            found = connection.execute(sa.text(f"SELECT * FROM raw.salesforce_{table} ORDER BY id")).mappings()
            return {row["id"]: dict(row) for row in found}

    def alive(self, table: str = "account") -> dict[str, dict[str, Any]]:
        return {key: row for key, row in self.rows(table).items() if row["deleted_at"] is None}

    def kinds(self, table: str = "account") -> dict[str, str]:
        """How each row that is deleted was."""
        return {key: row["delete_kind"] for key, row in self.rows(table).items() if row["deleted_at"] is not None}

    def view(self, object: str) -> list[dict[str, Any]]:
        with self.store.organization("acme") as connection:
            name = connection.scalar(
                sa.text("SELECT view_name FROM ingest.objects WHERE object = :object"), {"object": object}
            )
            return [
                dict(row) for row in connection.execute(sa.text(f"SELECT * FROM views.{name} ORDER BY id")).mappings()
            ]

    def status(self) -> str:
        return get_integration(self.store, NAME).status.value

    def position(self, object: str = "Account") -> dict[str, Any]:
        with self.store.organization("acme") as connection:
            statement = sa.text("SELECT position FROM ingest.checkpoints WHERE lane = :lane")
            return dict(connection.scalar(statement, {"lane": object}))


@pytest.fixture
def reader(store: Store, organization: object, org: Org) -> Reader:
    made = Reader(store, org)
    made.configure()
    return made
