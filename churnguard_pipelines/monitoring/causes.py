"""Causes: the alerts of one subject that belong to the same trouble are one, told by what explains the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from churnguard_pipelines.monitoring.health import Severity, Sign
from churnguard_pipelines.monitoring.monitor import Picture

INSTALLATION = "installation"
"""The subject of what is wrong with all of it."""
DAEMON = "daemon"
_TROUBLES: Mapping[str, Sequence[str]] = {
    "syncs": ("credentials", "breaker", "success_rate", "schedule", "freshness"),
    "stream": ("stream", "stream_lag"),
}
"""Kinds of alerts that are one trouble, what explains the others first. Any other kind is a trouble of its own."""
_TROUBLE_OF = {kind: trouble for trouble, kinds in _TROUBLES.items() for kind in kinds}
_NEEDS_DAEMON = frozenset({"schedule", "freshness", "webhooks", "change_log", "stream_lag"})
"""What comes of itself where nothing is scheduled."""

Key = tuple[str, str]
"""Subject and trouble: a cause is told once for as long as it lasts."""


@dataclass(frozen=True, slots=True)
class Cause:
    """``subject``: an integration's or a stream's id, or ``installation``; ``provider``: or the kind of stream;
    ``severity``: the worst of what it brings; ``others``: what else it brings, in a sentence each."""

    subject: str
    organization_id: str | None
    provider: str
    trouble: str
    severity: Severity
    since: datetime
    text: str
    remedy: str | None
    others: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.subject, self.trouble


def causes(picture: Picture, installation: Iterable[Cause] = ()) -> dict[Key, Cause]:
    """All that needs somebody now. ``installation``: what is wrong with its parts; what follows from a daemon that
    stands still is not told beside it."""
    found = {each.key: each for each in installation}
    left_out = _NEEDS_DAEMON if (INSTALLATION, DAEMON) in found else frozenset()
    for subject, organization_id, provider, signs, now in _subjects(picture):
        by_trouble: dict[str, list[Sign]] = defaultdict(list)
        for sign in signs:
            if sign.severity is not None and sign.kind not in left_out:
                by_trouble[trouble_of(sign.kind)].append(sign)
        for trouble, raised in by_trouble.items():
            cause = _cause(subject, organization_id, provider, trouble, raised, now)
            found[cause.key] = cause
    return found


def trouble_of(kind: str) -> str:
    """The trouble that an alert of this kind belongs to."""
    return _TROUBLE_OF.get(kind, kind)


def _subjects(picture: Picture) -> Iterable[tuple[str, str, str, Sequence[Sign], datetime]]:
    for health in picture.integrations:
        of = health.vitals
        yield of.integration_id, of.organization_id, of.provider, health.signs, of.now
    for stream in picture.streams:
        seen = stream.vitals
        yield seen.stream_id, seen.organization_id, seen.kind, stream.signs, seen.now


def _cause(
    subject: str, organization_id: str, provider: str, trouble: str, raised: Sequence[Sign], now: datetime
) -> Cause:
    order = _TROUBLES.get(trouble, ())
    first, *rest = sorted(raised, key=lambda sign: order.index(sign.kind) if sign.kind in order else 0)
    worst = Severity.CRITICAL if any(sign.severity is Severity.CRITICAL for sign in raised) else Severity.WARNING
    since = min(sign.since or now for sign in raised)
    others = tuple(f"{sign.kind.replace('_', ' ')}: {sign.cause}" for sign in rest)
    return Cause(subject, organization_id, provider, trouble, worst, since, first.cause, first.remedy, others)
