"""Sessions follow a WebSocket: what its table has at the end, whoever was killed and whatever was cut."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import InvalidConfiguration, TooBusy
from churnguard_pipelines.model import Organization
from churnguard_pipelines.monitoring.streams import judge_stream, read_stream_vitals
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import stream_outbox, stream_progress
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.streams.websocket import WebSocket
from churnguard_pipelines.syncing import session as frame
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams import managing, troubles
from churnguard_pipelines.syncing.streams.kind import WebSocketStreams
from tests.connectors.dying import store_that_kills
from tests.engine.loopback import Api, serve
from tests.soak import SECONDS, SOAK
from tests.sources.websocket_server import Feed, Talk, WebSocketServer, closes, says
from tests.streams.websocket.conftest import stream_of
from tests.streams.websocket.test_gaps import feed_of, filled
from tests.waiting import wait_for

CUTS, KILLS = (100, 20) if SOAK else (10, 3)
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LOOK_EVERY", 0.1), ("TELL_EVERY", 0.1), ("FIRST_PAUSE", 0.02), ("END_WITHIN", 2.0)):
        monkeypatch.setattr(frame, name, seconds)
    monkeypatch.setattr(troubles, "SURE_AFTER", 0.2)


@pytest.fixture
def rest() -> Iterator[Api]:
    with serve() as api:
        yield api


@contextmanager
def following(store: Store) -> Iterator[None]:
    """The next session of the same name: what it had when it was killed is free at once."""
    session = Session(store, "one", WebSocketStreams(store), linger=600)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        yield
    finally:
        session.stop()
        thread.join(30)
        assert not thread.is_alive()


def _session(settings: Settings, statement: int) -> None:
    frame.LOOK_EVERY = 0.5
    store = store_that_kills(settings, statement)
    Session(store, "one", WebSocketStreams(store), linger=600).run()


def offsets(store: Store) -> list[int]:
    with store.organization("acme") as connection:
        if connection.scalar(sa.text("SELECT to_regclass('raw.websocket_events')")) is None:
            return []
        statement = "SELECT message_offset::bigint FROM raw.websocket_events WHERE integration_id = 'ticks'"
        return sorted(connection.scalars(sa.text(statement)))


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(SECONDS if SOAK else 300)
@pytest.mark.parametrize("seed", [20261126])
def test_every_gap_is_filled_though_sessions_are_killed(
    store: Store, organization: Organization, server: WebSocketServer, rest: Api, seed: int
) -> None:
    """The feed is cut, repeats, swaps and leaves out; sessions die at any statement. Each message is a row once."""
    chance = random.Random(seed)
    feed = Feed(seed)
    server.scripts = [feed.follow]
    rest.answers = [feed.backfill]
    managing.create(store, filled(server, rest).model_copy(update={"batch_size": 50}), actor="test")
    over = threading.Event()

    def publish() -> None:
        while not over.wait(0.02):
            feed.publish([{"price": len(feed.log)} for _ in range(5)])

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        killed = 0
        while killed < KILLS or feed.cuts < CUTS:
            session = _processes.Process(target=_session, args=(store.settings, chance.randint(60, 300)))
            session.start()
            session.join()
            assert session.exitcode == -signal.SIGKILL
            killed += 1
        published = len(feed.log)
        with following(store):
            wait_for(lambda: offsets(store)[-1:] > [published])
    finally:
        over.set()
        publisher.join()
        feed.end()
    stored = offsets(store)
    assert stored == list(range(stored[0], stored[-1] + 1))
    assert stream_progress.losses(store, "ticks") == []


def test_what_is_lost_is_recorded_with_the_position(
    store: Store, organization: Organization, server: WebSocketServer
) -> None:
    server.scripts = [says(*feed_of(1, 2, 7, 8))]
    managing.create(store, stream_of(server.url, sequence_path="sequence"), actor="test")
    with following(store):
        wait_for(lambda: offsets(store) == [1, 2, 7, 8])
    (loss,) = stream_progress.losses(store, "ticks")
    assert (loss.first_offset, loss.last_offset) == ("3", "6")


def test_a_feed_that_nobody_can_ask_may_have_missed_something_at_a_hand_over_and_is_well(
    store: Store, organization: Organization, server: WebSocketServer
) -> None:
    server.scripts = [says({"n": 1}), says({"n": 2})]
    managing.create(store, stream_of(server.url), actor="test")
    with following(store):
        wait_for(lambda: len(offsets(store)) == 1)
    with following(store):
        wait_for(lambda: len(offsets(store)) == 2)
    (loss,) = stream_progress.losses(store, "ticks")
    assert not loss.certain
    [vitals] = read_stream_vitals(store, "ticks")
    assert judge_stream(vitals).alerts == []


def test_a_message_of_a_person_reaches_the_server_through_whoever_is_connected(
    store: Store, organization: Organization, server: WebSocketServer
) -> None:
    heard: list[str] = []

    def script(talk: Talk) -> None:
        while True:
            heard.append(talk.hear())

    server.scripts = [script]
    managing.create(store, stream_of(server.url), actor="test")
    managing.send(store, "ticks", "before anybody is connected")
    with store.operator() as connection:
        assert "before" not in connection.scalar(sa.text("SELECT message FROM ingest.stream_outbox"))
    with following(store):
        wait_for(lambda: heard == ["before anybody is connected"])
        managing.send(store, "ticks", '{"op": "order"}')
        wait_for(lambda: heard[1:] == ['{"op": "order"}'])
        wait_for(lambda: stream_outbox.waiting(store, "acme", "ticks") == [])


def test_messages_wait_in_bounds_and_for_nobody_who_is_away(
    store: Store, organization: Organization, server: WebSocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    managing.create(store, stream_of(server.url), actor="test")
    monkeypatch.setattr(stream_outbox, "MOST", 2)
    for message in ("one", "two"):
        managing.send(store, "ticks", message)
    with pytest.raises(TooBusy, match="wait to be sent"):
        managing.send(store, "ticks", "three")
    with store.operator() as connection:
        connection.execute(sa.text("UPDATE ingest.stream_outbox SET created_at = created_at - interval '2 hours'"))
    assert stream_outbox.waiting(store, "acme", "ticks") == [], "nobody should hear it so late"
    managing.send(store, "ticks", "three")
    assert [text for _, text in stream_outbox.waiting(store, "acme", "ticks")] == ["three"]
    monkeypatch.setattr(stream_outbox, "MOST_BYTES", 5000)
    with pytest.raises(TooBusy, match=r"1 messages of .* wait to be sent"):
        managing.send(store, "ticks", "x" * 5000)
    managing.pause(store, "ticks", actor="test")
    with pytest.raises(InvalidConfiguration, match="paused"):
        managing.send(store, "ticks", "four")


def test_refused_credentials_stop_the_stream_and_a_cut_does_not(
    store: Store, organization: Organization, server: WebSocketServer
) -> None:
    def states() -> Any:
        found = STREAMS.states(store, ["ticks"])["ticks"]
        return found.state.value, found.reason

    managing.create(store, stream_of(server.url), actor="test")
    server.scripts = [says({"n": 1}, then=Talk.reset), closes(4401)]
    with following(store):
        wait_for(lambda: states()[0] == "failed")
    assert "4401" in states()[1]


def test_a_server_that_is_away_is_said_to_be_as_long_as_it_is(
    store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again without an end here: nothing is ever raised."""
    monkeypatch.setattr(WebSocket, "retry", RetryPolicy(attempts=10**6, backoff_base=0.01, cap=0.05))
    monkeypatch.setattr(troubles, "AGAIN_AFTER", 0.1)
    managing.create(store, stream_of(f"ws://127.0.0.1:{free_port()}"), actor="test", checks=False)

    def told() -> bool:
        return "cannot be reached" in str(STREAMS.states(store, ["ticks"])["ticks"].reason)

    with following(store):
        wait_for(told)
        managing.resume(store, "ticks", actor="ann")
        wait_for(told)
