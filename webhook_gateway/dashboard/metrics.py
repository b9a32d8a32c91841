"""`/metrics` for Prometheus: the numbers of the dashboard, of what the key may see."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.monitoring.health import HealthStatus, Severity
from churnguard_pipelines.monitoring.monitor import Monitor, Picture
from churnguard_pipelines.monitoring.streams import StreamVitals
from webhook_gateway.api.access import sees
from webhook_gateway.dashboard.installation_metrics import of_the_installation
from webhook_gateway.dashboard.principal import SCOPE, Principal

_LABELS = ("organization", "integration", "provider")
_OF_STREAM = ("organization", "stream", "kind")
_EVERYBODY = Principal("", "Prometheus", None, may_write=False)
_log = logging.getLogger(__name__)
MOST_STREAMS = 100
"""With series of their own: those that are furthest behind, and of the others those that bring most."""


class Metrics:
    """The endpoint. A scraper gives a viewer's key as its bearer token."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def show(self, request: Request) -> Response:
        principal: Principal = request.scope[SCOPE]
        body = await asyncio.to_thread(self._exposition, principal)
        return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _exposition(self, principal: Principal) -> bytes:
        registry = CollectorRegistry()
        registry.register(_Seen(self._monitor.picture(), principal))
        return generate_latest(registry)


class _OfTheInstallation(Collector):
    """All of it, for the process's own port, where nobody logs in. A database that is away is told, too."""

    monitor: Monitor | None = None

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: whoever registers it does not have a picture taken by that."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily | GaugeHistogramMetricFamily]:
        if self.monitor is None:
            return
        try:
            picture: Picture | None = self.monitor.picture()
        except (ChurnGuardError, SQLAlchemyError) as error:
            _log.warning("the numbers for Prometheus cannot be read: %s", error)
            picture = None
        yield GaugeMetricFamily("churnguard_database_up", "1 while the database can be read.", picture is not None)
        if picture is not None:
            yield from _Seen(picture, _EVERYBODY).collect()


