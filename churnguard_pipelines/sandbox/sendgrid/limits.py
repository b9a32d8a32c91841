"""How often SendGrid may be asked: so many requests of a family of endpoints in each minute.

https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits: each answer says the
limit, what is left, and when it starts anew, as an epoch. Answers of /v3/marketing/ say in how many seconds instead.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from churnguard_pipelines.sandbox.sendgrid import errors

WINDOW = 60.0  # seconds


@dataclass
class Limits:
    """Requests in a minute, None for any number. `marketing`, `activity`: of these families; `general`: of each of the
    others."""

    general: int | None = 600
    marketing: int | None = 600
    activity: int | None = 6


@dataclass
class Quota:
    """What was asked in the running minute, by family."""

    limits: Limits
    refused: int = 0
    _used: dict[str, tuple[float, int]] = field(default_factory=dict)

    def spend(self, path: str) -> dict[str, str]:
        """Takes one request; gives the headers that say what is left. Refusal where nothing is."""
        family = _family(path)
        most = getattr(self.limits, family if family in ("marketing", "activity") else "general")
        if most is None:
            return {}
        now = time.time()
        begun, used = self._used.get(family, (now, 0))
        if now - begun >= WINDOW:
            begun, used = now, 0
        ends = begun + WINDOW
        headers = {"x-ratelimit-limit": str(most), "x-ratelimit-remaining": str(max(0, most - used - 1))}
        headers["x-ratelimit-reset"] = str(max(1, round(ends - now)) if family == "marketing" else int(ends) + 1)
        if used >= most:
            self.refused += 1
            refusal = errors.too_many()
            refusal.headers = headers
            raise refusal
        self._used[family] = begun, used + 1
        return headers


def _family(path: str) -> str:
    """Their first word; lists of suppressed addresses count each for itself."""
    parts = path.removeprefix("/v3/").split("/")
    if parts[0] == "suppression":
        return "/".join(parts[:2])
    return {"messages": "activity"}.get(parts[0], parts[0])
