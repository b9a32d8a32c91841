"""What a sync makes of an organization: the first one, and those after it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Window
from tests.connectors.salesforce.conftest import Reader
from tests.connectors.salesforce.org import MOMENT, STAMPS, STRING, Org, Override, refusal, written
from tests.engine.loopback import Answer, Asked

JUST_NOW = timedelta()


def test_the_first_sync_brings_every_record(org: Org, reader: Reader) -> None:
    keys = {org.add("Account", Name=f"Account {number}", Industry="Energy") for number in range(5)}
    report = reader.sync()
    assert report.status == "succeeded", report.error
    assert reader.alive().keys() == keys
    assert {row["industry"] for row in reader.alive().values()} == {"Energy"}


def test_the_next_sync_brings_what_changed_since(org: Org, reader: Reader) -> None:
    same, changed = org.add("Account", Name="Same"), org.add("Account", Name="Before")
    reader.sync()
    org.change("Account", changed, Name="After")
    new = org.add("Account", Name="New", ago=JUST_NOW)
    report = reader.later()
    assert {key: row["name"] for key, row in reader.alive().items()} == {same: "Same", changed: "After", new: "New"}
    assert report.objects["Account"].counts.read == 2


def test_the_first_read_goes_on_by_id_where_a_sync_was_cut_off(org: Org, reader: Reader) -> None:
    """And not by windows of time: how records are spread over it makes no difference."""
    org.page = 2
    keys = {org.add("Account", Name=str(number)) for number in range(7)}
    org.overrides = [failing_after(pages=2)]
    assert reader.sync().status == "failed"
    stored = reader.alive().keys()
    assert 0 < len(stored) < len(keys)
    org.overrides = []
    before = len(org.queries())
    reader.later()
    assert reader.alive().keys() == keys
    assert any(f"Id > '{max(stored)}'" in text for text in org.queries()[before:])


def failing_after(pages: int) -> Override:
    seen: list[str] = []

    def fails(asked: Asked) -> Answer | None:
        if "/query/" in asked.path or "FROM Account" in asked.query.get("q", [""])[0]:
            seen.append(asked.path)
        return Answer(500, b"[]") if len(seen) > pages else None

    return fails


def test_a_query_that_salesforce_has_let_go_of_goes_on_after_the_last_id(org: Org, reader: Reader) -> None:
    org.page = 2
    keys = {org.add("Account", Name=str(number)) for number in range(5)}
    gone: list[str] = []

    def let_go(asked: Asked) -> Answer | None:
        if asked.path.rpartition("/")[2].startswith("01g") and not gone:
            gone.append(asked.path)
            return refusal("INVALID_QUERY_LOCATOR")
        return None

    org.overrides = [let_go]
    assert reader.sync().status == "succeeded"
    assert gone
    assert reader.alive().keys() == keys


def test_nothing_younger_than_five_minutes_is_taken_for_complete(org: Org, reader: Reader) -> None:
    """Reads lag behind writes: a record that appears late is stamped before what was read already."""
    reader.sync()
    org.passes(minutes=10)
    early = org.add("Account", Name="Seen at once", ago=timedelta(minutes=2))
    reader.sync()
    late = org.add("Account", Name="Seen late", ago=timedelta(minutes=3))
    reader.later()
    assert reader.alive().keys() == {early, late}


def test_a_burst_of_records_with_one_stamp_is_read_whole(org: Org, reader: Reader) -> None:
    reader.sync()
    org.page = 10
    keys = {org.add("Account", Name=str(number), ago=JUST_NOW) for number in range(35)}
    reader.later()
    assert reader.alive().keys() == keys


def test_a_record_that_changes_while_a_window_is_read_is_read_by_the_next(org: Org, reader: Reader) -> None:
    reader.sync()
    org.page = 1
    first, second = (org.add("Account", Name="before", ago=JUST_NOW) for _ in range(2))
    org.passes(minutes=10)

    def changes_meanwhile(asked: Asked) -> Answer | None:
        if "01g" in asked.path:
            org.change("Account", second, Name="after")
        return None

    org.overrides = [changes_meanwhile]
    reader.sync()
    org.overrides = []
    reader.later()
    assert {key: row["name"] for key, row in reader.alive().items()} == {first: "before", second: "after"}


@pytest.mark.parametrize("cursor", ["LastModifiedDate", "CreatedDate"])
def test_an_object_without_system_modstamp_is_read_by_the_next_best(org: Org, reader: Reader, cursor: str) -> None:
    org.has("Thing__c", {"Name": STRING}, stamps={cursor: MOMENT, "IsDeleted": "boolean"})
    reader.configure("Thing__c")
    org.add("Thing__c", Name="old")
    reader.sync()
    org.add("Thing__c", Name="new", ago=JUST_NOW)
    report = reader.later()
    assert report.objects["Thing__c"].counts.read == 1
    assert any(f"{cursor} >=" in text for text in org.queries())


@pytest.mark.parametrize("name", ["Thing__c", "ContentDocumentLink"], ids=["no date at all", "refuses its date"])
def test_an_object_without_a_cursor_is_read_whole_and_what_is_gone_is_found(
    org: Org, reader: Reader, name: str
) -> None:
    org.has(name, {"Name": STRING}, stamps={} if name == "Thing__c" else STAMPS)
    org.not_replicateable.add(name)
    reader.configure(name)
    stays, goes = org.add(name, Name="stays"), org.add(name, Name="goes")
    reader.sync()
    org.records[name].pop(goes)
    report = reader.later()
    assert report.objects[name].counts.read == 1
    assert [row["id"] for row in reader.view(name) if row["deleted_at"] is None] == [stays]
    assert not any("Modstamp >=" in text for text in org.queries())


def test_a_formula_that_changes_silently_is_read_again_within_a_day(org: Org, reader: Reader) -> None:
    """Neither a formula nor a roll-up moves the record's stamp."""
    org.has("Account", {"Name": STRING, "Health__c": "double"}, Health__c={"calculated": True})
    key = org.add("Account", Name="Acme", Health__c=0.9)
    reader.sync()
    org.change("Account", key, quietly=True, Health__c=0.1)
    reader.later()
    assert float(reader.view("Account")[0]["Health__c"]) == 0.9
    reader.later(hours=24)
    assert float(reader.view("Account")[0]["Health__c"]) == 0.1


