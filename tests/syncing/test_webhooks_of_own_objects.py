"""Webhook events of an object that the account added become rows of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.sdk import Object, StoredVersions
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import Deletion, Record
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.ingest.inbox_order import Settled
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.webhook_lane import InboxLane
from tests.connectors.toy import Account, Toy, accounts


class Telling(Toy):
    """Its events say which object they are of, and have the record."""

    @classmethod
    def object_of(cls, event: Mapping[str, Any]) -> str | None:
        return str(event["object"])

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[Sequence[Record], Sequence[Deletion]]:
        return [Record(event["record"], event["version"]) for event in events], []


@pytest.fixture
def crm(store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with accounts(store, monkeypatch, Telling) as opened:
        yield opened()


def test_events_of_the_account_s_own_objects_become_rows(crm: Account) -> None:
    crm.adds_objects("Invoice__c")
    crm.sync()
    told = [
        {"object": name, "record": {"id": f"{name}-1"}, "version": 10} for name in ("contacts", "Invoice__c", "Gone__c")
    ]
    columns = [
        [("acme", "toy", "acme-crm", "we_1", each["object"], "changed", "", json.dumps(each))[place] for each in told]
        for place in range(8)
    ]
    with crm.store.operator() as connection:
        connection.exec_driver_sql(inbox.TAKE, tuple(columns))
    with InboxLane(crm.store, Warehouse(crm.store), Settled(crm.store), "acme-crm") as lane:
        (drained,) = lane.drain(lambda: True)
    assert drained.outcomes == {("we_1", "stored"): 2, ("we_1", "unknown"): 1}
    with crm.store.organization("acme") as connection:
        rows = connection.scalars(sa.text("SELECT id FROM views.acme_crm_invoice_c")).all()
    assert rows == ["Invoice__c-1"]
