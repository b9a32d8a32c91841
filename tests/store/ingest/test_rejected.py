"""Rejected records are kept once, whatever they contain, until they are resolved; drift is kept likewise."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.records import Drift, Lane, Rejected
from churnguard_pipelines.store.control.integrations import remove_integration
from churnguard_pipelines.store.ingest import rejected
from churnguard_pipelines.store.ingest.drift import list_drift, record_drift
from churnguard_pipelines.store.ingest.rejected import list_rejected, mark_resolved
from churnguard_pipelines.store.postgres.database import Store
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator

pytestmark = pytest.mark.usefixtures("integration")
LANE = Lane("acme", "acme-stripe", "customers")


def reject(store: Store, *records: Rejected, object: str = "customers") -> None:
    with store.organization("acme") as connection:
        rejected.add(connection, LANE, object, records, "run-1")


def test_a_record_waits_once_with_its_newest_reason(store: Store) -> None:
    reject(store, Rejected("a", "too long", {"n": 1}), Rejected(None, "no key", {"n": 2}), Rejected("b", "bad", {}))
    [_, _, first] = list_rejected(store, "acme-stripe")
    reject(store, Rejected("a", "still too long", {"n": 3}), Rejected(None, "no key", {"n": 2}))
    reject(store, Rejected("a", "elsewhere", {}), object="invoices")
    waiting = list_rejected(store, "acme-stripe", "customers")
    assert [(item.key, item.reason, item.payload) for item in waiting] == [
        ("b", "bad", {}), (None, "no key", {"n": 2}), ("a", "still too long", {"n": 3}),
    ]  # fmt: skip
    assert waiting[-1].created_at == first.created_at
    assert list_rejected(store, "acme-stripe", limit=1)[0].object == "invoices"


def test_a_resolved_one_is_gone_and_may_be_rejected_anew(store: Store) -> None:
    reject(store, Rejected("a", "bad", {}), Rejected("b", "bad", {}))
    [_, first] = list_rejected(store, "acme-stripe")
    with store.organization("acme") as connection:
        mark_resolved(connection, [first])
    assert [item.key for item in list_rejected(store, "acme-stripe")] == ["b"]
    reject(store, Rejected("a", "bad again", {}))
    assert [item.key for item in list_rejected(store, "acme-stripe")] == ["a", "b"]
    assert list_rejected(store, "acme-stripe", ids=[first.id]) == []


def test_dismissed_ones_are_gone_and_on_record(store: Store) -> None:
    reject(store, *(Rejected(key, "bad", {}) for key in "abc"))
    [*_, second, first] = list_rejected(store, "acme-stripe")
    assert rejected.dismiss(store, "acme-stripe", [], actor="ada") == 0
    assert rejected.dismiss(store, "acme-stripe", [first.id, 10**9], actor="ada") == 1
    assert rejected.dismiss(store, "acme-stripe", [first.id], actor="ada") == 0, "it was already"
    assert rejected.dismiss(store, "another", [second.id], actor="ada") == 0
    assert [item.key for item in list_rejected(store, "acme-stripe")] == ["c", "b"]
    assert rejected.dismiss(store, "acme-stripe", None, actor="ada") == 2
    with store.operator() as connection:
        noted = connection.execute(
            sa.text("SELECT organization_id, actor, subject, detail FROM control.audit_log WHERE action = :action"),
            {"action": "rejected.dismiss"},
        ).all()
    assert [tuple(each[:3]) for each in noted] == [("acme", "ada", "acme-stripe")] * 2
    assert [each.detail["count"] for each in noted] == [1, 2]
    assert noted[0].detail["ids"] == [first.id]
    reject(store, Rejected("a", "bad again", {}))
    assert [item.reason for item in list_rejected(store, "acme-stripe")] == ["bad again"]


def test_a_dismissal_outlasts_a_circle_with_somebody_who_writes(store: Store) -> None:
    reject(store, Rejected("a", "bad", {}), Rejected("b", "bad", {}))
    second, first = list_rejected(store, "acme-stripe")
    with psycopg.connect(as_administrator(store.database_url)) as other:
        lock = "SELECT FROM ingest.rejected_records WHERE id = %s FOR UPDATE"
        other.execute(lock, [second.id])
        dismissing = in_thread("dismisses", partial(rejected.dismiss, store, "acme-stripe", None, actor="ada"))
        wait_until_blocked(store, 1)
        with suppress(psycopg.errors.DeadlockDetected):  # who noticed it first
            other.execute(lock, [first.id])
    assert dismissing.result(20) == 2


def test_the_integrations_removal_does_so_too(store: Store) -> None:
    reject(store, Rejected("a", "bad", {}), Rejected("b", "bad", {}))
    with store.organization("acme") as connection:
        rejected.add(connection, LANE, "customers", [Rejected("b", "bad", {})], "run-2")
        removing = in_thread("removes", partial(remove_integration, store, "acme-stripe", actor="test"))
        wait_until_blocked(store)
        with suppress(sa.exc.OperationalError):
            rejected.add(connection, LANE, "customers", [Rejected("a", "bad", {})], "run-2")
    removing.result(20)
    assert list_rejected(store, "acme-stripe") == []


def note_drift(store: Store, names: str) -> None:
    with store.organization("acme") as connection:
        record_drift(connection, LANE, "customers", [Drift(name, "unknown_field", "") for name in names])


def test_lanes_see_the_same_drift_in_any_order(store: Store) -> None:
    """Partitions of a stream, or a sync and its webhooks: neither waits for the other in a circle."""
    note_drift(store, "abc")
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute("SELECT FROM ingest.schema_drift WHERE \"column\" = 'b' FOR UPDATE")
        noting = [in_thread("lane", partial(note_drift, store, names)) for names in ("abc", "cba")]
        wait_until_blocked(store, len(noting))
    for each in noting:
        each.result(20)


@pytest.mark.parametrize("payload", [{"a": "\0"}, {"a": "\ud800"}, [1, None], "text", 12345678901234567890123, None])
def test_any_json_is_kept_as_it_came(store: Store, payload: Any) -> None:
    reject(store, Rejected(None, "strange", payload))
    assert list_rejected(store, "acme-stripe")[0].payload == payload


@pytest.mark.parametrize("payload", [{"a": float("nan")}, b"<html>", {1, 2}])
def test_what_is_not_json_is_kept_as_text(store: Store, payload: Any) -> None:
    reject(store, Rejected("half \ud800", "NUL \0", payload))
    [item] = list_rejected(store, "acme-stripe")
    assert (item.key, item.reason, item.payload) == ("half \\ud800", "NUL \\u0000", repr(payload))


def test_drift_is_kept_once_per_column_and_kind(store: Store) -> None:
    new, grown = Drift("plan", "new_field", "text", ("pro",)), Drift("plan", "new_field", "text", ("pro", "team"))
    with store.organization("acme") as connection:
        record_drift(connection, LANE, "customers", [])
        record_drift(connection, LANE, "customers", [new, Drift("age", "type_mismatch")])
        record_drift(connection, LANE, "customers", [grown])
    assert list_drift(store, "acme-stripe") == {"customers": [Drift("age", "type_mismatch"), grown]}
    assert list_drift(store, "acme-stripe", "invoices") == {}
