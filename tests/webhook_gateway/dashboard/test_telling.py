"""Before the dashboard answers anybody it has its numbers, unless they cannot be had."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from sqlalchemy.exc import ProgrammingError
from starlette.applications import Starlette

from churnguard_pipelines.monitoring.monitor import Monitor
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator
from webhook_gateway.dashboard.telling import telling


def take_away(store: Store) -> None:
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as administrator:
        administrator.execute("ALTER TABLE ingest.sync_hours RENAME TO gone")


async def asked_as_it_begins_to_answer(store: Store, *, gone: bool) -> None:
    monitor = Monitor(store, 60)
    async with telling(store, monitor)(Starlette()):
        if not gone:
            take_away(store)
        monitor.picture()


def test_who_comes_first_waits_for_no_reading_of_numbers(store: Store) -> None:
    asyncio.run(asked_as_it_begins_to_answer(store, gone=False))


def test_a_dashboard_whose_numbers_cannot_be_read_answers_and_says_why(store: Store) -> None:
    take_away(store)
    with pytest.raises(ProgrammingError, match="sync_hours"):
        asyncio.run(asked_as_it_begins_to_answer(store, gone=True))
