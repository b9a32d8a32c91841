"""Whoever waits for a commit hears how it ended, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.database import Store
from tests.blocked import wait_until_blocked
from tests.webhook_gateway.intake.test_inbox_writer import end_connections, end_writers, nobody_may_store, row, stored
from webhook_gateway.intake.committer import CannotStore, Committer, Unstorable
from webhook_gateway.intake.inbox_writer import Row


@pytest.fixture(autouse=True)
def _days(store: Store) -> None:
    inbox.keep_partitions(store)


def test_who_is_being_stored_and_who_waits_hear_that_the_gateway_stops(store: Store) -> None:
    async def stopped() -> list[int | BaseException]:
        committer = Committer(store.database_url)
        working = asyncio.create_task(committer.work())
        await committer.store([row("evt_0")])
        with nobody_may_store(store):
            asked = [committer.store([row("evt_1")])]
            await asyncio.to_thread(wait_until_blocked, store)
            asked.append(committer.store([row("evt_2")]))
            working.cancel()
            async with asyncio.timeout(20):
                return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(each) for each in asyncio.run(stopped())] == [CannotStore, CannotStore]


@pytest.mark.parametrize("end", [end_connections, end_writers], ids=["between commits", "under a statement"])
def test_a_connection_that_the_server_ends_costs_nothing(store: Store, end: Callable[[Store], None]) -> None:
    async def go_on() -> list[int]:
        committer = Committer(store.database_url)
        working = asyncio.create_task(committer.work())
        fresh = [await committer.store([row("evt_1")])]
        if end is end_writers:
            with nobody_may_store(store):
                asked = committer.store([row("evt_2")])
                await asyncio.to_thread(end, store)
        else:
            await asyncio.to_thread(end, store)
            asked = committer.store([row("evt_2")])
        async with asyncio.timeout(20):
            fresh.append(await asked)
        working.cancel()
        return fresh

    assert asyncio.run(go_on()) == [1, 1]
    assert [each[4] for each in stored(store)] == ["evt_1", "evt_2"]


def test_what_can_never_be_stored_costs_those_beside_it_nothing(store: Store) -> None:
    async def together() -> list[int | BaseException]:
        committer = Committer(store.database_url)
        asked = [committer.store([row("evt_1")]), committer.store([row("evt_2", payload="\0")])]
        asked += [committer.store([row("evt_1"), row("evt_3")])]
        working = asyncio.create_task(committer.work())
        async with asyncio.timeout(20):
            ended = await asyncio.gather(*asked, return_exceptions=True)
        working.cancel()
        return ended

    first, second, third = asyncio.run(together())
    assert (first, type(second), third) == (1, Unstorable, 1)
    assert [each[4] for each in stored(store)] == ["evt_1", "evt_3"]


def test_sessions_are_told_of_what_is_new_and_only_of_that(store: Store) -> None:
    def of(integration_id: str, event_id: str) -> Row:
        return ("acme", "stripe", integration_id, "endpoint", event_id, "customer.updated", "", "{}")

    async def told() -> list[set[str]]:
        """Which integrations, up to the one that has the last event, of one delivery, then of two."""
        committer, seen = Committer(store.database_url), []
        working = asyncio.create_task(committer.work())
        async with await psycopg.AsyncConnection.connect(store.database_url, autocommit=True) as listening:
            await listening.execute(f"LISTEN {inbox.CHANNEL}")
            for deliveries in ([of("a", "evt_1")], [of("a", "evt_1"), of("b", "evt_2")]):
                for each in deliveries:
                    await committer.store([each])
                told: set[str] = set()
                async with asyncio.timeout(20):
                    async for notified in listening.notifies():
                        told.add(notified.payload)
                        if notified.payload == deliveries[-1][2]:
                            break
                seen.append(told)
        working.cancel()
        return seen

    assert asyncio.run(told()) == [{"a"}, {"b"}]
