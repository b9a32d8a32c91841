"""E-mail activity: messages by when something last happened to them, a thousand at most and no way to the others.

https://www.twilio.com/docs/sendgrid/for-developers/sending-email/getting-started-email-activity-api#query-reference
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from churnguard_pipelines.sandbox.sendgrid import errors
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.requests import Request, seconds
from churnguard_pipelines.sandbox.sendgrid.sending import DAY, Message

MOST = 1000
KEPT = 30 * DAY
_BETWEEN = re.compile(
    r'last_event_time BETWEEN TIMESTAMP "([0-9T:.Z-]{20,24})" AND TIMESTAMP "([0-9T:.Z-]{20,24})"', re.IGNORECASE
)
_PREFIX = re.compile(r'msg_id LIKE "([A-Za-z0-9_.-]{1,40})%"', re.IGNORECASE)


def found(request: Request) -> dict[str, Any]:
    """The latest ones that the query matches."""
    limit, query = request.number("limit", 10, 1, MOST), request.one("query")
    account = request.account
    parts = re.split(r" AND (?!TIMESTAMP)", " ".join(query.split()), flags=re.IGNORECASE) if query else []
    begin, end, prefix = 0, 2**62, ""
    for part in parts:
        part = part.strip("() ")
        if match := _BETWEEN.fullmatch(part):
            begin, end = _instant(match[1]), _instant(match[2])
        elif match := _PREFIX.fullmatch(part):
            prefix = match[1]
        else:
            raise errors.invalid("query", f"invalid query: unexpected {part[:40]!r}")
    pattern = re.compile(re.escape(prefix).replace("_", "."))  # as in SQL, an underscore is any character
    there = [
        each
        for each in kept(account)
        if begin <= each.latest <= end and (not prefix or pattern.match(account.message_id(each)))
    ]
    there.sort(key=lambda each: (-each.latest, account.message_id(each)))
    return {"messages": [shown(account, each) for each in there[:limit]]}


def kept(account: Account) -> list[Message]:
    oldest = account.clock() - KEPT
    return [each for each in account.sending.messages if each.latest >= oldest and each.at <= account.clock()]


def shown(account: Account, message: Message) -> dict[str, Any]:
    return {
        "from_email": f"hello@{account.username}.example.com",
        "msg_id": account.message_id(message),
        "subject": message.mailing.name,
        "to_email": message.email,
        "status": message.status,
        "opens_count": message.opens,
        "clicks_count": message.clicks,
        "last_event_time": seconds(message.latest),
    }


def _instant(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise errors.invalid("query", f"invalid timestamp {text}") from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
