"""Schema drift: what providers send and the declarations do not say, per integration and object; the newest sighting
wins."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.records import Drift, Lane
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.tables import schema_drift as table
from churnguard_pipelines.store.postgres.database import Store

LONGEST_NAME = 200
"""Characters of a foreign field's name that are kept: it is part of a key, and PostgreSQL's have a limit."""

_NEW = insert(table)
_RECORD = _NEW.on_conflict_do_update(
    constraint="schema_drift_pkey",
    set_={
        "detail": _NEW.excluded.detail,
        "examples": _NEW.excluded.examples,
        "last_seen_at": sa.func.clock_timestamp(),
    },
)


def record_drift(connection: Connection, lane: Lane, object: str, drift: Sequence[Drift]) -> None:
    if not drift:
        return
    rows = {
        (item.column[:LONGEST_NAME], item.kind): {
            "organization_id": lane.organization_id,
            "integration_id": lane.integration_id,
            "object": object,
            "column": item.column[:LONGEST_NAME],
            "kind": item.kind,
            "detail": item.detail,
            "examples": list(item.examples),
        }
        for item in drift
    }
    connection.execute(_RECORD, [rows[each] for each in sorted(rows)])  # the order in which all lanes lock them


def forget_drift(connection: Connection, organization_id: str, integration_id: str, kind: str | None = None) -> None:
    """What was seen so far, or what of it is of this kind, counts no longer."""
    own = table.c.organization_id == organization_id, table.c.integration_id == integration_id
    of_kind = () if kind is None else (table.c.kind == kind,)
    connection.execute(sa.delete(table).where(*own, *of_kind))


def list_drift(store: Store, integration_id: str, object: str | None = None) -> dict[str, list[Drift]]:
    """Object -> what was seen of it."""
    statement = sa.select(table).where(of_integration(table, integration_id)).order_by(table.c.object, table.c.column)
    if object is not None:
        statement = statement.where(table.c.object == object)
    found: dict[str, list[Drift]] = {}
    with store.operator() as connection:
        for row in connection.execute(statement):
            found.setdefault(row.object, []).append(Drift(row.column, row.kind, row.detail, tuple(row.examples)))
    return found
