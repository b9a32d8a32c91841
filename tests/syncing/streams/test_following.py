"""What becomes of a stream's messages while a session follows it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.monitoring.stream_numbers import measured
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import stream_metrics, stream_progress
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing, metrics
from churnguard_pipelines.syncing.streams.replay import replay_messages
from tests.conftest import as_administrator
from tests.streams.formats.schema_registry import enveloped
from tests.streams.formats.schema_registry import running as registry
from tests.syncing.streams.conftest import Configure, Following, Rows, state_of
from tests.syncing.streams.logs import Log
from tests.waiting import wait_for


def test_each_message_is_a_row_once(configure: Configure, following: Following, log: Log, rows: Rows) -> None:
    configure()
    log.append({"order": 7, "total": 12.50}, "k7", headers={"trace": "a"}, produced_at=1_764_177_000_123)
    with following():
        wait_for(lambda: len(rows()) == 1)
        log.extend([({"order": number}, None) for number in range(2500)])
        wait_for(lambda: len(rows()) == 2501)
    first = rows()[0]
    assert (first["message_id"], first["message_key"], first["extra"]) == (
        "orders/0/0", "k7", {"order": 7, "total": 12.50},
    )  # fmt: skip
    assert (first["message_topic"], first["message_partition"], first["message_offset"]) == ("orders", "0", "0")
    assert first["message_headers"] == {"trace": "a"}
    assert first["produced_at"].isoformat() == "2025-11-26T17:10:00.123000+00:00"
    assert [row["extra"]["order"] for row in rows()[1:]] == list(range(2500))


def test_what_is_no_object_is_kept_as_a_value(configure: Configure, following: Following, log: Log, rows: Rows) -> None:
    configure()
    log.extend([(value, None) for value in (17, "text", [1, {"a": None}], True)] + [(b"null", None)])
    with following():
        wait_for(lambda: len(rows()) == 5)
    values: list[Any] = [row["extra"]["value"] for row in rows()]
    assert values == [17, "text", [1, {"a": None}], True, None]


def test_a_row_per_key_has_its_newest_version_and_a_message_without_value_deletes_it(
    configure: Configure, following: Following, log: Log, rows: Rows
) -> None:
    configure(target="upsert")
    log.extend([({"n": 1}, "a"), ({"n": 2}, "b"), ({"n": 3}, "a"), (None, "b"), ({"n": 4}, "c"), (None, "c")])
    log.extend([({"n": 5}, "c")])
    with following():
        wait_for(lambda: len(rows("records")) == 2)
        assert {row["record_key"]: row["extra"]["n"] for row in rows("records")} == {"a": 3, "c": 5}
        log.append({"n": 0}, "a", version=1)  # an older version that comes late
        log.append({"n": 6}, "d")
        wait_for(lambda: len(rows("records")) == 3)
    assert {row["record_key"]: row["extra"]["n"] for row in rows("records")} == {"a": 3, "c": 5, "d": 6}


def test_fields_of_the_document_can_be_its_key(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(target="upsert", key=["customer.id", "year"])
    log.append({"customer": {"id": 1}, "year": 2025, "n": 1})
    log.append({"customer": {"id": 1}, "year": 2025, "n": 2})
    log.append({"customer": {"id": 1}, "year": 2026, "n": 3})
    log.append({"customer": {}, "year": 2026, "n": 4})
    log.append(None, json.dumps({"customer": {"id": 1}, "year": 2026}))
    log.append(None, "1")
    with following():
        wait_for(lambda: len(list_rejected(store, "orders")) == 2)
    assert [(row["record_key"], row["extra"]["n"]) for row in rows("records")] == [('["1","2025"]', 2)]
    assert [each.reason for each in list_rejected(store, "orders")] == [
        "it has no value, and its own key does not say which record is gone",
        "customer.id, which is part of its key: missing",
    ]


def test_a_message_without_value_deletes_what_its_own_key_names(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    """One whose key is in an envelope would leave its record there, and a mark of a record that never was."""
    configure(target="upsert", key=["id"], most_rejected=1)
    log.extend([({"id": name}, None) for name in (7, "eight", "1.50", 10)])
    log.extend([(None, key) for key in ("7", '"eight"', "1.50", "\0\0\0\0\x01\x14")])
    with following():
        wait_for(lambda: list_rejected(store, "orders"))
    assert [row["record_key"] for row in rows("records")] == ["10"]
    (rejected,) = list_rejected(store, "orders")
    assert rejected.reason == "it has no value, and its own key does not say which record is gone"


def test_filters_leave_messages_out(configure: Configure, following: Following, log: Log, rows: Rows) -> None:
    configure(filters=[{"field": "country", "operator": "in", "value": ["DE", "AT"]}])
    log.extend([({"country": country}, None) for country in ("DE", "US", "AT", None)])
    with following():
        wait_for(lambda: len(rows()) == 2)
        log.append({"country": "DE", "last": True})
        wait_for(lambda: len(rows()) == 3)
    assert [row["extra"]["country"] for row in rows()] == ["DE", "AT", "DE"]


def test_what_cannot_be_stored_is_kept_with_its_reason_and_the_rest_goes_on(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(largest_message=1024, target="upsert", most_rejected=0.5)
    good = [({"n": number}, f"k{number}") for number in range(20)]
    bad = [
        (b"{not json", "a"),
        (b"\xff\xfe", "b"),
        ({"long": "x" * 2000}, "c"),
        ({"n": 1}, None),
        ({"n": 1}, "k" * 501),
    ]
    log.extend([*good[:10], *bad, *good[10:]])
    with following():
        wait_for(lambda: len(rows("records")) == 20)
    kept = {str(each.key): each for each in list_rejected(store, "orders")}
    assert sorted(kept) == [f"orders/0/{number}" for number in range(10, 15)]
    assert "more than the 1,024 of largest_message" in kept["orders/0/12"].reason
    assert kept["orders/0/13"].reason == "it has no key, and its table has a row per key"
    assert kept["orders/0/14"].reason == "its key is longer than 500 characters"
    payload = kept["orders/0/11"].payload
    assert payload["value_base64"] == "//4="
    assert (payload["topic"], payload["partition"], payload["offset"], payload["key"]) == ("orders", "0", "11", "b")
    assert state_of(store) == ("active", None)


def test_what_postgresql_refuses_is_found_by_halving(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    """A topic with a NUL, which no column holds, is nothing that a format could have seen."""
    configure(most_rejected=1)
    log.extend([({"n": number}, None) for number in range(100)])
    log.append({"n": 100}, headers={"trace": "a\0b"})
    log.append({"n": 101}, version=2**70)
    log.extend([({"n": number}, None) for number in range(102, 200)])
    with following():
        wait_for(lambda: len(rows()) == 198)
    reasons = {str(each.key): each.reason for each in list_rejected(store, "orders")}
    assert sorted(reasons) == ["orders/0/100", "orders/0/101"]
    assert (
        reasons["orders/0/101"]
        == 'PostgreSQL does not take it: value "1180591620717411303424" is out of range for type bigint'
    )


def test_rejected_messages_are_replayed_after_a_fix(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(target="upsert", most_rejected=1)
    log.extend([({"id": "a", "n": 1}, None), ({"id": "a", "n": 2}, None), (b"never", None), ({"long": "x"}, "kept")])
    with following():
        wait_for(lambda: len(list_rejected(store, "orders")) == 3)
    STREAMS.change(store, "orders", {"key": ["id"]}, actor="test")
    counts = replay_messages(store, "orders")
    assert (counts.read, counts.written, counts.stale, counts.rejected) == (3, 1, 1, 1)
    assert {row["record_key"]: row["extra"].get("n") for row in rows("records")} == {"a": 2, "kept": None}
    assert [each.key for each in list_rejected(store, "orders")] == ["orders/0/2"]
    assert replay_messages(store, "orders").read == 1, "what was stored waits no more"


def test_who_replays_while_others_do_and_newer_ones_come_loses_and_undoes_nothing(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(target="upsert", most_rejected=1)
    log.extend([({"id": number % 40, "n": number}, None) for number in range(400)] + [(b"never", None)] * 3)
    with following():
        wait_for(lambda: len(list_rejected(store, "orders")) == 403)
    managing.change(store, "orders", {"key": ["id"]}, actor="test")
    log.extend([({"id": number, "n": "newest"}, None) for number in range(20)])
    with following():
        with ThreadPoolExecutor() as threads:
            replays = [threads.submit(replay_messages, store, "orders") for _ in range(4)]
            counts = [each.result() for each in replays]
        wait_for(lambda: [row["extra"]["n"] for row in rows("records")].count("newest") == 20)
    assert {row["record_key"]: row["extra"]["n"] for row in rows("records")} == {
        str(number): "newest" if number < 20 else 360 + number for number in range(40)
    }
    assert sorted(str(each.key) for each in list_rejected(store, "orders")) == [
        f"orders/0/{n}" for n in (400, 401, 402)
    ]
    assert max(each.read for each in counts) == 403


def test_an_oversized_message_is_no_deletion_when_it_is_replayed(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(target="upsert", largest_message=1024)
    log.extend([({"n": 1}, "a"), ({"n": "x" * 2000}, "a")])
    with following():
        wait_for(lambda: list_rejected(store, "orders"))
    assert replay_messages(store, "orders").rejected == 1
    assert [row["extra"] for row in rows("records")] == [{"n": 1}]


def test_a_stream_pauses_itself_when_too_much_is_rejected(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(batch_size=10, most_rejected=0.1)
    log.extend([({"n": number}, None) for number in range(90)] + [(b"broken", None)] * 30)
    with following():
        wait_for(lambda: state_of(store)[0] == "paused")
    assert state_of(store)[1] == "20 of the last 110 messages were rejected."
    told = STREAMS.states(store, ["orders"])["orders"].remedy
    assert told is not None
    assert "`churnguard rejected list orders` shows why" in told
    assert len(list_rejected(store, "orders")) == 20, "what came after is read once it is resumed"
    assert len(rows()) == 90


def test_a_stream_that_brings_little_pauses_itself_as_well(
    configure: Configure, following: Following, log: Log, store: Store
) -> None:
    """No session sees much of it: what those before have seen counts, until somebody has resumed the stream."""
    configure()
    for number in (1, 2, 3):
        log.extend([(b"broken", None)] * 4)
        with following(f"session-{number}"):
            wait_for(lambda number=number: len(list_rejected(store, "orders")) == 4 * number)  # type: ignore[misc]
    assert state_of(store) == ("paused", "12 of the last 12 messages were rejected.")
    managing.resume(store, "orders", actor="ann")
    log.extend([(b"broken", None)] * 4)
    with following("session-4"):
        wait_for(lambda: len(list_rejected(store, "orders")) == 16)
    assert state_of(store)[0] == "active"


def test_the_view_shows_mapped_fields_in_their_types_and_misfits_are_drift(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    mappings = {"user.id": "user_id:bigint", "topic": "topic", "at": "at:timestamptz"}
    configure(field_mappings=mappings | {"$.message_headers.trace": "trace"})
    log.append({"user": {"id": 7}, "topic": "churn", "at": "2026-01-31T10:00:00Z"}, headers={"trace": "t"})
    log.append({"user": {"id": "seven"}, "topic": 1})
    with following():
        wait_for(lambda: len(rows()) == 2)
    view = known_objects(store, "orders")["events"].view
    with store.organization("acme") as connection:
        shown = connection.execute(sa.text(f"SELECT * FROM views.{view} ORDER BY source_version")).mappings().all()
    assert [(row["user_id"], row["topic"], row["trace"]) for row in shown] == [(7, "churn", "t"), (None, "1", None)]
    assert shown[0]["at"].isoformat() == "2026-01-31T10:00:00+00:00"
    assert [each.column for each in measured(store, "orders").drift] == ["user_id"]
    managing.change(store, "orders", {"field_mappings": mappings | {"user.id": "user_id"}}, actor="ann")
    assert measured(store, "orders").drift == [], "what was seen under other mappings"


def test_a_view_that_could_not_follow_its_mappings_says_so_and_follows_when_it_can(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    """Somebody's own view stands on it, whose columns must not change."""
    stream = configure(field_mappings={"n": "n:bigint"})
    name = managing.view_of(store, stream)
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as administrator:
        administrator.execute(f"CREATE VIEW public.somebodys AS SELECT * FROM {name}")
        changed = managing.change(store, "orders", {"field_mappings": {"n": "n:text"}}, actor="ann").configuration
        (told,) = measured(store, "orders").drift
        assert (told.kind, "views of somebody else's stand on it" in told.detail) == ("view_unchanged", True)
        administrator.execute("DROP VIEW public.somebodys")
    log.append({"n": "seven"})
    with following():
        wait_for(lambda: len(rows()) == 1)
    with store.organization("acme") as connection:
        found = connection.scalar(sa.text(f"SELECT n FROM {managing.view_of(store, changed)}"))
    assert (found, measured(store, "orders").drift) == ("seven", [])


