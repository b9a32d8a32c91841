"""What a sync brings into the warehouse, against what the simulated Stripe itself says it has."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Window
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.conftest import OBJECTS, Register, difference, live, path_of, rows, statuses, sync


def position(store: Store, lane: str) -> dict[str, object]:
    with store.organization("acme") as connection:
        statement = sa.text("SELECT position FROM ingest.checkpoints WHERE lane = :lane")
        return dict(connection.scalar(statement, {"lane": lane}))


def test_the_first_sync_brings_every_record_of_every_object_unaltered(
    store: Store, world: Sandbox, register: Register
) -> None:
    register(world)
    report = sync(store)
    assert report.status == "succeeded"
    assert set(statuses(report)) == set(OBJECTS)
    for name, item in OBJECTS.items():
        sent = {record["id"]: record for record in world.account("acme").objects(path_of(name))}
        stored = live(store, name)
        assert stored.keys() == sent.keys(), name
        if name in ("prices", "coupons", "subscriptions", "invoices", "events"):
            continue  # read with expansions and completed lists, or with a payload as of its time: see below
        for key, row in stored.items():
            assert difference(item, row, sent[key]) == {}, (name, key)


def test_lists_inside_records_are_complete(store: Store, world: Sandbox, register: Register) -> None:
    """Stripe includes ten lines of an invoice and says that there are more."""
    register(world)
    sync(store, "invoices")
    sent = {invoice["id"]: invoice for invoice in world.account("acme").objects("invoices")}
    cut = [key for key, invoice in sent.items() if invoice["lines"]["has_more"]]
    stored = live(store, "invoices")
    assert all(len(row["lines"]) >= len(sent[key]["lines"]["data"]) for key, row in stored.items())
    assert all(len(stored[key]["lines"]) > 10 for key in cut)


def test_discounts_are_expanded(store: Store, world: Sandbox, register: Register) -> None:
    register(world)
    sync(store, "subscriptions")
    discounts = [each for row in live(store, "subscriptions").values() for each in row["discounts"]]
    assert discounts
    assert all(each["source"]["coupon"] for each in discounts)


def test_money_stays_in_minor_units(store: Store, world: Sandbox, register: Register) -> None:
    """A yen has no minor unit: 2850 are 2,850 yen, not 28.50."""
    register(world, "rk_sandbox_globex")
    sync(store, "prices")
    sent = {price["id"]: price for price in world.account("globex").objects("prices")}
    yen = {key: row for key, row in live(store, "prices").items() if row["currency"] == "jpy"}
    assert yen
    assert all(row["unit_amount"] == sent[key]["unit_amount"] for key, row in yen.items())


def test_the_next_sync_brings_what_changed_since(store: Store, sandbox: Sandbox, register: Register) -> None:
    account = sandbox.account("acme")
    register(sandbox)
    sync(store)
    new = account.insert_customer(name="Late Riser")
    account.tick(60, seconds=60)
    account.advance(3600)
    report = sync(store)
    assert report.status == "succeeded"
    assert live(store, "customers")[new]["name"] == "Late Riser"
    for name in ("customers", "subscriptions", "charges", "refunds", "payment_intents", "credit_notes"):
        sent = {record["id"]: record for record in account.objects(path_of(name))}
        stored = live(store, name)
        assert stored.keys() == sent.keys(), name
        if name != "subscriptions":
            for key, row in stored.items():
                assert difference(OBJECTS[name], row, sent[key]) == {}, (name, key)
    status = {key: row["status"] for key, row in live(store, "subscriptions").items()}
    assert status == {record["id"]: record["status"] for record in account.objects("subscriptions")}
    assert report.objects["customers"].counts.read < 60  # not everything again


def test_a_deletion_is_told_by_its_event(store: Store, sandbox: Sandbox, register: Register) -> None:
    account = sandbox.account("acme")
    register(sandbox)
    gone = account.insert_customer()
    sync(store, "customers")
    account.delete_customer(gone)
    account.advance(3600)
    assert sync(store, "customers").objects["customers"].counts.deleted == 1
    deleted = {row["id"]: row["delete_kind"] for row in rows(store, "customers") if row["deleted_at"]}
    assert deleted == {gone: "hard"}


def test_a_full_sync_finds_what_vanished_without_a_word(store: Store, sandbox: Sandbox, register: Register) -> None:
    account = sandbox.account("acme")
    register(sandbox)
    gone = account.insert_customer()
    sync(store, "customers")
    account.delete_customer(gone)
    report = sync(store, "customers", mode=DataSyncMode.FULL)
    assert report.objects["customers"].counts.deleted == 1
    assert [row["id"] for row in rows(store, "customers") if row["delete_kind"] == "inferred"] == [gone]
    assert live(store, "customers").keys() == {each["id"] for each in account.objects("customers")}


def test_events_that_have_faded_are_not_deletions(store: Store, sandbox: Sandbox, register: Register) -> None:
    """Stripe lists thirty days of events; ours stay."""
    register(sandbox)
    sync(store, "events")
    before = live(store, "events").keys()
    sandbox.account("acme").advance(40 * 86_400)
    assert sync(store, "events", mode=DataSyncMode.FULL).objects["events"].counts.read
    assert before < live(store, "events").keys()


def test_a_checkpoint_older_than_the_events_lists_everything_again(
    store: Store, sandbox: Sandbox, register: Register
) -> None:
    account = sandbox.account("acme")
    register(sandbox)
    sync(store, "customers")
    gone = account.insert_customer()
    sync(store, "customers", mode=DataSyncMode.FULL)
    account.delete_customer(gone)
    account.advance(40 * 86_400)
    report = sync(store, "customers")
    assert report.objects["customers"].counts.read == len(account.objects("customers"))
    assert live(store, "customers").keys() == {each["id"] for each in account.objects("customers")}


def test_every_version_of_a_subscription_is_kept(store: Store, sandbox: Sandbox, register: Register) -> None:
    account = sandbox.account("acme")
    register(sandbox)
    sync(store, "subscriptions")
    for _ in range(3):
        account.tick(40, seconds=60)
        account.advance(86_400)
        sync(store, "subscriptions")
    lives: dict[str, list[dict[str, object]]] = {}
    for version in sorted(rows(store, "subscriptions", suffix="_versions"), key=lambda row: row["valid_from"]):
        lives.setdefault(version["id"], []).append(version)
    assert lives.keys() == live(store, "subscriptions").keys()
    assert any(len(versions) > 1 for versions in lives.values())
    for versions in lives.values():
        assert [each["valid_to"] for each in versions[:-1]] == [each["valid_from"] for each in versions[1:]]
        assert versions[-1]["valid_to"] is None


def test_a_month_of_history_is_read_again_and_the_checkpoint_stays(
    store: Store, sandbox: Sandbox, register: Register
) -> None:
    register(sandbox)
    sync(store, "charges")
    before = position(store, "charges")
    with store.organization("acme") as connection:  # a month got lost
        connection.execute(
            sa.text("DELETE FROM raw.stripe_charges WHERE created >= '2026-03-01' AND created < '2026-04-01'")
        )
    window = Window(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    report = sync(store, "charges", window=window)
    sent = sandbox.account("acme").objects("charges")
    assert live(store, "charges").keys() == {charge["id"] for charge in sent}
    assert report.objects["charges"].counts.read < len(sent)
    assert position(store, "charges") == before
    with store.organization("acme") as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM ingest.checkpoints")) == 1


def test_a_connected_account_is_asked_for_by_header(store: Store, world: Sandbox, register: Register) -> None:
    account = world.account("acme")
    register(world, custom_fields={"stripe_account": account.id})
    assert sync(store, "products").status == "succeeded"
    register(world, custom_fields={"stripe_account": "acct_unknown"})
    report = sync(store, "products")
    assert report.status == "failed"
    assert "acct_unknown" in str(report.error)


def test_another_account_s_key_is_refused_before_anything_is_mixed(
    store: Store, world: Sandbox, register: Register
) -> None:
    register(world)
    sync(store, "customers")
    before = rows(store, "customers")
    register(world, "rk_sandbox_globex")
    report = sync(store, "customers")
    assert report.status == "failed"
    assert "checkpoint belongs to" in str(report.error)
    assert rows(store, "customers") == before


def test_an_unknown_object_is_named_with_those_that_exist(store: Store, world: Sandbox, register: Register) -> None:
    register(world)
    with pytest.raises(InvalidConfiguration, match=r"stripe has no object clients\. It has: products, prices"):
        sync(store, "clients")
