"""The pump: whatever a source does, what is stored is exactly what it gave, and the checkpoint says how far."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import timedelta
from threading import Event
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.engine.pump import READ_AHEAD, Pump
from churnguard_pipelines.errors import LaneTakenOver
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, Organization
from churnguard_pipelines.records import (
    BIGINT,
    TEXT,
    Batch,
    Checkpoint,
    Column,
    Counts,
    DeleteKind,
    Deletion,
    Lane,
    Record,
    Table,
)
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.ingest import checkpoints, ledger, rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator, configuration

THINGS = Table("test", "things", "id", (Column("name", TEXT), Column("amount", BIGINT)))
SOURCE = "acct_1"

_numbers = itertools.count(1)


class Outage(Exception):
    """What a source raises when its provider is gone."""


def thing(number: int, **fields: Any) -> Record:
    return Record({"id": f"thing-{number:04}", "name": f"thing {number}", "amount": number} | fields, version=number)


def source(sizes: Sequence[int], position: Any = None, crash_before: int | None = None) -> Generator[Batch]:
    """Numbered things in batches of these sizes, from the position on. Raises before batch ``crash_before``."""
    begin = position["batch"] if position else 0
    for number in range(begin, len(sizes)):
        if number == crash_before:
            raise Outage
        first = sum(sizes[:number])
        yield Batch({"batch": number + 1}, [thing(n) for n in range(first, first + sizes[number])])
    if crash_before is not None and crash_before >= len(sizes):
        raise Outage


class Desk:
    """An integration of its own in the test's database, with one lane and a sync under way."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.integration: IntegrationConfiguration = configuration(f"things-{next(_numbers)}")
        add_integration(store, self.integration, actor="test")
        self.sync_id = f"sync-of-{self.integration.integration_id}"
        ledger.start_sync(store, self.sync_id, self.integration, DataSyncMode.INCREMENTAL, ["things"])
        self.lane = Lane("acme", self.integration.integration_id, "things")
        self.warehouse = Warehouse(store)
        self.warehouse.ensure(THINGS)

    def pump(self, batch_size: int = 1000) -> Pump:
        return Pump(self.warehouse, Mapper(THINGS), self.sync_id, batch_size)

    def run(
        self, batches: Generator[Batch], checkpoint: Checkpoint | None = None, batch_size: int = 1000
    ) -> tuple[Counts, Checkpoint | None]:
        return self.pump(batch_size).run(self.lane, SOURCE, checkpoint, batches)

    def checkpoint(self) -> Checkpoint | None:
        with self.store.organization("acme") as connection:
            return checkpoints.load(connection, self.lane)

    def stored(self) -> list[str]:
        """Keys that are not deleted, each as often as it is there."""
        statement = "SELECT id FROM raw.test_things WHERE integration_id = :id AND deleted_at IS NULL ORDER BY id"
        with self.store.organization("acme") as connection:
            return list(connection.scalars(sa.text(statement), {"id": self.lane.integration_id}))

    def counted(self) -> Counts:
        """What the ledger says of the object."""
        return ledger.get_sync(self.store, self.sync_id).objects["things"].counts


@pytest.fixture
def desk(store: Store, organization: Organization) -> Desk:
    return Desk(store)


