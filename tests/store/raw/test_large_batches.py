"""Large batches: rows that are all new are inserted without a look at each for a conflict, and nothing else changes.
Whatever is written, keys are looked up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import BIGINT, Column, Counts, DeleteKind, Deletion, Table
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.copy_text import Row
from churnguard_pipelines.store.raw.warehouse import LARGE_BATCH, Warehouse, WarehouseTransaction
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator

THINGS = Table("shop", "things", "id", (Column("seats", BIGINT),))
KEPT = Table("shop", "kept", "id", (Column("seats", BIGINT),), versioned=True)
MANY = range(LARGE_BATCH)
ME = "acme-shop"
_ENTRIES_READ = sa.text(
    "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class "
    "WHERE relnamespace = 'raw'::regnamespace AND relname LIKE 'shop\\_%'"
)


@pytest.fixture
def warehouse(store: Store, organization: Organization) -> Warehouse:
    made = Warehouse(store)
    made.ensure(THINGS)
    return made


def rows(version: int, seats: int, numbers: range = MANY) -> list[Row]:
    return [(f"k{number:05}", version, seats, None) for number in numbers]


def upsert(warehouse: Warehouse, *batch: Row) -> Counts:
    with warehouse.transaction("acme") as transaction:
        return transaction.upsert(THINGS, ME, batch)


def stored(store: Store) -> dict[str, tuple[int, int | None]]:
    with store.organization("acme") as connection:
        found = connection.execute(sa.text("SELECT id, source_version, seats FROM raw.shop_things"))
        return {key: (version, seats) for key, version, seats in found}


def beside(write: Callable[[], Counts], store: Store) -> Future[Counts]:
    """``write`` in a thread of its own, which waits for a lock by now."""
    written = in_thread("beside", write)
    wait_until_blocked(store)
    return written


Write = Callable[[WarehouseTransaction, int], object]


def entries_read(warehouse: Warehouse, write: Write, number: int) -> int:
    """Of tables and their indexes, while ``write`` is at work."""
    with warehouse.transaction("acme") as transaction:
        before: int = transaction.connection.execute(_ENTRIES_READ).scalar_one()
        write(transaction, number)
        after: int = transaction.connection.execute(_ENTRIES_READ).scalar_one()
    return after - before


def store_new(writer: WarehouseTransaction, first: int) -> None:
    writer.upsert(THINGS, ME, rows(1, 5, range(first, first + LARGE_BATCH)))


def store_old_version(writer: WarehouseTransaction, number: int) -> None:
    writer.upsert(THINGS, ME, rows(1, 5, range(number, number + 1)))


def delete_one(writer: WarehouseTransaction, number: int) -> None:
    writer.delete(THINGS, ME, [Deletion(f"k{number:05}", DeleteKind.HARD, 5)])


def test_new_rows_then_newer_and_older_ones_then_a_mixture(store: Store, warehouse: Warehouse) -> None:
    assert upsert(warehouse, *rows(2, 5)) == Counts(written=LARGE_BATCH)
    assert upsert(warehouse, *rows(3, 6)) == Counts(written=LARGE_BATCH)
    assert upsert(warehouse, *rows(1, 7)) == Counts(stale=LARGE_BATCH)
    half = LARGE_BATCH // 2
    assert upsert(warehouse, *rows(1, 8, range(half, half + LARGE_BATCH))) == Counts(written=half, stale=half)
    expected = {f"k{number:05}": (3, 6) if number < LARGE_BATCH else (1, 8) for number in range(half + LARGE_BATCH)}
    assert stored(store) == expected


def test_one_that_is_there_in_an_older_version_is_among_many_new_ones(store: Store, warehouse: Warehouse) -> None:
    last = MANY[-1]
    upsert(warehouse, *rows(1, 5, range(last, last + 1)))
    assert upsert(warehouse, *rows(2, 6)) == Counts(written=LARGE_BATCH)
    assert stored(store) == {f"k{number:05}": (2, 6) for number in MANY}


def test_a_deletion_that_came_first_keeps_its_record_out(store: Store, warehouse: Warehouse) -> None:
    with warehouse.transaction("acme") as transaction:
        transaction.delete(THINGS, ME, [Deletion("k00007", DeleteKind.HARD, 5)])
    assert upsert(warehouse, *rows(4, 6)) == Counts(written=LARGE_BATCH - 1, stale=1)
    assert stored(store)["k00007"] == (5, None)


def test_another_integration_and_another_organization_do_not_count(store: Store, warehouse: Warehouse) -> None:
    upsert(warehouse, *rows(1, 5))
    with warehouse.transaction("acme") as transaction:
        assert transaction.upsert(THINGS, "acme-other", rows(1, 6)) == Counts(written=LARGE_BATCH)
    with warehouse.transaction("globex") as transaction:
        assert transaction.upsert(THINGS, ME, rows(1, 7)) == Counts(written=LARGE_BATCH)


@pytest.mark.parametrize(("version", "expected"), [(1, Counts(written=LARGE_BATCH - 1, stale=1)),
                                                   (3, Counts(written=LARGE_BATCH))])  # fmt: skip
def test_who_meets_another_writer_of_a_new_row_waits_and_the_newest_version_wins(
    store: Store, warehouse: Warehouse, version: int, expected: Counts
) -> None:
    """Neither sees the other's row when it looks; the unique index does."""
    with warehouse.transaction("acme") as other:
        other.upsert(THINGS, ME, rows(2, 5, range(7, 8)))
        second = beside(lambda: upsert(warehouse, *rows(version, 6)), store)
    assert second.result(20) == expected
    assert stored(store) == {f"k{number:05}": (version, 6) for number in MANY} | {"k00007": max((2, 5), (version, 6))}


