"""`/api/dashboard`: how everything is doing. The numbers are of the monitor's picture."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Path, Request

from churnguard_pipelines.model import Identifier
from churnguard_pipelines.monitoring.detail import objects_of, recent_syncs
from churnguard_pipelines.monitoring.health import Health, HealthStatus, Severity, Sign, judge, status_of
from churnguard_pipelines.monitoring.monitor import Day, Monitor, Picture
from churnguard_pipelines.monitoring.streams import StreamHealth, StreamVitals
from churnguard_pipelines.monitoring.vitals import Vitals, read_vitals
from churnguard_pipelines.orchestration.processes.heartbeats import daemon_age_seconds
from churnguard_pipelines.store.ingest import arrivals
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.api.access import Reader, TheStore, sees
from webhook_gateway.api.dashboard_shapes import (
    Alert,
    ArrivalsByPath,
    ColumnDrift,
    Component,
    Errors,
    HealthCounts,
    InstallationHealth,
    IntegrationDetail,
    IntegrationHealth,
    IntegrationSummary,
    LatestSync,
    Metrics,
    ObjectDetail,
    PastSync,
    QuotaState,
    Reason,
    ResourceUse,
    Streams,
    Throughput,
    Trend,
)
from webhook_gateway.api.problems import not_found
from webhook_gateway.dashboard.principal import Principal

router = APIRouter(prefix="/dashboard", tags=["dashboard"])
DAEMON_SILENT_SECONDS = 60
GATEWAY_TIMEOUT_SECONDS = 2
_SEE_ALERTS = "GET /api/dashboard/alerts says what to do."


@router.get("/metrics")
def metrics(principal: Reader, request: Request) -> Metrics:
    """Everything in numbers."""
    picture, own = _seen(request, principal)
    last_day = _sum(day for day in picture.last_day if sees(principal, day.organization_id))
    running = [each for each in picture.running if sees(principal, each.organization_id)]
    days = sorted({day.day for day in picture.days if sees(principal, day.organization_id)})
    resources = picture.resources
    streams = _streams_seen(picture, principal)
    return Metrics(
        as_of=picture.as_of,
        integrations=dict(Counter(health.vitals.status for health in own)),
        health=_counts(own),
        throughput=Throughput(
            records_per_second=round(sum(each.per_second for each in running), 1),
            running_syncs=len(running),
            records_read=last_day.read,
            records_written=last_day.written,
            webhook_events=last_day.events,
        ),
        streams=_streams(streams),
        errors=Errors(
            syncs_failed=last_day.failed,
            records_rejected=last_day.rejected,
            webhook_events_rejected=last_day.events_rejected,
            alerts=dict(Counter(alert.severity for alert in _alerts(own, streams))),
        ),
        resources=ResourceUse(
            database_bytes=resources.bytes,
            database_connections=resources.connections,
            database_connections_at_most=resources.connections_at_most,
        )
        if principal.is_operator
        else None,
        trends=[
            Trend.model_validate(
                _sum(each for each in picture.days if each.day == day and sees(principal, each.organization_id))
            )
            for day in days
        ],
    )


@router.get("/integrations")
def integrations(principal: Reader, request: Request) -> list[IntegrationSummary]:
    """Each integration with its health and the reasons for it."""
    _, own = _seen(request, principal)
    return [IntegrationSummary(**_summary(health)) for health in own]


@router.get("/integration/{integration_id}")
def integration(integration_id: Annotated[Identifier, Path()], principal: Reader, store: TheStore) -> IntegrationDetail:
    """As it is now."""
    found = read_vitals(store, integration_id)
    if not found or not sees(principal, found[0].organization_id):
        raise not_found("integration", integration_id)
    health, vitals = judge(found[0]), found[0]
    arrived = arrivals.of(store, integration_id)
    return IntegrationDetail(
        **_summary(health),
        objects=[
            ObjectDetail(
                name=item.name,
                status=item.status,
                rows=item.rows,
                read=item.read,
                written=item.written,
                fresh_at=item.fresh_at,
                freshness_seconds=(vitals.now - item.fresh_at).total_seconds() if item.fresh_at else None,
                error=item.error,
                drift=[ColumnDrift.model_validate(each) for each in item.drift],
                arrivals={
                    path: ArrivalsByPath.model_validate(found) for path, found in arrived.get(item.name, {}).items()
                },
            )
            for item in objects_of(store, integration_id)
        ],
        recent_syncs=[PastSync.model_validate(each) for each in recent_syncs(store, integration_id)],
        quota=QuotaState(
            calls_left=vitals.latest.quota_left if vitals.latest else None,
            calls_per_second=vitals.quota.per_second,
            blocked_until=vitals.quota.blocked_until,
        ),
        current_alerts=_alerts([health], []),
    )


@router.get("/alerts")
def alerts(principal: Reader, request: Request) -> list[Alert]:
    """What needs somebody now, the worst first."""
    picture, own = _seen(request, principal)
    return _alerts(own, _streams_seen(picture, principal))


@router.get("/health")
async def health(principal: Reader, store: TheStore, request: Request) -> InstallationHealth:
    """Of the installation's parts, and of the integrations and streams that the key may see. Without a key the answer
    is 200 or 503, by the database alone."""
    picture, own = await asyncio.to_thread(_seen, request, principal)
    counts, streams = _counts(own), _streams_seen(picture, principal)
    standing = sum(each.status is HealthStatus.UNHEALTHY for each in streams)
    parts = [
        Component(component="database", ok=True, cause="it answers"),
        *await parts_of(store),
        Component(
            component="integrations",
            ok=not counts.unhealthy,
            cause=f"{counts.unhealthy} of {len(own)} are unhealthy",
            remedy=_SEE_ALERTS if counts.unhealthy else None,
        ),
        Component(
            component="streams",
            ok=not standing,
            cause=f"{standing} of {len(streams)} are unhealthy",
            remedy=_SEE_ALERTS if standing else None,
        ),
    ]  # fmt: skip
    score = counts.score
    status = HealthStatus.UNKNOWN if score is None else status_of(score)
    if not all(part.ok for part in parts if part.component not in ("integrations", "streams")):
        status = HealthStatus.UNHEALTHY
    return InstallationHealth(as_of=picture.as_of, status=status, score=score, components=parts)


async def parts_of(store: Store) -> list[Component]:
    """The other processes of the installation."""
    return [await asyncio.to_thread(_daemon, store), await _gateway(store)]


def _daemon(store: Store) -> Component:
    age = daemon_age_seconds(store.dagster_database_url)
    ok = age is not None and age < DAEMON_SILENT_SECONDS
    cause = "no sign of life yet" if age is None else f"last sign of life {age:.0f} seconds ago"
    remedy = None if ok else "Nothing is scheduled, webhooks wait: start it again (`churnguard up`)."
    return Component(component="daemon", ok=ok, cause=cause, remedy=remedy)


async def _gateway(store: Store) -> Component:
    settings = store.settings
    host = "127.0.0.1" if settings.webhook_host == "0.0.0.0" else settings.webhook_host  # noqa: S104 - compared, not listened on
    url = settings.gateway_url or f"http://{host}:{settings.webhook_port}"
    try:
        # trust_env: a proxy for the world outside does not know our gateway
        async with httpx.AsyncClient(timeout=GATEWAY_TIMEOUT_SECONDS, trust_env=False) as client:
            answer = await client.get(f"{url.rstrip('/')}/webhooks/health")
        ok, cause = answer.is_success, f"it answers {answer.status_code}"
    except httpx.HTTPError as error:
        ok, cause = False, f"it does not answer ({type(error).__name__})"
    remedy = None if ok else "Providers try again for hours to days: start it again (`churnguard up`)."
    return Component(component="gateway", ok=ok, cause=cause, remedy=remedy)


def _seen(request: Request, principal: Principal) -> tuple[Picture, list[Health]]:
    """Of one picture, whatever a request asks: a page asks several of these."""
    monitor: Monitor = request.app.state.monitor
    if not hasattr(request.state, "picture"):
        request.state.picture = monitor.picture()
    picture: Picture = request.state.picture
    return picture, [each for each in picture.integrations if sees(principal, each.vitals.organization_id)]


def _summary(health: Health) -> dict[str, Any]:
    vitals = health.vitals
    return {
        "integration_id": vitals.integration_id,
        "organization_id": vitals.organization_id,
        "integration_name": vitals.name,
        "provider_name": vitals.provider,
        "status": vitals.status,
        "health": IntegrationHealth(
            status=health.status,
            score=health.score,
            reasons=[Reason.model_validate(sign) for sign in health.signs],
        ),
        "latest_sync": LatestSync.model_validate(vitals.latest) if vitals.latest else None,
        "last_success_at": vitals.good_at,
        "sync_frequency": vitals.sync_frequency,
        "records_rejected_waiting": vitals.rejected.count if vitals.rejected else 0,
        "webhook_events_waiting": vitals.webhooks.count if vitals.webhooks else 0,
        "rows": vitals.rows,
        "lag_seconds": vitals.behind_seconds,
        "quota_left": vitals.latest.quota_left if vitals.latest else None,
        "alerts": len(health.alerts),
    }


def _streams_seen(picture: Picture, principal: Principal) -> list[StreamHealth]:
    return [each for each in picture.streams if sees(principal, each.vitals.organization_id)]


def _streams(own: Sequence[StreamHealth]) -> Streams:
    vitals = [each.vitals for each in own]
    return Streams(
        by_state=dict(Counter(each.state for each in vitals)),
        messages_per_second=round(sum(each.recent.messages_per_second for each in vitals if each.recent), 1),
        lag_messages=sum(each.lag_messages or 0 for each in vitals),
        lag_seconds=max((each.lag_seconds for each in vitals if each.lag_seconds is not None), default=None),
    )


def _alerts(own: Iterable[Health], streams: Iterable[StreamHealth]) -> list[Alert]:
    raised = [_alert(health.vitals, health.vitals.integration_id, sign) for health in own for sign in health.alerts]
    raised += [_alert(each.vitals, each.vitals.stream_id, sign) for each in streams for sign in each.alerts]
    return sorted(raised, key=lambda alert: (alert.severity is not Severity.CRITICAL, alert.since))


def _alert(vitals: Vitals | StreamVitals, name: str, sign: Sign) -> Alert:
    return Alert(
        integration_id=name,
        stream_id=name if isinstance(vitals, StreamVitals) else None,
        organization_id=vitals.organization_id,
        kind=sign.kind,
        severity=sign.severity or Severity.WARNING,
        since=sign.since or vitals.now,
        cause=sign.cause,
        remedy=sign.remedy,
    )


def _counts(own: Sequence[Health]) -> HealthCounts:
    scores = [health.score for health in own if health.score is not None]
    by_status = Counter(health.status.value for health in own)
    return HealthCounts(score=round(sum(scores) / len(scores)) if scores else None, **by_status)


def _sum(days: Iterable[Day]) -> Day:
    """Over organizations; the day is the first's."""
    chosen = list(days)
    names = ("read", "written", "rejected", "succeeded", "failed", "events", "events_rejected")
    totals = {name: sum(getattr(day, name) for day in chosen) for name in names}
    return Day("", chosen[0].day if chosen else date.min, **totals)
