"""Invoices: their lines, their discounts, drafts. Finalizing and collecting them is in `collection`."""

from __future__ import annotations

from fractions import Fraction

from churnguard_pipelines.sandbox.business.books import half_up
from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import (
    Customer,
    Discount,
    Invoice,
    InvoiceItem,
    Item,
    Line,
    Subscription,
)
from churnguard_pipelines.sandbox.business.instants import text


def draw_up(
    business: Business,
    customer: Customer,
    subscription: Subscription | None,
    reason: str,
    lines: list[Line],
    *,
    since: int | None = None,
    finalizes_at: int | None = None,
) -> Invoice:
    """A draft of `lines` plus the subscription's pending invoice items, with its discounts taken off.

    An invoice's own period is not what its lines bill but looks back: from `since` (the last renewal) until now.
    """
    id = business.new_id("in_1S")
    now = business.now
    discounts: list[Discount] = []
    if subscription is not None:
        lines += [_line_of(business, item, id) for item in subscription.pending]
        subscription.pending = []
        discounts = list(subscription.discounts)
    invoice = Invoice(
        id, now, customer, subscription, customer.currency, reason, lines, now if since is None else since, now
    )
    invoice.discounts = discounts
    invoice.finalizes_at = finalizes_at
    _take_off([line for line in lines if not line.proration], discounts)
    invoice.subtotal = sum(line.amount for line in lines)
    invoice.total = invoice.subtotal - sum(amount for line in lines for _, amount in line.discount_amounts)
    invoice.starting_balance = customer.balance
    invoice.due = max(0, invoice.total + customer.balance)
    business.invoices.add(invoice)
    if subscription is not None:
        subscription.latest_invoice = invoice
        _remember_billing(subscription, invoice)
        if invoice.subtotal > 0:
            subscription.discounts = [d for d in subscription.discounts if d.coupon.duration != "once"]
    business.emit("invoice.created", invoice)
    return invoice


def _line_of(business: Business, item: InvoiceItem, invoice: str) -> Line:
    item.invoice = invoice
    return Line(
        business.new_id("il_1S"),
        item.amount,
        item.quantity,
        item.price,
        item.start,
        item.end,
        item.description,
        item.proration,
        item.subscription,
        item.item,
        item.id,
        item.credited,
    )


def _take_off(lines: list[Line], discounts: list[Discount]) -> None:
    """Percentages first, then amounts, never below 0; each discount's share is kept on the line."""
    left = {line.id: line.amount for line in lines}
    for discount in sorted(discounts, key=lambda discount: discount.coupon.percent_off is None):
        percent, amount = discount.coupon.percent_off, discount.coupon.amount_off or 0
        for line in (line for line in lines if discount.coupon.takes_off(line.price)):
            if percent is not None:
                share = half_up(left[line.id] * Fraction(str(percent)) / 100)
            else:
                share = min(left[line.id], amount)
                amount -= share
            left[line.id] -= share
            line.discount_amounts.append((discount, share))


def _remember_billing(subscription: Subscription, invoice: Invoice) -> None:
    for line in invoice.lines:
        if not line.proration and line.item is not None:
            for item in subscription.items:
                if item.id == line.item:
                    item.billed_on = (invoice.id, line.id)


def item_line(business: Business, subscription: Subscription, item: Item, *, trial: bool = False) -> Line:
    """The line that bills an item for the subscription's running period; nothing while trialing."""
    assert item.quantity is not None
    price = item.price
    amount = 0 if trial else price.amount(item.quantity)
    words = f"Trial period for {price.product.name}" if trial else f"{item.quantity} × {price.product.name}"
    start, end = subscription.period_start, subscription.period_end
    line = Line(business.new_id("il_1S"), amount, item.quantity, price, start, end, words)
    line.subscription, line.item = subscription.id, item.id
    return line


def usage_line(business: Business, subscription: Subscription, item: Item, start: int, end: int) -> Line:
    """The line that bills what was used in the period before."""
    used = business.rng.randrange(0, 4000)
    words = f"{used} × {item.price.product.name}"
    line = Line(business.new_id("il_1S"), used * item.price.unit_amount, used, item.price, start, end, words)
    line.subscription, line.item = subscription.id, item.id
    return line


def prorate(business: Business, subscription: Subscription, item: Item, sign: int) -> None:
    """A pending invoice item for the rest of the period: -1 gives back what was billed, +1 bills what is new."""
    assert item.quantity is not None
    left = Fraction(subscription.period_end - business.now, subscription.period_end - subscription.period_start)
    share = left * item.price.amount(item.quantity)
    for coupon in (discount.coupon for discount in subscription.discounts):
        if coupon.percent_off is not None and coupon.duration != "once" and coupon.takes_off(item.price):
            share *= 1 - Fraction(str(coupon.percent_off)) / 100
    name, day = item.price.product.name, text(business.now)
    words = f"Unused time on {item.quantity} × {name} after {day}"
    if sign > 0:
        words = f"Remaining time on {item.quantity} × {name} after {day}"
    pending = InvoiceItem(
        business.new_id("ii_1S"),
        business.now,
        subscription.customer,
        sign * half_up(share),
        item.quantity,
        item.price,
        business.now,
        subscription.period_end,
        words,
        subscription.id,
        item.id,
        item.billed_on if sign < 0 else None,
    )
    business.invoice_items.add(pending)
    subscription.pending.append(pending)
    business.emit("invoiceitem.created", pending)


def one_off(business: Business, customer: Customer, price_quantity: int = 1) -> Invoice:
    """A manual invoice with one invoice item, still a draft."""
    price = business.catalog.one_time[customer.currency]
    item = InvoiceItem(
        business.new_id("ii_1S"),
        business.now,
        customer,
        price.unit_amount * price_quantity,
        price_quantity,
        price,
        business.now,
        business.now,
        price.product.name,
    )
    business.invoice_items.add(item)
    business.emit("invoiceitem.created", item)
    invoice = draw_up(business, customer, None, "manual", [])
    invoice.lines.append(_line_of(business, item, invoice.id))
    invoice.subtotal = invoice.total = item.amount
    invoice.due = max(0, invoice.total + customer.balance)
    business.emit("invoice.updated", invoice, {"total": 0})
    return invoice


def delete_draft(business: Business, invoice: Invoice) -> None:
    """A draft and the invoice items on it go for good."""
    if invoice.status != "draft":
        return
    for line in invoice.lines:
        item = business.invoice_items.get(line.invoice_item or "")
        if item is not None and not item.deleted:
            business.invoice_items.delete(item)
            business.emit("invoiceitem.deleted", item)
    business.invoices.delete(invoice)
    business.emit("invoice.deleted", invoice)
