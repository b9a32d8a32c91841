"""Checkpoints of lanes, moved by compare-and-set: of two writers on one lane only one can win."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import JSONB

from churnguard_pipelines.errors import LaneTakenOver
from churnguard_pipelines.records import Checkpoint, Lane, Position
from churnguard_pipelines.store.ingest.tables import checkpoints as table

_HERE = "organization_id = :organization_id AND integration_id = :integration_id AND lane = :lane"
_LOAD = sa.text(f"SELECT position, source, version FROM ingest.checkpoints WHERE {_HERE}")
_LOCK = sa.text(f"{_LOAD} FOR UPDATE")
_BEGIN = sa.text("""
INSERT INTO ingest.checkpoints (organization_id, integration_id, lane, position, source, version, updated_at)
VALUES (:organization_id, :integration_id, :lane, :position, :source, :version, clock_timestamp())
ON CONFLICT DO NOTHING RETURNING version
""").bindparams(sa.bindparam("position", type_=JSONB))
_MOVE = sa.text(f"""
UPDATE ingest.checkpoints
   SET position = :position, source = :source, version = :version, updated_at = clock_timestamp()
 WHERE {_HERE} AND version = :version - 1 AND position = :expected RETURNING version
""").bindparams(sa.bindparam("position", type_=JSONB), sa.bindparam("expected", type_=JSONB))
_FORGET = sa.text(f"DELETE FROM ingest.checkpoints WHERE {_HERE}")


def load(connection: Connection, lane: Lane, *, lock: bool = False) -> Checkpoint | None:
    """``lock``: nobody moves it until the end of the transaction."""
    row = connection.execute(_LOCK if lock else _LOAD, _named(lane)).one_or_none()
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
    version = 1 if expected is None else expected.version + 1
    values = {**_named(lane), "position": dict(to), "source": source, "version": version}
    if expected is not None:
        values["expected"] = dict(expected.position)
    if connection.scalar(_BEGIN if expected is None else _MOVE, values) is None:
        raise LaneTakenOver(
            f"another run has moved the lane {lane.name}; nothing was written by this one.",
            integration_id=lane.integration_id,
            remedy="Let the other run finish; nothing needs to be repaired.",
        )
    return Checkpoint(to, source, version)


def forget(connection: Connection, lane: Lane) -> None:
    """Remove the lane's checkpoint, so that the next run begins anew."""
    connection.execute(_FORGET, _named(lane))


def _named(lane: Lane) -> dict[str, Any]:
    return {"organization_id": lane.organization_id, "integration_id": lane.integration_id, "lane": lane.name}
