"""Judges vital signs: a score from 0 to 100, each sign with its reason, and an alert where somebody is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.monitoring.vitals import MOST_COUNTED, Vitals, Waits, late_after
from churnguard_pipelines.store.ingest.sync_states import UNFINISHED

HEALTHY_FROM, DEGRADED_FROM = 80, 50
CHANGES_WARN_AT, CHANGES_CRITICAL_AT = 0.5, 0.8
EVENTS_WAIT_AT_MOST = timedelta(minutes=5)
BEGINS_WITHIN = timedelta(minutes=5)
"""A sync that is due: schedules ask for it every minute."""
EXPIRY_NOTICE = timedelta(days=7)
FAILURES_UNTIL_CRITICAL = 3
_RESTING = (IntegrationStatus.PAUSED, IntegrationStatus.INACTIVE)


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


class HealthStatus(StrEnum):
    """The health of an integration in a word. ``unknown``: nothing has been synced yet; ``paused``: nothing is
    expected."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Sign:
    """One vital sign. ``score``: 1 is well, 0 is not, None is unknown. With a ``severity`` it needs somebody: ``since``
    when, and what to do (``remedy``). ``cause`` says what was seen, also where all is well."""

    kind: str
    score: float | None
    cause: str
    severity: Severity | None = None
    since: datetime | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The health of an integration. ``score``: 0 to 100, None while unknown or paused."""

    vitals: Vitals
    status: HealthStatus
    score: int | None
    signs: tuple[Sign, ...]

    @property
    def alerts(self) -> list[Sign]:
        """The worst first."""
        raised = [sign for sign in self.signs if sign.severity is not None]
        return sorted(raised, key=lambda sign: (sign.severity is not Severity.CRITICAL, sign.since or self.vitals.now))


def judge(vitals: Vitals) -> Health:
    """The weighed mean of what is known; whatever is critical makes it unhealthy."""
    signs = tuple(look(vitals) for look, _ in _SIGNS)
    if vitals.status in _RESTING:
        return Health(vitals, HealthStatus.PAUSED, None, ())
    weighed = [(sign.score, weight) for sign, (_, weight) in zip(signs, _SIGNS, strict=True) if sign.score is not None]
    if vitals.latest is None and not any(sign.severity for sign in signs):
        return Health(vitals, HealthStatus.UNKNOWN, None, signs)
    score = round(100 * sum(score * weight for score, weight in weighed) / sum(weight for _, weight in weighed))
    if any(sign.severity is Severity.CRITICAL for sign in signs):
        score = min(score, DEGRADED_FROM - 1)
    return Health(vitals, status_of(score), score, signs)


def status_of(score: int) -> HealthStatus:
    if score >= HEALTHY_FROM:
        return HealthStatus.HEALTHY
    return HealthStatus.DEGRADED if score >= DEGRADED_FROM else HealthStatus.UNHEALTHY


def _freshness(vitals: Vitals) -> Sign:
    """Against its target, ``sync_frequency``: late after twice that, worthless after ten times."""
    limit = late_after(vitals.sync_frequency)
    age = vitals.now - (vitals.good_at or vitals.created_at)
    if vitals.good_at is None and age <= limit:
        return Sign("freshness", None, "not synced yet")
    seen = f"last synced {span(age)} ago" if vitals.good_at else f"never synced since {span(age)}"
    cause = f"{seen}; wanted {every(timedelta(seconds=vitals.sync_frequency))}"
    if age <= limit:
        return Sign("freshness", 1, cause)
    lateness = age / limit  # 1 at the limit
    return Sign(
        "freshness", max(0.0, 1 - lateness / 5), cause,
        Severity.CRITICAL if lateness > 5 else Severity.WARNING, (vitals.good_at or vitals.created_at) + limit,
        "See its latest runs in Dagster, and that the daemon and the schedules run.",
    )  # fmt: skip


def _success(vitals: Vitals) -> Sign:
    recent, latest = vitals.recent, vitals.latest
    ended = recent.succeeded + recent.partial + recent.failed
    if not ended:
        return Sign("success_rate", None, "no sync has ended lately")
    score = (recent.succeeded + recent.partial / 2) / ended
    cause = f"{recent.succeeded} of {ended} recent syncs succeeded"
    if latest is None or vitals.failing_since is None:
        return Sign("success_rate", score, cause)
    many = recent.failed >= FAILURES_UNTIL_CRITICAL and not recent.succeeded
    if latest.failed_objects:
        score *= 1 - latest.failed_objects / latest.objects
        many = many or latest.failed_objects >= latest.objects / 2
        cause += f"; {latest.failed_objects} of {latest.objects} objects failed"
    return Sign(
        "success_rate", score, f"{cause}; the latest: {latest.error or latest.status}",
        Severity.CRITICAL if many else Severity.WARNING, vitals.failing_since,
        f"`churnguard integrations test {vitals.integration_id}` says what its credentials may read.",
    )  # fmt: skip


def _schedule(vitals: Vitals) -> Sign:
    """What is due begins: the one sign of runs that never started, whatever they say or do not say of themselves."""
    overdue = lateness(vitals)
    if overdue <= BEGINS_WITHIN:
        return Sign("schedule", 1, "a sync is at work" if _is_syncing(vitals) else "nothing is overdue")
    return Sign(
        "schedule", 0, f"a sync has been due for {span(overdue)}, and none has begun",
        Severity.CRITICAL if overdue > late_after(vitals.sync_frequency) else Severity.WARNING,
        vitals.due_at + BEGINS_WITHIN,
        f"See that Dagster's daemon runs, and what the latest {vitals.provider}_sync_session or {vitals.provider}_sync "
        "says.",
    )  # fmt: skip


def lateness(vitals: Vitals) -> timedelta:
    """For how long a sync has been due that could have begun; zero if none is."""
    called = vitals.breaker.state == "closed" and vitals.status is not IntegrationStatus.AUTHENTICATION_FAILED
    if vitals.status in _RESTING or _is_syncing(vitals) or not called:
        return timedelta(0)
    return max(vitals.now - vitals.due_at, timedelta(0))


def _is_syncing(vitals: Vitals) -> bool:
    latest = vitals.latest
    return latest is not None and latest.finished_at is None and latest.status in UNFINISHED


def _rejections(vitals: Vitals) -> Sign:
    recent, waits = vitals.recent, vitals.rejected
    share = recent.rejected / recent.read if recent.read else 0.0
    if waits is None:
        score = max(0.0, 1 - 10 * share) if recent.read else None
        return Sign("rejected_records", score, f"{share:.1%} of the records read lately were rejected; none waits")
    return Sign(
        "rejected_records", max(0.0, 0.7 - 10 * share),
        f"{waiting(waits, 'record')} that did not fit; {share:.1%} of those read lately",
        Severity.WARNING, waits.since,
        f"`churnguard rejected list {vitals.integration_id}` shows why; "
        f"`churnguard rejected replay {vitals.integration_id}` takes them in again.",
    )  # fmt: skip


def _quota(vitals: Vitals) -> Sign:
    quota, left = vitals.quota, vitals.latest.quota_left if vitals.latest else None
    seen = f"{left:,.0f} calls left" if left is not None else "nothing refused"
    if quota.blocked_until is not None:
        return Sign(
            "quota", 0, f"the provider takes no calls until {quota.blocked_until:%H:%M:%S} UTC", Severity.WARNING,
            vitals.now, "It goes on by itself; a lower requests_per_minute, or a larger plan, avoids it.",
        )  # fmt: skip
    if quota.per_second is not None:
        return Sign("quota", 0.7, f"{seen}; refusals have slowed us down to {quota.per_second:.1f} calls a second")
    return Sign("quota", 1, seen)


def _credentials(vitals: Vitals) -> Sign:
    resume = f"`churnguard integrations resume {vitals.integration_id}`"
    renew = f"Give new ones: `churnguard integrations add FILE.yaml --replace`, then {resume}; or PATCH it."
    if vitals.unreadable is not None:
        remedy = "Start with the INTEGRATION_ENCRYPTION_KEY that sealed them among the keys."
        return Sign("credentials", 0, vitals.unreadable, Severity.CRITICAL, vitals.now, remedy)
    if vitals.status is IntegrationStatus.AUTHENTICATION_FAILED:
        since = vitals.failing_since or vitals.now
        return Sign("credentials", 0, "the provider refuses the credentials", Severity.CRITICAL, since, renew)
    ends = vitals.credentials_end
    if ends is not None and ends <= vitals.now:
        return Sign("credentials", 0, f"they expired {span(vitals.now - ends)} ago", Severity.CRITICAL, ends, renew)
    if ends is not None and ends - vitals.now < EXPIRY_NOTICE:
        cause = f"they expire in {span(ends - vitals.now)} and cannot be renewed"
        return Sign("credentials", 0.5, cause, Severity.WARNING, ends - EXPIRY_NOTICE, renew)
    return Sign("credentials", 1, "accepted" if vitals.good_at else "not tried yet")


def _breaker(vitals: Vitals) -> Sign:
    breaker = vitals.breaker
    if breaker.state == "closed":
        return Sign("breaker", 1, "closed")
    retry = f"tried again at {breaker.retry_at:%H:%M:%S} UTC" if breaker.retry_at else "not tried again by itself"
    cause = f"{breaker.reason or 'it failed too often'} Not called, {retry}"
    severity = Severity.WARNING if breaker.retry_at else Severity.CRITICAL
    return Sign("breaker", 0, cause, severity, breaker.opened_at, breaker.remedy)


def _webhooks(vitals: Vitals) -> Sign:
    waits = vitals.webhooks
    if waits is None or vitals.now - waits.since <= EVENTS_WAIT_AT_MOST:
        return Sign("webhooks", 1, waiting(waits, "event") if waits else "no event waits")
    cause = f"{waiting(waits, 'webhook event')}, the oldest for {span(vitals.now - waits.since)}"
    remedy = "See that Dagster's daemon runs and what the latest webhook_session says. Nothing is lost."
    return Sign("webhooks", 0, cause, Severity.WARNING, waits.since + EVENTS_WAIT_AT_MOST, remedy)


def _change_log(vitals: Vitals) -> Sign:
    log = vitals.change_log
    if log is None:
        return Sign("change_log", None, "none is followed")
    cause = f"{log.used:.0%} of what the source keeps of its changes waits to be read"
    if log.used < CHANGES_WARN_AT:
        return Sign("change_log", 1, cause)
    remedy = (
        "See what the latest change_session says, or let the source keep more. Once it has thrown changes away, "
        f"`churnguard integrations reset {vitals.integration_id}` and reading everything anew is the way back."
    )
    severity = Severity.CRITICAL if log.used >= CHANGES_CRITICAL_AT else Severity.WARNING
    return Sign("change_log", max(0.0, 1 - log.used), cause, severity, log.looked_at, remedy)


def _schema(vitals: Vitals) -> Sign:
    if vitals.stopped:
        cause = "; ".join(f"{name}: {problem}" for name, problem in sorted(vitals.stopped.items()))
        remedy = "The other tables go on. A sync that finds the problem gone reads the table again."
        return Sign("schema", 0.5, cause, Severity.WARNING, vitals.failing_since or vitals.now, remedy)
    if not vitals.misfits:
        return Sign("schema", 1, "all values fit their columns")
    cause = f"values do not fit {', '.join(sorted(vitals.misfits))}"
    remedy = f"`churnguard rejected list {vitals.integration_id}` shows the records."
    return Sign("schema", 0.5, cause, Severity.WARNING, min(vitals.misfits.values()), remedy)


_SIGNS: tuple[tuple[Callable[[Vitals], Sign], int], ...] = (
    (_freshness, 25),
    (_breaker, 25),
    (_credentials, 15),
    (_success, 15),
    (_schedule, 10),
    (_change_log, 10),
    (_webhooks, 5),
    (_rejections, 5),
    (_quota, 5),
    (_schema, 5),
)
"""With their weights. What cannot be called is not healthy even while its rows are still fresh."""


def counted(waits: Waits) -> str:
    return f"{waits.count:,}{'+' if waits.count == MOST_COUNTED else ''}"


def waiting(waits: Waits, what: str) -> str:
    """``1 record waits``, ``1,000+ records wait``."""
    return f"{counted(waits)} {what} waits" if waits.count == 1 else f"{counted(waits)} {what}s wait"


def span(time: timedelta) -> str:
    """For people, e.g. ``2 hours``."""
    seconds = time.total_seconds()
    units = (("day", 86_400), ("hour", 3600), ("minute", 60))
    fits = (each for each in units if seconds >= 2 * each[1] or (seconds >= each[1] and not seconds % each[1]))
    unit, size = next(fits, ("second", 1))
    number = round(seconds / size)
    return f"{number} {unit}{'s' if number != 1 else ''}"


def every(time: timedelta) -> str:
    """For people, e.g. ``every 2 hours``, ``every minute``."""
    return f"every {span(time).removeprefix('1 ')}"
