"""What `/metrics` tells of the installation as a whole: how late syncs are, who works, how Dagster gets on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily

from churnguard_pipelines.monitoring.dagster_state import DagsterState
from churnguard_pipelines.monitoring.health import Health, lateness
from churnguard_pipelines.monitoring.monitor import Picture
from churnguard_pipelines.monitoring.work import Work

LATE_SECONDS = (0, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)


def of_the_installation(picture: Picture) -> Iterator[GaugeMetricFamily | GaugeHistogramMetricFamily]:
    """Without a name of an organization."""
    yield _lateness(picture.integrations)
    yield from _of_integrations(picture)
    yield from _of_work(picture.work)
    if picture.dagster is not None:
        yield from _of_dagster(picture.dagster)


def _lateness(integrations: Sequence[Health]) -> GaugeHistogramMetricFamily:
    family = GaugeHistogramMetricFamily(
        "churnguard_due_lateness_seconds",
        "Integrations by how long a sync of them has been due that could have begun.",
        labels=["provider"],
    )
    found: defaultdict[str, list[float]] = defaultdict(list)
    for health in integrations:
        found[health.vitals.provider].append(lateness(health.vitals).total_seconds())
    for provider, seconds in found.items():
        buckets = [(str(float(limit)), sum(each <= limit for each in seconds)) for limit in LATE_SECONDS]
        family.add_metric([provider], [*buckets, ("+Inf", len(seconds))], sum(seconds))
    return family


def _of_integrations(picture: Picture) -> Iterator[GaugeMetricFamily]:
    oldest: defaultdict[str, float] = defaultdict(float)
    used: dict[str, float] = {}
    for health in picture.integrations:
        vitals = health.vitals
        waited = (vitals.now - vitals.webhooks.since).total_seconds() if vitals.webhooks else 0.0
        oldest[vitals.provider] = max(oldest[vitals.provider], waited)
        if vitals.change_log is not None:
            used[vitals.provider] = max(used.get(vitals.provider, 0.0), vitals.change_log.used)
    yield _gauge("inbox_oldest_seconds", "How long the oldest webhook event has waited.", "provider", oldest)
    yield _gauge("change_log_used_ratio", "Of what a source keeps, what waits, at the most.", "provider", used)


def _of_work(work: Work) -> Iterator[GaugeMetricFamily]:
    yield _gauge("sessions", "Sessions at work.", "kind", work.sessions)
    yield _gauge("lanes_leased", "Lanes that sessions work on.", "kind", work.lanes)
    yield _gauge("accounts_blocked", "Accounts that their provider has told to wait.", "provider", work.blocked)
    calls = {done.provider: done.calls for done in work.done}
    yield _gauge("provider_calls_lately", "Requests of syncs, this hour and the last.", "provider", calls)
    syncs = GaugeMetricFamily(
        "churnguard_syncs_lately", "Syncs that ended, this hour and the last.", labels=["provider", "outcome"]
    )
    for done in work.done:
        for outcome in ("succeeded", "partial", "failed"):
            syncs.add_metric([done.provider, outcome], getattr(done, outcome))
    yield syncs


def _of_dagster(state: DagsterState) -> Iterator[GaugeMetricFamily]:
    yield _gauge("dagster_runs", "Runs that are queued or at work.", "status", state.runs)
    yield GaugeMetricFamily(
        "churnguard_dagster_queued_seconds", "How long the oldest queued run has waited.", state.queued_seconds
    )
    yield GaugeMetricFamily(
        "churnguard_dagster_started_after_seconds",
        "From a run's request until its start, of 19 of 20 runs of the last hour.",
        state.started_after,
    )
    ended = {"success": 0, "failure": 0, "canceled": 0} | dict(state.ended)
    yield _gauge("dagster_runs_last_hour", "Runs that ended.", "status", ended)
    yield _gauge("dagster_heartbeat_age_seconds", "Since a part of the daemon was alive.", "daemon", state.heartbeats)
    failed = {"sensor": 0, "schedule": 0} | dict(state.failed_ticks)
    yield _gauge("dagster_failed_ticks_last_hour", "Of sensors and schedules.", "kind", failed)


def _gauge(name: str, documentation: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"churnguard_{name}", documentation, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
