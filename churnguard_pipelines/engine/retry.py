"""How long to wait before another try: exponential backoff with full jitter, unless the provider says how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait from a ``Retry-After`` header: delay seconds or an HTTP date (RFC 9110 §10.2.3).

    ``now``: seconds since the epoch. None where the header is absent or means nothing; never negative.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000": the sender claims no zone; HTTP dates are always GMT
            moment = moment.replace(tzinfo=UTC)
        return max(moment.timestamp() - now, 0.0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which pauses, a call is tried again. ``attempts``: retries after the first call (0: none).
    Times in seconds.

    Without word from the provider the n-th wait is random in [0, min(``cap``, ``backoff_base`` · 2ⁿ⁻¹)]: full jitter
    spreads callers that failed together better than any fixed step (AWS Architecture Blog, 2015). With a
    ``Retry-After`` the wait is exactly that, and longer than ``retry_after_cap`` is not waited out at all.
    """

    attempts: int = 3
    backoff_base: float = 0.5
    cap: float = 60.0
    retry_after_cap: float = 300.0
    uniform: Callable[[float, float], float] = field(default=random.uniform, repr=False, compare=False)

    def wait(self, retry: int, retry_after: float | None = None) -> float | None:
        """Seconds to wait before the ``retry``-th retry (from 1); None when it is time to give up."""
        if retry > self.attempts or (retry_after is not None and retry_after > self.retry_after_cap):
            return None
        if retry_after is not None:
            return retry_after
        ceiling = min(self.cap, self.backoff_base * 2.0 ** min(retry - 1, 60))
        return self.uniform(0.0, ceiling)
