"""One stream from close by: what was measured of it in the last minute, and how far each partition is behind."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.monitoring.streams import StreamVitals, read_stream_vitals
from churnguard_pipelines.store.control.streams import StreamState
from churnguard_pipelines.store.ingest import stream_progress
from churnguard_pipelines.store.ingest.drift import list_drift
from churnguard_pipelines.store.postgres.database import Store


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PartitionMetrics(_Shown):
    """``watermark``: where it ends, as its source said it at ``observed_at``. Lag: messages beyond what is stored, and
    how old the first of them is."""

    partition: str
    watermark: str | None
    lag_messages: int | None
    lag_seconds: float | None
    observed_at: datetime


class StreamLoss(_Shown):
    """Messages that the source no longer had when they were to be read: ``first_offset`` to ``last_offset``.
    ``certain``: there were some; else nobody can tell, as of a feed that was not listened to for a moment."""

    topic: str
    partition: str
    first_offset: str
    last_offset: str
    reason: str
    certain: bool
    noted_at: datetime


class StreamDrift(_Shown):
    """What the stream's view does not show as ``field_mappings`` say: a ``column`` of whose values some do not fit its
    type, or the view itself, where it could not follow them. Since its configuration was changed last."""

    column: str
    kind: str
    detail: str


Status = Literal["running", "idle", "not_running", "paused", "failed"]


class StreamMetrics(BaseModel):
    """Measured in the last minute, or None. ``status``: ``running`` while a session follows it, ``idle`` while none
    does as nothing waits. Times to process are from a message's reading until it is stored. ``error_rate``: share of
    messages that were rejected; ``buffer_utilization``: how full the source's buffer was at most; both 0 to 1. Lag:
    what the source holds beyond what is stored, and how old the oldest of it is. ``rejected_waiting``: up to 1000.
    ``losses``: the latest ones."""

    stream_id: str
    status: Status
    messages_per_second: float | None = None
    bytes_per_second: float | None = None
    avg_processing_time_ms: float | None = None
    processing_time_p50_ms: float | None = None
    processing_time_p99_ms: float | None = None
    error_rate: float | None = None
    buffer_utilization: float | None = None
    lag_messages: int | None = None
    lag_seconds: float | None = None
    rejected_waiting: int = 0
    partitions: list[PartitionMetrics] = []
    losses: list[StreamLoss] = []
    drift: list[StreamDrift] = []


MOST_LOSSES = 10


def measured(store: Store, stream_id: str) -> StreamMetrics:
    """Raises ``NotFound``."""
    found = read_stream_vitals(store, stream_id)
    if not found:
        raise NotFound(f"there is no stream {stream_id!r}.", remedy="`churnguard streams list` shows those there are.")
    [vitals] = found
    recent, status = vitals.recent, _status(vitals)
    shown = StreamMetrics(
        stream_id=stream_id,
        status=status,
        messages_per_second=0.0 if status in ("running", "idle") else None,
        lag_messages=vitals.lag_messages,
        lag_seconds=vitals.lag_seconds,
        rejected_waiting=vitals.rejected.count if vitals.rejected else 0,
        partitions=[PartitionMetrics.model_validate(each) for each in stream_progress.lags(store, stream_id)],
        drift=[StreamDrift.model_validate(each) for found in list_drift(store, stream_id).values() for each in found],
        losses=[StreamLoss.model_validate(each) for each in stream_progress.losses(store, stream_id, MOST_LOSSES)],
    )
    if recent is not None:
        shown.messages_per_second = round(recent.messages_per_second, 3)
        shown.bytes_per_second = round(recent.bytes / recent.seconds, 1)
        shown.avg_processing_time_ms = recent.average_ms
        shown.processing_time_p50_ms = recent.quantile_ms(0.5)
        shown.processing_time_p99_ms = recent.quantile_ms(0.99)
        shown.error_rate = recent.error_rate
        shown.buffer_utilization = recent.buffered
    return shown


def _status(vitals: StreamVitals) -> Status:
    match vitals.state:
        case StreamState.PAUSED:
            return "paused"
        case StreamState.FAILED:
            return "failed"
    if vitals.followed:
        return "running"
    return "idle" if vitals.lag_messages == 0 and vitals.reason is None else "not_running"