def test_an_object_without_formulas_is_not_read_again(org: Org, reader: Reader) -> None:
    org.add("Account", Name="Acme")
    reader.sync()
    assert reader.later(hours=25).objects["Account"].counts.read == 0


def test_a_field_made_today_is_there_with_its_type_after_the_next_sync(org: Org, reader: Reader) -> None:
    """Also for records that nobody has changed since: making a field stamps none of them."""
    key = org.add("Account", Name="Acme")
    reader.sync()
    org.has(
        "Account", {"Name": STRING, "Seats__c": "double", "Tier__c": "picklist", "Since__c": "date"},
        Tier__c={"label": "Customer tier", "picklistValues": [{"value": "gold", "active": True}]},
    )  # fmt: skip
    org.change("Account", key, quietly=True, Seats__c=12.5, Tier__c="gold", Since__c="2026-01-31")
    reader.later()
    (row,) = reader.view("Account")
    assert (float(row["Seats__c"]), row["Tier__c"], row["Since__c"].isoformat()) == (12.5, "gold", "2026-01-31")


def test_a_field_that_is_gone_stays_in_the_view(org: Org, reader: Reader) -> None:
    org.has("Account", {"Name": STRING, "Seats__c": "double"})
    org.add("Account", Name="Acme", Seats__c=3)
    reader.sync()
    org.has("Account", {"Name": STRING})
    reader.later()
    assert "Seats__c" in reader.view("Account")[0]


def test_a_type_that_nobody_knows_yet_is_text(org: Org, reader: Reader) -> None:
    org.has("Account", {"Name": STRING, "Mood__c": "hologram"})
    org.add("Account", Name="Acme", Mood__c="bright")
    reader.sync()
    assert reader.view("Account")[0]["Mood__c"] == "bright"


def test_an_own_object_is_read_with_all_its_fields(org: Org, reader: Reader) -> None:
    org.has("Invoice__c", {"Name": STRING, "Total__c": "currency", "Paid__c": "boolean"})
    key = org.add("Invoice__c", Name="I-1", Total__c=9.0e7, Paid__c=True)
    reader.configure("Invoice__c")
    assert reader.sync().status == "succeeded"
    (row,) = reader.view("Invoice__c")
    assert (row["id"], row["Name"], float(row["Total__c"]), row["Paid__c"]) == (key, "I-1", 9.0e7, True)


def test_a_standard_object_that_is_not_declared_is_read_if_it_is_named(org: Org, reader: Reader) -> None:
    org.has("Asset", {"Name": STRING})
    org.add("Asset", Name="Router")
    reader.configure("Asset")
    assert reader.sync().status == "succeeded"
    assert reader.view("Asset")[0]["Name"] == "Router"


def test_archived_activities_are_read(org: Org, reader: Reader) -> None:
    """Tasks that are older than a year come only with what is deleted."""
    org.has("Task", {"Subject": STRING, "IsArchived": "boolean"})
    org.add("Task", Subject="Call", IsArchived=True)
    org.delete("Task", org.add("Task", Subject="Gone", IsArchived=False))
    reader.configure("Task")
    reader.sync()
    assert [asked.path.rpartition("/")[2] for asked in org.api.asked if "FROM Task" in str(asked.query)] == ["queryAll"]
    assert [row["subject"] for row in reader.alive("task").values()] == ["Call"]


def test_months_are_read_again_without_moving_the_checkpoint(org: Org, reader: Reader) -> None:
    old, young = org.add("Account", Name="old", ago=timedelta(days=40)), org.add("Account", Name="young")
    reader.sync()
    before = reader.position()
    org.passes(minutes=10)
    org.change("Account", old, quietly=True, Name="repaired")
    org.change("Account", young, quietly=True, Name="repaired")
    report = reader.sync(window=Window(org.now - timedelta(days=60), org.now - timedelta(days=30)))
    assert report.status == "succeeded", report.error
    assert {key: row["name"] for key, row in reader.alive().items()} == {old: "repaired", young: "young"}
    assert reader.position() == before


def test_a_full_sync_reads_everything_again(org: Org, reader: Reader) -> None:
    keys = [org.add("Account", Name=str(number)) for number in range(3)]
    reader.sync()
    org.records["Account"].pop(keys[0])
    org.passes(minutes=10)
    report = reader.sync(mode=DataSyncMode.FULL)
    assert report.objects["Account"].counts.read == 2
    assert reader.kinds() == {keys[0]: "inferred"}


def test_a_clock_that_is_wrong_by_hours_loses_nothing(org: Org, reader: Reader) -> None:
    """Ours: Salesforce's is the one that stamps."""
    org.passes(hours=-5)
    first = org.add("Account", Name="first", ago=timedelta(minutes=6))
    reader.sync()
    second = org.add("Account", Name="second", ago=JUST_NOW)
    reader.later()
    assert reader.alive().keys() == {first, second}
    assert reader.position()["changed_until"][:16] == written(org.now - timedelta(minutes=5))[:16]
