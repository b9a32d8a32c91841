"""SendGrid's limits: what it publishes, and what its answers say of them.

https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits: most endpoints take 600
calls a minute, e-mail activity six. Answers say the limit, what is left, and when it starts anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from churnguard_pipelines.engine.http import Response
from churnguard_pipelines.engine.quota import Limits, Quota

MARKETING, ACTIVITY = "marketing", "activity"
RESERVE = 0.05  # the share that is left to the customer's other tools
GENERAL = Quota(per_second=10, burst=10, reserve=RESERVE)
OF_ACTIVITY = Quota(per_second=0.1, burst=1, reserve=RESERVE)
WINDOW = 60.0
"""Seconds; the length is not told."""
_LEAST_EPOCH = 10**9


def read_limits(headers: Mapping[str, str]) -> Limits | None:
    limit, left, reset = _number(headers, "limit"), _number(headers, "remaining"), reset_after(headers)
    if not limit:
        return None
    return Limits(left, limit, max(WINDOW, reset or 0.0), reset)


def retry_after(response: Response) -> float | None:
    """A refusal has no ``Retry-After``."""
    return reset_after(response.headers) if response.status == 429 else None


def reset_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until a budget starts anew. Documented as an epoch, marketing's answers have seconds to go."""
    told = _number(headers, "reset")
    if told is None:
        return None
    return told if told < _LEAST_EPOCH else max(0.0, told - time.time())


def _number(headers: Mapping[str, str], name: str) -> float | None:
    told = headers.get(f"x-ratelimit-{name}", "").strip()
    return float(told) if told.isascii() and told.isdigit() and len(told) < 16 else None
