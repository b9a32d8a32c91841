"""Marketing: forms and what was sent in by them, e-mails and their statistics, campaigns, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Rows = dict[str, dict[str, Any]]


@dataclass
class Marketing:
    """Each as its endpoint shows it, by id; `submissions` by the form's id, newest first."""

    forms: Rows = field(default_factory=dict)
    submissions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    emails: Rows = field(default_factory=dict)
    statistics: Rows = field(default_factory=dict)
    campaigns: Rows = field(default_factory=dict)
    events: Rows = field(default_factory=dict)


def counted(sent: int, opened: int, clicked: int, bounced: int, unsubscribed: int) -> dict[str, Any]:
    """The statistics of an e-mail; ratios are percentages."""
    delivered = sent - bounced
    return {
        "counters": {
            "sent": sent,
            "delivered": delivered,
            "open": opened,
            "click": clicked,
            "bounce": bounced,
            "hardbounced": bounced,
            "softbounced": 0,
            "unsubscribed": unsubscribed,
            "spamreport": 0,
            "dropped": 0,
            "pending": 0,
            "reply": 0,
            "selected": sent,
            "suppressed": 0,
            "notsent": 0,
            "contactslost": bounced + unsubscribed,
        },
        "deviceBreakdown": {"open_device_type": {"computer": opened, "mobile": 0, "unknown": 0}},
        "qualifierStats": {},
        "ratios": {
            "clickratio": _share(clicked, delivered),
            "clickthroughratio": _share(clicked, opened),
            "deliveredratio": _share(delivered, sent),
            "openratio": _share(opened, delivered),
            "bounceratio": _share(bounced, sent),
            "unsubscribedratio": _share(unsubscribed, delivered),
        },
    }


def _share(part: int, whole: int) -> float:
    return round(100 * part / whole, 3) if whole else 0.0
