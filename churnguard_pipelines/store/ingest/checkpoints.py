"""Checkpoints of lanes, moved by compare-and-set: of two writers on one lane only one can win."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.errors import LaneTakenOver
from churnguard_pipelines.records import Checkpoint, Lane, Position
from churnguard_pipelines.store.ingest.tables import checkpoints as table


def load(connection: Connection, lane: Lane, *, lock: bool = False) -> Checkpoint | None:
    """``lock``: nobody moves it until the end of the transaction."""
    statement = sa.select(table.c.position, table.c.source, table.c.version).where(_is(lane))
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    return Checkpoint(row.position, row.source, row.version) if row else None


def of_integration(connection: Connection, organization_id: str, integration_id: str) -> dict[str, Checkpoint]:
    """By lane."""
    return of_several(connection, [(organization_id, integration_id)]).get(integration_id, {})


def of_several(connection: Connection, owners: Collection[tuple[str, str]]) -> dict[str, dict[str, Checkpoint]]:
    """``owners``: pairs of organization and integration. By integration and lane."""
    own = sa.tuple_(table.c.organization_id, table.c.integration_id).in_(list(owners))
    columns = (table.c[name] for name in ("integration_id", "lane", "position", "source", "version"))
    found: dict[str, dict[str, Checkpoint]] = {}
    for integration_id, lane, *checkpoint in connection.execute(sa.select(*columns).where(own)):
        found.setdefault(integration_id, {})[lane] = Checkpoint(*checkpoint)
    return found


def integrations_with(connection: Connection, name: str) -> set[str]:
    """Those of any organization that have begun the lane of this name."""
    return set(connection.scalars(sa.select(table.c.integration_id).where(table.c.lane == name)))


def copied_versions(connection: Connection, lane: Lane) -> dict[str, int]:
    """The version that a copy has seen, by lane, of every table of the lane's integration that one has read to the
    end."""
    own = table.c.organization_id == lane.organization_id, table.c.integration_id == lane.integration_id
    complete = table.c.position["complete"].as_boolean()
    rows = connection.execute(sa.select(table.c.lane, table.c.position["version"]).where(*own, complete))
    return {row[0]: row[1] for row in rows}


def advance(connection: Connection, lane: Lane, expected: Checkpoint | None, to: Position, source: str) -> Checkpoint:
    """Move the lane from ``expected`` (None: it has no checkpoint yet) to ``to``; returns the new checkpoint.

    Raises ``LaneTakenOver`` if it stands elsewhere; the caller's transaction must then not commit.
    Not only the version is compared but the position too: a lane that was forgotten and begun anew counts from 1.
    """
    moved = {"position": dict(to), "source": source, "updated_at": sa.func.clock_timestamp()}
    statement: sa.Executable
    if expected is None:
        keys = {"organization_id": lane.organization_id, "integration_id": lane.integration_id, "lane": lane.name}
        version = 1
        begun = insert(table).values(**keys, **moved, version=version).on_conflict_do_nothing()
        statement = begun.returning(table.c.version)
    else:
        version = expected.version + 1
        stands = _is(lane), table.c.version == expected.version, table.c.position == dict(expected.position)
        statement = sa.update(table).where(*stands).values(**moved, version=version).returning(table.c.version)
    if connection.scalar(statement) is None:
        raise LaneTakenOver(
            f"another run has moved the lane {lane.name}; nothing was written by this one.",
            integration_id=lane.integration_id,
            remedy="Let the other run finish; nothing needs to be repaired.",
        )
    return Checkpoint(to, source, version)


def forget(connection: Connection, lane: Lane) -> None:
    """Remove the lane's checkpoint, so that the next run begins anew."""
    connection.execute(sa.delete(table).where(_is(lane)))


def _is(lane: Lane) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.organization_id == lane.organization_id,
        table.c.integration_id == lane.integration_id,
        table.c.lane == lane.name,
    )
