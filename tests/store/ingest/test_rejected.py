"""Rejected records are kept once, whatever they contain, until they are resolved; drift is kept likewise."""

from __future__ import annotations

from typing import Any

import pytest

from churnguard_pipelines.records import Drift, Lane, Rejected
from churnguard_pipelines.store.ingest import rejected
from churnguard_pipelines.store.ingest.drift import list_drift, record_drift
from churnguard_pipelines.store.ingest.rejected import list_rejected, mark_resolved
from churnguard_pipelines.store.postgres.database import Store

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
        mark_resolved(connection, [first.id])
    assert [item.key for item in list_rejected(store, "acme-stripe")] == ["b"]
    reject(store, Rejected("a", "bad again", {}))
    assert [item.key for item in list_rejected(store, "acme-stripe")] == ["a", "b"]
    assert list_rejected(store, "acme-stripe", ids=[first.id]) == []


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
