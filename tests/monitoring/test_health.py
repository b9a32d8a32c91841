"""The judgement: what costs an integration how much of its health, and what becomes an alert."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.model import IntegrationStatus
from churnguard_pipelines.monitoring.health import Health, HealthStatus, Severity, every, judge, span
from churnguard_pipelines.monitoring.vitals import ChangeLog, LatestSync, Quota, Recent, Vitals, Waits
from churnguard_pipelines.store.ingest.breakers import BreakerRow

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WELL = Vitals(
    now=NOW, organization_id="acme", integration_id="acme-stripe", name="Stripe", provider="stripe",
    status=IntegrationStatus.ACTIVE, created_at=NOW - timedelta(days=30), sync_frequency=3600,
    due_at=NOW + timedelta(minutes=55),
    latest=LatestSync("run", "succeeded", NOW - timedelta(minutes=5), NOW, None, None),
    good_at=NOW - timedelta(minutes=5), failing_since=None, recent=Recent(24, 0, 0, 10_000, 0),
    breaker=BreakerRow(), quota=Quota(None, None), rejected=None, webhooks=None, misfits={}, stopped={},
    change_log=None, unreadable=None, credentials_end=None,
)  # fmt: skip
TRIED_AGAIN = BreakerRow("open", 5, "503.", "Wait.", NOW - timedelta(hours=1), NOW)
NOT_AGAIN = BreakerRow("open", 1, "401.", "Key.", NOW - timedelta(hours=1))
WARNING, CRITICAL = Severity
HEALTHY, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY
REFUSED = IntegrationStatus.AUTHENTICATION_FAILED


def part(failed: int) -> LatestSync:
    """A sync of 19 objects."""
    return LatestSync("run", "partial", NOW - timedelta(minutes=5), NOW, "failed: some", None, 19, failed)


def judged(**changes: Any) -> Health:
    return judge(replace(WELL, **changes))


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def test_all_well_is_a_hundred_and_says_why() -> None:
    health = judged()
    assert (health.score, health.status, health.alerts) == (100, HealthStatus.HEALTHY, [])
    assert "last synced 5 minutes ago; wanted every hour" in [sign.cause for sign in health.signs]


@pytest.mark.parametrize(
    ("kind", "severity", "status", "changes", "cause"),
    [
        ("freshness", WARNING, HEALTHY, {"good_at": ago(hours=4)}, "last synced 4 hours ago; wanted every hour"),
        ("freshness", CRITICAL, UNHEALTHY, {"good_at": ago(hours=11)}, "last synced 11 hours ago"),
        ("freshness", CRITICAL, UNHEALTHY, {"good_at": None, "latest": None}, "never synced since 30 days"),
        ("breaker", WARNING, "degraded", {"breaker": TRIED_AGAIN}, "503"),
        ("breaker", CRITICAL, UNHEALTHY, {"breaker": NOT_AGAIN}, "401. Not"),
        ("credentials", CRITICAL, UNHEALTHY, {"unreadable": "sealed under another key"}, "sealed under another key"),
        ("credentials", CRITICAL, UNHEALTHY, {"credentials_end": ago(days=2)}, "expired 2 days ago"),
        ("credentials", WARNING, HEALTHY, {"credentials_end": ago(days=-3)}, "expire in 3 days and cannot be renewed"),
        ("credentials", CRITICAL, UNHEALTHY, {"status": REFUSED}, "refuses the cred"),
        ("success_rate", WARNING, HEALTHY, {"recent": Recent(9, 1, 0, 9, 0), "failing_since": ago(hours=1)}, "9 of 10"),
        ("success_rate", CRITICAL, UNHEALTHY, {"recent": Recent(0, 0, 3, 0, 0), "failing_since": ago(hours=3)}, "0 of"),
        ("success_rate", WARNING, HEALTHY, {"latest": part(1), "failing_since": ago(hours=1)}, "1 of 19 objects"),
        ("success_rate", CRITICAL, UNHEALTHY, {"latest": part(18), "failing_since": ago(hours=1)}, "18 of 19 objects"),
        ("schedule", WARNING, HEALTHY, {"due_at": ago(minutes=6)}, "due for 6 minutes, and none has begun"),
        ("schedule", CRITICAL, UNHEALTHY, {"due_at": ago(hours=3)}, "due for 3 hours"),
        ("rejected_records", WARNING, HEALTHY, {"rejected": Waits(1000, ago(days=2))}, "1,000+ records wait"),
        ("rejected_records", WARNING, HEALTHY, {"rejected": Waits(1, ago(days=2))}, "1 record waits"),
        ("webhooks", WARNING, HEALTHY, {"webhooks": Waits(12, ago(minutes=6))}, "12 webhook events wait, the oldest"),
        ("quota", WARNING, HEALTHY, {"quota": Quota(ago(minutes=-5), None)}, "takes no calls until 12:05:00 UTC"),
        ("change_log", WARNING, HEALTHY, {"change_log": ChangeLog(0.5, NOW)}, "50% of what the source keeps"),
        ("change_log", CRITICAL, UNHEALTHY, {"change_log": ChangeLog(0.8, NOW)}, "80% of what the source keeps"),
        ("schema", WARNING, HEALTHY, {"stopped": {"users": "its key changed."}}, "users: its key changed."),
        ("schema", WARNING, HEALTHY, {"misfits": {"customers.email": ago(days=1)}}, "do not fit customers.email"),
    ],
)  # fmt: skip
def test_what_needs_somebody_is_an_alert_with_cause_moment_and_remedy(
    kind: str, severity: str, status: str, changes: dict[str, Any], cause: str
) -> None:
    health = judged(**changes)
    [alert] = health.alerts
    assert (alert.kind, alert.severity, health.status) == (kind, severity, status)
    assert cause in alert.cause
    assert alert.since is not None
    assert alert.since <= NOW
    assert alert.remedy
    assert all(each.startswith("churnguard ") for each in alert.remedy.split("`")[1::2]), "whole commands"
    assert health.score is not None
    assert health.score < 100


def test_a_new_integration_is_unknown_and_a_paused_one_expects_nothing() -> None:
    new = {"latest": None, "good_at": None, "recent": Recent(0, 0, 0, 0, 0), "created_at": ago(minutes=1)}
    assert (judged(**new).status, judged(**new).score) == ("unknown", None)
    paused = judged(status=IntegrationStatus.PAUSED, good_at=ago(days=20))
    assert (paused.status, paused.score, paused.alerts) == ("paused", None, [])


def test_what_waits_only_briefly_is_no_alert() -> None:
    assert judged(webhooks=Waits(500, ago(minutes=4))).alerts == []
    assert judged(due_at=ago(minutes=4)).alerts == []


def test_what_is_due_for_a_reason_that_is_told_already_or_is_at_work_is_no_second_alert() -> None:
    at_work = LatestSync("run", "running", ago(hours=2), None, None, None)
    assert judged(due_at=ago(hours=3), latest=at_work).alerts == []
    assert [sign.kind for sign in judged(due_at=ago(hours=3), breaker=NOT_AGAIN).alerts] == ["breaker"]
    assert [sign.kind for sign in judged(due_at=ago(hours=3), status=REFUSED).alerts] == ["credentials"]


@given(
    good=st.none() | st.floats(0, 1e7), recent=st.tuples(*[st.integers(0, 10**6)] * 5), blocked=st.booleans(),
    state=st.sampled_from(["closed", "open", "half_open"]), status=st.sampled_from(IntegrationStatus),
    waits=st.none() | st.integers(1, 1000), ends=st.none() | st.floats(-1e7, 1e7),
)  # fmt: skip
def test_any_vital_signs_have_a_score_in_bounds_and_no_critical_one_is_healthy(
    good: float | None, recent: tuple[int, ...], blocked: bool, state: str, status: IntegrationStatus,
    waits: int | None, ends: float | None,
) -> None:  # fmt: skip
    health = judged(
        good_at=None if good is None else ago(seconds=good), recent=Recent(*recent), status=status,
        breaker=BreakerRow(state, 1, "reason.", None, ago(hours=1)), quota=Quota(NOW if blocked else None, None),
        rejected=waits and Waits(waits, ago(days=1)), webhooks=waits and Waits(waits, ago(days=1)),
        credentials_end=None if ends is None else ago(seconds=ends),
    )  # fmt: skip
    assert health.score is None or 0 <= health.score <= 100
    if any(alert.severity is Severity.CRITICAL for alert in health.alerts):
        assert health.status is HealthStatus.UNHEALTHY


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (90, "90 seconds"),
        (3600, "1 hour"),
        (7199, "120 minutes"),
        (172_800, "2 days"),
    ],
)
def test_spans_are_said_as_people_say_them(seconds: int, said: str) -> None:
    assert span(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(("seconds", "said"), [(60, "every minute"), (300, "every 5 minutes"), (86_400, "every day")])
def test_a_rhythm_is_said_as_people_say_it(seconds: int, said: str) -> None:
    assert every(timedelta(seconds=seconds)) == said
