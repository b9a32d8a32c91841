"""What the gateway counts of itself, for its own ``/metrics``. Providers are named, organizations are not."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

UNKNOWN = "unknown"
"""The provider of a delivery to an address that there is not."""
_BY_STATUS = {404: "unknown_address", 405: "wrong_method", 429: "too_many_unsigned", 500: "error"}

_REQUESTS = Counter(
    "churnguard_webhook_requests", "Deliveries by what became of them; 2xx is `accepted`.", ["provider", "outcome"]
)
COMMITS = Histogram(
    "churnguard_webhook_commit_seconds",
    "How long a transaction took that stored deliveries, or could not.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
EVENTS_HELD = Gauge("churnguard_webhook_events_held", "Events that wait in this process to be stored.")
STORING = Gauge("churnguard_webhook_storing", "1 while deliveries can be stored, 0 while they are refused.")


def count_request(provider: str, status: int, outcome: str = "") -> None:
    _requests(provider, outcome or _BY_STATUS.get(status, "accepted" if status < 300 else "refused")).inc()


@cache
def _requests(provider: str, outcome: str) -> Counter:
    return _REQUESTS.labels(provider, outcome)