class _Seen(Collector):
    def __init__(self, picture: Picture, principal: Principal) -> None:
        self._picture, self._principal = picture, principal
        self._streams = [each for each in picture.streams if sees(principal, each.vitals.organization_id)]

    def collect(self) -> Iterator[GaugeMetricFamily | GaugeHistogramMetricFamily]:
        yield from self._of_integrations()
        yield from self._of_streams()
        yield from self._of_the_last_day()
        if self._principal.is_operator:
            resources = self._picture.resources
            yield GaugeMetricFamily("churnguard_database_bytes", "Size of the database.", resources.bytes)
            yield GaugeMetricFamily(
                "churnguard_database_connections", "Connections to the server.", resources.connections
            )
            yield GaugeMetricFamily(
                "churnguard_database_connections_at_most", "That the server takes.", resources.connections_at_most
            )
            yield from of_the_installation(self._picture)

    def _of_integrations(self) -> Iterator[GaugeMetricFamily]:
        """A series of its own has who is not well; all together are counted, whatever their number."""
        score = _family("health_score", "Health from 0 to 100 of who is not well.", _LABELS)
        good = _family("last_success_timestamp_seconds", "When its latest sync that brought something began.", _LABELS)
        rejected = _family("rejected_records_waiting", "Its records that did not fit, up to 1000.", _LABELS)
        events = _family("webhook_events_waiting", "Its events that are not worked off yet, up to 1000.", _LABELS)
        breaker = _family("breaker_open", "1 while the integration is not called.", _LABELS)
        alerts = _family("alerts", "What needs somebody now.", (*_LABELS, "kind", "severity"))
        counted: Counter[tuple[str, str]] = Counter()
        sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for health in self._picture.integrations:
            vitals = health.vitals
            if not sees(self._principal, vitals.organization_id):
                continue
            counted[vitals.provider, health.status.value] += 1
            waiting = vitals.rejected.count if vitals.rejected else 0, vitals.webhooks.count if vitals.webhooks else 0
            sums["rejected_records"][vitals.provider] += waiting[0]
            sums["webhook_events"][vitals.provider] += waiting[1]
            sums["overdue"][vitals.provider] += any(sign.kind == "schedule" for sign in health.alerts)
            if health.status is HealthStatus.HEALTHY and not health.alerts:
                continue
            labels = (vitals.organization_id, vitals.integration_id, vitals.provider)
            if health.score is not None:
                score.add_metric(labels, health.score)
            if vitals.good_at is not None:
                good.add_metric(labels, vitals.good_at.timestamp())
            rejected.add_metric(labels, waiting[0])
            events.add_metric(labels, waiting[1])
            breaker.add_metric(labels, vitals.breaker.state != "closed")
            for sign in health.alerts:
                alerts.add_metric((*labels, sign.kind, (sign.severity or Severity.WARNING).value), 1)
        for each in self._streams:
            labels = (each.vitals.organization_id, each.vitals.stream_id, each.vitals.kind)
            for sign in each.alerts:
                alerts.add_metric((*labels, sign.kind, (sign.severity or Severity.WARNING).value), 1)
        yield from (score, good, rejected, events, breaker, alerts)
        yield from self._sums(counted, sums)

    def _sums(
        self, counted: Mapping[tuple[str, str], int], sums: Mapping[str, Mapping[str, int]]
    ) -> Iterator[GaugeMetricFamily]:
        integrations = _family("integrations", "Integrations by their health.", ("provider", "status"))
        for labels, number in counted.items():
            integrations.add_metric(labels, number)
        yield integrations
        for name, documentation in (
            ("rejected_records", "Records of all integrations that did not fit, up to 1000 of each."),
            ("webhook_events", "Events of all integrations that wait, up to 1000 of each."),
            ("overdue", "Integrations whose sync is due and has not begun."),
        ):
            family = _family(f"{name}_of_provider", documentation, ("provider",))
            for provider, number in sums[name].items():
                family.add_metric((provider,), number)
            yield family

    def _of_streams(self) -> Iterator[GaugeMetricFamily]:
        """Sums over all of them; series of their own for the ones that somebody wants to look at."""
        counted: Counter[tuple[str, str]] = Counter()
        rates: defaultdict[str, float] = defaultdict(float)
        behind: Counter[str] = Counter()
        for each in self._streams:
            vitals = each.vitals
            counted[vitals.kind, vitals.state.value] += 1
            rates[vitals.kind] += vitals.recent.messages_per_second if vitals.recent else 0.0
            behind[vitals.kind] += vitals.lag_messages or 0
        streams = _family("streams", "Streams by their state.", ("kind", "state"))
        for labels, number in counted.items():
            streams.add_metric(labels, number)
        rate = _family("stream_messages_per_second_of_kind", "Messages stored, of all streams.", ("kind",))
        lag = _family("stream_lag_messages_of_kind", "Messages that wait, of all streams.", ("kind",))
        for kind in rates:
            rate.add_metric((kind,), rates[kind])
            lag.add_metric((kind,), behind[kind])
        yield from (streams, rate, lag)
        yield from self._of_each_stream()

    def _of_each_stream(self) -> Iterator[GaugeMetricFamily]:
        rate = _family("stream_messages_per_second", "Messages stored, of the last minute.", _OF_STREAM)
        errors = _family("stream_error_rate", "Share of messages rejected, of the last minute.", _OF_STREAM)
        buffer = _family("stream_buffer_utilization", "How full the source's buffer was, 0 to 1.", _OF_STREAM)
        took = _family(
            "stream_processing_seconds", "From a message's reading until it was stored.", (*_OF_STREAM, "quantile")
        )
        lag = _family("stream_lag_messages", "Messages that wait.", _OF_STREAM)
        age = _family("stream_lag_seconds", "How long the oldest of them has waited.", _OF_STREAM)
        for vitals in heapq.nlargest(MOST_STREAMS, (each.vitals for each in self._streams), key=_interest):
            labels = (vitals.organization_id, vitals.stream_id, vitals.kind)
            if vitals.recent is not None:
                rate.add_metric(labels, vitals.recent.messages_per_second)
                buffer.add_metric(labels, vitals.recent.buffered)
                if vitals.recent.error_rate is not None:
                    errors.add_metric(labels, vitals.recent.error_rate)
                for quantile in (0.5, 0.99):
                    if (found := vitals.recent.quantile_ms(quantile)) is not None:
                        took.add_metric((*labels, str(quantile)), found / 1000)
            if vitals.lag_messages is not None:
                lag.add_metric(labels, vitals.lag_messages)
            if vitals.lag_seconds is not None:
                age.add_metric(labels, vitals.lag_seconds)
        yield from (rate, errors, buffer, took, lag, age)

    def _of_the_last_day(self) -> Iterator[GaugeMetricFamily]:
        records = _family("records_last_24_hours", "Records of syncs.", ("outcome",))
        syncs = _family("syncs_last_24_hours", "Syncs that ended.", ("outcome",))
        taken = _family("webhook_events_last_24_hours", "Webhook events.", ("outcome",))
        days = [day for day in self._picture.last_day if sees(self._principal, day.organization_id)]
        for family, columns in (
            (records, {"read": "read", "written": "written", "rejected": "rejected"}),
            (syncs, {"succeeded": "succeeded", "failed": "failed"}),
            (taken, {"accepted": "events", "rejected": "events_rejected"}),
        ):
            for outcome, column in columns.items():
                family.add_metric((outcome,), sum(getattr(day, column) for day in days))
        yield from (records, syncs, taken)


_installation = _OfTheInstallation()
REGISTRY.register(_installation)


def publish(monitor: Monitor) -> None:
    """What it sees is told on the process's own port from now on."""
    _installation.monitor = monitor


def _interest(vitals: StreamVitals) -> tuple[float, float]:
    return vitals.lag_seconds or 0.0, vitals.recent.messages_per_second if vitals.recent else 0.0


def _family(name: str, documentation: str, labels: Iterable[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"churnguard_{name}", documentation, labels=list(labels))
