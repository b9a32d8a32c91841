"""The versions of a record: what was true when, by the source's clock."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.records import JSON, TEXT, Column, DeleteKind, Deletion, Table
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse

ME = "acme-stripe"
SUBSCRIPTIONS = Table("stripe", "subscriptions", "id", (Column("status", TEXT), Column("items", JSON)), versioned=True)
Interval = tuple[str, str | None, int, int | None, str | None]  # key, status, from, to, how it was deleted


class Subscriptions:
    """Writes and reads in the test's own terms: one letter says what a record holds; moments are milliseconds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.warehouse = Warehouse(store)
        self.warehouse.ensure(SUBSCRIPTIONS)

    def upsert(self, *records: tuple[str, int, str]) -> None:
        rows = [(key, version, status, f'["{status}"]', None) for key, version, status in records]
        with self.warehouse.transaction("acme") as transaction:
            transaction.upsert(SUBSCRIPTIONS, ME, rows)

    def delete(self, key: str, version: int) -> None:
        with self.warehouse.transaction("acme") as transaction:
            transaction.delete(SUBSCRIPTIONS, ME, [Deletion(key, DeleteKind.HARD, version)])

    def delete_absent(self) -> None:
        with self.warehouse.transaction("acme") as transaction:
            transaction.delete_absent(SUBSCRIPTIONS, ME, self.store.now())

    def clear(self) -> None:
        with self.store.organization("acme") as connection:
            connection.execute(sa.text("DELETE FROM raw.stripe_subscriptions"))
            connection.execute(sa.text("DELETE FROM raw.stripe_subscriptions_versions"))

    def versions(self) -> list[Interval]:
        columns = "id, status, valid_from, valid_to, delete_kind"
        rows = self._rows(f"SELECT {columns} FROM raw.stripe_subscriptions_versions ORDER BY id, valid_from")
        return [
            (key, status, milliseconds(start), None if end is None else milliseconds(end), kind)
            for key, status, start, end, kind in rows
        ]

    def current(self) -> dict[str, str]:
        rows = self._rows("SELECT id, status FROM raw.stripe_subscriptions WHERE deleted_at IS NULL")
        return dict(tuple(row) for row in rows)

    def _rows(self, statement: str) -> list[Any]:
        with self.store.organization("acme") as connection:
            return list(connection.execute(sa.text(statement)))


def milliseconds(moment: datetime) -> int:
    return round((moment - datetime.fromtimestamp(0, UTC)) / timedelta(milliseconds=1))


@pytest.fixture
def subscriptions(store: Store) -> Subscriptions:
    return Subscriptions(store)


def test_a_change_closes_the_version_before_it(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 10, "trialing"))
    subscriptions.upsert(("s", 20, "active"))
    assert subscriptions.versions() == [("s", "trialing", 10, 20, None), ("s", "active", 20, None, None)]


def test_seeing_the_same_content_again_adds_nothing(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 10, "active"))
    subscriptions.upsert(("s", 20, "active"))
    assert subscriptions.versions() == [("s", "active", 10, None, None)]


def test_all_versions_of_one_batch_are_kept_in_order(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 30, "canceled"), ("s", 10, "trialing"), ("t", 5, "active"), ("s", 20, "active"))
    assert subscriptions.versions() == [
        ("s", "trialing", 10, 20, None), ("s", "active", 20, 30, None), ("s", "canceled", 30, None, None),
        ("t", "active", 5, None, None),
    ]  # fmt: skip
    assert subscriptions.current() == {"s": "canceled", "t": "active"}


def test_of_two_records_of_one_moment_the_last_counts(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 10, "trialing"), ("s", 10, "active"))
    assert subscriptions.versions() == [("s", "active", 10, None, None)]


def test_an_older_version_takes_its_place_and_swallows_an_equal_one(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 10, "trialing"))
    subscriptions.upsert(("s", 30, "active"))
    subscriptions.upsert(("s", 20, "past_due"))
    subscriptions.upsert(("s", 5, "incomplete"))
    assert [version[1:4] for version in subscriptions.versions()] == [
        ("incomplete", 5, 10), ("trialing", 10, 20), ("past_due", 20, 30), ("active", 30, None),
    ]  # fmt: skip
    subscriptions.upsert(("s", 25, "active"))
    assert [version[1:4] for version in subscriptions.versions()][2:] == [("past_due", 20, 25), ("active", 25, None)]
    assert subscriptions.current() == {"s": "active"}


