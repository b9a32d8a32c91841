"""Rows that never change: each is stored once, whoever brings it again."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.records import TEXT, Column, Counts, Table
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse

EVENTS = Table("kafka", "events", "message_id", (Column("message_key", TEXT),))
FIRST, SECOND = ("orders/0/1", 1, "a", '{"n": 1}'), ("orders/0/2", 2, "b", '{"n": 2}')


@pytest.fixture
def warehouse(store: Store) -> Warehouse:
    made = Warehouse(store)
    made.ensure(EVENTS)
    return made


def append(warehouse: Warehouse, *rows: tuple[object, ...], new: bool = False) -> Counts:
    with warehouse.transaction("acme") as transaction:
        return transaction.append(EVENTS, "orders", rows, new=new)


def stored(store: Store) -> list[tuple[str, str]]:
    with store.organization("acme") as connection:
        found = connection.execute(sa.text("SELECT message_id, message_key FROM raw.kafka_events ORDER BY 1"))
        return [tuple(row) for row in found]


def test_what_is_there_already_stays_as_it_is(store: Store, warehouse: Warehouse) -> None:
    assert append(warehouse, FIRST) == Counts(written=1)
    changed = (*FIRST[:2], "another key", '{"n": 1}')
    assert append(warehouse, changed, SECOND) == Counts(written=1, stale=1)
    assert stored(store) == [("orders/0/1", "a"), ("orders/0/2", "b")]


def test_what_was_thought_to_be_new_and_is_not_is_told_and_nothing_of_it_is_stored(
    store: Store, warehouse: Warehouse
) -> None:
    assert append(warehouse, FIRST, new=True) == Counts(written=1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        append(warehouse, SECOND, FIRST, new=True)
    assert stored(store) == [("orders/0/1", "a")]
