"""Records that could not be stored as they were: kept once each with reason and payload, until resolved: stored after
all, or dismissed by a person."""

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
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.tables import rejected_records as table
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks

DEEPEST = 100
"""Levels of a payload that is kept."""
NAMED_IDS = 1000
"""Of dismissed records, in the audit log."""

_NEW = insert(table)
_ADD = _NEW.on_conflict_do_update(
    index_elements=["organization_id", "integration_id", "object", "fingerprint"],
    index_where=table.c.resolved_at.is_(None),
    set_={name: _NEW.excluded[name] for name in ("lane", "reason", "payload", "sync_id")}
    | {"seen_at": sa.func.clock_timestamp()},
)
_MARK_RESOLVED = sa.text("""
UPDATE ingest.rejected_records AS waiting SET resolved_at = clock_timestamp()
  FROM unnest(cast(:ids AS bigint[]), cast(:seen AS timestamptz[])) AS stored (id, seen_at)
 WHERE waiting.id = stored.id AND waiting.seen_at = stored.seen_at AND waiting.resolved_at IS NULL
""")
_MARK_STORED = sa.text("""
UPDATE ingest.rejected_records SET resolved_at = clock_timestamp()
 WHERE organization_id = :organization_id AND integration_id = :integration_id AND object = :object
   AND resolved_at IS NULL AND fingerprint = ANY (cast(:fingerprints AS text[]))
""")


@dataclass(frozen=True, slots=True)
class StoredRejected:
    """A rejected record as it is kept. ``created_at``: when it was first rejected; ``seen_at``: when it was last, and
    its payload came; ``resolved_at``: when it was stored after all, or dismissed."""

    id: int
    lane: str
    object: str
    key: str | None
    reason: str
    payload: Any
    created_at: datetime
    seen_at: datetime
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
    connection.execute(_ADD, list(rows.values()))


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


def mark_resolved(connection: Connection, stored: Collection[StoredRejected]) -> None:
    """In the transaction that stores the records, so that none is both stored and waiting. One that was rejected once
    more meanwhile waits on: it may say something else now."""
    values = {"ids": [each.id for each in stored], "seen": [each.seen_at for each in stored]}
    connection.execute(_MARK_RESOLVED, values)


def dismiss(store: Store, integration_id: str, ids: Collection[int] | None, *, actor: str) -> int:
    """Those that nobody wants; None for all that wait. Returns how many they were, which the audit log has too. What
    their source gives once more may be rejected once more."""
    statement = (
        sa.update(table)
        .where(of_integration(table, integration_id), table.c.resolved_at.is_(None))
        .values(resolved_at=sa.func.clock_timestamp())
        .returning(table.c.organization_id, table.c.id)
    )
    if ids is not None:
        statement = statement.where(table.c.id == sa.any_(sa.cast(list(ids), sa.ARRAY(sa.BigInteger))))

    def mark() -> int:
        with store.operator() as connection:
            found = connection.execute(statement).all()
            if found:
                detail = {"count": len(found), "ids": sorted(row.id for row in found)[:NAMED_IDS]}
                owner = found[0].organization_id
                audit.record(connection, actor, "rejected.dismiss", integration_id, detail, organization_id=owner)
        return len(found)

    return past_deadlocks(mark)


def forget_resolved(store: Store, days: int) -> int:
    """Returns how many had been resolved for longer."""
    old = table.c.resolved_at < sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, days)
    with store.operator() as connection:
        return connection.execute(sa.delete(table).where(old)).rowcount


def mark_stored(connection: Connection, lane: Lane, object: str, keys: Iterable[str]) -> None:
    """Of what was read once more, and stored: if it waits, it does no longer. In the transaction that stores it."""
    values = {
        "organization_id": lane.organization_id,
        "integration_id": lane.integration_id,
        "object": object,
        "fingerprints": [_fingerprint(f"key:{key}") for key in keys],
    }
    connection.execute(_MARK_STORED, values)


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
        "fingerprint": _fingerprint(identity),
        "sync_id": sync_id,
    }


def _fingerprint(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


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
