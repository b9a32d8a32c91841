"""How several gateways write to the inbox at once, and a reader leaves nothing out all the same.

Sequences are one row of numbers, but whoever draws a lower one may commit later. So a transaction writes in a *slot*, a
row of ``ingest.inbox_slots`` that it locks before it draws and until it commits: of one slot, what is visible has no
gaps. A lane's checkpoint says for each slot how far it is worked off. Of two events the one that was answered before
the other was sent has the lower sequence, and is visible first, whatever their slots.

So that a checkpoint need not look back for ever to a slot that is rarely used, it also says up to where everything is
worked off: all that was drawn before a moment in which every slot was seen free is visible since.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import sqlalchemy as sa
from psycopg import errors
from sqlalchemy import Connection

from churnguard_pipelines.records import Lane, Position
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.locks import Shared, taking

# The first that is free, or where there is none, any. None at all is an error: two rows where one belongs.
HOLD_SLOT = """
free AS MATERIALIZED (
    SELECT slot FROM ingest.inbox_slots ORDER BY slot LIMIT 1 FOR UPDATE SKIP LOCKED
), awaited AS MATERIALIZED (
    SELECT slot FROM ingest.inbox_slots WHERE NOT EXISTS (SELECT FROM free) ORDER BY random() LIMIT 1 FOR UPDATE
), held AS MATERIALIZED (
    SELECT CASE count(*) WHEN 1 THEN min(slot) ELSE (SELECT 1 FROM generate_series(1, 2)) END AS slot
      FROM (SELECT slot FROM free UNION ALL SELECT slot FROM awaited) AS either
)"""
"""Of a statement that writes: the one row of ``held`` is the slot, locked until the transaction ends."""

UNREAD = """
    inbox.sequence > coalesce((done.position ->> 'sequence')::bigint, 0)
AND inbox.sequence > coalesce((done.position -> 'slots' ->> inbox.slot::text)::bigint, 0)"""
"""Of a row ``inbox`` and a lane's checkpoint ``done``: whether it is still to be worked off."""

SETTLE_EVERY = 1.0
_SETTLE_SECONDS = 0.2
_DRAWN = sa.text("SELECT coalesce(pg_sequence_last_value('ingest.webhook_sequence'), 0)")
_ALL_FREE = sa.text("SELECT FROM ingest.inbox_slots FOR SHARE")
_WRITERS_BEFORE = sa.text(taking(Shared.INBOX_WRITERS))
_BEFORE = "webhooks"
"""The lane of the version before, whose checkpoints know no slots."""
_FOLLOW = sa.text("""
INSERT INTO ingest.checkpoints AS before (organization_id, integration_id, lane, position, source, version)
VALUES (:organization_id, :integration_id, :lane, jsonb_build_object('sequence', cast(:sequence AS bigint)), :source, 1)
ON CONFLICT (organization_id, integration_id, lane) DO UPDATE
   SET position = excluded.position, version = before.version + 1, updated_at = clock_timestamp()
 WHERE (before.position ->> 'sequence')::bigint < :sequence
""")


class Sequenced(Protocol):
    @property
    def sequence(self) -> int: ...

    @property
    def slot(self) -> int: ...


class Progress(NamedTuple):
    """How far a lane is worked off: everything up to ``sequence``, and of each of ``slots`` up to its own."""

    sequence: int
    slots: Mapping[int, int]

    @classmethod
    def of(cls, position: Position) -> Progress:
        slots = position.get("slots", {})
        return cls(position.get("sequence", 0), {int(slot): sequence for slot, sequence in slots.items()})

    @property
    def position(self) -> Position:
        return {"sequence": self.sequence, "slots": {str(slot): self.slots[slot] for slot in sorted(self.slots)}}

    def after(self, events: Sequence[Sequenced], settled: int) -> Progress:
        """When the lane's next ``events`` are worked off, too; in order, at least one. ``settled``: up to where all was
        visible when they were read."""
        everything = max(self.sequence, min(settled, events[-1].sequence))
        slots = {**self.slots, **{event.slot: event.sequence for event in events}}
        return Progress(everything, {slot: last for slot, last in slots.items() if last > everything})


class Settled:
    """Up to which sequence everything is visible, or never will be. Thread safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asking = threading.Lock()
        self._sequence = 0
        self._asked = float("-inf")

    def sequence(self) -> int:
        """As of a moment ago; writers are asked to wait no more often than every ``SETTLE_EVERY`` seconds."""
        if time.monotonic() - self._asked >= SETTLE_EVERY and self._asking.acquire(blocking=False):
            try:
                self._sequence = max(self._sequence, self._look())
                self._asked = time.monotonic()
            finally:
                self._asking.release()
        return self._sequence

    def _look(self) -> int:
        """0 if a transaction takes long."""
        try:
            with self._store.operator() as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_SETTLE_SECONDS}s'")
                drawn: int = connection.scalars(_DRAWN).one()
                connection.execute(_WRITERS_BEFORE)
                connection.execute(_ALL_FREE)
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, errors.LockNotAvailable):
                raise
            return 0
        return drawn


def follow_in_the_version_before(connection: Connection, lane: Lane, sequence: int, source: str) -> None:
    """Where that is put back, it goes on from here. In a transaction of the lane's organization."""
    own = {"organization_id": lane.organization_id, "integration_id": lane.integration_id, "lane": _BEFORE}
    connection.execute(_FOLLOW, {**own, "sequence": sequence, "source": source})
