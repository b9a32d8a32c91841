"""`/api/streaming/streams`: configure real-time feeds, steer them, see how they do."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.errors import ChurnGuardError, NotFound, SecretsUnreadable, TooBusy
from churnguard_pipelines.model import (
    BatchSize,
    ConfiguredBy,
    DataFilter,
    DataFormat,
    FieldMappings,
    FormatOptions,
    Identifier,
    ProcessingMode,
    StreamConfiguration,
    StreamFields,
    StreamFormat,
    StreamTarget,
    StreamType,
    Topics,
)
from churnguard_pipelines.monitoring.stream_numbers import StreamMetrics, measured
from churnguard_pipelines.rule_options import FieldPath
from churnguard_pipelines.store.control.streams import STREAMS, StreamState
from churnguard_pipelines.store.ingest.rejected import dismiss, list_rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.replay import replay_messages
from churnguard_pipelines.syncing.streams.status import StreamStatus, list_streams, status_of
from webhook_gateway.api.access import (
    Reader,
    TheEngine,
    TheStore,
    Writer,
    organization_of,
    own_configuration,
    refuse_chosen_id,
)
from webhook_gateway.dashboard.principal import Principal

router = APIRouter(prefix="/streaming", tags=["streaming"])
StreamId = Annotated[Identifier, Path()]
Offsets = dict[str, Annotated[str, StringConstraints(min_length=1, max_length=200)]]
Answer = TypeVar("Answer")
_MAY_BE_NULL = {"key"}
MOST_SENT = 1_000_000
"""Characters of a message that is sent."""


class ProcessingConfig(BaseModel):
    """The fields of these names, in a place of their own."""

    model_config = ConfigDict(extra="forbid")
    batch_size: BatchSize | None = None
    processing_mode: ProcessingMode | None = None


class NewStream(StreamFields):
    """``stream_id``: made up if omitted; only an operator's key may choose it. ``processing_config`` wins over the
    fields themselves."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "organization_id": "org_123",
                    "name": "User events",
                    "stream_type": "kafka",
                    "topics": ["user.events"],
                    "connection_config": {"bootstrap_servers": "broker.example.com:9092"},
                    "processing_config": {"batch_size": 100, "processing_mode": "at_least_once"},
                }
            ]
        }
    )
    stream_id: Identifier = Field(default_factory=lambda: f"stream_{token_hex(8)}")
    processing_config: ProcessingConfig | None = None


class StreamChange(BaseModel):
    """What is left out stays. ``connection_config`` is replaced as a whole but for secrets: one that is left out, or
    comes as it was shown, is kept; null forgets it. ``key``: null for the message's own."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{"topics": ["user.events", "orders"], "processing_config": {"batch_size": 500}}]
        },
    )
    name: str | None = None
    topics: Topics | None = None
    data_format: StreamFormat | None = None
    processing_mode: ProcessingMode | None = None
    batch_size: BatchSize | None = None
    connection_config: dict[str, JsonValue] | None = None
    field_mappings: FieldMappings | None = None
    target: StreamTarget | None = None
    key: list[FieldPath] | None = None
    filters: list[DataFilter] | None = None
    format_options: FormatOptions | None = None
    start: Literal["earliest", "latest"] | None = None
    most_rejected: Annotated[float, Field(ge=0, le=1)] | None = None
    largest_message: int | None = None
    processing_config: ProcessingConfig | None = None


class Stream(BaseModel):
    """Secrets of ``connection_config`` are masked. ``state``: ``active``, ``paused`` (by a person, or by itself where
    there is a ``reason``) or ``failed``; ``reason``, ``remedy``: why, or why an active one does not get on at the
    moment, and what to do; ``since``: when its state became this. Lag: what the source holds beyond what is stored, and
    how old the oldest of it is; null where nobody knows."""

    stream_id: str
    organization_id: str
    name: str
    stream_type: StreamType
    topics: list[str]
    data_format: DataFormat
    processing_mode: ProcessingMode
    batch_size: int
    connection_config: dict[str, JsonValue]
    field_mappings: dict[str, str]
    target: StreamTarget
    key: list[str] | None
    filters: list[DataFilter]
    format_options: FormatOptions
    start: str
    most_rejected: float
    largest_message: int
    created_at: datetime
    created_by: str | None
    configured_by: ConfiguredBy
    state: StreamState
    reason: str | None
    remedy: str | None
    since: datetime
    lag_messages: int | None
    lag_seconds: float | None


class SeekTo(BaseModel):
    """``to``: ``earliest``, ``latest``, a moment with its time zone, or offsets by partition."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"to": "earliest"}, {"to": {"user.events/0": "42"}}]}
    )
    to: Annotated[str, StringConstraints(max_length=100)] | Offsets


