"""What the warehouse has at the end is what Kafka has: each message once, each key's newest; whatever was killed.

Two streams read one topic, into a table of records and one of events, by two sessions that are killed in turn, lose
their lanes to each other in the middle of a transaction, and see the broker and PostgreSQL go and come back. Among the
messages are aborted ones, tombstones, some that are written twice, some that nobody can read. Three kills of a session
here; with CHURNGUARD_SOAK=1 a million messages and fifty. The seed is in the test's id.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.managing import opened_source
from churnguard_pipelines.syncing.streams.replay import replay_messages
from churnguard_pipelines.syncing.streams.status import list_streams
from tests.conftest import as_administrator
from tests.soak import SOAK
from tests.sources.homes import temporary_home
from tests.sources.installation import OurWarehouse
from tests.sources.kafka import KafkaServer, running_kafka
from tests.streams.kafka.conftest import stream
from tests.streams.kafka.generator import PARTITIONS, Generator, Truth, truth
from tests.waiting import wait_for

MESSAGES = 1_400_000 if SOAK else 20_000
"""That are written; a quarter of them is aborted."""
ROUNDS = 50 if SOAK else 3
EVERY = 8 if SOAK else 3
"""Rounds in which the broker and PostgreSQL are killed once."""
SESSIONS = ("session-a", "session-b")
TOPIC = "usage.events"
RECORDS, EVENTS = "usage-records", "usage-events"
SESSION = """
import sys
from churnguard_pipelines.settings import load_settings, start_logging
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams.kind import KafkaStreams
settings = load_settings()
start_logging(settings)
store = Store.open(settings, migrate=False)
Session(store, sys.argv[1], KafkaStreams(store), linger=3600, max_age=36000).run()
"""

pytestmark = [pytest.mark.soak, pytest.mark.slow, pytest.mark.xdist_group("kafka")]


class Endured:
    """Two streams of one topic, two sessions that work them, and what was done to them."""

    def __init__(self, home: Path, server: KafkaServer, chance: random.Random) -> None:
        self._server, self._chance = server, chance
        self._ours = OurWarehouse(home)
        self.store = self._ours.store
        self.done: Counter[str] = Counter()
        for stream_id, target in ((RECORDS, "upsert"), (EVENTS, "append")):
            configured = stream(TOPIC, servers=server.address, stream_id=stream_id, target=target, most_rejected=0.9)
            managing.create(self.store, configured, actor="test")
        self._sessions: dict[str, subprocess.Popen[bytes]] = {}

    def keep(self) -> None:
        """What Dagster does: a session that ended is followed by another."""
        for name in SESSIONS:
            if name not in self._sessions or self._sessions[name].poll() is not None:
                self._sessions[name] = self._ours.run(SESSION, name)

    @property
    def stored(self) -> int:
        """Messages and markers that both streams are past, by their checkpoints."""
        statement = sa.text("SELECT coalesce(sum((position->>'offset')::bigint), 0) FROM ingest.checkpoints")
        with self.store.operator() as connection:
            return int(connection.scalar(statement) or 0)

    def moves_on(self) -> None:
        before = self.stored

        def moved() -> bool:
            self.keep()
            try:
                return self.stored > before
            except sa.exc.DBAPIError:
                return False

        wait_for(moved, 300)

    def kill_session(self) -> None:
        name = self._chance.choice(SESSIONS)
        self._sessions[name].kill()
        self._sessions[name].wait()
        self.done["sessions killed"] += 1

    def move_lanes(self) -> None:
        """Every lane is free all of a sudden: who works one does not know, and goes on beside whoever takes it."""
        with psycopg.connect(as_administrator(self.store.database_url), autocommit=True) as connection:
            connection.execute("DELETE FROM ingest.leases")
        self.done["times all lanes were taken away"] += 1

    def restart_broker(self) -> None:
        self._server.kill()
        self._server.start()
        self.done["broker restarted"] += 1

    def restart_warehouse(self) -> None:
        self._ours.kill_warehouse()
        self.done["PostgreSQL restarted"] += 1

    def one_round(self, number: int) -> None:
        self.moves_on()
        threading.Event().wait(self._chance.random() * 0.3)  # anywhere in what they do
        self.kill_session()
        self.moves_on()
        self.move_lanes()
        if number % EVERY == EVERY - 2:
            self.restart_broker()
        elif number % EVERY == EVERY - 1:
            self.restart_warehouse()

    def finish(self) -> None:
        """Until nothing is left to read: not even a marker of a transaction."""

        def is_over() -> bool:
            self.keep()
            found = list_streams(self.store)
            return self._at_its_end() and all(each.lag_messages == 0 for each in found)

        wait_for(is_over, 1200)
        for process in self._sessions.values():
            process.terminate()

    def _at_its_end(self) -> bool:
        with opened_source(stream(TOPIC, servers=self._server.address)) as source:
            ends = sum(int(mark.end) for mark in source.watermarks({}).values())
        return self.stored == 2 * ends

    def stop(self) -> None:
        for process in self._sessions.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self._ours.stop()


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    with running_kafka() as made:
        made.create(TOPIC, PARTITIONS)
        yield made


@pytest.mark.parametrize("seed", [20261126])
def test_every_message_is_stored_once_whatever_was_killed(server: KafkaServer, seed: int) -> None:
    began, chance = time.monotonic(), random.Random(seed)
    generator = Generator(server, TOPIC, seed)
    with temporary_home() as home:
        endured = Endured(home, server, chance)
        try:
            for number in range(ROUNDS):
                over = threading.Event()
                writing = threading.Thread(target=generator.write_on, args=(MESSAGES // ROUNDS, over))
                writing.start()
                try:
                    endured.one_round(number)
                finally:
                    over.set()
                    writing.join()
            endured.finish()
            wanted = truth(server, TOPIC)
            check(endured, wanted, generator)
            replayed(endured, wanted)
        finally:
            endured.stop()
    events, seconds = sum(map(len, wanted.events.values())), time.monotonic() - began
    told = ", ".join(f"{count} {what}" for what, count in sorted(endured.done.items()))
    print(f"\n{events:,} messages and {len(wanted.poison):,} bad ones stored once by two streams each; "  # noqa: T201
          f"{told}; {seconds:.0f} s")  # fmt: skip


def check(endured: Endured, wanted: Truth, generator: Generator) -> None:
    written = {n for events in wanted.events.values() for _, n in events if n is not None}
    assert len(written) <= generator.written["plain"] + generator.written["committed"]
    assert generator.written["aborted"] > 0
    with endured.store.organization("acme") as connection:
        rows = connection.execute(
            sa.text(
                "SELECT message_partition::int, message_offset::bigint, (extra->>'n')::bigint FROM raw.kafka_events "
                "WHERE integration_id = :id ORDER BY 1, 2"
            ),
            {"id": EVENTS},
        )
        stored: dict[int, list[tuple[int, int | None]]] = {number: [] for number in wanted.events}
        for partition, offset, n in rows:
            stored[partition].append((offset, n))
        for number, events in wanted.events.items():
            assert stored[number] == events, f"partition {number}: {len(stored[number])} instead of {len(events)}"
        records = connection.execute(
            sa.text(
                "SELECT record_key, CASE WHEN deleted_at IS NULL THEN (extra->>'n')::bigint END "
                "FROM raw.kafka_records WHERE integration_id = :id"
            ),
            {"id": RECORDS},
        )
        found = {key: n for key, n in records if n is not None}
    assert found == {key: n for key, n in wanted.records.items() if n is not None}
    assert rejected_of(endured, EVENTS) == wanted.poison
    assert rejected_of(endured, RECORDS) == wanted.poison | wanted.keyless


def replayed(endured: Endured, wanted: Truth) -> None:
    """What was rejected for want of a key comes in once its stream is told of one."""
    STREAMS.change(endured.store, RECORDS, {"key": ["id"]}, actor="test")
    counts = replay_messages(endured.store, RECORDS)
    assert counts.written == len(wanted.keyless)
    assert rejected_of(endured, RECORDS) == wanted.poison


def rejected_of(endured: Endured, stream_id: str) -> set[str]:
    found = list_rejected(endured.store, stream_id, limit=1_000_000)
    names = [str(each.key) for each in found]
    assert len(names) == len(set(names)), "each once"
    return set(names)
