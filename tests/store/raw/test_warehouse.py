"""The warehouse writer through its public face, on a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import InvalidConfiguration, LaneTakenOver
from churnguard_pipelines.records import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE,
    JSON,
    NUMERIC,
    TEXT,
    TIMESTAMP,
    Column,
    Counts,
    DeleteKind,
    Deletion,
    Drift,
    Lane,
    Rejected,
    Table,
)
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import warehouse as writing
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.blocked import wait_until_blocked

ME = "acme-stripe"
LANE = Lane("acme", ME, "customers")
CUSTOMERS = Table("stripe", "customers", "id", (Column("email", TEXT), Column("created", TIMESTAMP)))


@pytest.fixture
def warehouse(store: Store) -> Warehouse:
    made = Warehouse(store)
    made.ensure(CUSTOMERS)
    return made


def customer(key: str, version: int, email: str | None = None) -> tuple[Any, ...]:
    return (key, version, email, None, None)


def upsert(warehouse: Warehouse, *rows: tuple[Any, ...], integration: str = ME) -> Counts:
    with warehouse.transaction("acme") as transaction:
        return transaction.upsert(CUSTOMERS, integration, rows)


def delete(warehouse: Warehouse, *deletions: Deletion) -> int:
    with warehouse.transaction("acme") as transaction:
        return transaction.delete(CUSTOMERS, ME, deletions)


def delete_absent(warehouse: Warehouse, since: datetime) -> int:
    with warehouse.transaction("acme") as transaction:
        return transaction.delete_absent(CUSTOMERS, ME, since)


def stored(store: Store, columns: str = "id, email", table: str = "stripe_customers", **where: str) -> list[Any]:
    condition = " AND ".join(["true", *(f"{name} = :{name}" for name in where)])
    with store.organization("acme") as connection:
        rows = connection.execute(sa.text(f"SELECT {columns} FROM raw.{table} WHERE {condition} ORDER BY id"), where)
        return [tuple(row) for row in rows]


def test_a_row_of_every_type_comes_back_as_it_was(store: Store) -> None:
    types = (TEXT, BIGINT, NUMERIC, DOUBLE, BOOLEAN, TIMESTAMP, DATE, JSON)
    table = Table("test", "everything", "id", tuple(Column(kind.name.lower(), kind) for kind in types))
    moment = datetime(2026, 3, 29, 1, 30, 0, 123456, UTC)
    values = ("tab\there", -(2**63), Decimal("0.1000"), 0.1, True, moment, date(2024, 2, 29), '{"a": ["\\n", null]}')
    warehouse = Warehouse(store)
    warehouse.ensure(table)
    with warehouse.transaction("acme") as transaction:
        transaction.upsert(table, ME, [("k", 1, *values, '{"new": 1}'), ("nulls", 1, *([None] * len(types)), None)])
    names = ", ".join(column.name for column in table.columns)
    rows = stored(store, f"{names}, extra", "test_everything")
    assert rows == [(*values[:-1], {"a": ["\n", None]}, {"new": 1}), (None,) * (len(types) + 1)]


def test_a_newer_version_wins_and_an_older_one_changes_nothing(store: Store, warehouse: Warehouse) -> None:
    assert upsert(warehouse, customer("a", 5, "five")) == Counts(written=1)
    assert upsert(warehouse, customer("a", 4, "four")) == Counts(stale=1)
    assert upsert(warehouse, customer("a", 5, "five again"), customer("b", 1)) == Counts(written=2)
    assert stored(store) == [("a", "five again"), ("b", None)]


def test_of_several_versions_in_one_batch_the_highest_wins_and_of_equal_ones_the_last(
    store: Store, warehouse: Warehouse
) -> None:
    counts = upsert(warehouse, customer("a", 1, "1"), customer("a", 3, "3"), customer("a", 3, "3b"), customer("a", 2))
    assert counts == Counts(written=1, stale=3)
    assert stored(store) == [("a", "3b")]


def test_several_batches_and_tables_fit_into_one_transaction(store: Store, warehouse: Warehouse) -> None:
    other = Table("stripe", "coupons", "id", (Column("email", TEXT), Column("created", TIMESTAMP)))
    warehouse.ensure(other)
    with warehouse.transaction("acme") as transaction:
        transaction.upsert(CUSTOMERS, ME, [customer("a", 1)])
        transaction.upsert(other, ME, [customer("z", 1)])
        transaction.upsert(CUSTOMERS, ME, [customer("b", 1)])
        assert transaction.upsert(CUSTOMERS, ME, []) == Counts()
    assert stored(store, "id") == [("a",), ("b",)]
    assert stored(store, "id", "stripe_coupons") == [("z",)]


def test_an_error_undoes_rows_rejections_and_checkpoint_together(store: Store, warehouse: Warehouse) -> None:
    with pytest.raises(RuntimeError), warehouse.transaction("acme") as transaction:  # noqa: PT012
        transaction.upsert(CUSTOMERS, ME, [customer("a", 1)])
        transaction.reject(LANE, "customers", [Rejected("b", "bad", {})], None)
        transaction.advance(LANE, None, {"page": 1}, "acct_1")
        raise RuntimeError
    with store.organization("acme") as connection:
        assert checkpoints.load(connection, LANE) is None
        assert connection.scalar(sa.text("SELECT count(*) FROM ingest.rejected_records")) == 0
    assert stored(store) == []


def test_who_lost_the_lane_writes_nothing(store: Store, warehouse: Warehouse) -> None:
    with warehouse.transaction("acme") as transaction:
        transaction.advance(LANE, None, {"page": 1}, "acct_1")
    with pytest.raises(LaneTakenOver), warehouse.transaction("acme") as transaction:  # noqa: PT012
        transaction.upsert(CUSTOMERS, ME, [customer("a", 1)])
        transaction.advance(LANE, None, {"page": 1}, "acct_1")
    assert stored(store) == []


def test_a_deletion_stands_against_older_and_equal_versions_and_yields_to_newer_ones(
    store: Store, warehouse: Warehouse
) -> None:
    upsert(warehouse, customer("a", 5))
    assert delete(warehouse, Deletion("a", DeleteKind.HARD, 4)) == 0
    assert delete(warehouse, Deletion("a", DeleteKind.HARD, 6)) == 1
    assert delete(warehouse, Deletion("a", DeleteKind.HARD, 6)) == 0
    assert upsert(warehouse, customer("a", 5), customer("a", 6)).written == 0
    assert stored(store, "id, delete_kind") == [("a", "hard")]
    assert upsert(warehouse, customer("a", 7)).written == 1
    assert stored(store, "id, delete_kind, deleted_at") == [("a", None, None)]


def test_a_deletion_that_comes_before_its_record_keeps_it_out(store: Store, warehouse: Warehouse) -> None:
    assert delete(warehouse, Deletion("a", DeleteKind.PRIVACY, 9), Deletion("a", DeleteKind.SOFT, 8)) == 0
    assert upsert(warehouse, customer("a", 8, "too late")).stale == 1
    assert stored(store, "id, email, delete_kind") == [("a", None, "privacy")]
    assert warehouse.count("stripe_customers", "acme", ME) == 0


def test_what_a_complete_read_did_not_see_is_deleted_by_inference(store: Store, warehouse: Warehouse) -> None:
    upsert(warehouse, customer("gone", 1), customer("seen", 1), customer("seen-but-older", 9))
    upsert(warehouse, customer("elsewhere", 1), integration="another")
    since = store.now()
    upsert(warehouse, customer("seen", 1), customer("seen-but-older", 8))
    assert delete_absent(warehouse, since) == 1
    assert stored(store, "id, delete_kind") == [
        ("elsewhere", None), ("gone", "inferred"), ("seen", None), ("seen-but-older", None),
    ]  # fmt: skip
    assert delete_absent(warehouse, since) == 0
    assert upsert(warehouse, customer("gone", 1)).written == 1, "it was only absent for a moment"
    assert stored(store, "id, delete_kind", id="gone") == [("gone", None)]


@pytest.mark.parametrize(("rejected_key", "deleted"), [("rejected", ["other"]), (None, [])])
def test_a_record_that_was_rejected_is_not_absent(
    store: Store, warehouse: Warehouse, rejected_key: str | None, deleted: list[str]
) -> None:
    upsert(warehouse, customer("rejected", 1), customer("other", 1))
    since = store.now()
    with warehouse.transaction("acme") as transaction:
        transaction.reject(LANE, "customers", [Rejected(rejected_key, "does not fit", {})], None)
    assert delete_absent(warehouse, since) == len(deleted)
    assert [key for key, kind in stored(store, "id, delete_kind") if kind] == deleted


def test_a_rejection_of_an_earlier_read_or_another_object_protects_nothing(store: Store, warehouse: Warehouse) -> None:
    upsert(warehouse, customer("a", 1), customer("b", 1))
    with warehouse.transaction("acme") as transaction:
        transaction.reject(LANE, "customers", [Rejected("a", "does not fit", {})], None)
    since = store.now()
    with warehouse.transaction("acme") as transaction:
        transaction.reject(LANE, "invoices", [Rejected("b", "does not fit", {})], None)
    assert delete_absent(warehouse, since) == 2


def test_a_table_grows_by_columns_and_never_changes_a_type(store: Store, warehouse: Warehouse) -> None:
    upsert(warehouse, customer("a", 1, "kept"))
    grown = Table("stripe", "customers", "id", (Column("email", BIGINT), Column("plan", TEXT)), versioned=True)
    assert sorted(warehouse.ensure(grown), key=lambda drift: drift.column) == [
        Drift("email", "type_mismatch", "the table has text, the declaration says bigint; the table keeps its type"),
        Drift("plan", "added_column", "text"),
    ]
    assert warehouse.ensure(grown) == []
    assert [item.kind for item in Warehouse(store).ensure(grown)] == ["type_mismatch"]
    assert stored(store, "id, email, plan") == [("a", "kept", None)]


def test_processes_may_ensure_the_same_table_at_once(store: Store) -> None:
    tables = [Table("test", "race", "id", tuple(Column(f"c{i}", TEXT) for i in range(n))) for n in range(1, 9)]
    errors: list[BaseException] = []

    def work(table: Table) -> None:
        try:
            Warehouse(store).ensure(table)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[table]) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Warehouse(store).ensure(tables[-1]) == []


def test_first_syncs_that_make_one_table_after_the_other_together_do_not_collide(store: Store) -> None:
    """In long-lived connections, whose statements are prepared: what another one just made must be seen."""
    tables = [Table("test", f"together_{n}", "id", (Column("a", TEXT),), versioned=n % 2 == 0) for n in range(60)]
    together = threading.Barrier(2)
    errors: list[BaseException] = []

    def work() -> None:
        warehouse = Warehouse(store)
        for table in tables:
            together.wait()
            try:
                warehouse.ensure(table)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("columns", [["extra"], ["id"], ["twice", "twice"], ["x" * 64], ["valid_to"]])
def test_names_that_collide_or_are_too_long_are_refused(warehouse: Warehouse, columns: list[str]) -> None:
    with pytest.raises(InvalidConfiguration, match=columns[0]):
        warehouse.ensure(Table("test", "names", "id", tuple(Column(name, TEXT) for name in columns)))


def test_any_other_name_is_taken_literally(store: Store) -> None:
    table = Table("test", 'we"ird %s', 'the "key"', (Column('%(a)s; "', TEXT), Column("50 %", JSON)), versioned=True)
    warehouse = Warehouse(store)
    warehouse.ensure(table)
    with warehouse.transaction("acme") as transaction:
        transaction.upsert(table, ME, [("a", 1, "x", "[]", None)])
        transaction.delete(table, ME, [Deletion("a", DeleteKind.HARD, 2)])
        transaction.delete_absent(table, ME, store.now())
    assert warehouse.count("test_" + 'we"ird %s', "acme", ME) == 0
    assert Warehouse(store).ensure(table) == []


def test_a_table_that_does_not_exist_counts_as_empty(warehouse: Warehouse) -> None:
    assert warehouse.count("stripe_nothing", "acme", ME) == 0


def test_writers_of_the_same_rows_in_opposite_orders_do_not_lock_each_other_out(warehouse: Warehouse) -> None:
    rows = [customer(f"k{number:03}", 1) for number in range(200)]
    errors: list[BaseException] = []

    def work(mine: list[tuple[Any, ...]]) -> None:
        try:
            for _ in range(30):
                upsert(warehouse, *mine)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[order]) for order in (rows, rows[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_deletions_of_known_and_unknown_records_hold_none_of_them_while_they_wait_for_one_before(
    store: Store, warehouse: Warehouse
) -> None:
    """Or whoever has the one and wants the other next would wait in a circle."""
    upsert(warehouse, customer("known", 1))
    with warehouse.transaction("acme") as other:
        other.upsert(CUSTOMERS, ME, [customer("a new one", 2)])
        gone = [Deletion(key, DeleteKind.HARD, 3) for key in ("known", "a new one")]
        deleting = in_thread("delete", lambda: delete(warehouse, *gone))
        wait_until_blocked(store)
        other.upsert(CUSTOMERS, ME, [customer("known", 2)])
    assert deleting.result(20) == 1
    assert stored(store, "id, source_version, delete_kind") == [("a new one", 3, "hard"), ("known", 3, "hard")]


# A register per key: the reference for everything above.
Step = tuple[str, str, int, int]  # (upsert | delete, key, version, content)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "upsert", "delete"]), st.sampled_from("abc"), st.integers(1, 6), st.integers(0, 3)
    ),
    max_size=12,
)


class Register:
    """What the newest word about a key is: (version, content, deleted explicitly?)."""

    def __init__(self) -> None:
        self.words: dict[str, tuple[int, int | None]] = {}

    def hear(self, key: str, version: int, content: int | None) -> None:
        known = self.words.get(key)
        if known is None or version > known[0] or (version == known[0] and known[1] is not None):
            self.words[key] = (version, content)


def batches(steps: list[Step]) -> Iterator[list[Step]]:
    """Neighbours of one kind go into one call."""
    group: list[Step] = []
    for step in steps:
        if group and group[-1][0] != step[0]:
            yield group
            group = []
        group.append(step)
    if group:
        yield group


@pytest.mark.parametrize("large", [1, writing.LARGE_BATCH])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
def test_any_sequence_of_writes_leaves_what_the_newest_word_says(
    store: Store, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, large: int, steps: list[Step]
) -> None:
    monkeypatch.setattr(writing, "LARGE_BATCH", large)
    with store.organization("acme") as connection:
        connection.execute(sa.text("DELETE FROM raw.stripe_customers"))
    register = Register()
    for group in batches(steps):
        if group[0][0] == "upsert":
            upsert(warehouse, *(customer(key, version, str(content)) for _, key, version, content in group))
            words: list[tuple[str, int, int | None]] = [(key, version, content) for _, key, version, content in group]
        else:
            delete(warehouse, *(Deletion(key, DeleteKind.HARD, version) for _, key, version, _ in group))
            words = [(key, version, None) for _, key, version, _ in group]
        for word in sorted(words, key=lambda item: item[1]):
            register.hear(*word)
    found = {
        key: (version, None if deleted else int(email))
        for key, version, email, deleted in stored(store, "id, source_version, email, deleted_at IS NOT NULL")
    }
    assert found == register.words