class Sought(BaseModel):
    """The positions from which is read on, by partition."""

    stream_id: str
    positions: dict[str, dict[str, Any]]


class StreamTest(BaseModel):
    """``cause``, ``remedy``: what is wrong, and what to do about it."""

    stream_id: str
    ok: bool
    cause: str | None = None
    remedy: str | None = None


class RejectedMessage(BaseModel):
    """``key``: ``topic/partition/offset``; ``payload``: the message with what is known of it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    key: str | None
    reason: str
    payload: Any
    created_at: datetime


RejectedId = Annotated[int, Field(ge=1, le=2**63 - 1, strict=True)]


class Replay(BaseModel):
    """Which rejected messages; all that wait if ``ids`` is left out."""

    model_config = ConfigDict(extra="forbid")
    ids: list[RejectedId] | None = None


class Dismissal(BaseModel):
    """Which rejected messages nobody wants."""

    model_config = ConfigDict(extra="forbid")
    ids: list[RejectedId]


class Dismissed(BaseModel):
    """How many of them waited."""

    dismissed: int


class Replayed(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    read: int
    written: int
    stale: int
    rejected: int
    deleted: int
    filtered: int


class Outgoing(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message": '{"type": "ping"}'}]})
    message: Annotated[str, StringConstraints(min_length=1, max_length=MOST_SENT)]


@router.post("/streams", status_code=201)
async def create(
    new: NewStream,
    principal: Writer,
    engine: TheEngine,
    check: Annotated[bool, Query(description="Ask its source first; without, it is stored as it is.")] = True,
) -> Stream:
    """Its source is asked first whether all that is configured is there and may be read."""
    refuse_chosen_id(principal, new, "stream_id")
    made = StreamConfiguration(**_fields(new), configured_by=principal.configures_as)
    await asyncio.to_thread(managing.check_configuration, made)  # a large schema takes its time
    organization = organization_of(principal, new.organization_id)
    work = partial(managing.create, engine.store, made, actor=principal.id, checks=check, organization=organization)
    await (engine.ask_source(made, work) if check else asyncio.to_thread(work))
    return await asyncio.to_thread(_one, engine.store, principal, made.stream_id)


@router.get("/streams")
def list_(principal: Reader, store: TheStore) -> list[Stream]:
    """The streams, each with its state."""
    return [_shown(each) for each in list_streams(store, principal.organization_id)]


@router.get("/streams/{stream_id}")
def get(stream_id: StreamId, principal: Reader, store: TheStore) -> Stream:
    """One stream's configuration and state, without its secrets."""
    return _one(store, principal, stream_id)


@router.patch("/streams/{stream_id}")
def change(stream_id: StreamId, wanted: StreamChange, principal: Writer, store: TheStore) -> Stream:
    """What reads it ends within seconds, and begins anew as it is configured then. One that had failed is active."""
    own_configuration(STREAMS, store, principal, stream_id)
    managing.change(store, stream_id, _fields(wanted), actor=principal.id, by=principal.configures_as)
    return _one(store, principal, stream_id)


@router.delete("/streams/{stream_id}", status_code=204)
async def remove(stream_id: StreamId, principal: Writer, engine: TheEngine, purge: bool = False) -> Response:
    """``purge``: the rows it brought, too."""
    found = await asyncio.to_thread(own_configuration, STREAMS, engine.store, principal, stream_id)
    work = partial(managing.remove, engine.store, stream_id, actor=principal.id, purge=purge)
    await engine.in_turn(found.configuration.organization_id, work)
    return Response(status_code=204)


@router.post("/streams/{stream_id}/pause")
def pause(stream_id: StreamId, principal: Writer, store: TheStore) -> Stream:
    """What reads it ends within seconds. Where it was it goes on later."""
    own_configuration(STREAMS, store, principal, stream_id)
    managing.pause(store, stream_id, actor=principal.id)
    return _one(store, principal, stream_id)


@router.post("/streams/{stream_id}/resume")
def resume(stream_id: StreamId, principal: Writer, store: TheStore) -> Stream:
    """Also one that paused itself, or failed."""
    own_configuration(STREAMS, store, principal, stream_id)
    managing.resume(store, stream_id, actor=principal.id)
    return _one(store, principal, stream_id)


