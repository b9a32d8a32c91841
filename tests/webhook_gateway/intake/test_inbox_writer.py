"""What is stored is what was given, to the character; what cannot be is refused, and what breaks is said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import psycopg
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from webhook_gateway.intake.inbox_writer import InboxWriter, Row

Made = TypeVar("Made")
STORED = "SELECT organization_id, provider, integration_id, endpoint_id, event_id, event_type, entity, payload "
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def row(event_id: str, *, entity: str = "customer:1", payload: str = "{}") -> Row:
    return ("acme", "stripe", "acme-stripe", "endpoint", event_id, "customer.updated", entity, payload)


def written(store: Store, work: Callable[[InboxWriter], Awaitable[Made]], statement_seconds: float = 20) -> Made:
    async def run() -> Made:
        writer = await InboxWriter.connect(store.database_url, statement_seconds)
        try:
            return await work(writer)
        finally:
            await writer.close()

    return uvloop.run(run())


def stored(store: Store) -> list[Row]:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        return connection.execute(f"{STORED} FROM ingest.webhook_inbox ORDER BY sequence").fetchall()


@pytest.fixture(autouse=True)
def _days(store: Store) -> None:
    inbox.keep_partitions(store)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=8, unique_by=lambda each: each[0]))
def test_every_text_arrives_as_it_is_and_once(store: Store, given: list[tuple[str, str, str]]) -> None:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("TRUNCATE ingest.webhook_inbox, ingest.webhook_seen")
    rows = [row(event_id, entity=entity, payload=payload) for event_id, entity, payload in given]

    async def twice(writer: InboxWriter) -> tuple[int, set[str]]:
        return len(await writer.take(rows)), {event_id for _, _, event_id in await writer.take(rows)}

    assert written(store, twice) == (0, {event_id for event_id, _, _ in given})
    assert stored(store) == rows


def test_nothing_is_stored_of_nothing(store: Store) -> None:
    assert written(store, lambda writer: writer.take([])) == []
    assert stored(store) == []


def test_more_than_a_socket_holds_arrives_whole(store: Store) -> None:
    rows = [row(f"evt_{number}", payload=f'"{"x" * 2**20}{number}"') for number in range(16)]
    assert written(store, lambda writer: writer.take(rows)) == []
    assert stored(store) == rows


@pytest.mark.parametrize("payload", ["\0", "\ud800"], ids=["zero", "half of a pair"])
def test_what_is_no_text_is_refused_and_the_next_one_is_stored(store: Store, payload: str) -> None:
    async def both(writer: InboxWriter) -> None:
        with pytest.raises(psycopg.DataError):
            await writer.take([row("evt_1", payload=payload)])
        await writer.take([row("evt_2")])

    written(store, both)
    assert stored(store) == [row("evt_2")]


@contextmanager
def nobody_may_store(store: Store) -> Iterator[None]:
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        connection.execute("SELECT FROM ingest.inbox_slots FOR UPDATE")
        yield


def end_connections(store: Store) -> None:
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_what_takes_too_long_is_not_stored_and_the_connection_goes_on(store: Store) -> None:
    async def late(writer: InboxWriter) -> None:
        with nobody_may_store(store), pytest.raises(psycopg.errors.QueryCanceled):
            await writer.take([row("evt_1")])
        assert not writer.closed
        await writer.take([row("evt_2")])

    written(store, late, statement_seconds=0.2)
    assert stored(store) == [row("evt_2")]


@pytest.mark.parametrize("size", [1, 2**24], ids=["sent", "half sent"])
def test_who_gives_up_waiting_leaves_nothing_behind_and_the_next_connection_stores_it_once(
    store: Store, size: int
) -> None:
    rows = [row("evt_1", payload=f'"{"x" * size}"')]

    async def given_up(writer: InboxWriter) -> None:
        with nobody_may_store(store):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await writer.take(rows)
            await writer.close()
        second = await InboxWriter.connect(store.database_url, 20)
        await second.take(rows)
        assert [event_id for _, _, event_id in await second.take(rows)] == ["evt_1"]
        await second.close()

    written(store, given_up)
    assert stored(store) == rows


def test_a_connection_that_is_ended_under_a_statement_says_so(store: Store) -> None:
    async def ended(writer: InboxWriter) -> None:
        with nobody_may_store(store):
            waiting = asyncio.ensure_future(writer.take([row("evt_1")]))
            await asyncio.sleep(0)
            await asyncio.to_thread(end_writers, store)
            with pytest.raises(psycopg.OperationalError):
                await waiting

    written(store, ended)
    assert stored(store) == []


def end_writers(store: Store) -> None:
    """Once one waits."""
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        ended: list[tuple[object, ...]] = []
        while not ended:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchall()


def test_the_number_of_a_socket_that_libpq_has_closed_is_left_to_whoever_has_it_next(store: Store) -> None:
    async def next_ones(writer: InboxWriter) -> None:
        end_connections(store)
        while not writer.closed:  # noqa: ASYNC110 - nobody else tells of it
            await asyncio.sleep(0.01)
        loop, heard = asyncio.get_running_loop(), asyncio.Semaphore(0)
        with ExitStack() as opened:  # one of them has it: it is the lowest that is free
            pairs = [tuple(map(opened.enter_context, socket.socketpair())) for _ in range(8)]
            for pair in pairs:
                for each in pair:
                    loop.add_reader(each, hears, loop, each, heard)
            await writer.close()
            for one, other in pairs:
                one.send(b"x")
                other.send(b"x")
            async with asyncio.timeout(10):
                for _ in range(2 * len(pairs)):
                    await heard.acquire()

    written(store, next_ones)


def hears(loop: asyncio.AbstractEventLoop, one: socket.socket, heard: asyncio.Semaphore) -> None:
    one.recv(1)
    loop.remove_reader(one)
    heard.release()


def test_a_connection_that_was_ended_says_so(store: Store) -> None:
    async def ended(writer: InboxWriter) -> bool:
        end_connections(store)
        with pytest.raises(psycopg.OperationalError):
            await writer.take([row("evt_1")])
        return writer.closed

    assert written(store, ended)
    assert stored(store) == []
