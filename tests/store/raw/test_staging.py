"""Staging tables: a connection keeps few of them, however many tables are stored through it, and each begins empty."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import BIGINT, Column, Table
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.staging import MOST_KEPT
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction

TABLES = [Table("shop", f"things_{number}", "id", (Column(f"seats_{number}", BIGINT),)) for number in range(5)]
_STAGED = sa.text("SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'")


class Undone(Exception):
    pass


def warehouse_of(store: Store) -> Warehouse:
    warehouse = Warehouse(store)
    for table in TABLES:
        warehouse.ensure(table)
    return warehouse


def put(transaction: WarehouseTransaction, table: Table, *keys: str) -> int:
    return transaction.upsert(table, "acme-shop", [(key, 1, 7, None) for key in keys]).written


def use_others_and_fail(transaction: WarehouseTransaction) -> None:
    for table in TABLES[1:]:
        put(transaction, table, "undone")
    raise Undone


def keys_of(connection: Connection, table: Table) -> Sequence[str]:
    return connection.exec_driver_sql(f"SELECT id FROM raw.{table.name} ORDER BY id").scalars().all()


def test_a_connection_keeps_the_last_few(store: Store, organization: Organization) -> None:
    warehouse = warehouse_of(store)
    for number, table in enumerate(TABLES * 2):
        with warehouse.transaction("acme") as transaction:
            assert put(transaction, table, f"k{number}") == 1
            assert transaction.connection.execute(_STAGED).scalar_one() <= MOST_KEPT
    with store.organization("acme") as connection:
        assert [keys_of(connection, table) for table in TABLES] == [[f"k{n}", f"k{n + 5}"] for n in range(5)]


def test_one_that_went_in_a_transaction_comes_back_empty_in_it(store: Store, organization: Organization) -> None:
    with warehouse_of(store).transaction("acme") as transaction:
        assert [put(transaction, table, "first") for table in (*TABLES, TABLES[0])] == [1] * 6
        assert put(transaction, TABLES[0], "second", "third") == 2
        assert keys_of(transaction.connection, TABLES[0]) == ["first", "second", "third"]


def test_one_whose_going_is_undone_begins_empty_too(store: Store, organization: Organization) -> None:
    with warehouse_of(store).transaction("acme") as transaction:
        put(transaction, TABLES[0], "first")
        with suppress(Undone), transaction.attempt():
            use_others_and_fail(transaction)
        assert put(transaction, TABLES[0], "second") == 1, "the first would have been stored once more"
        assert [keys_of(transaction.connection, table) for table in TABLES] == [["first", "second"], [], [], [], []]


@pytest.mark.parametrize("whole", [True, False])
def test_one_whose_going_is_undone_goes_later(store: Store, organization: Organization, whole: bool) -> None:
    """Whether all of a transaction is undone or a part of it."""
    warehouse = warehouse_of(store)
    with warehouse.transaction("acme") as transaction:
        put(transaction, TABLES[0], "first")
    with suppress(Undone), warehouse.transaction("acme") as transaction:
        if whole:
            use_others_and_fail(transaction)
        with suppress(Undone), transaction.attempt():
            use_others_and_fail(transaction)
    for table in TABLES[3:]:
        with warehouse.transaction("acme") as transaction:
            put(transaction, table, "later")
            assert transaction.connection.execute(_STAGED).scalar_one() <= MOST_KEPT