def keys(count: int) -> list[str]:
    return [f"thing-{number:04}" for number in range(count)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 12), max_size=2 * READ_AHEAD + 3),
    crashes=st.lists(st.integers(0, 2 * READ_AHEAD + 3), max_size=4),
    batch_size=st.integers(1, 40),
)
def test_a_source_that_crashes_anywhere_is_read_to_its_end_without_loss_or_doubles(
    store: Store, organization: Organization, sizes: list[int], crashes: list[int], batch_size: int
) -> None:
    desk = Desk(store)
    total = Counts()
    for crash in crashes:
        at = desk.checkpoint()
        done = at.position["batch"] if at else 0
        if crash < done:
            continue
        with pytest.raises(Outage):
            desk.run(source(sizes, at and at.position, crash), at, batch_size)
        now = desk.checkpoint()
        assert (now.position["batch"] if now else 0) == min(crash, len(sizes)), "all it gave before is stored"
        assert desk.stored() == keys(sum(sizes[:crash])), "rows reach exactly as far as the checkpoint"
    before = desk.counted()
    at = desk.checkpoint()
    counts, last = desk.run(source(sizes, at and at.position), at, batch_size)
    total.add(before)
    total.add(counts)
    assert desk.stored() == keys(sum(sizes))
    assert last == desk.checkpoint()
    assert total == desk.counted() == Counts(read=sum(sizes), written=sum(sizes))


def test_a_source_without_a_batch_leaves_the_checkpoint_where_it_is(desk: Desk) -> None:
    _, there = desk.run(source([3]))
    assert desk.run(source([3], {"batch": 1}), there) == (Counts(), there)
    assert desk.checkpoint() == there


def test_batches_that_wait_already_are_stored_together(desk: Desk) -> None:
    """The first commit may find one batch or several; what it does not find waits for the next."""
    commits: list[int] = []
    batches = source([10] * 30)
    desk.pump(batch_size=20).run(desk.lane, SOURCE, None, batches, lambda counts: commits.append(counts.read))
    assert sum(commits) == 300
    assert all(read in (10, 20) for read in commits)


def test_of_two_pumps_on_one_lane_the_second_stores_nothing(desk: Desk) -> None:
    both_begun = Event()

    def late() -> Generator[Batch]:
        both_begun.wait(30)
        yield Batch({"batch": 99}, [thing(n) for n in range(50, 60)], [Deletion("thing-0000", DeleteKind.HARD, 10**9)])

    second = late()
    desk.run(source([4]))
    both_begun.set()
    with pytest.raises(LaneTakenOver, match="another run has moved the lane things"):
        desk.run(second, checkpoint=None)
    assert desk.stored() == keys(4)
    there = desk.checkpoint()
    assert there is not None
    assert there.position == {"batch": 1}
    assert desk.counted() == Counts(read=4, written=4), "the loser's counts are undone with its rows"


def test_the_winner_goes_on_after_the_loser_gave_up(desk: Desk) -> None:
    _, first = desk.run(source([2]))
    with pytest.raises(LaneTakenOver):
        desk.run(source([2, 2, 2]), checkpoint=None)
    desk.run(source([2, 2, 2], first and first.position), first)
    assert desk.stored() == keys(6)


def test_a_record_that_does_not_fit_is_kept_apart_and_the_others_are_stored(desk: Desk) -> None:
    unreadable = thing(1, amount="a lot")
    without_key = Record({"name": "nameless"}, version=1)
    counts, _ = desk.run(iter_batches([Batch({"batch": 1}, [thing(0), unreadable, without_key, thing(2)])]))
    assert counts == desk.counted() == Counts(read=4, written=2, rejected=2)
    assert desk.stored() == ["thing-0000", "thing-0002"]
    kept = rejected.list_rejected(desk.store, desk.lane.integration_id)
    assert {item.key for item in kept} == {"thing-0001", None}
    assert "amount" in next(item.reason for item in kept if item.key)
    assert next(item.payload for item in kept if item.key) == unreadable.payload


def test_deletions_and_absences_commit_with_their_batch(desk: Desk) -> None:
    desk.run(source([5]))
    began = desk.store.now()
    met = [Record(thing(number).payload, version=100) for number in (1, 2)]
    last = Batch({"batch": 2}, met, [Deletion("thing-0000", DeleteKind.HARD, 100)], delete_absent_since=began)
    counts, _ = desk.run(iter_batches([last]), desk.checkpoint())
    assert desk.stored() == ["thing-0001", "thing-0002"]
    assert counts == Counts(read=2, written=2, deleted=3)


