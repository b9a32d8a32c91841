"""Rules against a quirky server and a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import APIIngestionRule, DataSyncMode, Organization
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.rules import RULES
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.rest.quirky import Quirky, quirky_server

AS_FAST_AS_IT_GOES = {"requests_per_minute": 60_000, "retry_attempts": 0}
_syncs = itertools.count(1)


@pytest.fixture(scope="session")
def _quirky() -> Iterator[Quirky]:
    with quirky_server() as server:
        yield server


@pytest.fixture
def api(_quirky: Quirky) -> Quirky:
    _quirky.routes.clear()
    _quirky.asked.clear()
    return _quirky


class Rule:
    """One stored rule: run it, look at what came."""

    def __init__(self, store: Store, rule: APIIngestionRule) -> None:
        self.store, self.rule_id, self.organization_id = store, rule.rule_id, rule.organization_id

    def run(self, mode: DataSyncMode | None = None, window: Window | None = None) -> SyncReport:
        sync_id = f"rule-{next(_syncs)}"
        return sync_integration(self.store, self.rule_id, sync_id=sync_id, mode=mode, window=window)

    def runs(self, mode: DataSyncMode | None = None) -> SyncReport:
        """And succeeds."""
        report = self.run(mode)
        assert report.status == "succeeded", report.objects["records"].error
        return report

    def fails(self) -> str:
        """In these words."""
        report = self.run()
        assert report.status == "failed"
        return report.objects["records"].error or ""

    def rows(self, view: str = "records", *, deleted: bool = False) -> list[dict[str, Any]]:
        """Of the rule's view, by key."""
        name = f"{self.rule_id}_{view}".lower().replace("-", "_").replace(".", "_")
        query = sa.text(f'SELECT * FROM views."{name}" ORDER BY record_key')
        with self.store.organization(self.organization_id) as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        return [row for row in found if (row["deleted_at"] is not None) == deleted]

    def keys(self, *, deleted: bool = False) -> list[str]:
        return [row["record_key"] for row in self.rows(deleted=deleted)]

    def change(self, **changes: Any) -> None:
        RULES.change(self.store, self.rule_id, changes, actor="test")


MakeRule = Callable[..., Rule]


@pytest.fixture
def rule(store: Store, api: Quirky) -> MakeRule:
    """Stores a rule from fields, or from YAML in which ``$API`` is the server."""

    def made(text: str = "", **fields: Any) -> Rule:
        given = yaml.safe_load(text.replace("$API", api.url)) or {} if text else {}
        defaults = {
            "organization_id": "acme",
            "rule_id": "acme-rule",
            "name": "Rule",
            "endpoint_url": f"{api.url}/list",
        }
        document = defaults | AS_FAST_AS_IT_GOES | given | fields
        configured = APIIngestionRule.model_validate(document)
        add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
        with suppress(NotFound):
            RULES.remove(store, configured.rule_id, actor="test")
        RULES.add(store, configured, actor="test")
        return Rule(store, configured)

    return made
