"""Streams: their configuration, their state, and where they read on.

A stream's rows, checkpoints and rejected records are kept under its id, as an integration's are: no two have one.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.destinations import destinations
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration, LaneTakenOver
from churnguard_pipelines.model import StreamConfiguration, StreamType
from churnguard_pipelines.records import Checkpoint, Lane, Position
from churnguard_pipelines.store.control.configurations import Configurations
from churnguard_pipelines.store.control.forgetting import forget
from churnguard_pipelines.store.control.masking import Document, Path, looks_secret
from churnguard_pipelines.store.control.ownership import Kind
from churnguard_pipelines.store.control.tables import integrations, streams
from churnguard_pipelines.store.ingest import checkpoints, stream_outbox, stream_progress
from churnguard_pipelines.store.ingest.drift import forget_drift
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.locks import Own, taking_own


class StreamState(StrEnum):
    """``paused``: by a person, or by itself as too much is rejected, with a reason then; ``failed``: a person has to
    decide."""

    ACTIVE = "active"
    PAUSED = "paused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StateOfStream:
    """``reason``, ``remedy``: why it is not active, or does not get on, and what to do. ``revision``: another number
    whenever it is to do something else than before."""

    state: StreamState
    reason: str | None
    remedy: str | None
    since: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class ActiveStream:
    configuration: StreamConfiguration
    revision: int

    @property
    def stream_id(self) -> str:
        return self.configuration.stream_id

    def lane(self, partition: str) -> Lane:
        return Lane(self.configuration.organization_id, self.stream_id, partition)


class Streams(Configurations[StreamConfiguration]):
    _more_kinds = (Kind.INTEGRATION,)

    def _adding(self, connection: Connection, store: Store, configuration: StreamConfiguration, actor: str) -> None:
        there = sa.select(integrations.c.integration_id).where(integrations.c.integration_id == configuration.stream_id)
        if connection.scalar(there) is not None:
            raise InvalidConfiguration(
                f"there is an integration {configuration.stream_id!r} already.", remedy="Choose another stream_id."
            )

    def _changed(
        self, connection: Connection, store: Store, configuration: StreamConfiguration, changes: Mapping[str, Any]
    ) -> None:
        if not set(changes) <= {"name"}:
            _begin_anew(connection, configuration.stream_id)
            forget_drift(connection, configuration.organization_id, configuration.stream_id)

    def _removed(self, connection: Connection, id_: str, organization_id: str) -> None:
        _take(connection, organization_id, id_)
        forget(connection, organization_id, id_)
        stream_progress.forget(connection, organization_id, id_)
        stream_outbox.forget(connection, organization_id, id_)

    def hold(self, connection: Connection, organization_id: str, stream_id: str, revision: int) -> None:
        """Until the transaction ends it is not removed. For whoever begins a lane: what is begun for a stream that is
        no more would be the beginning of the next one of its id. Raises ``LaneTakenOver`` if it is another one now."""
        _take(connection, organization_id, stream_id)
        own = streams.c.organization_id == organization_id, streams.c.stream_id == stream_id
        if connection.scalar(sa.select(streams.c.revision).where(*own)) != revision:
            raise LaneTakenOver(
                "it was removed or changed while a lane of it began; nothing was written by that.",
                integration_id=stream_id,
                remedy="Nothing needs to be repaired.",
            )

    def keep(self, connection: Connection, organization_id: str, stream_id: str) -> None:
        """Until the transaction ends it is not removed, and what is stored for it goes with it. For whoever stores what
        moves no lane. Raises ``NotFound``."""
        own = {"organization_id": organization_id, "stream_id": stream_id}
        connection.execute(_SHARE, own)
        if connection.scalar(_IS_THERE, own) is None:
            raise self._unknown(stream_id)

    def set_state(
        self,
        store: Store,
        stream_id: str,
        state: StreamState,
        reason: str | None = None,
        remedy: str | None = None,
        *,
        actor: str = "system",
        revision: int | None = None,
    ) -> None:
        """Into the audit log, if it changes. ``revision``: only if the stream still is as it was then, so that what an
        earlier configuration is guilty of is not told of its successor. Raises ``NotFound``."""
        with store.operator() as connection:
            row = self._locked(connection, stream_id)
            if revision not in (None, row.revision) or (row.state, row.state_reason) == (state, reason):
                return
            values = _state(state, reason, remedy) | {"revision": row.revision + 1}
            connection.execute(sa.update(streams).where(streams.c.stream_id == stream_id).values(values))
            detail = {"state": state.value, "reason": reason, "remedy": remedy}
            self._note(connection, actor, "state", stream_id, row.organization_id, detail)

    def note_trouble(
        self, store: Store, told: Mapping[str, tuple[str | None, str | None]], *, again: bool = False
    ) -> None:
        """Why streams that are active do not get on, which are tried again, and what to do; None once they do. By
        stream. ``again``: only where nothing stands."""
        values = {
            "ids": builtins.list(told),
            "reasons": [_storable(reason) for reason, _ in told.values()],
            "remedies": [_storable(remedy) for _, remedy in told.values()],
            "again": again,
        }
        with store.operator() as connection:
            connection.execute(_NOTE_TROUBLE, values)

    def ids(self, store: Store, kind: StreamType) -> builtins.list[str]:
        """Of a type, in whatever state. Opens no secret."""
        of_type = streams.c.config["stream_type"].astext == kind.value
        with store.operator() as connection:
            return builtins.list(connection.scalars(sa.select(streams.c.stream_id).where(of_type)))

    def states(self, store: Store, stream_ids: Collection[str]) -> dict[str, StateOfStream]:
        """Of those of these streams that there are, by id. Opens no secret."""
        columns = (streams.c[name] for name in ("state", "state_reason", "state_remedy", "state_since", "revision"))
        statement = sa.select(streams.c.stream_id, *columns).where(streams.c.stream_id.in_(builtins.list(stream_ids)))
        with store.operator() as connection:
            rows = connection.execute(statement).all()
        return {row[0]: StateOfStream(StreamState(row[1]), *row[2:]) for row in rows}

    def survey(
        self, store: Store, kind: StreamType, known: Mapping[str, ActiveStream] | None = None
    ) -> dict[str, ActiveStream | ChurnGuardError]:
        """The active streams of a type by id; the error stands for one whose secrets the key does not open, or whose
        configuration this version does not take. ``known``: those that were read before, of which only what has
        another revision now is opened again."""
        active = streams.c.state == StreamState.ACTIVE.value, streams.c.config["stream_type"].astext == kind.value
        before = known or {}
        with store.operator() as connection:
            found = connection.execute(
                sa.select(streams.c.stream_id, streams.c.revision).where(*active).order_by(streams.c.stream_id)
            ).all()
            new = [id_ for id_, revision in found if id_ not in before or before[id_].revision != revision]
            opened = {
                row.stream_id: self._opened_or_error(store, row)
                for row in connection.execute(sa.select(streams).where(streams.c.stream_id.in_(new))).all()
            }
        return {id_: opened.get(id_) or before[id_] for id_, _ in found if id_ in opened or id_ in before}

    def seek(
        self,
        store: Store,
        stream_id: str,
        positions: Mapping[str, Position],
        source: str,
        *,
        to: str,
        actor: str,
        others: bool,
    ) -> None:
        """Move the checkpoints of these partitions, whoever reads them meanwhile: that one writes nothing more from
        where it was. ``source``: its identity; ``to``: what was asked for, for the audit log; ``others``: what is known
        of other partitions is forgotten. One that failed is active again. Raises ``NotFound``."""
        with store.operator() as connection:
            row = self._locked(connection, stream_id)
            _take(connection, row.organization_id, stream_id)  # a lane that begins just now has begun before
            before = checkpoints.of_integration(connection, row.organization_id, stream_id)
            for partition, position in sorted(positions.items()):
                lane = Lane(row.organization_id, stream_id, partition)
                standing = checkpoints.load(connection, lane, lock=True)
                checkpoints.advance(connection, lane, standing, position, source)
            for partition in before.keys() - positions.keys() if others else ():
                checkpoints.forget(connection, Lane(row.organization_id, stream_id, partition))
            _begin_anew(connection, stream_id)
            detail = {
                "to": to,
                "before": _told(before),
                "positions": {name: dict(at) for name, at in positions.items()},
            }
            self._note(connection, actor, "seek", stream_id, row.organization_id, detail)

    def _opened_or_error(self, store: Store, row: sa.Row[Any]) -> ActiveStream | ChurnGuardError:
        try:
            return ActiveStream(self._opened(store.vault, row).configuration, row.revision)
        except ChurnGuardError as error:
            return error
        except ValueError:  # what it says may be a secret
            return InvalidConfiguration(
                "this version does not take its stored configuration.",
                integration_id=row.stream_id,
                remedy="Configure it anew: `churnguard streams add FILE.yaml --replace`.",
            )


# In one order, as several sessions may tell of the same streams.
_NOTE_TROUBLE = sa.text("""
WITH news AS (
    SELECT stream.stream_id, told.reason, told.remedy
      FROM unnest(cast(:ids AS text[]), cast(:reasons AS text[]), cast(:remedies AS text[]))
           AS told (stream_id, reason, remedy)
      JOIN control.streams AS stream ON stream.stream_id = told.stream_id
     WHERE state = 'active'
       AND state_reason IS DISTINCT FROM told.reason AND NOT (:again AND state_reason IS NOT NULL)
     ORDER BY stream.stream_id FOR NO KEY UPDATE OF stream)
