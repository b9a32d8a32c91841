"""What is stored is what was given, to the character; what cannot be is refused, and what breaks is said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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


def written(store: Store, work: Callable[[InboxWriter], Awaitable[Made]]) -> Made:
    async def run() -> Made:
        writer = await InboxWriter.connect(store.database_url, 20)
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


def test_a_connection_that_was_ended_says_so(store: Store) -> None:
    async def ended(writer: InboxWriter) -> bool:
        with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(psycopg.OperationalError):
            await writer.take([row("evt_1")])
        return writer.closed

    assert written(store, ended)
    assert stored(store) == []
