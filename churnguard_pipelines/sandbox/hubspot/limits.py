"""How much HubSpot lets an app ask. https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines

Three budgets stand beside each other: a rolling ten seconds per app, search with its own second per portal, and a day
that all apps of a portal share. Answers of search and of the owners carry no header of any budget.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from churnguard_pipelines.sandbox.hubspot import errors

DAY = 86_400
INTERVAL = 10  # seconds of the rolling window


@dataclass
class Limits:
    """A portal's limits, which may change at any time; None is no limit.

    `per_interval`: requests of a private app in ten seconds; `per_interval_oauth`: of an app signed in by OAuth;
    `searches`: a second; `daily`: of all apps; `edge`: requests a second before Cloudflare steps in;
    `index_delay`: seconds until search has seen a change, at most; `longest_url`: bytes of path and query.
    """

    per_interval: int | None = 190
    per_interval_oauth: int | None = 110
    searches: int | None = 5
    daily: int | None = 650_000
    edge: int | None = None
    search_window: int = 10_000
    index_delay: float = 0
    longest_url: int = 16_000


class Rolling:
    """Requests in the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._taken: deque[float] = deque()

    def used(self, now: float) -> int:
        while self._taken and self._taken[0] <= now - self._seconds:
            self._taken.popleft()
        return len(self._taken)

    def used_in(self, now: float, seconds: float) -> int:
        """Of those, the latest."""
        return sum(1 for _ in takewhile(lambda at: at > now - seconds, reversed(self._taken)))

    def take(self, now: float) -> None:
        self._taken.append(now)

    def free_in(self, now: float) -> int:
        """Whole seconds until the oldest one leaves the window."""
        return max(1, math.ceil(self._taken[0] + self._seconds - now)) if self._taken else 1


class Quota:
    """What the apps of one portal have used."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.today = 0
        self.refused = 0
        self._day = int(time.time()) // DAY
        self._apps: dict[str, Rolling] = {}
        self._searches = Rolling(1)
        self._edge = Rolling(1)

    def spend(self, app: str, oauth: bool, path: str) -> dict[str, str]:
        """Takes one request of `app`; gives the headers that say what is left. Refusal where a budget is used up."""
        now = time.monotonic()
        self._pass_edge(now)
        if (day := int(time.time()) // DAY) != self._day:
            self._day, self.today = day, 0
        most = self.limits.per_interval_oauth if oauth else self.limits.per_interval
        window = self._apps.setdefault(app, Rolling(INTERVAL))
        if self.limits.daily is not None and self.today >= self.limits.daily:
            raise self._refusal("DAILY", None)
        if path.endswith("/search") and "/objects/" in path:
            if self.limits.searches is not None and self._searches.used(now) >= self.limits.searches:
                raise self._refusal("SECONDLY", 1)
            self._searches.take(now)
            self.today += 1
            return {}
        if most is not None and window.used(now) >= most:
            raise self._refusal("TEN_SECONDLY_ROLLING", window.free_in(now))
        window.take(now)
        self.today += 1
        return {} if "/owners" in path else self._headers(most, window, now, oauth)

    def _headers(self, most: int | None, window: Rolling, now: float, oauth: bool) -> dict[str, str]:
        headers = {}
        used = window.used(now)
        if most is not None:
            headers = {
                "x-hubspot-ratelimit-max": str(most),
                "x-hubspot-ratelimit-remaining": str(most - used),
                "x-hubspot-ratelimit-interval-milliseconds": str(INTERVAL * 1000),
                "x-hubspot-ratelimit-secondly": str(most // INTERVAL),
                "x-hubspot-ratelimit-secondly-remaining": str(max(0, most // INTERVAL - window.used_in(now, 1))),
            }
        if self.limits.daily is not None and not oauth:
            headers["x-hubspot-ratelimit-daily"] = str(self.limits.daily)
            headers["x-hubspot-ratelimit-daily-remaining"] = str(self.limits.daily - self.today)
        return headers

    def _pass_edge(self, now: float) -> None:
        if self.limits.edge is None:
            return
        if self._edge.used(now) >= self.limits.edge:
            self.refused += 1
            raise errors.limited_at_the_edge(self._edge.free_in(now))
        self._edge.take(now)

    def _refusal(self, policy: str, seconds: int | None) -> errors.Refusal:
        """Every second one says when to come again."""
        self.refused += 1
        return errors.rate_limited(policy, seconds if self.refused % 2 == 0 else None)
