"""How streams are made, paused, changed, moved and removed, and shared out among sessions."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import InvalidConfiguration, NotFound, ProviderUnavailable
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import stream_outbox, stream_progress
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.syncing.streams import managing, watermarks
from churnguard_pipelines.syncing.streams.kind import CustomStreams
from tests.conftest import configuration
from tests.syncing.streams.conftest import Configure, Following, Rows, at_work, state_of
from tests.syncing.streams.logs import Log, LogSource, released
from tests.waiting import wait_for


def test_a_paused_stream_is_let_go_and_reads_on_when_it_is_resumed(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure()
    log.append({"n": 1})
    with following():
        wait_for(lambda: len(rows()) == 1)
        managing.pause(store, "orders", actor="ann")
        wait_for(lambda: not at_work(store))
        log.append({"n": 2})
        assert state_of(store) == ("paused", None)
        managing.resume(store, "orders", actor="ann")
        wait_for(lambda: len(rows()) == 2)
    assert state_of(store) == ("active", None)
    with store.operator() as connection:
        statement = "SELECT actor, detail ->> 'state' FROM control.audit_log WHERE action = 'stream.state' ORDER BY id"
        assert connection.execute(sa.text(statement)).all() == [("ann", "paused"), ("ann", "active")]


def test_what_is_changed_counts_from_then_on(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure()
    log.append({"country": "US"})
    with following():
        wait_for(lambda: len(rows()) == 1)
        before = STREAMS.states(store, ["orders"])["orders"].revision
        managing.change(store, "orders", {"name": "Another name"}, actor="test")
        assert STREAMS.states(store, ["orders"])["orders"].revision == before
        filters = [{"field": "country", "value": "DE"}]
        managing.change(store, "orders", {"filters": filters}, actor="test")
        log.extend([({"country": "US"}, None), ({"country": "DE"}, None)])
        wait_for(lambda: any(row["extra"]["country"] == "DE" for row in rows()))


def test_another_source_at_the_same_address_is_not_read_on_from_the_old_position(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure()
    log.extend([({"n": number}, None) for number in range(3)])
    with following():
        wait_for(lambda: len(rows()) == 3)
    log.become_another()
    log.append({"n": 3})
    with following():
        wait_for(lambda: state_of(store)[0] == "failed")
        assert "belongs to another source" in str(state_of(store)[1])
        managing.seek(store, "orders", Seek("latest"), actor="test")
        wait_for(lambda: state_of(store) == ("active", None))
        log.append({"n": 4})
        wait_for(lambda: [row["extra"]["n"] for row in rows()] == [0, 1, 2, 4])


def test_seeking_moves_a_stream_that_is_being_read_and_is_audited(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(target="upsert")
    log.extend([({"n": number}, str(number)) for number in range(5)])
    with following():
        wait_for(lambda: len(rows("records")) == 5)
        with store.organization("acme") as connection:
            connection.execute(sa.text("DELETE FROM raw.custom_records"))
        managing.seek(store, "orders", Seek({"orders/0": "2"}), actor="ann")
        wait_for(lambda: [row["record_key"] for row in rows("records")] == ["2", "3", "4"])
        managing.seek(store, "orders", Seek("earliest"), actor="ann")
        wait_for(lambda: len(rows("records")) == 5)
    with store.operator() as connection:
        statement = "SELECT actor, detail ->> 'to' FROM control.audit_log WHERE action = 'stream.seek' ORDER BY id"
        assert connection.execute(sa.text(statement)).all() == [("ann", "offsets"), ("ann", "earliest")]


def test_messages_that_are_rows_already_are_not_rows_twice_and_not_rejected(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure()
    log.extend([({"n": number}, None) for number in range(5)])
    with following():
        wait_for(lambda: len(rows()) == 5)
        with store.organization("acme") as connection:
            connection.execute(sa.text("DELETE FROM raw.custom_events WHERE message_offset = '3'"))
        managing.seek(store, "orders", Seek("earliest"), actor="ann")
        log.append({"n": 5})
        wait_for(lambda: [row["extra"]["n"] for row in rows()] == [0, 1, 2, 3, 4, 5])
    assert not list_rejected(store, "orders")


def test_a_stream_that_begins_at_its_end_misses_nothing_that_comes_after_it_was_made(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    log.append({"n": "before"})
    configure(start="latest")
    log.append({"n": "after"})
    log.append({"n": "of a partition that came later"}, topic="orders/1")
    managing.change(store, "orders", {"topics": ["orders/0", "orders/1"]}, actor="test")
    with following():
        wait_for(lambda: len(rows()) == 2)
    assert {row["extra"]["n"] for row in rows()} == {"after", "of a partition that came later"}


def test_sources_that_only_push_are_followed_all_the_time(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    folder = {"source": "log", "folder": str(log.folder), "pushes": True}
    configure(connection_config=folder)
    with following():
        wait_for(lambda: at_work(store) == {"orders"})
        log.append({"n": 1})
        wait_for(lambda: len(rows()) == 1)


def test_partitions_are_shared_out_among_sessions(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    topics = [f"orders/{number}" for number in range(6)]
    for topic in topics:
        log.append({"n": 0}, topic=topic)
    configure(topics=topics)

    def held() -> dict[str, int]:
        statement = "SELECT session_id, count(*) FROM ingest.leases GROUP BY 1"
        with store.operator() as connection:
            return {row[0]: row[1] for row in connection.execute(sa.text(statement))}

    with following("one"):
        wait_for(lambda: held() == {"one": 6})
        with following("two"):
            for round_ in range(1000):
                for topic in topics:
                    log.append({"n": round_ + 1}, topic=topic)
                if held() == {"one": 3, "two": 3}:
                    break
            wait_for(lambda: held() == {"one": 3, "two": 3})
        for topic in topics:
            log.append({"n": "last"}, topic=topic)
        wait_for(lambda: sum(row["extra"]["n"] == "last" for row in rows()) == 6)
    names = [row["message_id"] for row in rows()]
    assert len(names) == len(set(names))


def test_one_look_at_hundreds_of_streams_opens_only_what_has_changed(
    configure: Configure, log: Log, store: Store
) -> None:
    for number in range(20):
        configure(f"orders-{number}", checks=False)
    kind = CustomStreams(store)
    wait_for(lambda: len(kind.waiting()) == 0 and len(stream_progress.lag_of_all(store)) == 20)
    log.append({"n": 1})
    wait_for(lambda: len(kind.waiting()) == 20)


def test_a_partition_that_is_gone_is_behind_no_more(
    configure: Configure, log: Log, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_progress, "GONE_AFTER", 0.5)
    monkeypatch.setattr(watermarks, "KEEP_EVERY", 0.0)
    log.extend([({"n": 1}, None)] * 7, topic="orders/1")
    configure(topics=["orders/0", "orders/1"])
    kind = CustomStreams(store)
    wait_for(lambda: kind.waiting() and stream_progress.lag_of_all(store) == {"orders": (7, None)})
    managing.change(store, "orders", {"topics": ["orders/0"]}, actor="test")
    wait_for(lambda: not kind.waiting() and stream_progress.lag_of_all(store) == {"orders": (0, 0.0)})


def test_a_message_that_its_source_cannot_send_keeps_nobody_from_reading(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogSource, "pushes", True)
    configure(connection_config={"source": "log", "folder": str(log.folder), "pushes": True})
    stream_outbox.put(store, "acme", "orders", "hello")
    with following():
        wait_for(lambda: not stream_outbox.waiting(store, "acme", "orders"))
        log.append({"n": 1})
        wait_for(lambda: len(rows()) == 1)
    assert state_of(store) == ("active", None)
    with pytest.raises(InvalidConfiguration, match="cannot be sent to"):
        managing.send(store, "orders", "hello")


def test_ids_are_shared_with_integrations(configure: Configure, store: Store) -> None:
    configure("one")
    with pytest.raises(InvalidConfiguration, match="a stream has this id"):
        add_integration(store, configuration("one"), actor="test")
    add_integration(store, configuration("two"), actor="test")
    with pytest.raises(InvalidConfiguration, match="there is an integration 'two' already"):
        configure("two")


def test_what_cannot_be_is_said_when_it_is_made(configure: Configure, log: Log, store: Store) -> None:
    for wrong, reason in (
        ({"topics": ["nowhere"]}, "there is no topic nowhere"),
        ({"connection_config": {"source": "nothing"}}, "no stream source"),
        ({"filters": [{"field": "at", "operator": "in", "value": 1}]}, "needs a list"),
        ({"field_mappings": {"a": "message_id"}}, "cannot be a column"),
        ({"key": ["id"]}, "`key` has no use where `target` is append"),
        ({"field_mappings": {"$.produced_at": "at:bigint"}}, "cannot be bigint"),
        ({"field_mappings": {"$.user.id": "user_id"}}, r"without `\$\.` before it"),
        ({"field_mappings": {"$.message_headersX": "x"}}, "a message says no “"),
        ({"filters": [{"field": "$.kind", "value": "click"}]}, "is no field of the document"),
    ):
        with pytest.raises(InvalidConfiguration, match=reason):
            configure(**wrong)
    with pytest.raises(NotFound):
        STREAMS.get(store, "orders")


def test_a_source_that_does_not_answer_a_person_is_told(
    configure: Configure, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managing, "ANSWERS_WITHIN", 0.1)
    with pytest.raises(ProviderUnavailable, match="has not answered"):
        configure(hangs=True)
    released.set()


def test_a_removed_stream_leaves_its_rows_and_nothing_else(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure(most_rejected=1)
    log.extend([({"n": 1}, None), (b"broken", None)])
    with following():
        wait_for(lambda: len(rows()) == 1)
        wait_for(lambda: stream_progress.lags(store, "orders"))
        managing.remove(store, "orders", actor="test")
        wait_for(lambda: not at_work(store))
    kept = ("stream_partitions", "stream_metrics", "stream_losses", "stream_outbox")
    left = ("checkpoints", "rejected_records", "objects", *kept)
    with store.operator() as connection:
        counts = {name: connection.scalar(sa.text(f"SELECT count(*) FROM ingest.{name}")) for name in left}
    assert counts == dict.fromkeys(left, 0)
    assert len(rows()) == 1
    configure()
    managing.remove(store, "orders", actor="test", purge=True)
    assert rows() == []
