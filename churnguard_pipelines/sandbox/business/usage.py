"""What people do in the product that a business sells, one event after the other.

Who pays for a better plan and more seats works in it more. Who is about to leave works in it less and less, sees
errors, and takes out their data before they go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import exp
from random import Random
from typing import Any

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import Subscription
from churnguard_pipelines.sandbox.business.instants import DAY

HISTORY = 30 * DAY
HISTORY_EVENTS = 10_000  # of a business of full size, hardly ever more
COOLING = 30 * DAY  # so long before the end of a subscription its people begin to stay away

KINDS = {  # how often while all is well, and just before the end
    "login": (30, 40),
    "report_viewed": (45, 15),
    "dashboard_built": (8, 0),
    "colleague_invited": (5, 0),
    "export": (8, 25),
    "error_seen": (4, 20),
}
REPORTS = ("Churn by plan", "MRR movements", "Cohorts", "Seats in use", "Trials")
ERRORS = ("timeout", "query_too_large", "export_failed", "permission_denied")
PER_PLAN = {"Starter": 1.0, "Team": 2.0, "Business": 4.0}
ADD_ONS = 1.5  # for who has none of the plans


@dataclass(frozen=True, slots=True)
class Doing:
    """Somebody does something: `kind` of KINDS at `at`, in seconds."""

    subscription: Subscription
    at: int
    kind: str
    details: dict[str, Any]

    def event(self, number: int) -> dict[str, Any]:
        """As the product tells it. `number`: of the business's events, from 1; the id follows from it."""
        customer, item = self.subscription.customer, self.subscription.items[0]
        seats = item.quantity or 1
        return {
            "id": event_id(number),
            "event": self.kind,
            "customer_id": customer.id,
            "user": f"user{1 + number % seats}@{customer.id}.example.com",
            "plan": item.price.product.name,
            "seats": seats,
            "occurred_at": datetime.fromtimestamp(self.at, UTC).isoformat().replace("+00:00", "Z"),
            "properties": self.details,
        }


def event_id(number: int) -> str:
    return f"use_{number:010d}"


def history(business: Business) -> Sequence[Doing]:
    """What was done in the last days before the anchor, in the order of time; the same at each call."""
    since, running = business.anchor - HISTORY, []
    for subscription in business.subscriptions:
        begun, ended = max(subscription.created, since), min(_end(subscription) or business.anchor, business.anchor)
        if begun < ended:
            running.append((subscription, begun, ended))
    weights = sum(_weight(each) * (ended - begun) for each, begun, ended in running)
    most = HISTORY_EVENTS * business.target / business.profile.customers
    pace = most / weights if weights else 0.0  # of a weight of one, a second
    done = [
        doing
        for subscription, begun, ended in running
        for doing in _done(subscription, begun, ended, pace, Random(f"{business.seed}/usage/{subscription.id}"))  # noqa: S311 - a simulation that must come out the same again
    ]
    return sorted(done, key=lambda doing: (doing.at, doing.subscription.place))


def present(business: Business, now: int, rng: Random) -> Doing | None:
    """What somebody does at this moment; None where nobody was found by a few looks."""
    count = business.subscriptions.after(now)
    most = max(PER_PLAN.values()) * _crowd(9)
    for _ in range(60 if count else 0):
        subscription = business.subscriptions.record(rng.randrange(count))
        end = _end(subscription)
        warm = _warmth(subscription, now) if end is None or now < end else 0.0
        if rng.random() * most < _weight(subscription) * warm:
            return _doing(subscription, now, warm, rng)
    return None


def _done(subscription: Subscription, begun: int, ended: int, pace: float, rng: Random) -> Iterator[Doing]:
    """A stream of moments by chance, thinned out as its people cool down."""
    rate = pace * _weight(subscription)
    at = begun + rng.expovariate(rate)
    while at < ended:
        warm = _warmth(subscription, int(at))
        if rng.random() < warm:
            yield _doing(subscription, int(at), warm, rng)
        at += rng.expovariate(rate)


def _doing(subscription: Subscription, at: int, warm: float, rng: Random) -> Doing:
    weights = [well * warm + ending * (1 - warm) for well, ending in KINDS.values()]
    kind = rng.choices(list(KINDS), weights)[0]
    details: dict[str, Any] = {}
    if kind == "report_viewed":
        details = {"report": rng.choice(REPORTS), "milliseconds": int(rng.expovariate(1 / 400))}
    elif kind == "export":
        details = {"format": rng.choice(("csv", "xlsx", "json")), "rows": 1 + int(rng.expovariate(1 / 2000))}
    elif kind == "error_seen":
        details = {"code": rng.choice(ERRORS)}
    return Doing(subscription, at, kind, details)


def _end(subscription: Subscription) -> int | None:
    """When it ended, or is to end as far as anybody knows."""
    return subscription.ended_at or subscription.cancel_at


def _warmth(subscription: Subscription, at: int) -> float:
    """From 1, as long as nothing is wrong, to nearly 0 at the end."""
    end = _end(subscription)
    well = 0.3 if subscription.paused or subscription.status == "past_due" else 1.0
    return well if end is None else well * min(1.0, max(0.05, (end - at) / COOLING))


def _weight(subscription: Subscription) -> float:
    item = subscription.items[0]
    return PER_PLAN.get(item.price.product.name, ADD_ONS) * _crowd(item.quantity or 1)


def _crowd(seats: int) -> float:
    """Not everybody of a large team comes by every day."""
    return 3 * (1 - exp(-seats / 3))
