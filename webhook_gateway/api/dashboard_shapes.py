"""Bodies of `/api/dashboard`."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.monitoring.health import HealthStatus, Severity
from churnguard_pipelines.store.control.streams import StreamState


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Reason(_Shown):
    """``score``: 1 is well, 0 is not, null is unknown."""

    kind: str
    score: float | None
    cause: str


class IntegrationHealth(_Shown):
    """``score``: 0 to 100, null while nothing is known or the integration is paused."""

    status: HealthStatus
    score: int | None
    reasons: list[Reason]


class Alert(_Shown):
    """Raised as long as its cause lasts. ``stream_id``: the same id, if a stream has it; else null."""

    integration_id: str
    stream_id: str | None = None
    organization_id: str
    kind: str
    severity: Severity
    since: datetime
    cause: str
    remedy: str | None


class LatestSync(_Shown):
    sync_id: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    error: str | None


class IntegrationSummary(BaseModel):
    """``last_success_at``: when the latest sync that brought something began. What waits is counted up to 1000.
    ``rows``: in the warehouse when syncs counted them last. ``lag_seconds``: how far what is here is behind its source;
    of a followed database what its change log says, else since ``last_success_at``. ``quota_left``: calls, by the
    provider's last word."""

    integration_id: str
    organization_id: str
    integration_name: str
    provider_name: str
    status: IntegrationStatus
    health: IntegrationHealth
    latest_sync: LatestSync | None
    last_success_at: datetime | None
    sync_frequency: int
    records_rejected_waiting: int
    webhook_events_waiting: int
    rows: int | None
    lag_seconds: float | None
    quota_left: float | None
    alerts: int


class ColumnDrift(_Shown):
    column: str
    kind: str
    detail: str


class ArrivalsByPath(_Shown):
    """Records of the last seven days: those that events brought, and those that they should have and a sync did."""

    brought: int
    missed: int
    miss_rate: float | None


class ObjectDetail(_Shown):
    """``rows``: in the warehouse when the latest sync of the object ended; the rest is of that sync. ``arrivals``: by
    the path that events take: ``webhooks`` or ``changes``."""

    name: str
    status: str
    rows: int | None
    read: int
    written: int
    fresh_at: datetime | None
    freshness_seconds: float | None
    error: str | None
    drift: list[ColumnDrift]
    arrivals: dict[str, ArrivalsByPath]


class PastSync(_Shown):
    sync_id: str
    mode: str
    trigger: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    read: int
    written: int
    rejected: int
    deleted: int
    calls: int
    error: str | None


class QuotaState(BaseModel):
    """``calls_left``: the provider's last word; ``calls_per_second``: what refusals have lowered us to. Else null."""

    calls_left: float | None
    calls_per_second: float | None
    blocked_until: datetime | None


class IntegrationDetail(IntegrationSummary):
    objects: list[ObjectDetail]
    recent_syncs: list[PastSync]
    quota: QuotaState
    current_alerts: list[Alert]


class HealthCounts(BaseModel):
    """``score``: the mean of those that have one."""

    score: int | None
    healthy: int = 0
    degraded: int = 0
    unhealthy: int = 0
    unknown: int = 0
    paused: int = 0


class Throughput(BaseModel):
    """``records_per_second``: of the syncs that run now; the rest is of the last 24 hours."""

    records_per_second: float
    running_syncs: int
    records_read: int
    records_written: int
    webhook_events: int


class Streams(BaseModel):
    """``by_state``: how many; the rest is of the last minute, of all together. ``lag_seconds``: of the one that is
    furthest behind."""

    by_state: dict[StreamState, int]
    messages_per_second: float
    lag_messages: int
    lag_seconds: float | None


class Errors(BaseModel):
    """Of the last 24 hours, but ``alerts``: of now, by severity."""

    syncs_failed: int
    records_rejected: int
    webhook_events_rejected: int
    alerts: dict[Severity, int]


class ResourceUse(BaseModel):
    database_bytes: int
    database_connections: int
    database_connections_at_most: int


class Trend(_Shown):
    day: date
    read: int
    written: int
    rejected: int
    succeeded: int
    failed: int
    events: int
    events_rejected: int


class Metrics(BaseModel):
    """``resources``: for operators; ``trends``: by day (UTC), the last 30 days that had something."""

    as_of: datetime
    integrations: dict[IntegrationStatus, int]
    health: HealthCounts
    throughput: Throughput
    streams: Streams
    errors: Errors
    resources: ResourceUse | None
    trends: list[Trend]


class Component(BaseModel):
    component: Literal["database", "daemon", "gateway", "integrations", "streams"]
    ok: bool
    cause: str
    remedy: str | None = None


class InstallationHealth(BaseModel):
    as_of: datetime
    status: HealthStatus
    score: int | None
    components: list[Component]
