"""Whatever breaks, each message is a row once: at every statement, by SIGKILL at random points, in any batches."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import LaneTakenOver
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest.rejected import list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.streams.formats.json import JsonDecoder
from churnguard_pipelines.streams.sdk import Seek
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.lane import StreamLane
from churnguard_pipelines.syncing.streams.managing import opened_source
from churnguard_pipelines.syncing.streams.replay import replay_messages
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator
from tests.connectors.trouble import Trouble, trouble
from tests.soak import SOAK
from tests.syncing.streams.conftest import Configure, Following, Rows, active
from tests.syncing.streams.logs import Log
from tests.waiting import wait_for

__all__ = ["trouble"]

KILLS = 100 if SOAK else 2


def drain(store: Store, warehouse: Warehouse, stream: StreamConfiguration, batches: int | None = None) -> None:
    """Read on from the checkpoint until there is nothing more, or so many batches were stored."""
    with opened_source(stream) as source:
        lane = StreamLane(
            store,
            warehouse,
            active(store, stream),
            Lane(stream.organization_id, stream.stream_id, "orders/0"),
            source,
            JsonDecoder(),
        )
        for number, stored in enumerate(lane.pump(Event()), start=1):
            if stored is None or number == batches:
                return


@pytest.mark.parametrize("target", ["upsert", "append"])
def test_an_error_at_any_statement_is_undone_whole(
    trouble: Trouble, store: Store, configure: Configure, log: Log, rows: Rows, target: str
) -> None:
    """The batch has a row, a deletion, a rejected message, and one that PostgreSQL alone refuses. What was refused once
    for what is in it, and only once, is rejected, too, and comes by a replay."""
    stream = configure(target=target, most_rejected=1)
    warehouse, number, expected = Warehouse(store), 0, 0
    drain(store, warehouse, stream)
    struck = True
    while struck:
        number += 1
        log.extend([({"n": number}, f"k{number}"), (None, f"k{number - 1}"), (b"broken", "b")])
        log.append({"n": number}, "refused", version=2**70)
        expected += 2
        with trouble.at(number, ""):
            with suppress(Exception):
                drain(store, warehouse, stream)
            struck = bool(trouble.struck)
        drain(store, warehouse, stream)
        replay_messages(store, "orders")
        found = rows("records" if target == "upsert" else "events")
        if target == "upsert":
            assert [row["record_key"] for row in found] == [f"k{number}"], trouble.struck
        else:
            assert len(found) == len({row["message_id"] for row in found}) == expected, trouble.struck
        assert len(list_rejected(store, "orders")) == expected, trouble.struck
    assert number > 12, "there are that many statements"


FOLLOW = """
import sys
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.streams.kind import CustomStreams
store = Store.open(load_settings(), migrate=False)
print("ready", flush=True)
Session(store, sys.argv[1], CustomStreams(store)).run()
"""


def environment(store: Store, installed: Path) -> dict[str, str]:
    assert store.settings.encryption_key is not None
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(installed), str(Path(__file__).parents[3]))),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "CHURNGUARD_HOME": str(store.settings.home),
        "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
    }


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("seed", [20261126])
def test_killed_sessions_lose_double_and_alter_nothing(
    store: Store, configure: Configure, following: Following, log: Log, rows: Rows, installed: Path, seed: int
) -> None:
    configure(batch_size=7, most_rejected=1)
    configure("newest", target="upsert", batch_size=5, most_rejected=1)
    chance, sent = random.Random(seed), 0

    def send(messages: int) -> None:
        nonlocal sent
        batch: list[tuple[Any, str | None]] = []
        for _ in range(messages):
            key = f"k{chance.randrange(50)}"
            batch.append((b"poison" if sent % 11 == 3 else None if sent % 13 == 5 else {"n": sent}, key))
            sent += 1
        log.extend(batch)

    for number in range(KILLS):
        send(200)
        before = len(rows())
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOW, f"killed-{number}"], env=environment(store, installed),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            aim = before + chance.randrange(1, 150)
            wait_for(lambda aim=aim: len(rows()) >= aim)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
    poison = {f"orders/0/{number}" for number in range(sent) if number % 11 == 3}
    with following():
        wait_for(lambda: len(rows()) == sent - len(poison))
        wait_for(lambda: len(list_rejected(store, "newest")) == len(poison))
    stored = {row["message_id"]: row["extra"] for row in rows()}
    told = {
        f"orders/0/{number}": None if number % 13 == 5 else {"n": number} for number in range(sent) if number % 11 != 3
    }
    assert stored == told
    assert {each.key for each in list_rejected(store, "orders")} == poison


def test_a_refused_version_leaves_the_one_before_it(store: Store, configure: Configure, log: Log, rows: Rows) -> None:
    stream = configure(target="upsert", most_rejected=1)
    log.append({"n": 1}, "a")
    log.append({"n": 2}, "a", version=2**70)
    drain(store, Warehouse(store), stream)
    assert [row["extra"] for row in rows("records")] == [{"n": 1}]


@pytest.mark.parametrize("versions", [(3, 3, 3), (3, 3, 2), (1, 2, 2)])
@pytest.mark.parametrize("values", [(None, 1, 2), (1, None, 2), (1, 2, None)])
def test_what_is_stored_of_equal_versions_does_not_depend_on_batches(
    store: Store, configure: Configure, log: Log, rows: Rows, versions: tuple[int, ...], values: tuple[int | None, ...]
) -> None:
    """A deletion, else the last. Two topics may have a key's changes of one moment."""
    for value, version in zip(values, versions, strict=True):
        log.append(None if value is None else {"n": value}, "a", version=version)
    found = []
    for size in (1, 2, 3):
        stream = configure(f"by-{size}", target="upsert", batch_size=size)
        drain(store, Warehouse(store), stream)
        found.append([row["extra"] for row in rows("records", stream.stream_id)])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("mode", ["exactly_once", "at_most_once"])
