"""Addresses that are written to no more: five lists with bounds of time and pages of 500 at most, newest first; and the
groups that people leave one by one. What is taken off a list leaves no trace.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

from churnguard_pipelines.sandbox.sendgrid import errors
from churnguard_pipelines.sandbox.sendgrid.account import GROUPS, Account
from churnguard_pipelines.sandbox.sendgrid.requests import Request
from churnguard_pipelines.sandbox.sendgrid.sending import BLOCKED, BOUNCED, INVALID, KINDS, LEFT, SPAM, Suppressed

MOST = 500
_MORE: dict[str, dict[str, str]] = {
    BOUNCED: {"reason": "550 5.1.1 The email account that you tried to reach does not exist.", "status": "5.1.1"},
    BLOCKED: {"reason": "421 4.7.0 Temporarily deferred due to unexpected volume", "status": "4.7.0"},
    INVALID: {"reason": "Mail domain mentioned in email address is unknown"},
    SPAM: {"ip": "192.0.2.17"},
    LEFT: {},
}


def listed(request: Request, kind: str) -> list[dict[str, Any]]:
    """Both bounds belong to the span."""
    if kind not in KINDS:
        raise errors.not_found()
    begin, end = request.number("start_time", 0, 0, 10**11), request.number("end_time", 10**11, 0, 10**11)
    rows = ordered(request.account, kind)
    low, high = bisect_left(rows, -end, key=_negative), bisect_right(rows, -begin, key=_negative)
    limit, offset = request.number("limit", MOST, 1, MOST), request.number("offset", 0, 0, 10**12)
    return [shown(kind, each) for each in rows[min(low + offset, high) : min(low + offset + limit, high)]]


def ordered(account: Account, kind: str) -> list[Suppressed]:
    """Sorted anew only where something changed."""
    changes, rows = account.sorted_lists.get(kind, (-1, []))
    if changes != account.sending.changes:
        rows = sorted(account.sending.suppressed[kind].values(), key=lambda each: (-each.at, each.email))
        account.sorted_lists[kind] = account.sending.changes, rows
    return rows


def _negative(each: Suppressed) -> int:
    return -each.at


def shown(kind: str, each: Suppressed) -> dict[str, Any]:
    return {"created": each.at, "email": each.email, **_MORE[kind]}


def groups(account: Account) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "name": topic.title(),
            "description": f"Our mails about {topic}",
            "is_default": topic == next(iter(GROUPS)),
            "last_email_sent_at": None,
            "unsubscribes": len(account.sending.left_topics[topic]),
        }
        for topic, id in GROUPS.items()
    ]


def members(account: Account) -> list[dict[str, Any]]:
    """Of all groups, at once."""
    return [
        {"email": each.email, "group_id": id, "group_name": topic.title(), "created_at": each.at}
        for topic, id in GROUPS.items()
        for each in account.sending.left_topics[topic].values()
    ]


def members_of(account: Account, group: str) -> list[str]:
    topic = next((topic for topic, id in GROUPS.items() if str(id) == group), None)
    if topic is None:
        raise errors.not_found()
    return list(account.sending.left_topics[topic])
