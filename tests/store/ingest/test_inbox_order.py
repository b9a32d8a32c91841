"""Several write to the inbox at once, and whoever reads leaves nothing out: not what is committed late, not what comes
from a gateway of the version before, whoever of them dies."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.store.ingest import inbox, inbox_order
from churnguard_pipelines.store.ingest.inbox_order import Progress, Settled
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.locks import Shared, taking
from churnguard_pipelines.store.postgres.row_security import OPERATOR
from tests.conftest import as_administrator

LANE = inbox.lane_of("acme", "acme-stripe")
SLOTS = 8
BEFORES = 2
BEFORE = f"""
WITH lock AS MATERIALIZED ({taking(Shared.INBOX_WRITERS)})
INSERT INTO ingest.webhook_inbox
       (organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload, received_on)
SELECT 'acme', 'stripe', 'acme-stripe', 'we_1', event_id, 't', '', '{{}}', current_date
  FROM lock, unnest(%s::text[]) AS event_id
"""
"""As the version before wrote, which knows no slots."""


class Reader:
    """A lane's events, as sessions read them: each time on from where the checkpoint stands."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._settled = Settled(store)
        self.progress = Progress(0, {})
        self.read: list[str] = []

    def go_on(self, limit: int = 500, *, settle: bool = False) -> int:
        """Returns how many there were."""
        settled = self._settled.sequence() if settle else 0
        with self._store.organization(LANE.organization_id) as connection:
            events = inbox.read(connection, LANE, self.progress, limit)
        if events:
            position = json.loads(json.dumps(self.progress.after(events, settled).position))  # as it is kept
            self.progress = Progress.of(position)
            self.read += [event.event_id for event in events]
        return len(events)

    def read_all(self) -> None:
        while self.go_on(settle=True):
            pass


class Writer:
    """A gateway's connection, whose transaction stays open until the test ends it."""

    def __init__(self, store: Store, *, before: bool = False) -> None:
        self.connection = psycopg.connect(store.database_url)
        self.connection.execute(f"SET ROLE {OPERATOR}")
        self.connection.commit()
        self._before = before
        self.writing: list[str] = []

    def write(self, events: Sequence[str]) -> None:
        if self._before:
            self.connection.execute(BEFORE, [list(events)])
        else:
            rows = [("acme", "stripe", "acme-stripe", "we_1", event, "t", "", "{}") for event in events]
            self.connection.execute(inbox.TAKE, [list(column) for column in zip(*rows, strict=True)])
        self.writing += events

    def end(self, *, commit: bool) -> list[str]:
        """What it has committed."""
        self.connection.commit() if commit else self.connection.rollback()
        committed, self.writing = self.writing if commit else [], []
        return committed


@pytest.fixture
def writers(store: Store) -> Iterator[list[Writer]]:
    """Two, and one of the version before."""
    made = [Writer(store, before=number == BEFORES) for number in range(3)]
    yield made
    for writer in made:
        writer.connection.close()


