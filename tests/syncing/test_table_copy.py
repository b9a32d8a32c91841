"""A table is copied while others write to its mirror: whoever reads the change log above all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.sdk.database import Snapshot
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import LaneTakenOver
from churnguard_pipelines.mirror_types import MirrorType
from churnguard_pipelines.mirrors import Mirror, MirrorColumn, Piece, SourceColumn, SourceTable
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.mirror_writer import MirrorWriter
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.table_copy import AT_ONCE, TableCopy
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator
from tests.waiting import wait_for

INTEGER, TEXT = MirrorType.parse("integer"), MirrorType.parse("text")
TABLE = SourceTable("users", (SourceColumn("id", INTEGER, "int"), SourceColumn("plan", TEXT, "text")), ("id",))
MIRROR = Mirror("users", "users", (MirrorColumn("id", INTEGER, "id"), MirrorColumn("plan", TEXT, "plan")), ("id",))
NOW = datetime(2026, 11, 27, tzinfo=UTC)
LANE = Lane("acme", "acme-db", "users")


@dataclass
class Rows(Snapshot):
    """A source that has rows of these keys, each in a piece of its own, once ``gates`` has let it go."""

    version: int
    ids: Sequence[int] = ()
    gates: dict[int, Event] = field(default_factory=dict)

    def pieces(self, table: SourceTable, after: object) -> Iterator[Piece]:
        begins: list[int | None] = [*self.ids] or [None]
        yield from (Piece(begin, mark) for begin, mark in zip(begins, [*begins[1:], None], strict=True))

    def copy(self, table: SourceTable, piece: Piece) -> Iterator[bytes]:
        if piece.begin is not None:
            if (gate := self.gates.get(piece.begin)) is not None:
                gate.wait(20)
            yield self._row(piece.begin)

    def increment(self, table: SourceTable, column: str, after: str | None) -> Iterator[tuple[bytes, str | None]]:
        for id_ in self.ids:
            yield self._row(id_), str(id_)

    def keys(self, table: SourceTable) -> Iterator[bytes]:
        yield from (b"%d\n" % id_ for id_ in self.ids)

    def _row(self, id_: int) -> bytes:
        return b"%d\t%d\tcopied at %d\n" % (self.version, id_, self.version)


@pytest.fixture
def copy(store: Store, organization: Organization) -> Iterator[TableCopy]:
    """Has copied two rows."""
    with store.owner() as owner:
        mirror_tables.ensure(owner, MIRROR)
    with ThreadPoolExecutor(AT_ONCE) as workers:
        made = TableCopy(Warehouse(store), LANE, MIRROR, TABLE, "source", None, "sync", workers, Clock())
        made.read_whole(Rows(1, [1, 2]), binary=False)
        yield made


def stored(store: Store) -> dict[int, str | None]:
    with store.organization("acme") as connection:
        rows = connection.execute(sa.text("SELECT id, plan FROM raw.users WHERE deleted_at IS NULL"))
        return {row.id: row.plan for row in rows}


@pytest.mark.parametrize(
    ("work", "last", "left"),
    [
        (lambda copy: copy.read_whole(Rows(5), binary=False), 2, {}),
        (lambda copy: copy.sweep(Rows(5), NOW, binary=False), 1, {}),
        (lambda copy: copy.read_increment(Rows(5, [1, 2]), "id", None, binary=False), 2,
         {1: "copied at 5", 2: "copied at 5"}),
    ],
    ids=["what a whole read did not see", "what a sweep did not see", "an increment"],
)  # fmt: skip
def test_who_is_chosen_to_break_a_circle_of_writers_writes_once_more(
    store: Store, copy: TableCopy, work: Callable[[TableCopy], None], last: int, left: dict[int, str]
) -> None:
    """``last``: the row that it takes last."""
    take = "UPDATE raw.users SET synced_at = now() WHERE id = %s"
    with psycopg.connect(as_administrator(store.database_url)) as other:
        other.execute("SET deadlock_timeout = '1min'")  # it is the copy that looks for a circle first
        other.execute(take, [last])
        working = in_thread("copy", lambda: work(copy))
        wait_until_blocked(store)
        taking = in_thread("other", lambda: other.execute(take, [3 - last]))
        taking.result(20)
    working.result(20)
    assert stored(store) == left


def test_a_copy_that_is_ended_by_the_change_log_waits_for_it_in_no_circle(store: Store, copy: TableCopy) -> None:
    """Its threads move the checkpoint one after the other: one waits for the log's transaction, which has forgotten
    that, the other for the one, and the log for a row of the other's."""
    one, other = Event(), Event()
    copying = in_thread("copy", lambda: copy.read_whole(Rows(5, [1, 3], {1: one, 3: other}), binary=False))

    def writers() -> int:
        with store.operator() as connection:
            return connection.scalar(sa.text(
                "SELECT count(*) FROM pg_locks WHERE relation = 'raw.users'::regclass AND mode = 'RowExclusiveLock'"
            )) or 0  # fmt: skip

    def hold_up() -> None:
        one.set()
        wait_until_blocked(store)
        other.set()
        wait_for(lambda: writers() >= 2)

    def follow() -> None:
        with Warehouse(store).transaction("acme") as transaction:
            checkpoints.forget(transaction.connection, LANE)
            if not one.is_set():
                hold_up()
            MirrorWriter(transaction.connection, MIRROR, "acme", "acme-db").upsert([(9, (3, "told by the log"))])

    in_thread("log", lambda: past_deadlocks(follow)).result(20)
    with suppress(LaneTakenOver):
        copying.result(20)
    assert stored(store)[3] == "told by the log"
