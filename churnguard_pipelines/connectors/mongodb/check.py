"""Finds what a MongoDB source lacks to be read or followed, with the statement that grants it, and how long its oplog
is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bson import Timestamp

from churnguard_pipelines.connectors.mongodb.catalog import find_collections
from churnguard_pipelines.connectors.mongodb.changes import opened_stream
from churnguard_pipelines.connectors.mongodb.connection import Source
from churnguard_pipelines.connectors.sdk import ObjectAccess
from churnguard_pipelines.connectors.sdk.table_errors import TABLE_ERRORS
from churnguard_pipelines.errors import PermissionMissing, ProviderUnavailable, RequestRefused, SourceChanged
from churnguard_pipelines.mirrors import Lag
from churnguard_pipelines.records import Position

CHANGES = "change data capture"
SHORTEST_WINDOW = 24 * 3600  # seconds that an oplog should hold; a week is better
RENEW_SECONDS = 3600
"""A position as old as this is worth renewing although nothing has happened: the log goes on without it."""
STANDALONE = (
    "the server is in no replica set, so it keeps no change log. Start it with `--replSet rs0`, then run "
    "`rs.initiate()` in mongosh; a set of one member will do."
)


@dataclass(frozen=True, slots=True)
class Oplog:
    """How much the oplog holds. ``window``: seconds that it will hold once it is full, at the present pace."""

    first: Timestamp
    last: Timestamp
    window: float


def examine(source: Source, *, followed: bool) -> list[ObjectAccess]:
    """A line per collection, and, if changes are to be followed, one for what that needs."""
    found = find_collections(source)
    lines = [_collection(source, name) for name in found.readable]
    lines += [ObjectAccess(name, False, reason) for name, reason in found.others.items()]
    lines.sort(key=lambda line: line.object)
    if followed:
        missing = list(_missing(source))
        problem = "; ".join(what for what, _ in missing) or None
        remedy = " ".join(how for _, how in missing) or None
        lines.append(ObjectAccess(CHANGES, not missing, problem, remedy, whole=True))
    return lines


def current_lag(source: Source, position: Position) -> Lag:
    """Of a reader that has read up to the position."""
    behind = max(0, source.now().time - (position["time"] >> 32))
    try:
        waiting = _is_waiting(source, position)
    except SourceChanged:
        return Lag(None, float(behind), 1.0, {"position": "lost"})
    seconds = float(behind) if waiting or behind >= RENEW_SECONDS else 0.0
    oplog = find_oplog(source)
    if oplog is None:
        return Lag(None, seconds, None, {"oplog": "may not be read"})
    horizon = share_used(oplog, position["time"] >> 32)
    return Lag(None, seconds, horizon, {"oplog_hours": round(oplog.window / 3600, 1)})


def share_used(oplog: Oplog, reached: int) -> float:
    """``reached``: seconds since 1970 up to which all was read."""
    if reached < oplog.first.time:
        return 1.0
    return min(1.0, max(0, oplog.last.time - reached) / max(oplog.window, 1.0))


def find_oplog(source: Source) -> Oplog | None:
    """None where it may not be read, as behind a router of shards."""
    local = source.client["local"]
    try:
        with source.translated():
            ends = [local["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", way)]) for way in (1, -1)]
            sizes = local.command("collStats", "oplog.rs")
    except (PermissionMissing, ProviderUnavailable, RequestRefused):
        return None
    first, last = (end["ts"] if end else None for end in ends)
    used, most = sizes.get("size"), sizes.get("maxSize")
    if first is None or last is None or not used or not most:
        return None
    return Oplog(first, last, (last.time - first.time) / min(1.0, used / most))


def _collection(source: Source, name: str) -> ObjectAccess:
    try:
        with source.translated():
            source.collection(name).find_one({}, {"_id": 1})
    except PermissionMissing:
        return ObjectAccess(name, False, "it may not be read", source.grant)
    except TABLE_ERRORS as error:
        return ObjectAccess(name, False, error.message, error.remedy)
    return ObjectAccess(name, True)


def _missing(source: Source) -> Iterator[tuple[str, str]]:
    if not source.follows():
        yield STANDALONE.split(". ", 1)[0], STANDALONE.split(". ", 1)[1]
        return
    try:
        with source.client.start_session(causal_consistency=False) as session:
            opened_stream(source, [], session, None).close()
    except PermissionMissing:
        yield "the user may not open change streams", source.grant
    oplog = find_oplog(source)
    if oplog is not None and oplog.window < SHORTEST_WINDOW:
        yield (
            f"the oplog holds {oplog.window / 3600:.1f} hours of changes",
            "`db.adminCommand({replSetResizeOplog: 1, minRetentionHours: 72})`; a reader that is away for longer "
            "has to read all anew.",
        )


def _is_waiting(source: Source, position: Position) -> bool:
    with (
        source.client.start_session(causal_consistency=False) as session,
        opened_stream(source, None, session, position) as stream,
        source.translated(),
    ):
        return stream.try_next() is not None
