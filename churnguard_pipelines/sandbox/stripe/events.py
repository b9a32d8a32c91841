"""What /v1/events shows: each change as it was rendered when it happened, kept 30 days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from churnguard_pipelines.sandbox.business.entities import Discount, Entity, Invoice, Subscription
from churnguard_pipelines.sandbox.business.instants import DAY
from churnguard_pipelines.sandbox.stripe.render import render

API_VERSION = "2026-05-27.dahlia"
OLD_VERSION = "2024-06-20"  # what an endpoint pinned long ago still renders
KEPT = 30 * DAY
OLD_EVERY = 89  # every so many events about a subscription or an invoice are in the old version


class StripeEvents:
    """What Stripe tells of a business. Every so often an event is in an API version of long ago."""

    events_kept: int = KEPT

    def shown(self, record: Entity | Discount, now: int) -> dict[str, Any]:
        return render(record, now)

    def event(
        self, id: str, number: int, now: int, type: str, record: Entity | Discount, previous: dict[str, Any] | None
    ) -> bytes:
        old = number % OLD_EVERY == 0 and isinstance(record, Subscription | Invoice)
        return render_event(id, now, type, self.shown(record, now), previous, old)


def render_event(id: str, created: int, type: str, obj: Any, previous: Mapping[str, Any] | None, old: bool) -> bytes:
    """The event's JSON. `obj` is rendered without expansions; `old` re-renders it in the old API version."""
    version = API_VERSION
    if old:
        version, obj = OLD_VERSION, in_old_version(obj)
    data = {"object": obj} if previous is None else {"object": obj, "previous_attributes": previous}
    return orjson.dumps(
        {
            "id": id,
            "object": "event",
            "api_version": version,
            "created": created,
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None},
            "type": type,
        }
    )


def in_old_version(obj: dict[str, Any]) -> dict[str, Any]:
    """A subscription or invoice as 2024-06-20 shows it: fields elsewhere, and none of the new places."""
    obj = dict(obj)
    if obj["object"] == "subscription":
        items = [dict(item) for item in obj["items"]["data"]]
        periods = [(item.pop("current_period_start"), item.pop("current_period_end")) for item in items]
        obj["items"] = {**obj["items"], "data": items}
        obj["current_period_start"] = min(start for start, _ in periods)
        obj["current_period_end"] = max(end for _, end in periods)
        obj["discount"] = None
        for name in ("billing_mode", "billing_schedules"):
            del obj[name]
    elif obj["object"] == "invoice":
        parent = obj.pop("parent")
        obj["subscription"] = parent["subscription_details"]["subscription"] if parent else None
        obj["paid"] = obj["status"] == "paid"
        obj["lines"] = {**obj["lines"], "data": [_old_line(line) for line in obj["lines"]["data"]]}
    return obj


def _old_line(line: dict[str, Any]) -> dict[str, Any]:
    line = dict(line)
    parent, pricing = line.pop("parent"), line.pop("pricing")
    details = parent[parent["type"]]
    line["proration"] = details["proration"]
    line["type"] = "subscription" if parent["type"] == "subscription_item_details" else "invoiceitem"
    line["price"] = {"id": pricing["price_details"]["price"], "object": "price"}
    return line