def test_an_absence_is_judged_after_the_batches_stored_with_it(desk: Desk) -> None:
    desk.run(source([3]))
    began = desk.store.now()
    batches = [Batch({"batch": 2}, [thing(0)]), Batch({"batch": 3}, [thing(1)], delete_absent_since=began)]
    desk.run(iter_batches(batches), desk.checkpoint())
    assert desk.stored() == keys(2)


def test_a_source_that_fails_before_its_end_makes_nothing_absent(desk: Desk) -> None:
    desk.run(source([3]))

    def failing() -> Generator[Batch]:
        yield Batch({"batch": 2}, [thing(0)])
        if desk:
            raise Outage
        yield Batch({"batch": 3}, delete_absent_since=desk.store.now() + timedelta(days=1))

    with pytest.raises(Outage):
        desk.run(failing(), desk.checkpoint())
    assert desk.stored() == keys(3)


def test_the_source_is_closed_when_the_writer_fails(desk: Desk) -> None:
    closed = Event()

    def endless() -> Generator[Batch]:
        try:
            for number in itertools.count():
                yield Batch({"batch": number}, [thing(number)])
        finally:
            closed.set()

    desk.run(source([1]))
    with pytest.raises(LaneTakenOver):
        desk.run(endless(), checkpoint=None)
    assert closed.is_set(), "no request goes on for a run that ended"


def test_a_later_batch_of_the_same_key_wins(desk: Desk) -> None:
    first, second = thing(0), replace(thing(0, name="renamed"), version=5)
    desk.run(iter_batches([Batch({"batch": 1}, [first]), Batch({"batch": 2}, [second])]))
    with desk.store.organization("acme") as connection:
        assert list(connection.scalars(sa.text("SELECT name FROM raw.test_things"))) == ["renamed"]


def iter_batches(batches: Sequence[Batch]) -> Generator[Batch]:
    yield from batches


@pytest.mark.parametrize("leaf", ["kept", "\0"], ids=["fits", "rejected"])
def test_a_record_of_any_depth_stops_nothing(desk: Desk, leaf: str) -> None:
    """Those between what Python and what its callers deeper down take, too."""
    records: list[Record] = []
    deep: Any = leaf
    for depth in range(1020):
        deep = [deep]
        if depth > 880:
            records.append(thing(depth, undeclared=deep))
    counts, _ = desk.run(iter_batches([Batch({"batch": 1}, [*records, thing(0)])]))
    assert counts.read == counts.written + counts.rejected == len(records) + 1
    assert "thing-0000" in desk.stored()


def test_who_is_chosen_to_break_a_circle_of_writers_writes_once_more(desk: Desk) -> None:
    """What deletes known and unknown records, e.g., holds the known ones while it takes the others."""
    _, checkpoint = desk.run(source([3]))
    take = "UPDATE raw.test_things SET amount = 0 WHERE id = %s"
    newer = Batch({"batch": 2}, [replace(thing(number), version=9) for number in range(3)])
    administrator = as_administrator(desk.store.database_url)
    with psycopg.connect(administrator) as first, psycopg.connect(administrator) as second:
        second.execute("SET deadlock_timeout = '1min'")  # it is the pump that looks for a circle first
        first.execute(take, ["thing-0001"])
        second.execute(take, ["thing-0002"])
        pumping = in_thread("pump", lambda: desk.run(iter_batches([newer]), checkpoint))
        wait_until_blocked(desk.store)
        taking = in_thread("second", lambda: second.execute(take, ["thing-0000"]))
        wait_until_blocked(desk.store, 2)
        first.commit()
        taking.result(20)
    assert pumping.result(20)[0] == Counts(read=3, written=3)
    with desk.store.organization("acme") as connection:
        assert connection.execute(
            sa.text("SELECT id, source_version, amount FROM raw.test_things ORDER BY id")
        ).all() == [(f"thing-{number:04}", 9, number) for number in range(3)]
