"""What an integration's view shows: what the connector declares, what the account added, what its mappings name."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from threading import Event
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.sdk import Object, Reading
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import Batch, Field
from churnguard_pipelines.store.control.integrations import remove_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.ingest.drift import list_drift
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.toy import Account, Open, Toy, accounts

NAMES = {
    "statement": 'a"; DROP SCHEMA control CASCADE; --', "quote": "it's", "percent": "100%", "backslash": "\\",
    "parameter": "%(organization_id)s", "braces": "{}", "colon": ":x", "key": "id", "ours": "extra",
    "validity": "valid_to", "many bytes": "ä" * 40, "long": "x" * 64,
}  # fmt: skip


@pytest.fixture
def opened(store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    with accounts(store, monkeypatch) as opened:
        yield opened


@pytest.fixture
def crm(opened: Open) -> Account:
    return opened()


def view(account: Account, name: str) -> list[dict[str, Any]]:
    """The rows of ``views.<name>``, as the organization reads them."""
    with account.store.organization(account.organization_id) as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM views.{name} ORDER BY id")).mappings()]


def columns(store: Store, schema: str, name: str) -> dict[str, str]:
    statement = sa.text(
        "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = :schema AND c.relname = :name AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    )
    with store.operator() as connection:
        return {row[0]: row[1] for row in connection.execute(statement, {"schema": schema, "name": name})}


def drift(account: Account, object: str) -> set[tuple[str, str]]:
    return {(item.column, item.kind) for item in list_drift(account.store, account.integration_id).get(object, [])}


def test_a_view_shows_one_integrations_rows(opened: Open, crm: Account) -> None:
    other = opened("acme-crm-2")
    crm.holds("contacts", {"id": "1", "email": "a@acme.io", "created": "2026-01-02T03:04:05Z"})
    other.holds("contacts", {"id": "1", "email": "b@acme.io"})
    assert crm.sync().status == other.sync().status == "succeeded"
    (row,) = view(crm, "acme_crm_contacts")
    assert (row["email"], row["created"]) == ("a@acme.io", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert (row["organization_id"], row["integration_id"], row["deleted_at"]) == ("acme", "acme-crm", None)
    assert [row["email"] for row in view(crm, "acme_crm_2_contacts")] == ["b@acme.io"]


class TestDiscovery:
    def test_custom_fields_are_in_the_view_in_their_own_types(self, crm: Account) -> None:
        crm.has_fields(
            "contacts", seats="integer", arr="number", share="percent", renewal="date", seen="datetime", vip="checkbox",
            tier="picklist", notes="json",
        )  # fmt: skip
        values = {
            "seats": 3, "arr": "12.30", "share": 0.5, "renewal": "2026-12-31", "seen": "2026-01-02T03:04:05.5+0100",
            "vip": True, "tier": "gold", "notes": {"a": [1]},
        }  # fmt: skip
        crm.holds("contacts", {"id": "1", "fields": values}, {"id": "2", "fields": {}})
        assert crm.sync().status == "succeeded"
        first, second = view(crm, "acme_crm_contacts")
        assert {name: first[name] for name in values} == {
            "seats": 3, "arr": Decimal("12.30"), "share": 0.5, "renewal": date(2026, 12, 31),
            "seen": datetime(2026, 1, 2, 2, 4, 5, 500_000, UTC), "vip": True, "tier": "gold", "notes": {"a": [1]},
        }  # fmt: skip
        assert {second[name] for name in values} == {None}
        assert first["extra"] == {"fields": values}
        assert set(columns(crm.store, "raw", "toy_contacts")) & values.keys() == set()

    def test_what_is_known_of_a_field_is_catalogued(self, crm: Account) -> None:
        tier = {"name": "tier", "type": "picklist", "label": "Customer tier", "values": ["gold", "silver"]}
        crm.has_fields("contacts", tier, {"name": "score", "type": "number", "formula": True})
        crm.sync()
        first, second = known_objects(crm.store, "acme-crm")["contacts"].fields
        assert (first.label, first.values, first.formula) == ("Customer tier", ("gold", "silver"), False)
        assert (second.name, second.type, second.formula) == ("score", "numeric", True)

    def test_a_custom_object_is_read_and_has_its_view(self, opened: Open, crm: Account) -> None:
        add_organization(crm.store, Organization(organization_id="globex", name="Globex"), actor="test")
        other = opened("globex-crm", "globex")
        for account, amount in ((crm, "number"), (other, "text")):
            account.adds_objects("Invoice__c", label="Invoice")
            account.has_fields("Invoice__c", amount=amount)
            account.holds("Invoice__c", {"id": "i1", "created": 1_767_312_000, "fields": {"amount": "5"}})
            assert account.sync().status == "succeeded"
        assert view(crm, "acme_crm_invoice_c")[0]["amount"] == Decimal(5)
        assert view(other, "globex_crm_invoice_c")[0]["amount"] == "5"
        known = known_objects(crm.store, "acme-crm")["Invoice__c"]
        assert (known.view, known.label, known.custom) == ("acme_crm_invoice_c", "Invoice", True)

    def test_a_field_that_is_gone_does_not_break_the_view(self, crm: Account) -> None:
        crm.has_fields("contacts", seats="integer", tier="text")
        crm.holds("contacts", {"id": "1", "fields": {"seats": 3, "tier": "gold"}})
        crm.sync()
        crm.has_fields("contacts", tier="text")
        crm.holds("contacts", {"id": "2", "fields": {"tier": "silver"}})
        assert crm.sync().status == "succeeded"
        assert [(row["seats"], row["tier"]) for row in view(crm, "acme_crm_contacts")] == [
            (3, "gold"),
            (None, "silver"),
        ]
        assert ("seats", "gone_field") in drift(crm, "contacts")

    def test_a_type_that_changes_is_told_and_the_view_follows(self, crm: Account) -> None:
        crm.has_fields("contacts", seats="text", tier="text")
        crm.holds("contacts", {"id": "1", "fields": {"seats": "3"}}, {"id": "2", "fields": {"seats": "many"}})
        crm.sync()
        crm.has_fields("contacts", seats="integer", tier="text")
        assert crm.sync().status == "succeeded"
        assert [row["seats"] for row in view(crm, "acme_crm_contacts")] == [3, None]
        (told,) = [item for item in list_drift(crm.store, "acme-crm")["contacts"] if item.kind == "type_changed"]
        assert (told.column, told.detail) == ("seats", "it was text and is bigint now")

    def test_a_value_that_is_not_of_its_type_is_null_and_drift_and_its_record_is_stored(self, crm: Account) -> None:
        crm.has_fields("contacts", seats="integer")
        crm.holds("contacts", {"id": "1", "email": "a@acme.io", "fields": {"seats": "a few"}})
        report = crm.sync()
        assert report.objects["contacts"].counts.rejected == 0
        (row,) = view(crm, "acme_crm_contacts")
        assert (row["email"], row["seats"], row["extra"]) == ("a@acme.io", None, {"fields": {"seats": "a few"}})
        assert drift(crm, "contacts") == {("seats", "type_mismatch")}

    def test_a_field_that_comes_later_is_there_with_the_rows_that_had_it(self, crm: Account) -> None:
        crm.holds("contacts", {"id": "1", "fields": {"seats": 3}})
        crm.sync()
        assert "seats" not in columns(crm.store, "views", "acme_crm_contacts")
        crm.has_fields("contacts", seats="integer")
        crm.sync()
        assert [row["seats"] for row in view(crm, "acme_crm_contacts")] == [3]

    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_a_field_may_have_any_name(self, crm: Account, name: str) -> None:
        crm.has_fields("deals", {"name": name, "type": "integer"}, {"name": name + "2", "type": "integer"})
        crm.holds("deals", {"id": "1", "fields": {name: 5, name + "2": 6}})
        assert crm.sync().status == "succeeded"
        for shown in ("acme_crm_deals", "acme_crm_deals_versions"):
            (row,) = view(crm, shown)
            assert {5, 6} <= {value for value in row.values() if isinstance(value, int)}

    @pytest.mark.parametrize("name", ['x"; DROP SCHEMA control; --', "deals_versions", "x" * 300, "Deals", "%s"])
    def test_an_object_may_have_any_name(self, crm: Account, name: str) -> None:
        crm.adds_objects(name)
        crm.holds(name, {"id": "1"})
        crm.holds("deals", {"id": "2"})
        report = crm.sync("deals", name)
        assert report.objects["deals"].status == "succeeded"
        known = known_objects(crm.store, "acme-crm")
        assert len({known[each].view for each in ("deals", name)} | {"acme_crm_deals_versions"}) == 3
        assert [row["id"] for row in view(crm, "acme_crm_deals")] == ["2"]

    def test_of_two_objects_that_read_alike_the_declared_one_has_the_plain_view_though_it_is_read_last(
        self, crm: Account, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other_is_read, discover_fields, read = Event(), Toy.discover_fields, Toy.read

        def after_the_other(toy: Toy, item: Object) -> Sequence[Field]:
            assert item.name != "deals" or other_is_read.wait(30)
            return discover_fields(toy, item)

        def told(toy: Toy, item: Object, reading: Reading) -> Generator[Batch]:
            if item.name == "Deals":
                other_is_read.set()
            return read(toy, item, reading)

        monkeypatch.setattr(Toy, "discover_fields", after_the_other)
        monkeypatch.setattr(Toy, "read", told)
        crm.adds_objects("Deals")
        crm.holds("Deals", {"id": "1"})
        crm.holds("deals", {"id": "2"})
        assert crm.sync("deals", "Deals").status == "succeeded"
        assert [row["id"] for row in view(crm, "acme_crm_deals")] == ["2"]
        assert [row["id"] for row in view(crm, known_objects(crm.store, "acme-crm")["Deals"].view)] == ["1"]

    def test_an_account_that_may_not_be_asked_ends_the_sync_and_keeps_its_views(self, crm: Account) -> None:
        crm.adds_objects("Invoice__c", label="Invoice")
        crm.sync()
        crm.answers("/objects", 403)
        report = crm.sync()
        assert report.status == "failed"
        assert "Invoice__c" in report.objects
        assert view(crm, "acme_crm_invoice_c") == []

    def test_an_answer_that_nobody_understands_is_on_the_syncs_page(self, crm: Account) -> None:
        crm.answers("/objects", 200, [1])
        report = crm.sync()
        assert (report.status, report.error is not None) == ("failed", True)
        assert "cannot be understood (TypeError)" in str(report.error)

    def test_fields_that_cannot_be_asked_for_are_their_objects_trouble(self, crm: Account) -> None:
        crm.answers("/fields/contacts", 403)
        report = crm.sync()
        assert {name: item.status for name, item in report.objects.items()} == {
            "contacts": "failed", "deals": "succeeded"
        }  # fmt: skip

    def test_an_object_that_is_gone_keeps_its_view(self, crm: Account) -> None:
        crm.adds_objects("Invoice__c", label="Invoice")
        crm.holds("Invoice__c", {"id": "i1"})
        crm.sync()
        crm.adds_objects()
        assert crm.sync().status == "succeeded"
        assert [row["id"] for row in view(crm, "acme_crm_invoice_c")] == ["i1"]
        assert drift(crm, "Invoice__c") == {("Invoice__c", "gone_object")}


class TestFieldMappings:
    def test_a_path_is_a_column_of_the_integrations_view_alone(self, opened: Open, crm: Account) -> None:
        crm.configure(field_mappings={"contacts": {"custom.region": "region", "custom.seats": "seats:bigint"}})
        other = opened("acme-crm-2")
        for account in (crm, other):
            account.holds("contacts", {"id": "1", "custom": {"region": "emea", "seats": 7, "x": 1}})
            account.sync()
        (row,) = view(crm, "acme_crm_contacts")
        assert (row["region"], row["seats"]) == ("emea", 7)
        assert {"region", "seats"} & columns(crm.store, "views", "acme_crm_2_contacts").keys() == set()
        assert {"region", "seats"} & columns(crm.store, "raw", "toy_contacts").keys() == set()

    def test_a_declared_column_is_shown_under_another_name_with_its_type(self, crm: Account) -> None:
        crm.configure(field_mappings={"contacts": {"created": "joined"}})
        crm.holds("contacts", {"id": "1", "created": 1_767_312_000})
        crm.sync()
        (row,) = view(crm, "acme_crm_contacts")
        assert row["joined"] == datetime(2026, 1, 2, tzinfo=UTC)
        assert "created" not in row

    def test_a_declared_name_is_read_from_another_path_with_its_type(self, crm: Account) -> None:
        crm.configure(field_mappings={"contacts": {"meta.born": "created", "meta.mail": "email"}})
        crm.holds("contacts", {"id": "1", "email": "x", "meta": {"born": "2026-01-02", "mail": "y"}})
        crm.sync()
        (row,) = view(crm, "acme_crm_contacts")
        assert (row["created"], row["email"]) == (datetime(2026, 1, 2, tzinfo=UTC), "y")

    def test_a_path_into_a_declared_document(self, crm: Account) -> None:
        crm.configure(field_mappings={"contacts": {"address.geo.lat": "lat:double precision"}})
        crm.holds("contacts", {"id": "1", "address": {"geo": {"lat": "52.5"}}})
        crm.sync()
        assert [row["lat"] for row in view(crm, "acme_crm_contacts")] == [52.5]

    def test_versions_are_shown_with_the_same_columns(self, crm: Account) -> None:
        crm.configure(field_mappings={"deals": {"stage": "stage"}})
        for version, stage in ((1_767_312_000_000, "open"), (1_767_398_400_000, "won")):
            crm.holds("deals", {"id": "1", "stage": stage, "version": version})
            crm.sync()
        shown = view(crm, "acme_crm_deals_versions")
        assert [(row["stage"], row["valid_to"] is None) for row in shown] == [("open", False), ("won", True)]

    @pytest.mark.parametrize(
        ("path", "column", "why"),
        [
            *(("x", name, "cannot be a column") for name in ("Region", "id", "extra", "a; drop table x", "", "9a")),
            ("x", "seats:money", "there is no type “money”"),
            ("created", "joined:bigint", "“joined” is timestamptz as declared"),
            ("email.host", "host", "lies in a column that is no JSON document"),
        ],
    )
    def test_one_that_cannot_work_is_its_objects_trouble(self, crm: Account, path: str, column: str, why: str) -> None:
        crm.configure(field_mappings={"contacts": {path: column}})
        report = crm.sync()
        assert why in str(report.objects["contacts"].error)
        assert report.objects["deals"].status == "succeeded"

    def test_two_fields_cannot_share_a_column(self, crm: Account) -> None:
        crm.configure(field_mappings={"contacts": {"a": "region", "b": "region:bigint"}})
        assert "two fields go to the column “region”" in str(crm.sync().objects["contacts"].error)


class TestWhenTheyEnd:
    def test_an_object_that_is_not_wanted_any_more_loses_its_view(self, crm: Account) -> None:
        crm.sync()
        crm.configure(objects=["contacts"])
        crm.sync("contacts")
        assert known_objects(crm.store, "acme-crm").keys() == {"contacts", "deals"}, "a choice for one sync"
        crm.sync()
        assert known_objects(crm.store, "acme-crm").keys() == {"contacts"}
        assert columns(crm.store, "views", "acme_crm_deals") == columns(crm.store, "views", "acme_crm_deals_versions")
        assert columns(crm.store, "views", "acme_crm_deals") == {}

    def test_an_integration_that_is_removed_takes_its_views_along(self, opened: Open, crm: Account) -> None:
        other = opened("acme-crm-2")
        for account in (crm, other):
            account.sync()
        remove_integration(crm.store, "acme-crm", actor="test")
        assert columns(crm.store, "views", "acme_crm_contacts") == {}
        assert columns(crm.store, "views", "acme_crm_deals_versions") == {}
        assert columns(crm.store, "views", "acme_crm_2_contacts") != {}

    def test_a_view_that_is_in_use_stays_as_it_was_and_the_rows_come(
        self, crm: Account, administrator_url: str
    ) -> None:
        crm.sync()
        crm.has_fields("contacts", seats="integer")
        crm.holds("contacts", {"id": "1", "fields": {"seats": 3}})
        with psycopg.connect(administrator_url) as reader:
            reader.execute("SELECT * FROM views.acme_crm_contacts")  # and its transaction stays open
            assert crm.sync().status == "succeeded"
            assert ("acme_crm_contacts", "view_unchanged") in drift(crm, "contacts")
        assert "seats" not in view(crm, "acme_crm_contacts")[0]
        crm.sync()
        assert view(crm, "acme_crm_contacts")[0]["seats"] == 3

    def test_a_view_on_which_somebody_has_built_gets_new_columns_and_is_not_retyped(
        self, crm: Account, administrator_url: str
    ) -> None:
        crm.has_fields("contacts", seats="text")
        crm.sync()
        with psycopg.connect(administrator_url, autocommit=True) as somebody:
            somebody.execute("CREATE VIEW public.mine AS SELECT seats FROM views.acme_crm_contacts")
        crm.has_fields("contacts", seats="text", tier="text")
        crm.sync()
        assert "tier" in columns(crm.store, "views", "acme_crm_contacts")
        crm.has_fields("contacts", seats="integer", tier="text")
        assert crm.sync().status == "succeeded"
        assert columns(crm.store, "views", "acme_crm_contacts")["seats"] == "text"
        (told,) = [item for item in list_drift(crm.store, "acme-crm")["contacts"] if item.kind == "view_unchanged"]
        assert "somebody else's stand on it" in told.detail
