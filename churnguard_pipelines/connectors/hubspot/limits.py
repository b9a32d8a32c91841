"""HubSpot's limits: what it publishes, and what its answers say of them.

developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines. General calls and search have budgets of their
own; the day's quota is the account's, shared by all its apps, and starts anew at midnight in the account's time zone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from churnguard_pipelines.engine.http import Response
from churnguard_pipelines.engine.quota import Limits, Quota
from churnguard_pipelines.errors import ProviderUnavailable

SEARCH = "search"
RESERVE = 0.1  # the share that is left to the customer's other tools
BURST = 5  # so that no ten seconds see more than the limit, whenever they begin
GENERAL = Quota(per_second=10, burst=BURST, reserve=RESERVE)
"""100 in ten seconds, as of the smallest plan; headers tell of 190 or 250. Apps of OAuth have 110 per account."""
SEARCHES = Quota(per_second=5, burst=1, reserve=RESERVE)
"""Older accounts have four; search answers carry no headers, so refusals tell."""
HOUR = 3600.0
_PAUSES = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}


def read_limits(headers: Mapping[str, str]) -> Limits | None:
    """The day's calls that are left, and the pace of the rolling window. ``-Secondly`` is not read: it is one second's
    share of the ten, and says less."""
    daily, left = _number(headers, "x-hubspot-ratelimit-daily"), _number(headers, "x-hubspot-ratelimit-daily-remaining")
    if daily and left is not None and left <= daily * RESERVE:
        return Limits(left, daily, reset_after=until_midnight_somewhere())
    most, window = (
        _number(headers, "x-hubspot-ratelimit-max"),
        _number(headers, "x-hubspot-ratelimit-interval-milliseconds"),
    )
    if not (most and window) and left is None:
        return None
    return Limits(left, most or None, window / 1000 if window else None)


def quota_used_up(response: Response) -> float | None:
    """Of the day's quota, which no pause of seconds helps."""
    return until_midnight_somewhere() if _policy(response) == "DAILY" else None


def retry_after(response: Response) -> float | None:
    """HubSpot does not always send the header; Cloudflare before it writes seconds into the body."""
    if response.status != 429 and response.status < 500:
        return None
    told = _body(response).get("retry_after")
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told < 86_400:
        return float(told)
    return _PAUSES.get(_policy(response))


def until_midnight_somewhere() -> float:
    """Seconds to the next whole hour. At one of them it is midnight where the account is; one call at each finds out
    which, without a wait of up to a day in vain."""
    return HOUR - time.time() % HOUR + 5.0


def _policy(response: Response) -> str:
    return str(_body(response).get("policyName")) if response.status == 429 else ""


def _body(response: Response) -> Mapping[str, object]:
    try:
        body = response.json()
    except ProviderUnavailable:
        return {}
    return body if isinstance(body, dict) else {}


def _number(headers: Mapping[str, str], name: str) -> float | None:
    told = headers.get(name, "").strip()
    return float(told) if told.isascii() and told.isdigit() and len(told) < 16 else None
