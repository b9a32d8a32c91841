"""The vital signs of streams: what needs somebody, and what all that is read from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.model import Organization
from churnguard_pipelines.monitoring.health import HealthStatus, Severity
from churnguard_pipelines.monitoring.monitor import take_picture
from churnguard_pipelines.monitoring.stream_numbers import measured
from churnguard_pipelines.monitoring.streams import (
    Losses,
    StreamHealth,
    StreamVitals,
    judge_stream,
    read_stream_vitals,
)
from churnguard_pipelines.monitoring.vitals import Waits
from churnguard_pipelines.records import Lane, Rejected
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.ingest import leases, sessions, stream_metrics, stream_progress
from churnguard_pipelines.store.ingest.stream_metrics import Measured, Point
from churnguard_pipelines.store.ingest.stream_progress import Observed
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.status import list_streams
from tests.shelf import (
    configured,
    put,
    read_all,
    shelves,  # noqa: F401 - a fixture
)
from tests.soak import SOAK

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LANE = Lane("acme", "clicks", "clicks")
AGES = st.one_of(st.none(), st.floats(0, 1e6))
ACTIVE, PAUSED, FAILED = StreamState
WARNING, CRITICAL = Severity


def point(messages: int = 600, rejected: int = 0) -> Point:
    """Of the last minute."""
    return Point(NOW, 60.0, messages, 0, rejected, 1.0, 0.5, [0] * 37)


WELL = StreamVitals(
    now=NOW, organization_id="acme", stream_id="clicks", name="Clicks", kind="kafka", state=ACTIVE, reason=None,
    remedy=None, since=NOW - timedelta(days=3), followed=True, lag_messages=0, lag_seconds=0.0, lag_before=None,
    recent=point(), rejected=None, lost=None,
)  # fmt: skip
BROKEN = {"state": FAILED, "reason": "Another topic.", "remedy": "Seek."}
STOPPED = {"state": PAUSED, "reason": "Too many.", "remedy": "Mend it."}
LOST = Losses(2, "clicks", "0", "5", "9", "trimmed", NOW - timedelta(hours=1))


def judged(**changes: Any) -> StreamHealth:
    return judge_stream(replace(WELL, **changes))


def behind(**time: float) -> dict[str, Any]:
    return {"lag_messages": 1200, "lag_seconds": timedelta(**time).total_seconds()}


def test_a_stream_that_keeps_up_is_well_and_so_is_one_to_which_nothing_comes() -> None:
    for health in (judged(), judged(recent=None), judged(lag_messages=None, lag_seconds=None), judged(followed=False)):
        assert (health.status, health.alerts) == (HealthStatus.HEALTHY, [])


@pytest.mark.parametrize(
    ("kind", "severity", "changes", "cause"),
    [
        ("stream", CRITICAL, BROKEN, "it failed: Another topic."),
        ("stream", CRITICAL, STOPPED, "it paused itself: Too many."),
        ("stream", WARNING, {"reason": "Nobody answers.", "remedy": "Look."}, "it does not get on: Nobody answers."),
        ("stream_lag", WARNING, behind(minutes=6), "1,200 messages wait, the oldest for 6 minutes; 10 a second"),
        ("stream_lag", CRITICAL, behind(hours=2), "the oldest for 2 hours"),
        ("stream_lag", CRITICAL, behind(minutes=6) | {"recent": None}, "0 a second are stored"),
        ("stream_lag", WARNING, behind(hours=2) | {"lag_before": 5000}, "ten minutes ago 5,000 did"),
        ("stream_lag", CRITICAL, behind(hours=2) | {"lag_before": 200}, "ten minutes ago 200 did"),
        ("rejected_records", WARNING, {"rejected": Waits(3, NOW)}, "3 rejected messages wait"),
        ("rejected_records", CRITICAL, {"rejected": Waits(3, NOW), "recent": point(10, 6)}, "60.0% of those"),
        ("stream_loss", WARNING, {"lost": LOST}, "2 times in 7 days; the latest: 5 to 9 of 0 (trimmed)"),
    ],
    ids=["failed", "paused", "tried", "behind", "far", "stands", "catches", "grows", "rejected", "most", "lost"],
)  # fmt: skip
def test_what_needs_somebody_is_an_alert_with_cause_moment_and_remedy(
    kind: str, severity: Severity, changes: dict[str, Any], cause: str
) -> None:
    health = judged(**changes)
    [alert] = health.alerts
    assert (alert.kind, alert.severity) == (kind, severity)
    assert cause in alert.cause
    assert alert.since is not None
    assert alert.since <= NOW
    assert alert.remedy
    assert health.status is (HealthStatus.UNHEALTHY if severity is CRITICAL else HealthStatus.DEGRADED)


def test_one_that_a_person_paused_expects_nothing() -> None:
    health = judged(state=PAUSED, lag_seconds=86_400.0, rejected=Waits(3, NOW))
    assert (health.status, health.alerts) == (HealthStatus.PAUSED, [])


# --- where it comes from


@pytest.fixture
def stream(store: Store, organization: Organization, shelves: None) -> str:  # noqa: F811 - the fixture
    managing.create(store, configured(organization="acme"), actor="test")
    return "clicks"


def vitals(store: Store) -> StreamVitals:
    [found] = read_stream_vitals(store)
    return found


def test_everything_is_read_from_what_sessions_leave_behind(store: Store, stream: str) -> None:
    seen = vitals(store)
    assert (seen.state, seen.followed, seen.recent, seen.lag_messages, seen.lost) == (ACTIVE, False, None, None, None)

    put('{"page": "a"}', "no json")
    read_all(store)
    stream_progress.observe(store, [Observed(LANE, "9", 7, 65.0), Observed(replace(LANE, name="b"), "3", 1, 5.0)])
    with Warehouse(store).transaction("acme") as transaction:
        stream_progress.note_loss(transaction.connection, LANE, "clicks", "0", "5", "9", "trimmed")
        stream_progress.note_loss(transaction.connection, LANE, "clicks", "0", "10", "12", "nobody knows", False)
    seen = vitals(store)
    assert (seen.lag_messages, seen.lag_seconds) == (8, 65.0)
    assert seen.recent is not None
    assert (seen.recent.messages, seen.recent.rejected, seen.recent.buffered) == (2, 1, 0.25)
    assert seen.rejected is not None
    assert seen.rejected.count == 1
    assert seen.lost is not None
    assert (seen.lost.count, seen.lost.first_offset, seen.lost.reason) == (1, "5", "trimmed")


def test_losses_without_end_are_not_counted_to_their_end(store: Store, stream: str) -> None:
    with store.operator() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO ingest.stream_losses (organization_id, integration_id, topic, partition, first_offset,"
                " last_offset, reason) SELECT 'acme', 'clicks', 'clicks', '0', n, n, 'gone'"
                " FROM generate_series(1, 1500) n"
            )
        )
    seen = vitals(store)
    assert seen.lost is not None
    assert seen.lost.count == 1000
    assert "1,000+ times" in next(sign.cause for sign in judge_stream(seen).signs if sign.kind == "stream_loss")


def test_who_is_followed_is_known_by_the_leases(store: Store, stream: str) -> None:
    sessions.begin(store, "one", "custom_streams")
    leases.take(store, "one", [LANE])
    assert measured(store, stream).status == "running"
    assert measured(store, stream).messages_per_second == 0.0
    sessions.end(store, "one")
    assert (measured(store, stream).status, measured(store, stream).messages_per_second) == ("not_running", None)
    stream_progress.observe(store, [Observed(LANE, "9", 0, 0.0)])
    assert (measured(store, stream).status, measured(store, stream).messages_per_second) == ("idle", 0.0)
    STREAMS.note_trouble(store, {stream: ("Nobody answers.", None)})
    assert measured(store, stream).status == "not_running"


def test_the_lag_of_ten_minutes_ago_is_kept_with_what_was_measured_then(store: Store, stream: str) -> None:
    stream_progress.observe(store, [Observed(LANE, "9", 700, 65.0)])
    stream_metrics.record(store, "one", [Measured("acme", stream, 5.0, 100)])
    with store.operator() as connection:
        connection.execute(sa.text("UPDATE ingest.stream_metrics SET at = at - interval '12 minutes'"))
    assert vitals(store).lag_before == 700
    assert [each.lag_messages for each in stream_metrics.history(store, stream) if each.messages] == [700]


def test_each_minute_of_the_last_hour_has_what_was_measured_in_it(store: Store, stream: str) -> None:
    """Also those in which nothing came; the last one ends now."""
    assert stream_metrics.history(store, stream) == []
    for minutes_ago, messages in ((0, 1), (1, 20), (1, 22), (30, 3), (59, 4), (61, 5)):
        stream_metrics.record(store, "one", [Measured("acme", stream, 5.0, messages)])
        with store.operator() as connection:
            moved = "UPDATE ingest.stream_metrics SET at = clock_timestamp() - make_interval(mins => :n, secs => 30)"
            connection.execute(sa.text(f"{moved} WHERE messages = :m"), {"n": minutes_ago, "m": messages})
    told = stream_metrics.history(store, stream)
    assert [each.messages for each in told] == [4, *[0] * 28, 3, *[0] * 28, 42, 1]
    assert told[-2].messages_per_second == 42 / 60
    assert {later.at - each.at for each, later in pairwise(told)} == {timedelta(minutes=1)}


def test_nobody_knows_how_far_a_paused_stream_is_behind(store: Store, stream: str) -> None:
    stream_progress.observe(store, [Observed(LANE, "9", 700, 65.0)])
    managing.pause(store, stream, actor="ann")
    (listed,) = list_streams(store)
    for said in (listed, vitals(store), measured(store, stream)):
        assert (said.lag_messages, said.lag_seconds) == (None, None)


PARTITIONS = st.lists(st.one_of(st.just((0, 0.0)), st.tuples(st.one_of(st.none(), st.integers(1, 99)), AGES)))


@settings(max_examples=300 if SOAK else 25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(partitions=PARTITIONS)
def test_everybody_says_the_same_of_how_far_it_is_behind(
    store: Store, stream: str, partitions: list[tuple[int | None, float | None]]
) -> None:
    """What one partition does not say, nobody can say of all; the oldest that is known is the oldest."""
    with store.operator() as connection:
        connection.execute(sa.text("DELETE FROM ingest.stream_partitions"))
    seen = [Observed(replace(LANE, name=str(number)), "9", *lag) for number, lag in enumerate(partitions)]
    stream_progress.observe(store, seen)
    counts = [count for count, _ in partitions]
    ages = [age for count, age in partitions if count != 0 and age is not None]
    is_behind = any(count != 0 for count in counts)
    messages = None if None in counts or not partitions else sum(each for each in counts if each)
    seconds = (max(ages, default=None) if is_behind else 0.0) if partitions else None
    (listed,), looked, numbers = list_streams(store), vitals(store), measured(store, stream)
    for said in (listed, looked, numbers):
        assert (said.lag_messages, said.lag_seconds) == (messages, seconds)


def test_the_installation_s_picture_has_the_streams(store: Store, stream: str) -> None:
    STREAMS.set_state(store, stream, FAILED, "The topic is another one.", "Seek.")
    with Warehouse(store).transaction("acme") as transaction:
        transaction.reject(LANE, "messages", [Rejected("clicks/0/1", "no json", {})], None)
    [health] = take_picture(store).streams
    assert [alert.kind for alert in health.alerts] == ["stream", "rejected_records"]