@router.post("/streams/{stream_id}/seek")
async def seek(stream_id: StreamId, wanted: SeekTo, principal: Writer, engine: TheEngine) -> Sought:
    """Read on from there. What is stored stays; what is read again comes to the same rows."""
    to = managing.place(wanted.to)
    move = partial(managing.seek, engine.store, stream_id, to, actor=principal.id)
    positions = await _asked(engine, principal, stream_id, move)
    return Sought(stream_id=stream_id, positions={name: dict(at) for name, at in positions.items()})


@router.post("/streams/{stream_id}/test")
async def test(stream_id: StreamId, principal: Writer, engine: TheEngine) -> StreamTest:
    """Asks its source and its format whether all that is configured can be read."""
    try:
        await _asked(engine, principal, stream_id, partial(managing.test, engine.store, stream_id))
    except (TooBusy, NotFound, SecretsUnreadable):
        raise
    except ChurnGuardError as error:
        return StreamTest(stream_id=stream_id, ok=False, cause=error.message, remedy=error.remedy)
    return StreamTest(stream_id=stream_id, ok=True)


@router.get("/streams/{stream_id}/metrics")
def metrics(stream_id: StreamId, principal: Reader, store: TheStore) -> StreamMetrics:
    """How fast it is, how far behind, and what it rejects."""
    own_configuration(STREAMS, store, principal, stream_id)
    return measured(store, stream_id)


@router.get("/streams/{stream_id}/rejected")
def rejected(
    stream_id: StreamId, principal: Reader, store: TheStore, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> list[RejectedMessage]:
    """The messages that could not be stored and wait, newest first."""
    own_configuration(STREAMS, store, principal, stream_id)
    return [RejectedMessage.model_validate(each) for each in list_rejected(store, stream_id, limit=limit)]


@router.post("/streams/{stream_id}/rejected/replay")
async def replay(stream_id: StreamId, principal: Writer, engine: TheEngine, which: Replay | None = None) -> Replayed:
    """Decode and store them again, after a fix. Safe to repeat."""
    found = await asyncio.to_thread(own_configuration, STREAMS, engine.store, principal, stream_id)
    work = partial(replay_messages, engine.store, stream_id, which.ids if which else None)
    return Replayed.model_validate(await engine.in_turn(found.configuration.organization_id, work))


@router.post("/streams/{stream_id}/rejected/dismiss")
def let_go(stream_id: StreamId, principal: Writer, store: TheStore, which: Dismissal) -> Dismissed:
    """They are listed no more, and deleted after a month."""
    own_configuration(STREAMS, store, principal, stream_id)
    return Dismissed(dismissed=dismiss(store, stream_id, which.ids, actor=principal.id))


@router.post("/streams/{stream_id}/messages", status_code=202)
async def send(stream_id: StreamId, message: Outgoing, principal: Writer, engine: TheEngine) -> Response:
    """To the source, where it listens: through a WebSocket."""
    await _asked(engine, principal, stream_id, partial(managing.send, engine.store, stream_id, message.message))
    return Response(status_code=202)


async def _asked(engine: IntegrationEngine, principal: Principal, stream_id: str, ask: Callable[[], Answer]) -> Answer:
    """The answer of something that has to wait for the stream's source."""
    found = await asyncio.to_thread(own_configuration, STREAMS, engine.store, principal, stream_id)
    return await engine.ask_source(found.configuration, ask)


def _one(store: Store, principal: Principal, stream_id: str) -> Stream:
    own_configuration(STREAMS, store, principal, stream_id)
    return _shown(status_of(store, stream_id))


def _fields(body: NewStream | StreamChange) -> dict[str, Any]:
    """Those that are given, and the id."""
    given: dict[str, Any] = {"stream_id": body.stream_id} if isinstance(body, NewStream) else {}
    given |= body.model_dump(exclude_unset=True)
    given |= given.pop("processing_config", None) or {}
    return {name: value for name, value in given.items() if value is not None or name in _MAY_BE_NULL}


def _shown(found: StreamStatus) -> Stream:
    state = found.state
    return Stream(
        **found.configured.masked,
        created_at=found.configured.created_at,
        created_by=found.configured.created_by,
        state=state.state,
        reason=state.reason,
        remedy=state.remedy,
        since=state.since,
        lag_messages=found.lag_messages,
        lag_seconds=found.lag_seconds,
    )
