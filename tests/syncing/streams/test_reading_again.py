"""A time range of a stream is read once more: to the same rows, whatever the lane does meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import InvalidConfiguration, NotFound, ProviderUnavailable
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import stream_metrics
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.ingest.stream_metrics import Measured
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing, reading_again
from churnguard_pipelines.syncing.streams.reading_again import read_again
from tests.syncing.streams.conftest import Configure, Following, Rows
from tests.syncing.streams.logs import Log
from tests.waiting import wait_for

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def hours(log: Log, count: int) -> None:
    """A message at each hour of a day."""
    for hour in range(count):
        moment = NOON.replace(hour=0) + timedelta(hours=hour)
        log.append({"hour": hour}, str(hour), produced_at=int(moment.timestamp() * 1000))


@pytest.mark.parametrize("target", ["append", "upsert"])
def test_rows_that_were_lost_come_back_and_the_others_stay(
    store: Store, configure: Configure, following: Following, log: Log, rows: Rows, target: str
) -> None:
    configure(target=target, batch_size=5)
    object_ = "events" if target == "append" else "records"
    hours(log, 24)
    with following():
        wait_for(lambda: len(rows(object_)) == 24)
    before = position(store)
    with store.organization("acme") as connection:
        connection.execute(sa.text(f"DELETE FROM raw.custom_{object_}"))
    told: list[Counts] = []
    counts = read_again(store, "orders", NOON, NOON + timedelta(hours=6), on_stored=told.append)
    assert [row["extra"]["hour"] for row in rows(object_)] == [12, 13, 14, 15, 16, 17]
    assert (counts.read, counts.written, sum(each.read for each in told)) == (6, 6, 6)
    assert read_again(store, "orders", NOON - timedelta(hours=12), NOON + timedelta(hours=12)).read == 24
    assert len(rows(object_)) == 24
    assert position(store) == before
    assert (log.folder / "acknowledged").read_text() == "24", "and its source was told nothing"


def test_what_has_been_mended_is_read_anew(
    store: Store, configure: Configure, following: Following, log: Log, rows: Rows
) -> None:
    configure(filters=[{"field": "hour", "operator": "lt", "value": 2}])
    hours(log, 4)
    with following():
        wait_for(lambda: len(rows()) == 2)
    STREAMS.change(store, "orders", {"filters": []}, actor="test")
    read_again(store, "orders", NOON.replace(hour=0), NOON)
    assert len(rows()) == 4


def test_what_was_rejected_and_is_stored_now_waits_no_longer(
    store: Store, configure: Configure, following: Following, log: Log, rows: Rows
) -> None:
    """What is larger than it may be is not even kept, and comes in no other way."""
    configure(largest_message=1024, most_rejected=1)
    at = int(NOON.replace(hour=8).timestamp() * 1000)
    log.extend([({"long": "x" * 2000}, None), (b"broken", None), ({"n": 1}, None)], produced_at=at)
    with following():
        wait_for(lambda: len(rows()) == 1)
    STREAMS.change(store, "orders", {"largest_message": 4096}, actor="test")
    counts = read_again(store, "orders", NOON.replace(hour=0), NOON)
    assert (counts.read, counts.written, counts.rejected, len(rows())) == (3, 1, 1, 2)
    assert [each.key for each in list_rejected(store, "orders")] == ["orders/0/1"]


def test_nothing_is_stored_any_more_of_a_stream_that_is_removed_meanwhile(
    store: Store, configure: Configure, log: Log, rows: Rows
) -> None:
    configure(batch_size=5, target="upsert", most_rejected=1)
    hours(log, 12)
    log.append(b"broken")
    with pytest.raises(NotFound, match="there is no stream 'orders'"):
        read_again(
            store, "orders", NOON.replace(hour=0), NOON,
            on_stored=lambda counts: managing.remove(store, "orders", actor="ann", purge=True),
        )  # fmt: skip
    assert rows("records") == []
    configure()
    assert list_rejected(store, "orders") == []


@pytest.mark.parametrize("often", [3, 10**9])
def test_a_source_that_takes_its_time_is_waited_for(
    store: Store, configure: Configure, log: Log, monkeypatch: pytest.MonkeyPatch, often: int
) -> None:
    """A broker far away has not answered within a moment."""
    configure(connection_config={"source": "log", "folder": str(log.folder), "slow": often})
    hours(log, 12)
    if often == 3:
        assert read_again(store, "orders", NOON.replace(hour=0), NOON).read == 12
        return
    monkeypatch.setattr(reading_again, "SILENT_FOR", 0.1)
    with pytest.raises(ProviderUnavailable, match="has more of orders/0, and has given nothing"):
        read_again(store, "orders", NOON.replace(hour=0), NOON)


def test_a_range_that_ends_before_it_begins_is_refused(store: Store, configure: Configure) -> None:
    configure()
    with pytest.raises(InvalidConfiguration, match="ends before it begins"):
        read_again(store, "orders", NOON, NOON)


def position(store: Store) -> str:
    with store.operator() as connection:
        return str(connection.scalar(sa.text("SELECT (position, version)::text FROM ingest.checkpoints")))


def test_measurements_become_rows_of_a_minute_after_an_hour(store: Store, configure: Configure) -> None:
    configure()
    measured = Measured("acme", "orders", seconds=5)
    measured.add(messages=100, size=1000, rejected=2, seconds=0.004, buffered=0.5)
    for session in ("a", "b"):
        stream_metrics.record(store, session, [measured])
    with store.operator() as connection:
        connection.execute(
            sa.text("UPDATE ingest.stream_metrics SET at = date_trunc('minute', at) - interval '2 hours'")
        )
    stream_metrics.record(store, "a", [measured])
    stream_metrics.roll(store)
    stream_metrics.roll(store)
    told = stream_metrics.history(store, "orders", seconds=4 * 3600, points=240)
    first, second = (each for each in told if each.messages)
    assert len(told) == 240
    assert (first.messages, first.bytes, first.rejected, first.buffered) == (200, 2000, 4, 0.5)
    assert sum(first.histogram) == 200
    assert second.messages == 100
    assert first.quantile_ms(0.5) == pytest.approx(4, abs=2)
    with store.operator() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM ingest.stream_metrics")) == 2
