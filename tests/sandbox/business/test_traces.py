"""The past can be told from what Stripe still shows: subscriptions, invoices with lines, pending invoice items.

A short reconstruction of each subscription's MRR from those objects must agree with the business's own books at every
month's end. It holds because of the traces listed in `sandbox/subscriptions.py`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest

from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.conftest import client, read_all

Object = dict[str, Any]
MONTHS = {"month": 1, "year": 12}


@dataclass
class Told:
    """What the objects tell about one subscription."""

    subscription: Object
    billed: dict[int, dict[str, tuple[str, int]]] = field(default_factory=dict)  # instant -> item -> price, quantity
    prorated: dict[int, list[tuple[str, str, int]]] = field(default_factory=lambda: defaultdict(list))
    paused: list[tuple[int, int]] = field(default_factory=list)
    discounts: dict[str, Object] = field(default_factory=dict)

    def hear(self, start: int, item: str, price: str, quantity: int, proration: bool, amount_sign: int) -> None:
        if not proration:
            self.billed.setdefault(start, {})[item] = (price, quantity)
        else:
            self.prorated[start].append((item, price, quantity * amount_sign))

    def items(self, at: int) -> dict[str, tuple[str, int]]:
        """The items just before `at`."""
        begun = max((start for start in self.billed if start < at), default=None)
        if begun is None:
            return {}
        items = dict(self.billed[begun])
        for start in sorted(self.prorated):
            # A change at the very start of a billed period (of interval) is in that period's lines already
            if begun < start < at:
                for item, price, quantity in sorted(self.prorated[start], key=lambda line: line[2]):
                    if quantity < 0:
                        items.pop(item, None)
                    else:
                        items[item] = (price, quantity)
        return items

    def mrr(self, at: int, prices: dict[str, Object], coupons: dict[str, Object]) -> int:
        shown = self.subscription
        over = shown["ended_at"] is not None and shown["ended_at"] < at
        on_trial = shown["trial_end"] is not None and at <= shown["trial_end"]
        if over or on_trial or shown["status"].startswith("incomplete") or shown["created"] >= at:
            return 0
        if any(start < at <= end for start, end in self.paused):
            return 0
        items = [(prices[price], quantity) for price, quantity in self.items(at).values()]
        licensed = [entry for entry in items if entry[0]["recurring"]["usage_type"] == "licensed"]
        active = [
            coupons[discount["source"]["coupon"]]
            for discount in self.discounts.values()
            if discount["start"] < at and (discount["end"] is None or at <= discount["end"])
        ]
        recurring = [coupon for coupon in active if coupon["duration"] != "once"]
        total = Fraction(0)
        for price, quantity in licensed:
            left = Fraction(cost(price, quantity))
            for coupon in recurring:
                if price["product"] in coupon.get("applies_to", {}).get("products", [price["product"]]):
                    left *= 1 - Fraction(str(coupon["percent_off"] or 0)) / 100
            total += left
        for coupon in recurring:
            total = max(Fraction(0), total - (coupon["amount_off"] or 0))
        months = MONTHS[licensed[0][0]["recurring"]["interval"]] if licensed else 1
        return int(total / months + Fraction(1, 2))


def cost(price: Object, quantity: int) -> int:
    """By the tier that the quantity is in, or by the package."""
    if price["billing_scheme"] == "tiered":
        tiers = [tier for tier in price["tiers"] if tier["up_to"] is None or quantity <= tier["up_to"]]
        return int(tiers[0]["unit_amount"] * quantity)
    package = (price["transform_quantity"] or {"divide_by": 1})["divide_by"]
    return int(price["unit_amount"] * -(-quantity // package))


def tell(sandbox: Sandbox, account: str) -> tuple[list[Told], dict[str, Object], dict[str, Object]]:
    with client(sandbox, f"rk_sandbox_{account}") as api:
        expanded = {"expand[]": "data.discounts"}
        told = {s["id"]: Told(s) for s in read_all(api, "/v1/subscriptions", status="all", **expanded)}
        for invoice in reversed(read_all(api, "/v1/invoices", **expanded)):
            if invoice["parent"] is None:
                continue
            of = told[invoice["parent"]["subscription_details"]["subscription"]]
            of.discounts |= {discount["id"]: discount for discount in invoice["discounts"]}
            lines = invoice["lines"]["data"]
            if invoice["lines"]["has_more"]:
                lines = read_all(api, f"/v1/invoices/{invoice['id']}/lines")
            for line in lines:
                details = line["parent"]["subscription_item_details"]
                price = line["pricing"]["price_details"]["price"]
                sign = -1 if line["description"].startswith("Unused") else 1
                start = line["period"]["start"]
                of.hear(start, details["subscription_item"], price, line["quantity"], details["proration"], sign)
            if invoice["status"] == "void":
                periods = {(line["period"]["start"], line["period"]["end"]) for line in lines}
                of.paused += [period for period in periods if period[0] == invoice["created"]]
        for pending in read_all(api, "/v1/invoiceitems", pending="true"):
            if pending["proration"]:
                details = pending["parent"]["subscription_details"]
                price = pending["pricing"]["price_details"]["price"]
                sign = -1 if pending["description"].startswith("Unused") else 1
                told[details["subscription"]].hear(
                    pending["period"]["start"], details["subscription_item"], price, pending["quantity"], True, sign
                )
        prices = {price["id"]: price for price in read_all(api, "/v1/prices", **{"expand[]": "data.tiers"})}
        restricted = {"expand[]": "data.applies_to"}
        coupons = {coupon["id"]: coupon for coupon in read_all(api, "/v1/coupons", **restricted)}
    return list(told.values()), prices, coupons


@pytest.mark.parametrize("account", ["acme", "globex"])
def test_the_past_can_be_told_from_invoices(world: Sandbox, account: str) -> None:
    told, prices, coupons = tell(world, account)
    rows = world.account(account).movements()
    for row in rows:
        if row["month"] == rows[-1]["month"]:
            continue  # still running
        year, month = map(int, row["month"].split("-")[:2])
        at = int(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp())
        in_currency = [each for each in told if each.subscription["currency"] == row["currency"]]
        assert sum(each.mrr(at, prices, coupons) for each in in_currency) == row["ending"], row["month"]