UPDATE control.streams AS stream SET state_reason = news.reason, state_remedy = news.remedy
  FROM news WHERE stream.stream_id = news.stream_id
""")


_OWN = "cast(:organization_id AS text) || ' ' || cast(:stream_id AS text)"
_IS_THERE = sa.text("SELECT 1 FROM control.streams WHERE organization_id = :organization_id AND stream_id = :stream_id")
_TAKE, _SHARE = (sa.text(taking_own(Own.STREAMS, _OWN, shared=shared)) for shared in (False, True))


def _take(connection: Connection, organization_id: str, stream_id: str) -> None:
    connection.execute(_TAKE, {"organization_id": organization_id, "stream_id": stream_id})


def _begin_anew(connection: Connection, stream_id: str) -> None:
    """What it failed for, or did not get on for, may be mended; paused it stays, and why."""
    now = streams.c
    rests = now.state == StreamState.PAUSED.value
    failed = now.state == StreamState.FAILED.value
    values = {
        "revision": now.revision + 1,
        "state": sa.case((rests, now.state), else_=StreamState.ACTIVE.value),
        "state_since": sa.case((failed, sa.func.clock_timestamp()), else_=now.state_since),
        "state_reason": sa.case((rests, now.state_reason)),
        "state_remedy": sa.case((rests, now.state_remedy)),
    }
    connection.execute(sa.update(streams).where(now.stream_id == stream_id).values(values))


def _storable(text: str | None) -> str | None:
    """A source's words may be in it."""
    return None if text is None else text.replace("\0", "").encode(errors="replace").decode()


def _state(state: StreamState, reason: str | None = None, remedy: str | None = None) -> dict[str, Any]:
    since = sa.func.clock_timestamp()
    told = {"state_reason": _storable(reason), "state_remedy": _storable(remedy)}
    return {"state": state.value, "state_since": since, **told}


def _told(before: Mapping[str, Checkpoint]) -> dict[str, Any]:
    return {name: dict(checkpoint.position) for name, checkpoint in before.items()}


def _secret(path: Path, value: Any) -> bool:
    return path[0] == "connection_config" and len(path) > 1 and looks_secret(path[-1], value)


def _destinations(document: Document) -> set[tuple[str, ...]]:
    return set(destinations(document["connection_config"]))


STREAMS = Streams(StreamConfiguration, streams, Kind.STREAM, _secret, _destinations, "connection_config")
