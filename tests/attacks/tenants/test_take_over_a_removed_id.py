"""A tenant that uses an id another one had: for its history, its webhooks, its rows, or only to learn that it is there.

Through the API, with the tenants' own keys; what an operator does on their behalf is done with an operator's.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import psycopg
import pytest

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirror_types import MirrorType
from churnguard_pipelines.mirrors import Lag, SourceColumn, SourceTable
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration
from churnguard_pipelines.monitoring.detail import objects_of, recent_syncs
from churnguard_pipelines.monitoring.vitals import read_vitals
from churnguard_pipelines.records import TEXT, Column, Counts, Drift, Lane, Rejected, Table
from churnguard_pipelines.store.control.integrations import get_integration, remove_integration, replace_integration
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import catalogue, inbox, ledger, rejected
from churnguard_pipelines.store.ingest.drift import list_drift, record_drift
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import as_administrator
from tests.shelf import shelves  # noqa: F401 - a fixture
from tests.webhook_gateway.api.conftest import Call, call, integration, key_of, settings

__all__ = ["call", "settings"]

ID = "shared_name"
SHELF = {"name": "s", "stream_type": "custom", "topics": ["clicks"], "connection_config": {"source": "shelf"}}

pytestmark = pytest.mark.usefixtures("shelves")
TABLE = Table("stripe", "things", "id", (Column("a", TEXT),))


def live(store: Store, organization_id: str) -> IntegrationConfiguration:
    """With a past of its own: a sync, rows, webhooks, rejected records, drift, a catalogue, a change log."""
    owner = get_integration(store, ID)
    lane = Lane(organization_id, ID, "things")
    ledger.start_sync(store, f"sync-of-{organization_id}", owner, DataSyncMode.FULL, ["things"])
    ledger.finish_sync(store, f"sync-of-{organization_id}", "failed", f"secret of {organization_id}")
    with store.organization(organization_id) as connection:
        rejected.add(connection, lane, "things", [Rejected("k", f"secret of {organization_id}", {})], None)
        record_drift(connection, lane, "things", [Drift(f"secret_of_{organization_id}", "new_field")])
    users = SourceTable(
        f"secret_of_{organization_id}", (SourceColumn("id", MirrorType.parse("text"), "text"),), ("id",)
    )
    catalogue.remember(store, owner, [(users, "users")])
    catalogue.set_lag(store, owner, Lag(7, None, None, {"secret": organization_id}))
    with store.operator() as connection:
        event = (organization_id, "stripe", ID, "we_1", "evt_1", "invoice.paid", "in_1", f"secret of {organization_id}")
        connection.exec_driver_sql(inbox.TAKE, tuple([value] for value in event))
    Warehouse(store).ensure(TABLE)
    with Warehouse(store).transaction(organization_id) as transaction:
        transaction.upsert(TABLE, ID, [("k", 1, f"secret of {organization_id}", "{}")])
        ledger.add_progress(transaction.connection, f"sync-of-{organization_id}", "things", Counts(read=1))
    return owner


def reassign(store: Store, to: str) -> None:
    """What no interface of ours does any more: the id is another organization's now, and the past of the former owner
    is still there, as in an installation that was used before ids were kept."""
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("UPDATE control.used_ids SET organization_id = %s WHERE used_id = %s", (to, ID))


def test_a_removed_id_stays_with_its_organization(store: Store, call: Call) -> None:
    key_of(store, "victim"), key_of(store, "thief")
    assert call("POST", "/integrations", json=integration("victim", integration_id=ID)).status_code == 201
    assert call("DELETE", f"/integrations/{ID}").status_code == 204
    refused = call("POST", "/integrations", json=integration("thief", integration_id=ID))
    assert (refused.status_code, "another organization's" in refused.json()["title"]) == (422, True)
    assert call("POST", "/integrations", json=integration("victim", integration_id=ID)).status_code == 201


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        (
            "/streaming/streams",
            "stream_id",
            SHELF,
        ),
        ("/ingestion/rules", "rule_id", {"name": "r", "endpoint_url": "https://support.example.com/api"}),
    ],
)
def test_so_do_those_of_streams_and_rules(
    store: Store, call: Call, path: str, field: str, body: dict[str, Any]
) -> None:
    key_of(store, "victim"), key_of(store, "thief")
    victim, thief = ({"organization_id": name, field: ID} | body for name in ("victim", "thief"))
    assert call("POST", path, json=victim).status_code == 201
    assert call("DELETE", f"{path}/{ID}").status_code == 204
    assert call("POST", path, json=thief).status_code == 422
    assert call("POST", path, json=victim).status_code == 201


def test_what_a_former_owner_left_is_not_the_next_one_s(store: Store, call: Call) -> None:
    thief = key_of(store, "thief")
    call("POST", "/integrations", json=integration("victim", integration_id=ID))
    live(store, "victim")
    remove_integration(store, ID, actor="test")
    reassign(store, "thief")
    call("POST", "/integrations", json=integration("thief", integration_id=ID))
    own = get_integration(store, ID)

    assert objects_of(store, ID) == []
    assert recent_syncs(store, ID) == []
    (vitals,) = read_vitals(store, ID)
    assert (vitals.latest, vitals.failing_since, vitals.webhooks, vitals.rejected) == (None, None, None, None)
    assert (vitals.misfits, vitals.stopped, vitals.change_log) == ({}, {}, None)
    assert ledger.latest_sync(store, ID) is None
    assert ledger.usual_seconds(store, ID) is None
    assert ledger.last_success(store, ID, "things") is None
    assert rejected.list_rejected(store, ID) == []
    assert list_drift(store, ID) == {}
    assert catalogue.entries(store, ID) == {}
    assert catalogue.get_lag(store, ID) is None
    assert inbox.waiting(store) == []
    assert call("POST", "/webhooks/replay", thief, json={"integration_id": ID}).json() == {"events": 0}
    assert call("GET", f"/integrations/{ID}/sync/status", thief).json()["sync_id"] is None

    # Nor does what the next one does reach the rows of the former.
    users = SourceTable("secret_of_victim", (SourceColumn("id", MirrorType.parse("text"), "text"),), ("id",))
    theirs = catalogue.raw_name("stripe", ID, "users")
    assert catalogue.remember(store, own, [(users, "users")])["secret_of_victim"] != theirs
    live(store, "thief")
    assert call("DELETE", f"/integrations/{ID}?purge=true", thief).status_code == 204
    assert Warehouse(store).count("stripe_things", "thief", ID) == 0
    assert Warehouse(store).count("stripe_things", "victim", ID) == 1
    with store.operator() as connection:
        for table in ("ingest.syncs", "ingest.source_tables", "ingest.webhook_inbox"):
            left = f"SELECT count(*) FROM {table} WHERE organization_id = 'victim'"
            assert connection.exec_driver_sql(left).scalar() == 1, table


# --- ids that are in use


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "free"])
def test_an_organization_does_not_learn_which_ids_others_have(store: Store, call: Call, taken: bool) -> None:
    thief = key_of(store, "thief")
    key_of(store, "victim")
    rule = {"name": "r", "endpoint_url": "https://support.example.com/api"}
    for path, field, body, name in (
        ("/integrations", "integration_id", integration("x"), ID),
        ("/streaming/streams", "stream_id", SHELF, f"{ID}_stream"),  # one namespace
        ("/ingestion/rules", "rule_id", rule, f"{ID}_rule"),
    ):
        if taken:
            made = call("POST", path, json=body | {"organization_id": "victim", field: name})
            assert made.status_code == 201, made.text
        for organization in ("thief", "victim", "nobody"):
            refused = call("POST", path, thief, json=body | {"organization_id": organization, field: name})
            assert refused.status_code == 422
            assert refused.json()["title"] == f"ids are made for an organization. Leave {field} out."
        own = call("POST", path, thief, json=body | {"organization_id": "thief"})
        assert own.status_code == 201
        assert len(own.json()[field].rpartition("_")[2]) == 16, "64 random bits"


def test_an_upgrade_keeps_the_ids_that_were_removed_before(store: Store, call: Call) -> None:
    """The migration reads them from the audit log and the ledger."""
    call("POST", "/integrations", json=integration("victim", integration_id=ID))
    call("POST", "/integrations", json=integration("victim", integration_id="in_use"))
    call("DELETE", f"/integrations/{ID}")
    call("POST", "/streaming/streams", json=SHELF | {"organization_id": "victim", "stream_id": "st"})
    STREAMS.remove(store, "st", actor="test")
    migration = import_module("churnguard_pipelines.store.postgres.migrations.versions.from_0001.0010_tenancy")
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("DROP TABLE control.used_ids")
        connection.execute(migration.USED_IDS)
        kept = connection.execute("SELECT kind, used_id, organization_id FROM control.used_ids ORDER BY 1, 2")
        assert kept.fetchall() == [
            ("integration", "in_use", "victim"), ("integration", ID, "victim"), ("stream", "st", "victim"),
        ]  # fmt: skip


def test_nor_by_the_python_api(store: Store, call: Call) -> None:
    call("POST", "/integrations", json=integration("victim", integration_id=ID))
    owner = get_integration(store, ID)
    remove_integration(store, ID, actor="test")
    with pytest.raises(InvalidConfiguration, match="another organization's"):
        replace_integration(store, owner.model_copy(update={"organization_id": "thief"}), actor="test")
