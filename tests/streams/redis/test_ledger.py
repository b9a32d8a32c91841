"""What the warehouse has at the end is what Redis has: each entry once, each key's newest; whatever was killed.

A producer writes all the time, two streams read it, into a table of records and one of events, by two sessions that are
killed in turn; the server is killed and comes back with its append-only file, PostgreSQL, too. Some entries nobody can
read. Three kills of a session here; with CHURNGUARD_SOAK=1 a million entries and fifty. The seed is in the test's id.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import sqlalchemy as sa

from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.replay import replay_messages
from tests.conftest import as_administrator
from tests.soak import SOAK
from tests.sources.homes import temporary_home
from tests.sources.installation import OurWarehouse
from tests.sources.redis import RedisServer
from tests.streams.redis.conftest import parts
from tests.waiting import wait_for

ENTRIES = 1_000_000 if SOAK else 8_000
ROUNDS = 50 if SOAK else 3
EVERY = 8 if SOAK else 3
"""Rounds in which the server and PostgreSQL are killed once."""
TOPICS = ("usage:eu", "usage:us")
RECORDS, EVENTS = "usage-records", "usage-events"
SESSIONS = ("session-a", "session-b")
SESSION = """
import sys
from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams.kind import RedisStreams
settings = load_settings()
start_logging(settings)
store = Store.open(settings, migrate=False)
Session(store, sys.argv[1], RedisStreams(store), linger=3600, max_age=36000).run()
"""
POISON = "{not json"

pytestmark = [pytest.mark.soak, pytest.mark.slow, pytest.mark.xdist_group("redis-ledger")]


class Producer:
    """Writes ``entries``, then a few now and then until it is to :meth:`finish`, so that there is always something
    to read. Goes on after the server was away, and does not know then what of the last ones is there. ``answered``: the
    ids of those that are."""

    def __init__(self, server: RedisServer, entries: int, seed: int) -> None:
        self._server, self._left, self._chance = server, entries, random.Random(seed)
        self._number = 0
        self.answered: dict[str, list[str]] = {topic: [] for topic in TOPICS}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def finish(self) -> None:
        """Returns once all of them are written."""
        self._stopped.set()
        self._thread.join()

    def stop(self) -> None:
        self._left = 0
        self.finish()

    def _work(self) -> None:
        while not self._is_over():
            with suppress(redis.RedisError), self._server.client as client:
                while not self._is_over():
                    self._write(client, self._chance.choice((1, 5, 200) if self._left > 0 else (1, 2, 5)))
                    self._stopped.wait(0.002 if self._left > 0 else 0.05)
            self._stopped.wait(0.05)

    def _is_over(self) -> bool:
        return self._left <= 0 and self._stopped.is_set()

    def _write(self, client: redis.Redis, count: int) -> None:
        topic = self._chance.choice(TOPICS)
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(count):
                self._number += 1
                bad = self._chance.random() < 0.005
                event = POISON if bad else json.dumps({"n": self._number, "user": self._number % 997})
                pipeline.xadd(topic, {"event": event, "user": str(self._number % 997)})
            self.answered[topic] += [each.decode() for each in pipeline.execute()]
        self._left -= count


class Endured:
    """Two streams, two sessions that work them, and what was done to them."""

    def __init__(self, home: Path, server: RedisServer, chance: random.Random) -> None:
        self.server, self._chance = server, chance
        self._ours = OurWarehouse(home)
        self.store = self._ours.store
        self.done: Counter[str] = Counter()
        self._sessions: dict[str, subprocess.Popen[bytes]] = {}

    def keep(self, *names: str) -> None:
        """What Dagster does: a session that ended is followed by another."""
        for name in names or SESSIONS:
            if name not in self._sessions or self._sessions[name].poll() is not None:
                self._sessions[name] = self._ours.run(SESSION, name)

    def rows(self, statement: str, **values: object) -> list[Any]:
        with self.store.organization("acme") as connection:
            return list(connection.execute(sa.text(statement), values))

    def moves(self) -> int:
        with self.store.operator() as connection:
            return int(connection.scalar(sa.text("SELECT coalesce(sum(version), 0) FROM ingest.checkpoints")) or 0)

    def moves_on(self) -> None:
        before = self.moves()

        def moved() -> bool:
            self.keep()
            try:
                return self.moves() > before
            except sa.exc.DBAPIError:
                return False

        wait_for(moved, 300)

    def kill_session(self, name: str) -> None:
        self._sessions[name].kill()
        self._sessions[name].wait()
        self.done["sessions killed"] += 1

    def one_round(self, number: int) -> None:
        self.moves_on()
        threading.Event().wait(self._chance.random() * 0.3)  # anywhere in what they do
        self.kill_session(self._chance.choice(SESSIONS))
        self.moves_on()
        if number % EVERY == EVERY - 2:
            self.server.kill()
            self.server.start()
            self.done["server restarted"] += 1
        elif number % EVERY == EVERY - 1:
            self._ours.kill_warehouse()
            self.done["PostgreSQL restarted"] += 1

    def stop(self) -> None:
        for process in self._sessions.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self._ours.stop()


def stream(server: RedisServer, stream_id: str, target: str = "append") -> StreamConfiguration:
    connection: dict[str, object] = {"value_field": "event", "key_field": "user"}
    made, _, _ = parts(
        server, "", connection, topics=["usage:*"], stream_id=stream_id, target=target, most_rejected=0.9
    )  # fmt: skip
    return made


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with temporary_home() as home:
        made = RedisServer(home)
        made.start()
        with made.client as client:
            for topic in TOPICS:
                client.xadd(topic, {"event": json.dumps({"n": 0, "user": 0}), "user": "0"})
        yield made
        made.stop()


@pytest.fixture
def endured(server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Endured]:
    with temporary_home() as home:
        made = Endured(home, server, random.Random(20261126))
        yield made
        made.stop()


@pytest.mark.parametrize("seed", [20261126])
def test_every_entry_is_stored_once_whatever_was_killed(server: RedisServer, endured: Endured, seed: int) -> None:
    began = time.monotonic()
    managing.create(endured.store, stream(server, RECORDS, "upsert"), actor="test")
    managing.create(endured.store, stream(server, EVENTS), actor="test")
    producer = Producer(server, ENTRIES, seed)
    try:
        for number in range(ROUNDS):
            endured.one_round(number)
        producer.finish()
    finally:
        producer.stop()
    truth = entries_of(server)
    for topic, answered in producer.answered.items():
        assert set(answered) <= {entry for entry, _ in truth[topic]}, "the server keeps what it has answered"

    def all_has_come() -> bool:
        endured.keep()
        ends = {topic: entries[-1][0] for topic, entries in truth.items()}
        with endured.store.operator() as connection:
            found = connection.execute(sa.text("SELECT lane, position->>'id' FROM ingest.checkpoints")).all()
        return len(found) == 2 * len(TOPICS) and all(ends[lane] == entry for lane, entry in found)

    wait_for(all_has_come, 1200)
    check(endured, truth)
    replayed(endured, truth)
    told = ", ".join(f"{count} {what}" for what, count in sorted(endured.done.items()))
    count = sum(map(len, truth.values()))
    print(f"\n{count:,} entries stored once by two streams each; {told}; {time.monotonic() - began:.0f} s")  # noqa: T201


def test_a_dead_sessions_entries_are_taken_over_within_thirty_seconds(server: RedisServer, endured: Endured) -> None:
    """It was killed while PostgreSQL let it wait, with entries delivered to it that it had not stored."""
    managing.create(endured.store, stream(server, EVENTS), actor="test")
    endured.keep("session-a")
    wait_for(lambda: endured.moves() >= len(TOPICS))
    group = f"churnguard-{EVENTS}"
    with server.client as client, psycopg.connect(as_administrator(endured.store.database_url)) as connection:
        connection.execute("LOCK raw.redis_events IN ACCESS EXCLUSIVE MODE")
        client.xadd(TOPICS[0], {"event": '{"n": 1}', "user": "1"})
        wait_for(lambda: client.xpending(TOPICS[0], group)["pending"] == 1)
        endured.kill_session("session-a")
        connection.rollback()
        endured.keep("session-b")
        wait_for(lambda: client.xpending(TOPICS[0], group)["pending"] == 0, 30)
    assert len(endured.rows("SELECT FROM raw.redis_events")) == len(TOPICS) + 1


def entries_of(server: RedisServer) -> dict[str, list[tuple[str, dict[bytes, bytes]]]]:
    with server.client as client:
        found: dict[str, list[tuple[str, dict[bytes, bytes]]]] = {}
        for topic in TOPICS:
            answer: Any = client.xrange(topic)
            found[topic] = [(entry.decode(), fields) for entry, fields in answer]
        return found


def check(endured: Endured, truth: dict[str, list[tuple[str, dict[bytes, bytes]]]]) -> None:
    poison = {f"{topic}/0/{entry}" for topic in TOPICS for entry, fields in truth[topic] if is_bad(fields)}
    assert poison
    for topic, entries in truth.items():
        stored = endured.rows(
            "SELECT message_offset, (extra->>'n')::bigint FROM raw.redis_events "
            "WHERE integration_id = :id AND message_topic = :topic",
            id=EVENTS, topic=topic,
        )  # fmt: skip
        expected = {entry: json.loads(fields[b"event"])["n"] for entry, fields in entries if not is_bad(fields)}
        assert len(stored) == len(expected)
        assert dict(map(tuple, stored)) == expected
    newest: dict[str, tuple[tuple[int, ...], int]] = {}
    for entries in truth.values():
        for entry, fields in entries:
            if not is_bad(fields):
                moment = tuple(map(int, entry.split("-")))
                found = moment, json.loads(fields[b"event"])["n"]
                user = fields[b"user"].decode()
                newest[user] = max(newest.get(user, found), found)
    records = endured.rows(
        "SELECT record_key, (extra->>'n')::bigint FROM raw.redis_records WHERE integration_id = :id", id=RECORDS
    )
    assert dict(map(tuple, records)) == {user: n for user, (_, n) in newest.items()}
    for stream_id in (RECORDS, EVENTS):
        keys = [str(each.key) for each in list_rejected(endured.store, stream_id, limit=1_000_000)]
        assert sorted(keys) == sorted(poison), "each once"


def replayed(endured: Endured, truth: dict[str, list[tuple[str, dict[bytes, bytes]]]]) -> None:
    """Whoever takes the entries for texts can read all of them."""
    STREAMS.change(endured.store, EVENTS, {"data_format": "text"}, actor="test")
    counts = replay_messages(endured.store, EVENTS)
    assert counts.written == sum(is_bad(fields) for entries in truth.values() for _, fields in entries)
    assert list_rejected(endured.store, EVENTS, limit=10) == []


def is_bad(fields: dict[bytes, bytes]) -> bool:
    return fields[b"event"] == POISON.encode()
