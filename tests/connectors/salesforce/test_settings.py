"""What settings say becomes part of a query only as a checked name or a quoted value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from churnguard_pipelines.connectors.salesforce import soql
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFilter
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import opened
from tests.connectors.salesforce.conftest import NAME, Reader
from tests.connectors.salesforce.org import Org

EVIL = "x' OR Name != '"


def test_a_filter_is_asked_for(org: Org, reader: Reader) -> None:
    reader.configure(data_filters=[{"field": "Industry", "operator": "eq", "value": "Energy"}])
    wanted = org.add("Account", Name="A", Industry="Energy")
    org.add("Account", Name="B", Industry="Mining")
    org.add("Account", Name="C", Industry="ENERGY")
    report = reader.sync()
    assert reader.alive().keys() == {wanted}
    assert (report.objects["Account"].counts.read, report.objects["Account"].counts.filtered) == (2, 1)
    assert any("Industry = 'Energy'" in text for text in org.queries())


@pytest.mark.parametrize("operator", ["ne", "not_in", "lt", "gt"])
def test_what_soql_compares_otherwise_than_we_do_is_not_asked_for(org: Org, reader: Reader, operator: str) -> None:
    """It knows no upper and lower case, and orders texts by a language: records would be missed."""
    value: Any = ["Energy"] if operator == "not_in" else "Energy"
    reader.configure(data_filters=[{"field": "Industry", "operator": operator, "value": value}])
    org.add("Account", Name="A", Industry="ENERGY")
    reader.sync()
    assert not any("Industry " in text.partition(" FROM ")[2] for text in org.queries())


def test_a_value_is_no_soql(org: Org, reader: Reader) -> None:
    reader.configure(data_filters=[{"field": "Industry", "operator": "in", "value": [EVIL, "\\"]}])
    org.add("Account", Name="A", Industry="Energy")
    evil = org.add("Account", Name="B", Industry=EVIL)
    assert reader.sync().status == "succeeded"
    assert reader.alive().keys() == {evil}


def test_a_name_is_no_soql(org: Org, reader: Reader) -> None:
    """One that is no field of the object is not asked for at all."""
    reader.configure(data_filters=[{"field": "Name != null OR Name", "operator": "eq", "value": "A"}])
    org.add("Account", Name="A")
    assert reader.sync().status == "succeeded"
    assert not any(" OR " in text for text in org.queries())
    for text in ("Name FROM Account--", "1Name", "", "Náme", "a b", "x" * 300):
        with pytest.raises(InvalidConfiguration):
            soql.name(text)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("O'Neil", r"'O\'Neil'"), ("\\", r"'\\'"), ("a\nb", r"'a\nb'"), ('"', "'\\\"'"), ("Käse", "'Käse'")],
    ids=["apostrophe", "backslash", "newline", "quote", "letters"],
)
def test_values_are_quoted(text: str, quoted: str) -> None:
    assert soql.quoted(text) == quoted


def test_control_characters_are_no_values() -> None:
    with pytest.raises(InvalidConfiguration):
        soql.quoted("\0")


@pytest.mark.parametrize(
    ("rule", "condition"),
    [
        (("Seats", "gte", 5), "Seats >= 5"),
        (("Seats", "eq", True), None),
        (("Seats", "eq", "5"), None),
        (("Active", "eq", True), "Active = true"),
        (("Name", "exists", None), "Name != null"),
        (("Name", "exists", False), "Name = null"),
        (("Name", "eq", None), "Name = null"),
        (("Name", "eq", "\0"), None),
        (("Made", "gte", "2026-01-31"), "Made >= 2026-01-31T00:00:00.000Z"),
        (("Other", "gte", "2026-01-31"), None),
        (("Hidden", "eq", "x"), None),
        (("Name", "in", []), None),
    ],
    ids=lambda value: " ".join(map(str, value)).replace("\0", "NUL") if isinstance(value, tuple) else "",
)
def test_conditions(rule: tuple[str, str, Any], condition: str | None) -> None:
    types = {"Seats": "double", "Active": "boolean", "Name": "string", "Made": "datetime", "Other": "datetime"}
    made = DataFilter(field=rule[0], operator=rule[1], value=rule[2])
    assert list(soql.pushed_down([made], "Account", types, {"Made": "datetime"})) == ([condition] if condition else [])


class TestParity:
    def test_records_are_counted_and_listed_as_they_were_made(self, org: Org, reader: Reader, store: Store) -> None:
        old, new = org.add("Account", ago=timedelta(days=9)), org.add("Account", ago=timedelta(days=1))
        org.delete("Account", org.add("Account", ago=timedelta(days=1)))
        week = Window(org.now - timedelta(days=7), org.now)
        with opened(store, get_integration(store, NAME)) as use:
            item = next(each for each in use.connector.objects if each.name == "Account")
            assert use.connector.count(item, week) == 1
            assert use.connector.keys(item, week, 10) == [new]
            assert use.connector.keys(item, Window(datetime(1970, 1, 2, tzinfo=UTC), org.now), 1) is None
            assert use.connector.count(item, Window(datetime(1970, 1, 2, tzinfo=UTC), org.now)) == len({old, new})

    def test_records_are_fetched_by_their_keys(self, org: Org, reader: Reader, store: Store) -> None:
        there, gone, purged = (org.add("Account", Name="A") for _ in range(3))
        org.delete("Account", gone)
        org.delete("Account", purged, purge=True)
        with opened(store, get_integration(store, NAME)) as use:
            item = next(each for each in use.connector.objects if each.name == "Account")
            found = use.connector.fetch(item, [there, gone, purged])
        assert found is not None
        assert [record.payload["id"] for record in found[0]] == [there]
        assert {each.key: each.kind.value for each in found[1]} == {gone: "soft", purged: "hard"}


class TestOutboundMessages:
    def test_what_a_message_names_is_asked_for(self, org: Org, reader: Reader, store: Store) -> None:
        """It carries the fields that somebody chose for it, and comes in any order."""
        key = org.add("Account", Name="As it is now")
        told = {"OrganizationId": "00D", "ActionId": "04k", "Id": "04l1", "sObject": {"type": "Account", "Id": key}}
        with opened(store, get_integration(store, NAME)) as use:
            name = use.connector.object_of(told)
            item = next(each for each in use.connector.objects if each.name == name)
            records, deletions = use.connector.changes(item, [told, told], lambda keys: {})
        assert [(record.payload["id"], record.payload["Name"]) for record in records] == [(key, "As it is now")]
        assert not deletions

    def test_an_own_object_is_known_by_its_name(self, org: Org, reader: Reader, store: Store) -> None:
        """Whether the account has it is asked when it is first told of."""
        with opened(store, get_integration(store, NAME)) as use:
            assert use.connector.object_of({"sObject": {"type": "Invoice__c", "Id": "a00"}}) == "Invoice__c"
            assert use.connector.object_of({"sObject": 7}) is None

    def test_a_record_that_queries_do_not_show_yet_is_not_taken_for_deleted(
        self, org: Org, reader: Reader, store: Store
    ) -> None:
        told = {"sObject": {"type": "Account", "Id": "001000000000001AAA"}}
        with opened(store, get_integration(store, NAME)) as use:
            item = next(each for each in use.connector.objects if each.name == "Account")
            assert use.connector.changes(item, [told], lambda keys: {}) == ([], [])
