"""`/api/streaming/streams`: configure real-time feeds, see how they do."""

from datetime import datetime
from secrets import token_hex
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from churnguard_pipelines.engine.addresses import check_addresses
from churnguard_pipelines.model import (
    BatchSize,
    ConfiguredBy,
    DataFormat,
    FieldMappings,
    Identifier,
    ProcessingMode,
    StreamConfiguration,
    StreamFields,
    StreamType,
    Topics,
)
from churnguard_pipelines.store.control.configurations import Configured
from churnguard_pipelines.store.control.streams import STREAMS
from webhook_gateway.api.access import Reader, TheStore, Writer, made_organization, own_configuration, refuse_chosen_id

router = APIRouter(prefix="/streaming", tags=["streaming"])
StreamId = Annotated[Identifier, Path()]


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
    comes as it was shown, is kept; null forgets it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"topics": ["user.events", "orders"], "processing_config": {"batch_size": 500}}]
        },
    )
    name: str | None = None
    topics: Topics | None = None
    data_format: DataFormat | None = None
    processing_mode: ProcessingMode | None = None
    batch_size: BatchSize | None = None
    connection_config: dict[str, JsonValue] | None = None
    field_mappings: FieldMappings | None = None
    processing_config: ProcessingConfig | None = None


class Stream(BaseModel):
    """Secrets of ``connection_config`` are masked."""

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
    created_at: datetime
    created_by: str | None
    configured_by: ConfiguredBy


class StreamMetrics(BaseModel):
    """Measured, or null. ``error_rate``, ``buffer_utilization``: 0 to 1. Lag: what the source holds beyond what is
    stored, and how old the oldest of it is."""

    stream_id: str
    status: Literal["not_running"]
    messages_per_second: float | None = None
    avg_processing_time_ms: float | None = None
    error_rate: float | None = None
    buffer_utilization: float | None = None
    lag_messages: int | None = None
    lag_seconds: float | None = None


@router.post("/streams", status_code=201)
def create(new: NewStream, principal: Writer, store: TheStore) -> Stream:
    refuse_chosen_id(principal, new, "stream_id")
    made = StreamConfiguration(**_fields(new), configured_by=principal.configures_as)
    check_addresses(made)
    made_organization(store, principal, new.organization_id)
    return _shown(STREAMS.add(store, made, actor=principal.id))


@router.get("/streams")
def list_(principal: Reader, store: TheStore) -> list[Stream]:
    return [_shown(each) for each in STREAMS.list(store, principal.organization_id)]


@router.get("/streams/{stream_id}")
def get(stream_id: StreamId, principal: Reader, store: TheStore) -> Stream:
    return _shown(own_configuration(STREAMS, store, principal, stream_id))


@router.patch("/streams/{stream_id}")
def change(stream_id: StreamId, wanted: StreamChange, principal: Writer, store: TheStore) -> Stream:
    own_configuration(STREAMS, store, principal, stream_id)
    changes, by = _fields(wanted), principal.configures_as
    return _shown(STREAMS.change(store, stream_id, changes, actor=principal.id, by=by, approve=check_addresses))


@router.delete("/streams/{stream_id}", status_code=204)
def remove(stream_id: StreamId, principal: Writer, store: TheStore) -> Response:
    own_configuration(STREAMS, store, principal, stream_id)
    STREAMS.remove(store, stream_id, actor=principal.id)
    return Response(status_code=204)


@router.get("/streams/{stream_id}/metrics")
def metrics(stream_id: StreamId, principal: Reader, store: TheStore) -> StreamMetrics:
    own_configuration(STREAMS, store, principal, stream_id)
    return StreamMetrics(stream_id=stream_id, status="not_running")


def _fields(body: NewStream | StreamChange) -> dict[str, Any]:
    """Those that are given, and the id."""
    given: dict[str, Any] = {"stream_id": body.stream_id} if isinstance(body, NewStream) else {}
    given |= body.model_dump(exclude_unset=True)
    given |= given.pop("processing_config", None) or {}
    return {name: value for name, value in given.items() if value is not None}


def _shown(found: Configured[StreamConfiguration]) -> Stream:
    return Stream(**found.masked, created_at=found.created_at, created_by=found.created_by)
