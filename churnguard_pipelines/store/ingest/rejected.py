"""Records that could not be stored as they were: kept once each with reason and payload, until resolved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.records import Lane, Rejected
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.tables import rejected_records as table
from churnguard_pipelines.store.postgres.database import Store

DEEPEST = 100
"""Levels of a payload that is kept."""


@dataclass(frozen=True, slots=True)
class StoredRejected:
    """A rejected record as it is kept. ``created_at``: when it was first rejected; ``resolved_at``: when a replay
    brought it in."""

    id: int
    lane: str
    object: str
    key: str | None
    reason: str
    payload: Any
    created_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A rejected record for people. ``payload``: the beginning of its JSON; ``length``: characters of all of it."""

    id: int
    object: str
    key: str | None
    reason: str
    created_at: datetime
    payload: str
    length: int


def add(connection: Connection, lane: Lane, object: str, rejected: Sequence[Rejected], sync_id: str | None) -> None:
    """Keep them; one that is already waiting (same key, or same payload if it has none) gets the newer reason."""
    if not rejected:
        return
    rows = {(row := _row(lane, object, item, sync_id))["fingerprint"]: row for item in rejected}
    statement = insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=["organization_id", "integration_id", "object", "fingerprint"],
        index_where=table.c.resolved_at.is_(None),
        set_={name: statement.excluded[name] for name in ("lane", "reason", "payload", "sync_id")}
        | {"seen_at": sa.func.clock_timestamp()},
    )
    connection.execute(statement, list(rows.values()))


def list_rejected(
    store: Store,
    integration_id: str,
    object: str | None = None,
    limit: int = 1000,
    *,
    ids: Iterable[int] | None = None,
    before: int | None = None,
) -> list[StoredRejected]:
    """Those still waiting, newest first. ``object``, ``ids``: only these; ``before``: only those with a lower id."""
    columns = (table.c[name] for name in StoredRejected.__dataclass_fields__)
    statement = (
        sa.select(*columns)
        .where(of_integration(table, integration_id), table.c.resolved_at.is_(None))
        .order_by(table.c.id.desc())
        .limit(limit)
    )
    if object is not None:
        statement = statement.where(table.c.object == object)
    if ids is not None:
        wanted = sa.cast(list(ids), sa.ARRAY(sa.BigInteger))  # one parameter, however many they are
        statement = statement.where(table.c.id == sa.any_(wanted))
    if before is not None:
        statement = statement.where(table.c.id < before)
    with store.operator() as connection:
        return [StoredRejected(**row._asdict()) for row in connection.execute(statement)]


def excerpts(store: Store, integration_id: str, *, limit: int, most: int, before: int | None = None) -> list[Excerpt]:
    """Those still waiting, newest first, with no more than ``most`` characters of each payload."""
    payload = sa.cast(table.c.payload, sa.Text)
    statement = (
        sa.select(
            *(table.c[name] for name in ("id", "object", "key", "reason", "created_at")),
            sa.func.left(payload, most).label("payload"),
            sa.func.length(payload).label("length"),
        )
        .where(of_integration(table, integration_id), table.c.resolved_at.is_(None))
        .order_by(table.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(table.c.id < before)
    with store.operator() as connection:
        return [Excerpt(**row._asdict()) for row in connection.execute(statement)]


def waiting_keys(store: Store, integration_id: str, object: str, keys: Collection[str]) -> frozenset[str]:
    """Those among the keys whose records are still waiting."""
    own = of_integration(table, integration_id), table.c.object == object, table.c.resolved_at.is_(None)
    with store.operator() as connection:
        return frozenset(connection.scalars(sa.select(table.c.key).where(*own, table.c.key.in_(list(keys)))))


def mark_resolved(connection: Connection, ids: Iterable[int]) -> None:
    """In the transaction that stores the records, so that none is both stored and waiting."""
    connection.execute(sa.update(table).where(table.c.id.in_(list(ids))).values(resolved_at=sa.func.clock_timestamp()))


def _row(lane: Lane, object: str, item: Rejected, sync_id: str | None) -> dict[str, Any]:
    payload = _storable(item.payload)
    identity = f"key:{item.key}" if item.key is not None else f"payload:{json.dumps(payload, sort_keys=True)}"
    return {
        "organization_id": lane.organization_id,
        "integration_id": lane.integration_id,
        "lane": lane.name,
        "object": object,
        "key": None if item.key is None else _text(item.key),
        "reason": _text(item.reason),
        "payload": payload,
        "fingerprint": hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest(),
        "sync_id": sync_id,
    }


def deeper_than(levels: int, payload: Any) -> bool:
    """Whether something of a JSON value lies below as many levels of objects and lists."""
    level = [payload]
    for _ in range(levels):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = list(chain.from_iterable(inner))
        if not level:
            return False
    return True


def _text(value: str) -> str:
    """PostgreSQL's text holds neither NUL nor half a surrogate pair, which may be just why it was rejected."""
    return value.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


def _storable(payload: Any) -> Any:
    """The payload if it is JSON (NaN is not), else its ``repr``. Not what would be too deep for some of those who write
    it and read it: how deep they get depends on how deep they are in calls already."""
    if deeper_than(DEEPEST, payload):
        return "nested too deeply to be kept"
    try:
        json.dumps(payload, allow_nan=False)
    except (TypeError, ValueError):
        return repr(payload)
    return payload