@pytest.fixture(autouse=True)
def _hurried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a transaction that the test leaves open."""
    monkeypatch.setattr(inbox_order, "SETTLE_EVERY", 0.0)
    monkeypatch.setattr(inbox_order, "_SETTLE_SECONDS", 0.01)
    inbox.keep_partitions(store)


@pytest.mark.parametrize("late", [0, BEFORES], ids=["a gateway", "one of the version before"])
def test_what_is_committed_late_is_read_after_what_overtook_it(store: Store, writers: list[Writer], late: int) -> None:
    reader = Reader(store)
    writers[late].write(["late"])
    for number in range(3):
        writers[1].write([f"evt_{number}"])
        writers[1].end(commit=True)
        assert reader.go_on(settle=True) == 1
    writers[late].end(commit=True)
    reader.read_all()
    assert reader.read == ["evt_0", "evt_1", "evt_2", "late"]


def test_a_slot_that_nobody_uses_any_more_is_not_looked_back_to(store: Store, writers: list[Writer]) -> None:
    reader = Reader(store)
    writers[0].write(["evt_0"])
    writers[1].write(["evt_1"])  # in another slot, and never again
    for writer in writers[:2]:
        writer.end(commit=True)
    for number in range(2, 5):
        writers[0].write([f"evt_{number}"])
        writers[0].end(commit=True)
        reader.read_all()
    assert reader.progress.slots == {}, "nobody writes: all is worked off up to one sequence"


def test_more_writers_than_slots_wait_for_each_other(store: Store) -> None:
    with ExitStack() as stack:
        made = [Writer(store) for _ in range(SLOTS + 1)]
        for writer in made:
            stack.callback(writer.connection.close)
        for number, writer in enumerate(made[:SLOTS]):
            writer.write([f"evt_{number}"])
        made[SLOTS].connection.execute("SET LOCAL lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            made[SLOTS].write(["evt_8"])
        made[SLOTS].end(commit=False)
        for writer in made[:SLOTS]:
            writer.end(commit=True)
        made[SLOTS].write(["evt_8"])
        made[SLOTS].end(commit=True)
    reader = Reader(store)
    reader.read_all()
    assert Counter(reader.read) == Counter(f"evt_{number}" for number in range(SLOTS + 1))


def test_a_checkpoint_of_before_goes_on_from_where_it_stood(store: Store, writers: list[Writer]) -> None:
    writers[BEFORES].write(["evt_0", "evt_1", "evt_2"])
    writers[BEFORES].end(commit=True)
    with store.operator() as connection:
        stood = connection.exec_driver_sql(
            "SELECT sequence FROM ingest.webhook_inbox WHERE event_id = 'evt_1'"
        ).scalar()
    reader = Reader(store)
    reader.progress = Progress.of({"sequence": stood})
    writers[0].write(["evt_3"])
    writers[0].end(commit=True)
    reader.read_all()
    assert reader.read == ["evt_2", "evt_3"]


steps = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("end"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("read"), st.integers(1, 4), st.booleans()),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.lists(steps, min_size=12, max_size=40))
def test_in_whatever_order_they_write_and_end_each_event_is_read_once(
    store: Store, writers: list[Writer], given: list[tuple[str, int, int]]
) -> None:
    """And of two that came after each other the first one first."""
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("TRUNCATE ingest.webhook_inbox, ingest.webhook_seen")
    reader = Reader(store)
    committed: list[str] = []
    came_after: dict[str, list[str]] = {}
    for number, (step, which, more) in enumerate(given):
        if step == "write":
            events = [f"evt_{number}_{each}" for each in range(more)]
            for event in events:
                came_after[event] = list(committed)
            writers[which].write(events)
        elif step == "end":
            committed += writers[which].end(commit=bool(more))
        else:
            reader.go_on(which, settle=bool(more))
    for writer in writers:
        committed += writer.end(commit=True)
    reader.read_all()
    assert Counter(reader.read) == Counter(committed)
    place = {event: number for number, event in enumerate(reader.read)}
    assert all(place[first] < place[event] for event in committed for first in came_after[event])


WRITER = """
import json, random, sys, time
import psycopg
url, take, role, name = sys.argv[1:]
chance = random.Random(name)
with psycopg.connect(url) as connection:
    connection.execute(f"SET ROLE {role}")
    for number in range(1_000_000):
        events = [f"{name}_{number}_{each}" for each in range(chance.randint(1, 4))]
        rows = [("acme", "stripe", "acme-stripe", "we_1", event, "t", "", "{}") for event in events]
        connection.execute(take, [list(column) for column in zip(*rows)], prepare=True)
        time.sleep(chance.choice([0, 0, 0.001, 0.01]))
        connection.commit()
        print(json.dumps(events), flush=True)
"""


@pytest.mark.parametrize("seed", [20261126])
def test_whoever_of_the_writers_dies_all_that_was_acknowledged_is_read_and_nothing_twice(
    store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    names = iter(range(1_000))
    reader = Reader(store)

    def begun() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, store.database_url, inbox.TAKE, OPERATOR, f"w{next(names)}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    living = [begun() for _ in range(3)]
    dead: list[subprocess.Popen[str]] = []
    for kills in range(1, 6):
        while len(reader.read) < kills * 60:
            reader.go_on(chance.choice([1, 7, 500]), settle=chance.random() < 0.2)
        victim = living.pop(chance.randrange(len(living)))
        victim.kill()
        dead.append(victim)
        if kills < 3:
            living.append(begun())
    acknowledged: set[str] = set()
    for writer in [*dead, *living]:
        writer.kill()
        told, _ = writer.communicate()
        acknowledged |= {
            event for line in told.splitlines(keepends=True) if line.endswith("\n") for event in json.loads(line)
        }
    while writes_go_on(store):
        pass
    reader.read_all()
    with store.operator() as connection:
        stored = Counter(connection.exec_driver_sql("SELECT event_id FROM ingest.webhook_inbox").scalars())
    assert Counter(reader.read) == stored
    assert acknowledged <= stored.keys()
    assert set(stored.values()) == {1}


def writes_go_on(store: Store) -> bool:
    """The server has not noticed yet that somebody died."""
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        held = "SELECT FROM (SELECT FROM ingest.inbox_slots FOR UPDATE SKIP LOCKED) AS free HAVING count(*) < %s"
        return connection.execute(held, [SLOTS]).fetchone() is not None