@pytest.mark.parametrize("refused", [False, True], ids=["all fits", "one is refused"])
def test_who_is_chosen_to_break_a_circle_of_writers_writes_once_more(
    store: Store, configure: Configure, log: Log, rows: Rows, mode: str, *, refused: bool
) -> None:
    """Two partitions may have the same keys: one that stores and deletes holds some while it wants others."""
    stream = configure(target="upsert", processing_mode=mode, most_rejected=1)
    log.extend([({"n": 0}, key) for key in "abc"])
    drain(store, Warehouse(store), stream)
    log.append({"n": 1}, "a")
    if refused:
        log.append({"n": 2}, "d", version=2**70)
    log.extend([(None, "b"), (None, "c")])
    take = "UPDATE raw.custom_records SET synced_at = now() WHERE record_key = %s"
    administrator = as_administrator(store.database_url)
    with psycopg.connect(administrator) as first, psycopg.connect(administrator) as second:
        second.execute("SET deadlock_timeout = '1min'")  # it is the stream that looks for a circle first
        first.execute(take, ["b"])
        second.execute(take, ["c"])
        draining = in_thread("drain", lambda: drain(store, Warehouse(store), stream))
        wait_until_blocked(store)
        taking = in_thread("second", lambda: second.execute(take, ["a"]))
        wait_until_blocked(store, 2)
        first.commit()
        taking.result(20)
    draining.result(20)
    assert [(row["record_key"], row["extra"]) for row in rows("records")] == [("a", {"n": 1})]
    assert [each.key for each in list_rejected(store, "orders")] == (["orders/0/4"] if refused else [])


def test_of_two_readers_of_a_partition_the_later_one_gives_way(
    store: Store, configure: Configure, log: Log, rows: Rows
) -> None:
    stream = configure(batch_size=1)
    log.extend([({"n": number}, None) for number in range(3)])
    lane = Lane("acme", "orders", "orders/0")
    with opened_source(stream) as first, opened_source(stream) as second:
        readers = [
            StreamLane(store, Warehouse(store), active(store, stream), lane, source, JsonDecoder()).pump(Event())
            for source in (first, second)
        ]
        assert next(readers[0]) is not None
        assert next(readers[1]) is not None
        with pytest.raises(LaneTakenOver):
            next(readers[0])
    assert [row["extra"]["n"] for row in rows()] == [0, 1]