def test_messages_that_the_source_no_longer_has_are_reported(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure()
    log.extend([({"n": number}, None) for number in range(5)])
    log.trim(3)
    with following():
        wait_for(lambda: len(rows()) == 2)
    (loss,) = stream_progress.losses(store, "orders")
    assert (loss.topic, loss.partition, loss.first_offset, loss.last_offset) == ("orders", "0", "0", "2")
    assert loss.reason == "trimmed"


def test_lag_and_what_was_measured_are_kept(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "TELL_EVERY", 0.05)
    configure(batch_size=100)
    log.extend([({"n": number}, None) for number in range(95)] + [(b"broken", None)] * 5)
    with following():
        wait_for(lambda: len(rows()) == 95)
        wait_for(lambda: stream_progress.lag_of_all(store).get("orders") == (0, 0.0))
        wait_for(lambda: "orders" in stream_metrics.recent(store))
    point = stream_metrics.recent(store)["orders"]
    assert (point.messages, point.rejected, point.error_rate, point.buffered) == (100, 5, 0.05, 1.0)
    assert point.bytes > 500
    assert point.messages_per_second == pytest.approx(100 / 60)
    assert point.average_ms is not None
    assert point.average_ms > 0
    assert (point.quantile_ms(0.5) or 0) <= (point.quantile_ms(0.99) or 0)
    assert sum(each.messages for each in stream_metrics.history(store, "orders")) == 100
    (lag,) = stream_progress.lags(store, "orders")
    assert (lag.partition, lag.watermark, lag.lag_messages) == ("orders/0", "100", 0)


def test_a_schema_that_is_not_there_yet_is_waited_for_and_nothing_is_rejected(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    with registry() as schemas:
        config = {"source": "log", "folder": str(log.folder), "schema_registry": {"url": schemas.url}}
        configure(data_format="avro", connection_config=config, checks=False)
        log.append(enveloped(1, bytes([14])))
        with following():
            wait_for(lambda: "does not have schema 1" in str(state_of(store)[1]))
            assert state_of(store)[0] == "active"
            schemas.add("orders-value", '"int"')
            wait_for(lambda: [row["extra"] for row in rows()] == [{"value": 7}])
            wait_for(lambda: state_of(store) == ("active", None))
    assert list_rejected(store, "orders") == []
