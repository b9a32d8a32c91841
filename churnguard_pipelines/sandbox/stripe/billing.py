"""Subscriptions, schedules, invoices and invoice items as Stripe shows them in API version 2026-05-27.dahlia.

Source of the shapes: Stripe's published OpenAPI description and sample objects. In this version a subscription's period
is on its items, an invoice's subscription in `parent.subscription_details`, a line's price in `pricing.price_details`.
Included lists hold at most 10 entries.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from churnguard_pipelines.sandbox.business.entities import (
    Discount,
    Invoice,
    InvoiceItem,
    Item,
    Line,
    Price,
    Schedule,
    Subscription,
)
from churnguard_pipelines.sandbox.stripe.objects import NO_ADDRESS, Object, discount, price

INCLUDED = 10  # entries of an included list
NO_TAX = {"disabled_reason": None, "enabled": False, "liability": None}
SELF = {"type": "self"}
CLASSIC = {"flexible": None, "type": "classic"}


def included(url: str, entries: list[Object]) -> Object:
    return {"object": "list", "data": entries[:INCLUDED], "has_more": len(entries) > INCLUDED, "url": url}


def discounts(applied: list[Discount], expand: bool) -> list[Any]:
    return [discount(d) for d in applied] if expand else [d.id for d in applied]


def subscription_item(s: Subscription, item: Item) -> Object:
    shown: Object = {
        "id": item.id,
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": item.created,
        "current_period_end": s.period_end,
        "current_period_start": s.period_start,
        "discounts": [],
        "metadata": {},
        "price": price(item.price),
        "quantity": item.quantity,
        "subscription": s.id,
        "tax_rates": [],
    }
    if item.quantity is None:
        del shown["quantity"]
    return shown


def subscription(s: Subscription, expand: Collection[str] = ()) -> Object:
    items = [subscription_item(s, item) for item in s.items]
    return {
        "id": s.id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": NO_TAX,
        "billing_cycle_anchor": s.anchor,
        "billing_cycle_anchor_config": None,
        "billing_mode": CLASSIC,
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": s.cancel_at,
        "cancel_at_period_end": s.cancel_at_period_end,
        "canceled_at": s.canceled_at,
        "cancellation_details": {"comment": None, "feedback": s.feedback, "reason": s.reason},
        "collection_method": "charge_automatically",
        "created": s.created,
        "currency": s.currency,
        "customer": s.customer.id,
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": discounts(s.discounts, "discounts" in expand),
        "ended_at": s.ended_at,
        "invoice_settings": {"account_tax_ids": None, "issuer": SELF},
        "items": included(f"/v1/subscription_items?subscription={s.id}", items),
        "latest_invoice": s.latest_invoice.id if s.latest_invoice else None,
        "livemode": False,
        "managed_payments": None,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": {"behavior": "void", "resumes_at": None} if s.paused else None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": s.schedule.id if s.schedule else None,
        "start_date": s.created,
        "status": s.status,
        "test_clock": None,
        "transfer_data": None,
        "trial_end": s.trial_end,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": s.trial_start,
    }


def _phase(s: Schedule, what: tuple[str, int], start: int, end: int) -> Object:
    item: Object = {"billing_thresholds": None, "discounts": [], "metadata": {}, "price": what[0], "quantity": what[1]}
    return {
        "add_invoice_items": [],
        "application_fee_percent": None,
        "billing_cycle_anchor": None,
        "billing_thresholds": None,
        "collection_method": None,
        "currency": s.customer.currency,
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "end_date": end,
        "invoice_settings": None,
        "items": [{**item, "tax_rates": []}],
        "metadata": {},
        "on_behalf_of": None,
        "proration_behavior": "none",
        "start_date": start,
        "transfer_data": None,
        "trial_end": None,
    }


def schedule(s: Schedule, now: int) -> Object:
    first = now < s.turn
    current = {"end_date": s.turn if first else s.end, "start_date": s.start if first else s.turn}
    running = s.status == "active"
    return {
        "id": s.id,
        "object": "subscription_schedule",
        "application": None,
        "billing_mode": CLASSIC,
        "canceled_at": s.canceled_at,
        "completed_at": None,
        "created": s.created,
        "current_phase": current if running else None,
        "customer": s.customer.id,
        "customer_account": None,
        "default_settings": {
            "application_fee_percent": None,
            "automatic_tax": NO_TAX,
            "billing_cycle_anchor": "automatic",
            "billing_thresholds": None,
            "collection_method": "charge_automatically",
            "default_payment_method": None,
            "description": None,
            "invoice_settings": {"account_tax_ids": None, "days_until_due": None, "issuer": SELF},
            "on_behalf_of": None,
            "transfer_data": None,
        },
        "end_behavior": "release",
        "livemode": False,
        "metadata": {},
        "phases": [_phase(s, s.before, s.start, s.turn), _phase(s, s.after, s.turn, s.end)],
        "released_at": s.released_at,
        "released_subscription": s.subscription.id if s.status == "released" else None,
        "status": s.status,
        "subscription": s.subscription.id if s.status != "released" else None,
        "test_clock": None,
    }


def _pricing(p: Price) -> Object:
    return {
        "price_details": {"price": p.id, "product": p.product.id},
        "type": "price_details",
        "unit_amount_decimal": None if p.tiers else str(p.unit_amount),
    }


def _credited(of: tuple[str, str] | None) -> Object | None:
    return of and {"invoice": of[0], "invoice_line_items": [of[1]]}


def line(entry: Line, invoice: str, currency: str) -> Object:
    details: Object = {
        "invoice_item": entry.invoice_item,
        "proration": entry.proration,
        "proration_details": {"credited_items": _credited(entry.credited)},
        "subscription": entry.subscription,
    }
    kind = "invoice_item_details"
    if entry.item is not None:
        kind = "subscription_item_details"
        details["subscription_item"] = entry.item
    parent: Object = {"invoice_item_details": None, "subscription_item_details": None, "type": kind}
    parent[kind] = details
    return {
        "id": entry.id,
        "object": "line_item",
        "amount": entry.amount,
        "currency": currency,
        "description": entry.description,
        "discount_amounts": [{"amount": amount, "discount": d.id} for d, amount in entry.discount_amounts],
        "discountable": not entry.proration,
        "discounts": [],
        "invoice": invoice,
        "livemode": False,
        "metadata": {},
        "parent": parent,
        "period": {"end": entry.end, "start": entry.start},
        "pretax_credit_amounts": [],
        "pricing": _pricing(entry.price),
        "quantity": entry.quantity,
        "quantity_decimal": str(entry.quantity),
        "subscription": entry.subscription,
        "subtotal": entry.amount,
        "taxes": [],
    }


def invoice_item(i: InvoiceItem) -> Object:
    parent = None
    if i.subscription is not None:
        of = {"subscription": i.subscription, "subscription_item": i.item}
        parent = {"subscription_details": of, "type": "subscription_details"}
    shown = {
        "id": i.id,
        "object": "invoiceitem",
        "amount": i.amount,
        "currency": i.customer.currency,
        "customer": i.customer.id,
        "customer_account": None,
        "date": i.created,
        "description": i.description,
        "discountable": not i.proration,
        "discounts": [],
        "invoice": i.invoice,
        "livemode": False,
        "metadata": {},
        "net_amount": i.amount,
        "parent": parent,
        "period": {"end": i.end, "start": i.start},
        "pricing": _pricing(i.price),
        "proration": i.proration,
        "quantity": i.quantity,
        "quantity_decimal": str(i.quantity),
        "tax_rates": [],
        "test_clock": None,
    }
    if i.proration:
        shown["proration_details"] = {"credited_items": None, "discount_amounts": []}
    return shown


def invoice(i: Invoice, expand: Collection[str] = ()) -> Object:
    c = i.customer
    parent = None
    if i.subscription is not None:
        of = {"metadata": {}, "subscription": i.subscription.id}
        parent = {"quote_details": None, "subscription_details": of, "type": "subscription_details"}
    totals: dict[str, int] = {d.id: 0 for d in i.discounts}
    for entry in i.lines:
        for d, amount in entry.discount_amounts:
            totals[d.id] += amount
    open_amount = 0 if i.status in ("paid", "void") else i.due
    return {
        "id": i.id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Simulated business",
        "account_tax_ids": None,
        "amount_due": i.due,
        "amount_overpaid": 0,
        "amount_paid": i.paid,
        "amount_paid_off_stripe": 0,
        "amount_remaining": open_amount,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": i.attempts,
        "attempted": i.attempts > 0 or i.status == "paid",
        "auto_advance": i.auto_advance,
        "automatic_tax": {**NO_TAX, "provider": None, "status": None},
        "automatically_finalizes_at": i.finalizes_at,
        "billing_reason": i.reason,
        "collection_method": "charge_automatically",
        "created": i.created,
        "currency": i.currency,
        "custom_fields": None,
        "customer": c.id,
        "customer_account": None,
        "customer_address": {**NO_ADDRESS, "country": c.country},
        "customer_email": c.email,
        "customer_name": c.name,
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": discounts(i.discounts, "discounts" in expand),
        "due_date": None,
        "effective_at": i.finalized_at,
        "ending_balance": i.ending_balance,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": f"https://invoice.example.com/i/{i.id}" if i.finalized_at else None,
        "invoice_pdf": f"https://invoice.example.com/i/{i.id}/pdf" if i.finalized_at else None,
        "issuer": SELF,
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": included(f"/v1/invoices/{i.id}/lines", [line(e, i.id, i.currency) for e in i.lines[: INCLUDED + 1]]),
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": i.next_attempt,
        "number": i.number,
        "on_behalf_of": None,
        "parent": parent,
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": i.end,
        "period_start": i.start,
        "post_payment_credit_notes_amount": i.credited,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": i.starting_balance,
        "statement_descriptor": None,
        "status": i.status,
        "status_transitions": {
            "finalized_at": i.finalized_at,
            "marked_uncollectible_at": i.uncollectible_at,
            "paid_at": i.paid_at,
            "voided_at": i.voided_at,
        },
        "subtotal": i.subtotal,
        "subtotal_excluding_tax": i.subtotal,
        "test_clock": None,
        "total": i.total,
        "total_discount_amounts": [{"amount": amount, "discount": id} for id, amount in totals.items()],
        "total_excluding_tax": i.total,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": i.created,
    }
