"""The connector under the engine: full syncs, increments, one that follows, resets, and fields that come later."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from bson import json_util

from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.source import reset_database
from tests.connectors.conftest import statuses
from tests.connectors.mirrors import mirrored, sync
from tests.connectors.mongodb.conftest import Configure, Source

NOON = datetime(2024, 5, 1, 12)  # noqa: DTZ001  the driver's way to say UTC


def stored(store: Store, name: str) -> dict[str, Any]:
    """Whole documents, by the text of their ids."""
    return {key: orjson.loads(document) for key, document in mirrored(store, name, "_id", "document")}


def in_source(source: Source, name: str) -> dict[str, Any]:
    """The same of the source. Ids are strings here."""
    relaxed = json_util.RELAXED_JSON_OPTIONS
    return {each["_id"]: orjson.loads(json_util.dumps(each, json_options=relaxed)) for each in source[name].find()}


def make_due(store: Store) -> None:
    """As if keys had been compared long ago."""
    with store.organization("acme") as connection:
        connection.exec_driver_sql(
            'UPDATE ingest.checkpoints SET position = position || \'{"swept_at": "2026-01-01T00:00:00+00:00"}\' '
            "WHERE position ? 'swept_at'"
        )


def test_a_full_sync_mirrors_and_finds_what_is_gone(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_many([{"_id": f"u{n}", "email": f"u{n}@example.com", "paid": n / 2} for n in range(50)])
    source.teams.insert_one({"_id": 1, "name": "one"})
    register(entity_mappings={"users": "customers"}, field_mappings={"teams": {"document.name": "called"}})
    assert statuses(sync(store)) == {"users": "succeeded", "teams": "succeeded"}
    assert mirrored(store, "teams", "_id", "name", "called") == [("1", "one", "one")]
    source.users.delete_many({"paid": {"$gte": 10}})
    source.users.update_many({}, {"$set": {"plan": "pro"}})
    report = sync(store)
    assert report.objects["users"].counts.deleted == 30
    assert mirrored(store, "customers", "_id", "paid", "plan") == sorted(
        (f"u{n}", f"{n / 2:g}", "pro") for n in range(20)
    )


def test_real_time_from_the_first_read_on(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_many([{"_id": f"u{n}", "n": n} for n in range(30)])
    register(sync_mode="real_time")
    assert statuses(sync(store)) == {"users": "succeeded"}
    source.users.update_many({"n": {"$lt": 5}}, {"$set": {"n": -1, "late": [1]}})
    source.users.delete_many({"n": {"$gte": 20}})
    source.users.insert_one({"_id": "new", "n": 7})
    sync(store)
    assert stored(store, "users") == in_source(source, "users")
    assert len(mirrored(store, "users", "late")) == 21


def test_an_incremental_sync_reads_what_is_at_or_beyond_the_greatest(
    store: Store, register: Configure, source: Source
) -> None:
    """Ties with the greatest seen, what is null or missing, and what was deleted before somebody compared keys."""
    ages = [{"_id": f"u{n}", "updated_at": NOON + timedelta(hours=min(n, 7))} for n in range(10)]
    source.users.insert_many([*ages, {"_id": "unset", "updated_at": None}, {"_id": "missing", "n": 0}])
    register(sync_mode="incremental")
    sync(store)
    source.users.insert_one({"_id": "tie", "updated_at": NOON + timedelta(hours=7)})
    source.users.insert_one({"_id": "beyond", "updated_at": NOON + timedelta(hours=20)})
    source.users.update_one({"_id": "u3"}, {"$set": {"updated_at": NOON + timedelta(hours=21)}})
    source.users.update_one({"_id": "missing"}, {"$set": {"n": 1}})
    source.users.delete_one({"_id": "u1"})
    report = sync(store)
    # u7, u8 and u9 are the greatest of before
    assert report.objects["users"].counts.read == len(["u7", "u8", "u9", "tie", "beyond", "u3", "unset", "missing"])
    assert stored(store, "users").keys() - in_source(source, "users").keys() == {"u1"}
    make_due(store)
    report = sync(store)
    assert report.objects["users"].counts.deleted == 1
    assert stored(store, "users") == in_source(source, "users")
    assert sync(store).objects["users"].counts.read == len(["u3", "unset", "missing"])


def test_a_reset_reads_all_anew(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_many([{"_id": f"u{n}", "n": n} for n in range(30)])
    made = register(sync_mode="real_time")
    sync(store)
    with store.organization("acme") as connection:
        connection.exec_driver_sql("UPDATE raw.mongodb_acme_db_users SET n = -1, document = '{}' WHERE _id = 'u1'")
    assert sync(store).objects["users"].counts.read == 0
    assert reset_database(store, made) == ["users"]
    assert sync(store).objects["users"].counts.read == 30
    assert stored(store, "users") == in_source(source, "users")
    assert ("u1", "1") in mirrored(store, "users", "_id", "n")


def test_another_replica_set_is_refused_until_a_reset(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": "a"})
    made = register(sync_mode="real_time")
    sync(store)
    with store.organization("acme") as connection:
        connection.exec_driver_sql("UPDATE ingest.checkpoints SET source = 'elsewhere/product'")
    report = sync(store)
    assert report.status == "failed"
    assert "integrations reset acme-db" in str(report.error)
    reset_database(store, made)
    assert statuses(sync(store)) == {"users": "succeeded"}


@pytest.mark.parametrize("mode", ["full", "incremental", "real_time"])
def test_a_field_that_comes_later_becomes_a_column(
    store: Store, register: Configure, source: Source, mode: str
) -> None:
    """Its older documents, which nothing changed since, have it too: it was in `document` all the while."""
    source.users.insert_many([{"_id": f"u{n:03}", "updated_at": NOON} for n in range(900)])
    source.users.update_one({"_id": "u450"}, {"$set": {"plan": "early"}})  # no sample has it
    register(sync_mode=mode)
    sync(store)
    assert stored(store, "users")["u450"]["plan"] == "early"
    source.users.update_one({"_id": "u000"}, {"$set": {"plan": "late", "updated_at": NOON + timedelta(hours=1)}})
    report = sync(store)
    assert statuses(report) == {"users": "succeeded"}, report.objects["users"].error
    plans = [row for row in mirrored(store, "users", "_id", "plan") if row[1] is not None]
    assert plans == [("u000", "late"), ("u450", "early")]
    assert stored(store, "users") == in_source(source, "users")


def test_a_field_that_gets_fractions_widens(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_one({"_id": "a", "paid": 10})
    register(sync_mode="real_time")
    sync(store)
    source.users.insert_one({"_id": "b", "paid": 9.99})
    report = sync(store)
    assert statuses(report) == {"users": "succeeded"}, report.objects["users"].error
    assert mirrored(store, "users", "_id", "paid") == [("a", "10"), ("b", "9.99")]


@pytest.mark.parametrize("mode", ["full", "real_time"])
def test_a_column_stays_when_no_sample_has_its_field(
    store: Store, register: Configure, source: Source, mode: str
) -> None:
    source.users.insert_many([{"_id": f"u{n:04}", "plan": "early"} for n in range(3)])
    register(sync_mode=mode)
    sync(store)
    source.users.insert_many([{"_id": f"u{n:04}", "plan": None} for n in range(1000)][3:])
    source.users.insert_one({"_id": "u0400a", "plan": "middle"})
    source.users.update_many({"_id": {"$lt": "u0003"}}, {"$unset": {"plan": ""}})
    assert statuses(sync(store)) == {"users": "succeeded"}
    plans = [row for row in mirrored(store, "users", "_id", "plan") if row[1] is not None]
    assert plans == [("u0400a", "middle")]


@pytest.mark.parametrize("mode", ["full", "real_time"])
def test_a_field_that_changes_its_type_keeps_its_column(
    store: Store, register: Configure, source: Source, mode: str
) -> None:
    """What does not fit is in the document; nothing stops."""
    source.users.insert_one({"_id": "a", "n": 1, "ratio": 0.5, "name": "x"})
    register(sync_mode=mode)
    sync(store)
    source.users.insert_one({"_id": "b", "n": "two", "ratio": 2, "name": {"first": "y"}})
    assert statuses(sync(store)) == {"users": "succeeded"}
    assert mirrored(store, "users", "_id", "n", "ratio", "name") == [("a", "1", "0.5", "x"), ("b", None, "2", None)]
    assert stored(store, "users") == in_source(source, "users")


def test_a_full_read_of_a_followed_collection_brings_nothing_back(
    store: Store, register: Configure, source: Source
) -> None:
    source.users.insert_many([{"_id": f"u{n}", "n": n} for n in range(40)])
    register(sync_mode="real_time")
    sync(store)
    source.users.delete_many({"n": {"$lt": 10}})
    source.users.update_many({"n": {"$gte": 30}}, {"$inc": {"n": 100}})
    sync(store, mode=DataSyncMode.FULL)
    assert stored(store, "users") == in_source(source, "users")


def test_collections_come_and_go(store: Store, register: Configure, source: Source) -> None:
    source.users.insert_many([{"_id": f"u{n}"} for n in range(5)])
    register(sync_mode="real_time")
    sync(store)
    source.plans.insert_one({"_id": "free"})
    source.users.drop()
    assert statuses(sync(store)) == {"plans": "succeeded"}
    assert stored(store, "users") == {}
    assert "not in the source any more" in str(catalogue.entries(store, "acme-db")["users"].problem)
    source.users.insert_one({"_id": "again"})
    source.plans.insert_one({"_id": "pro"})
    assert statuses(sync(store)) == {"plans": "succeeded", "users": "succeeded"}
    assert (set(stored(store, "users")), set(stored(store, "plans"))) == ({"again"}, {"free", "pro"})