def test_a_late_version_that_contradicts_a_newer_sighting_is_left_out(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 10, "active"))
    subscriptions.upsert(("s", 30, "active"))  # still active at 30
    subscriptions.upsert(("s", 20, "paused"))
    assert subscriptions.versions() == [("s", "active", 10, None, None)]


def test_a_deletion_closes_the_open_version_and_a_return_opens_another(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 10, "active"))
    subscriptions.delete("s", 20)
    assert subscriptions.versions() == [("s", "active", 10, 20, "hard")]
    subscriptions.upsert(("s", 15, "paused"))  # older than the deletion
    subscriptions.upsert(("s", 30, "active"))
    assert subscriptions.versions() == [("s", "active", 10, 20, "hard"), ("s", "active", 30, None, None)]


def test_absence_closes_the_version_when_the_record_was_last_seen(subscriptions: Subscriptions) -> None:
    subscriptions.upsert(("s", 10, "active"))
    subscriptions.upsert(("s", 40, "active"))
    subscriptions.delete_absent()
    assert subscriptions.versions() == [("s", "active", 10, 40, "inferred")]
    subscriptions.upsert(("s", 40, "active"))
    assert subscriptions.versions() == [("s", "active", 10, 40, "inferred"), ("s", "active", 40, None, None)]


@dataclass
class Word:
    kind: str
    key: str
    moment: int
    content: str


WORDS = st.lists(
    st.builds(
        Word, st.sampled_from(["upsert", "upsert", "upsert", "delete", "absent"]), st.sampled_from("st"),
        st.integers(1, 9), st.sampled_from("ABC"),
    ),
    max_size=14,
)  # fmt: skip


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=WORDS, batch=st.booleans())
def test_whatever_arrives_in_whatever_order_the_versions_stay_a_history(
    subscriptions: Subscriptions, words: list[Word], batch: bool
) -> None:
    subscriptions.clear()
    if batch:
        subscriptions.upsert(*((word.key, word.moment, word.content) for word in words if word.kind == "upsert"))
    for word in words:
        if word.kind == "upsert":
            subscriptions.upsert((word.key, word.moment, word.content))
        elif word.kind == "delete":
            subscriptions.delete(word.key, word.moment)
        else:
            subscriptions.delete_absent()
    versions = subscriptions.versions()
    for earlier, later in itertools.pairwise(versions):
        if earlier[0] == later[0]:
            assert earlier[3] is not None, "only the last version of a key may be open"
            assert earlier[2] <= earlier[3] <= later[2], "versions do not overlap"
            assert earlier[4] or earlier[3] == later[2], "no gap but a deletion's"
            assert earlier[4] or later[4] or earlier[1] != later[1], "what says the same is one version"
    open_versions = {key: status for key, status, _, end, _ in versions if end is None}
    assert open_versions == subscriptions.current(), "what is open is what the raw table holds"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=WORDS)
def test_changes_in_their_order_are_all_in_the_history(subscriptions: Subscriptions, words: list[Word]) -> None:
    subscriptions.clear()
    expected: list[Interval] = []
    for moment, word in enumerate(words, start=1):
        opened = next((i for i, item in enumerate(expected) if item[0] == word.key and item[3] is None), None)
        if word.kind == "upsert":
            subscriptions.upsert((word.key, moment, word.content))
            if opened is not None and expected[opened][1] == word.content:
                continue
            if opened is not None:
                expected[opened] = (*expected[opened][:3], moment, None)
            expected.append((word.key, word.content, moment, None, None))
        elif word.kind == "delete":
            subscriptions.delete(word.key, moment)
            if opened is not None:
                expected[opened] = (*expected[opened][:3], moment, "hard")
    assert subscriptions.versions() == sorted(expected, key=lambda item: (item[0], item[2]))