def test_a_writer_that_is_met_and_undone_leaves_all_rows_new(store: Store, warehouse: Warehouse) -> None:
    with warehouse.transaction("acme") as other:
        other.upsert(THINGS, ME, rows(2, 5, range(7, 8)))
        second = beside(lambda: upsert(warehouse, *rows(1, 6)), store)
        other.connection.rollback()
    assert second.result(20) == Counts(written=LARGE_BATCH)
    assert stored(store) == {f"k{number:05}": (1, 6) for number in MANY}


@pytest.mark.parametrize("others", [0, 1000])
def test_keys_are_looked_up_and_the_table_is_not_read(store: Store, warehouse: Warehouse, others: int) -> None:
    """Whatever PostgreSQL believes: that the table is small, as it was when it was last looked at or a statement was
    prepared, or that an integration has a row or two."""
    with store.organization("acme") as connection:
        connection.execute(
            sa.text(
                "INSERT INTO raw.shop_things (organization_id, integration_id, id, source_version, synced_at) "
                "SELECT 'acme', 'other-' || number, 'k', 1, now() FROM generate_series(1, :others) AS number"
            ),
            {"others": others},
        )
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute("ANALYZE raw.shop_things")
    for _ in range(12):
        upsert(warehouse, *rows(1, 5))
    entries = 0
    batches = 40
    for start in range(LARGE_BATCH, batches * LARGE_BATCH, LARGE_BATCH):
        entries += entries_read(warehouse, store_new, start)
    assert entries < batches * LARGE_BATCH


@pytest.mark.parametrize("write", [store_old_version, delete_one])
def test_so_they_are_for_what_comes_after_many_rows(store: Store, warehouse: Warehouse, write: Write) -> None:
    upsert(warehouse, *rows(2, 5, range(100)))
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute("ANALYZE raw.shop_things")
    for number in range(12):
        entries_read(warehouse, write, number)
    upsert(warehouse, *rows(2, 5, range(100, 5000)))
    assert entries_read(warehouse, write, 2500) < 50


def close_version(writer: WarehouseTransaction, number: int) -> None:
    writer.delete(KEPT, ME, [Deletion(f"k{number:05}", DeleteKind.HARD, 5)])


def test_so_they_are_for_versions_that_end(store: Store, warehouse: Warehouse) -> None:
    warehouse.ensure(KEPT)
    with warehouse.transaction("acme") as transaction:
        transaction.upsert(KEPT, ME, rows(2, 5, range(100)))
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute("ANALYZE raw.shop_kept, raw.shop_kept_versions")
    for number in range(12):
        entries_read(warehouse, close_version, number)
    with warehouse.transaction("acme") as transaction:
        transaction.upsert(KEPT, ME, rows(2, 5, range(100, 3000)))
    assert entries_read(warehouse, close_version, 2500) < 100
