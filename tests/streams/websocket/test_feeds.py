"""Feeds of several topics, however they come: PostgreSQL has each message once, and is told of what nobody has."""

from __future__ import annotations

import itertools
from collections.abc import Set
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.model import Organization, StreamConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import stream_progress
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.streams.formats import decoder_of
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.streams.websocket import WebSocket, following
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.lane import StreamLane
from tests.engine.loopback import Answer, Asked, as_json, serve
from tests.sources.websocket_server import Script, Talk, serve_websocket
from tests.streams.websocket.conftest import stream_of
from tests.syncing.streams.conftest import active

_numbers = itertools.count()
Sent = tuple[str, int]
"""A topic, and a number in its sequence, or in that of all of them."""


class Eager(WebSocket):
    retry = RetryPolicy(attempts=100, backoff_base=0.001, cap=0.002)


@dataclass(frozen=True)
class Told:
    """``connections``: what each of them brings before it is cut, in that order; ``forgotten``: what the endpoint does
    not have; ``turns``: after how much of what is told of them sessions hand over."""

    connections: list[list[Sent]]
    forgotten: set[Sent]
    turns: list[int]
    all: list[Sent]


@st.composite
def feeds(draw: st.DrawFn, together: bool) -> Told:
    """The last of each sequence comes last: nobody knows of what would come after it."""
    topics = draw(st.lists(st.sampled_from("ab"), min_size=2, max_size=25))
    counts = {topic: itertools.count(1) for topic in "ab"}
    everything = [(topic, at if together else next(counts[topic])) for at, topic in enumerate(topics, 1)]
    some = st.lists(st.sampled_from(everything), max_size=15)
    connections = draw(st.lists(some, max_size=3))
    ends = everything[-1:] if together else list({each[0]: each for each in everything}.values())
    turns = draw(st.lists(st.integers(1, 6), max_size=3))
    return Told([*connections, ends], draw(st.sets(st.sampled_from(everything))), turns, everything)


def document(each: Sent) -> dict[str, Any]:
    return {"c": each[0], "n": each[1]}


def script(connection: list[Sent], *, last: bool) -> Script:
    def talk(to: Talk) -> None:
        to.hear()
        for each in connection:
            to.say(document(each))
        if not last:
            to.close(1001)
        to.stay()

    return talk


@pytest.mark.parametrize(
    ("per", "names"),
    [("topic", True), ("topic", False), ("stream", True)],
    ids=["a sequence each", "a sequence each, and records that do not name their topic", "one sequence of all"],
)
def test_what_was_sent_is_stored_once_and_what_nobody_has_is_told(
    store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch, per: str, names: bool
) -> None:
    monkeypatch.setattr(following, "FILL_AGAIN", (0.0,))
    monkeypatch.setattr(following, "WAIT", 0.05)
    together = per == "stream"

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(feeds(together))
    def check(told: Told) -> None:
        def endpoint(asked: Asked) -> Answer:
            own = [each for each in told.all if together or each[0] == asked.query["topic"][0]]
            first, last = int(asked.query["from"][0]), int(asked.query["to"][0])
            found = [each for each in own if first <= each[1] <= last and each not in told.forgotten]
            return as_json([document(each) if names else {"n": each[1]} for each in found[:3]])

        with serve() as rest, serve_websocket() as server:
            rest.answers = [endpoint]
            *cut, final = told.connections
            server.scripts = [*(script(each, last=False) for each in cut), script(final, last=True)]
            stream = stream_of(
                server.url, stream_id=f"feed-{next(_numbers)}", topics=["a", "b"], topic_path="c", sequence_path="n",
                sequence_per=per, subscribe=["go"], reorder_seconds=0.01,
                backfill={"url": f"{rest.url}/past?topic={{topic}}", "from": "from", "to": "to"},
            )  # fmt: skip
            managing.create(store, stream, actor="test", checks=False)
            begin = {"messages": "1"} if together else {"a": "1", "b": "1"}
            managing.seek(store, stream.stream_id, Seek(begin), actor="test")
            for turn in told.turns:
                followed(store, stream, turn)
            rows = followed(store, stream, until=set(final))
        lost = {
            (None if together else loss.topic, number)
            for loss in stream_progress.losses(store, stream.stream_id, limit=1000)
            for number in range(int(loss.first_offset), int(loss.last_offset) + 1)
        }
        missing = set(told.all) - set(rows)
        assert len(rows) == len(set(rows)), "each is one row"
        assert missing <= told.forgotten, "the endpoint has the others"
        assert lost == {(None if together else topic, number) for topic, number in missing}

    check()


def followed(
    store: Store, stream: StreamConfiguration, turn: int = 10_000, until: Set[Sent] = frozenset()
) -> list[Sent]:
    """The rows of a stream once all of these are among them, or after so much was told of it."""
    cancelled = Event()
    source = Eager(stream, guard_of(stream), cancelled)
    lane = StreamLane(
        store, Warehouse(store), active(store, stream), Lane("acme", stream.stream_id, "messages"), source,
        decoder_of(stream, guard_of(stream)),
    )  # fmt: skip
    rows: list[Sent] = []
    try:
        with closing(lane.pump(Event())) as told:
            for _ in itertools.islice(told, turn):
                rows = rows_of(store, stream)
                if until and until <= set(rows):
                    return rows
    finally:
        cancelled.set()
        source.close()
    assert not until, f"it did not come: {until - set(rows)}"
    return rows


def rows_of(store: Store, stream: StreamConfiguration) -> list[Sent]:
    statement = sa.text("SELECT message_topic, extra FROM raw.websocket_events WHERE integration_id = :id")
    with store.organization("acme") as connection:
        rows = connection.execute(statement, {"id": stream.stream_id}).all()
    assert all(extra.get("c", topic) == topic for topic, extra in rows)
    return [(str(topic), int(extra["n"])) for topic, extra in rows]
