"""What came by events, by the path that they took, and what only a sync brought though an event should have.

An object counts from the first event on that came for it by a path. A record counts as missed if a sync finds it new,
or newer than ours, a minute or more after it was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.tables import arrivals
from churnguard_pipelines.store.postgres.database import Store

DAYS = 7
"""That are looked at."""
KEPT_DAYS = 30
GRACE = 60_000
"""Milliseconds that an event may take."""

_ADD = """
INSERT INTO ingest.arrivals AS counted (organization_id, integration_id, object, path, day, brought, missed)
SELECT %(organization_id)s::text, %(integration_id)s::text, object, path,
       (clock_timestamp() AT TIME ZONE 'UTC')::date, brought, missed
  FROM unnest(%(objects)s::text[], %(paths)s::text[], %(brought)s::bigint[], %(missed)s::bigint[])
       AS new (object, path, brought, missed) ORDER BY 3, 4
ON CONFLICT (organization_id, integration_id, object, path, day)
  DO UPDATE SET brought = counted.brought + excluded.brought, missed = counted.missed + excluded.missed
"""
_HERE = "organization_id = :organization_id AND integration_id = :integration_id AND object = :object"
_WATCHED = sa.text(f"""
WITH old AS (DELETE FROM ingest.arrivals WHERE {_HERE} AND day < current_date - {KEPT_DAYS})
SELECT path, CAST(extract(epoch FROM min(first_at)) * 1000 AS bigint) FROM ingest.arrivals
 WHERE {_HERE} AND day >= current_date - {KEPT_DAYS} GROUP BY path
""")


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Records of the last :data:`DAYS` days."""

    brought: int
    missed: int

    @property
    def miss_rate(self) -> float | None:
        """Share of those that should have come by events; None if there were none."""
        total = self.brought + self.missed
        return self.missed / total if total else None


def note_brought(connection: Connection, lane: Lane, path: str, records: Mapping[str, int]) -> None:
    """Records by object, in the transaction that stores them."""
    _add(connection, lane, {(name, path): Arrivals(number, 0) for name, number in records.items() if number})


def note_missed(
    connection: Connection,
    lane: Lane,
    object: str,
    since: Mapping[str, int],
    found: Mapping[str, int],
    stored: Mapping[str, int],
    now: int,
) -> None:
    """``since``: as :func:`watched` gives it; ``found``, ``stored``: versions, by key, of what a sync has read and of
    what we have; ``now``: milliseconds, as versions are."""
    new = [version for key, version in found.items() if version > stored.get(key, -1) and version <= now - GRACE]
    missed = {path: sum(version >= begun for version in new) for path, begun in since.items()}
    _add(connection, lane, {(object, path): Arrivals(0, number) for path, number in missed.items() if number})


def watched(connection: Connection, lane: Lane, object: str) -> dict[str, int]:
    """By which paths events come for the object, and since when, in milliseconds. Forgets what is old."""
    own = {"organization_id": lane.organization_id, "integration_id": lane.integration_id, "object": object}
    return {row[0]: row[1] for row in connection.execute(_WATCHED, own)}


def of(store: Store, integration_id: str) -> dict[str, dict[str, Arrivals]]:
    """By object and path."""
    sums = sa.func.sum(arrivals.c.brought), sa.func.sum(arrivals.c.missed)
    statement = (
        sa.select(arrivals.c.object, arrivals.c.path, *sums)
        .where(of_integration(arrivals, integration_id), arrivals.c.day > sa.func.current_date() - DAYS)
        .group_by(arrivals.c.object, arrivals.c.path)
        .order_by(arrivals.c.object, arrivals.c.path)
    )
    found: dict[str, dict[str, Arrivals]] = {}
    with store.operator() as connection:
        for object, path, brought, missed in connection.execute(statement):
            found.setdefault(object, {})[path] = Arrivals(int(brought), int(missed))
    return found


def _add(connection: Connection, lane: Lane, more: Mapping[tuple[str, str], Arrivals]) -> None:
    """By object and path."""
    if more:
        objects, paths = zip(*more, strict=True)
        values = {
            "organization_id": lane.organization_id, "integration_id": lane.integration_id,
            "objects": list(objects), "paths": list(paths),
            "brought": [each.brought for each in more.values()], "missed": [each.missed for each in more.values()],
        }  # fmt: skip
        connection.exec_driver_sql(_ADD, values)