def test_a_reader_whose_stream_was_moved_gives_way(store: Store, configure: Configure, log: Log, rows: Rows) -> None:
    stream = configure(batch_size=1)
    log.extend([({"n": number}, None) for number in range(4)])
    lane = Lane("acme", "orders", "orders/0")
    with opened_source(stream) as source:
        reader = StreamLane(store, Warehouse(store), active(store, stream), lane, source, JsonDecoder()).pump(Event())
        next(reader)
        managing.seek(store, "orders", Seek({"orders/0": "3"}), actor="test")
        with pytest.raises(LaneTakenOver):
            next(reader)
    drain(store, Warehouse(store), stream)
    assert [row["extra"]["n"] for row in rows()] == [0, 3]


def test_a_source_is_resumed_only_when_what_it_gave_is_stored(
    store: Store, configure: Configure, log: Log, rows: Rows
) -> None:
    """Which is when it tells its own tools."""
    stream = configure(batch_size=2)
    log.extend([({"n": number}, None) for number in range(4)])
    told = log.folder / "acknowledged"
    with opened_source(stream) as source:
        lane = Lane("acme", "orders", "orders/0")
        reader = StreamLane(store, Warehouse(store), active(store, stream), lane, source, JsonDecoder()).pump(Event())
        next(reader)
        assert not told.exists()
        assert len(rows()) == 2
        next(reader)
        assert told.read_text() == "2"


def test_at_most_once_never_asks_for_a_message_again(
    trouble: Trouble, store: Store, configure: Configure, log: Log, rows: Rows
) -> None:
    """What breaks after the position has moved is lost; nothing is ever doubled or read twice."""
    stream = configure(processing_mode="at_most_once")
    warehouse, number, lost, struck = Warehouse(store), 0, 0, True
    drain(store, warehouse, stream)
    while struck:
        number += 1
        log.append({"n": number})
        with trouble.at(number, ""), suppress(Exception):
            drain(store, warehouse, stream)
        struck = bool(trouble.struck)
        moved, there = checkpoint(store) == number, number in {row["extra"]["n"] for row in rows()}
        assert moved or not there, "it is never stored first"
        lost += moved and not there
        drain(store, warehouse, stream)
        found = [row["extra"]["n"] for row in rows()]
        assert (number in found) == (there or not moved)
        assert len(found) == len(set(found)) == number - lost
    assert lost > 0
    assert there


def checkpoint(store: Store) -> int:
    with store.operator() as connection:
        found = connection.scalar(sa.text("SELECT position ->> 'line' FROM ingest.checkpoints"))
    return int(found or 0)


MESSAGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 9), st.just("poison"))), max_size=12
)


@settings(max_examples=300 if SOAK else 15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.tuples(MESSAGES, st.integers(1, 5), st.integers(0, 40)), min_size=1, max_size=5))
def test_whatever_is_sent_and_wherever_it_breaks_the_table_is_the_model(
    trouble: Trouble, store: Store, configure: Configure, log: Log, rows: Rows, rounds: list[Any]
) -> None:
    """``rounds``: messages, the size of batches, and the statement that is refused."""
    with store.operator() as connection:
        known = connection.scalar(sa.text("SELECT count(*) FROM control.streams"))
    name, topic = f"stream-{known}", f"topic-{known}/0"
    log.extend([], topic=topic)
    stream = configure(name, target="upsert", topics=[topic], most_rejected=1)
    warehouse, model, poison, at = Warehouse(store), dict[str, int](), 0, 0
    for messages, size, number in rounds:
        log.extend([(b"{" if value == "poison" else value, key) for key, value in messages], topic=topic)
        for key, value in messages:
            if value == "poison":
                poison += 1
            elif value is None:
                model.pop(key, None)
            else:
                model[key] = value
            at += 1
        sized = stream.model_copy(update={"batch_size": size})
        with trouble.at(number + 1, ""), suppress(Exception):
            read(store, warehouse, sized, topic)
        read(store, warehouse, sized, topic)
        replay_messages(store, name)
        found = {row["record_key"]: row["extra"]["value"] for row in rows("records", name)}
        assert found == model
        assert len(list_rejected(store, name)) == poison


def read(store: Store, warehouse: Warehouse, stream: StreamConfiguration, topic: str) -> None:
    with opened_source(stream) as source:
        lane = Lane(stream.organization_id, stream.stream_id, topic)
        for stored in StreamLane(store, warehouse, active(store, stream), lane, source, JsonDecoder()).pump(Event()):
            if stored is None:
                return
