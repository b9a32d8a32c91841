"""Money: payment intents, charges, refunds, disputes, credit notes, the balance and payouts."""

from __future__ import annotations

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import (
    BalanceTransaction,
    Charge,
    CreditNote,
    Dispute,
    Invoice,
    PaymentIntent,
    Payout,
    Refund,
)
from churnguard_pipelines.sandbox.business.instants import DAY, HOUR

SETTLES_AFTER = 2 * DAY
FAILURES = ("card_declined", "insufficient_funds", "expired_card", "processing_error")
DISPUTE_FEE = {"usd": 1500, "eur": 2000, "jpy": 1500}


def attempt(business: Business, invoice: Invoice, succeeds: bool) -> Charge:
    """One try to charge what the invoice asks for."""
    intent = invoice.payment_intent
    if intent is None:
        intent = PaymentIntent(
            business.new_id("pi_3S"), business.now, invoice.customer, invoice, invoice.due, invoice.currency
        )
        invoice.payment_intent = business.payment_intents.add(intent)
        business.emit("payment_intent.created", intent)
    failure = None if succeeds else business.rng.choice(FAILURES)
    charge = Charge(business.new_id("ch_3S"), business.now, intent, failure, card=invoice.customer.card)
    intent.charge = charge
    invoice.attempts += 1
    if succeeds:
        fee = invoice.due * 29 // 1000 + (30 if invoice.currency != "jpy" else 40)
        charge.transaction = settle(business, invoice.due, fee, invoice.currency, "charge", charge.id).id
        intent.status = "succeeded"
    business.charges.add(charge)
    business.emit("charge.succeeded" if succeeds else "charge.failed", charge)
    if succeeds:
        business.emit("payment_intent.succeeded", intent, {"status": "requires_payment_method"})
    else:
        business.emit("payment_intent.payment_failed", intent)
    return charge


def settle(
    business: Business, amount: int, fee: int, currency: str, type: str, source: str, category: str = ""
) -> BalanceTransaction:
    """A movement of the balance; what comes in is available after two days."""
    id = business.new_id("txn_3S")
    available = business.now + (SETTLES_AFTER if amount > 0 else 0)
    transaction = BalanceTransaction(id, business.now, amount, fee, currency, type, source, available, None, category)
    transaction.category = category or type
    business.balance_transactions.add(transaction)
    if type != "payout":
        business.unpaid_out[currency].append(transaction)
    return transaction


def cancel_intent(business: Business, intent: PaymentIntent) -> None:
    if intent.status != "succeeded":
        before, intent.status, intent.canceled_at = intent.status, "canceled", business.now
        business.emit("payment_intent.canceled", intent, {"status": before})


def refund(
    business: Business, charge: Charge, amount: int, reason: str | None = "requested_by_customer"
) -> Refund | None:
    """Gives back up to `amount` of a charge; None where nothing is left or it is disputed."""
    amount = min(amount, charge.intent.amount - charge.refunded)
    if amount <= 0 or charge.failure or charge.disputed:
        return None
    id = business.new_id("re_3S")
    transaction = settle(business, -amount, 0, charge.intent.currency, "refund", id)
    made = business.refunds.add(Refund(id, business.now, charge, amount, reason, transaction.id))
    before, charge.refunded = charge.refunded, charge.refunded + amount
    business.emit("refund.created", made)
    business.emit("charge.refunded", charge, {"amount_refunded": before})
    return made


def dispute(business: Business, charge: Charge) -> Dispute | None:
    """The customer's bank takes the money back; decided weeks later."""
    if charge.failure or charge.disputed or charge.refunded:
        return None
    amount, currency = charge.intent.amount, charge.intent.currency
    reason = business.rng.choice(("fraudulent", "subscription_canceled", "product_not_received"))
    made = Dispute(business.new_id("dp_1S"), business.now, charge, amount, reason)
    fee = DISPUTE_FEE[currency]
    made.transactions.append(settle(business, -amount, fee, currency, "adjustment", made.id, "dispute"))
    charge.disputed = True
    business.disputes.add(made)
    business.emit("charge.dispute.created", made)
    business.emit("charge.dispute.funds_withdrawn", made)
    business.emit("charge.updated", charge, {"disputed": False})
    business.at(business.now + business.rng.randrange(10, 45) * DAY, close_dispute, business, made)
    return made


def close_dispute(business: Business, made: Dispute) -> None:
    won = business.rng.random() < 0.4
    before, made.status = made.status, "won" if won else "lost"
    if won:
        currency = made.charge.intent.currency
        made.transactions.append(settle(business, made.amount, 0, currency, "adjustment", made.id, "dispute_reversal"))
        business.emit("charge.dispute.funds_reinstated", made)
    business.emit("charge.dispute.closed", made, {"status": before})


def credit_note(business: Business, invoice: Invoice, amount: int) -> CreditNote | None:
    """Takes back part of a paid invoice, and refunds it."""
    charge = invoice.payment_intent.charge if invoice.payment_intent else None
    if invoice.status != "paid" or charge is None:
        return None
    back = refund(business, charge, min(amount, invoice.due - invoice.credited), None)
    line = next((line for line in invoice.lines if line.amount >= amount), None)
    if back is None or line is None:
        return None
    before, invoice.credited = invoice.credited, invoice.credited + back.amount
    number = f"{invoice.number}-CN-{len(business.credit_notes) + 1:04d}"
    note = CreditNote(
        business.new_id("cn_1S"),
        business.now,
        invoice,
        back.amount,
        line,
        number,
        "order_change",
        back,
        business.new_id("cnli_1S"),
    )
    business.credit_notes.add(note)
    business.emit("credit_note.created", note)
    business.emit("invoice.updated", invoice, {"post_payment_credit_notes_amount": before})
    return note


def pay_out_daily(business: Business) -> None:
    """Every day, per currency: what has become available leaves for the bank, and arrives two days later."""
    for currency, waiting in business.unpaid_out.items():
        ready = [transaction for transaction in waiting if transaction.available_on <= business.now]
        amount = sum(transaction.amount - transaction.fee for transaction in ready)
        if amount <= 0:
            continue
        business.unpaid_out[currency] = [t for t in waiting if t.available_on > business.now]
        id = business.new_id("po_1S")
        transaction = settle(business, -amount, 0, currency, "payout", id)
        payout = Payout(id, business.now, amount, currency, business.now + 2 * DAY, transaction.id)
        business.payouts.add(payout)
        business.emit("payout.created", payout)
        business.at(payout.arrival, _arrive, business, payout)
    business.at(business.now + DAY, pay_out_daily, business)


def _arrive(business: Business, payout: Payout) -> None:
    payout.status = "paid"
    business.emit("payout.paid", payout, {"status": "in_transit"})
    business.emit("payout.reconciliation_completed", payout)


def open_bank_account(business: Business) -> None:
    business.at(business.now + DAY + 5 * HOUR, pay_out_daily, business)
