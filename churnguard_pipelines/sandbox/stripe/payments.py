"""Payments and the balance as Stripe shows them in API version 2026-05-27.dahlia."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.sandbox.business.entities import (
    BalanceTransaction,
    Charge,
    CreditNote,
    Dispute,
    PaymentIntent,
    Payout,
    Refund,
)
from churnguard_pipelines.sandbox.business.instants import DAY
from churnguard_pipelines.sandbox.stripe.objects import NO_ADDRESS, Object

FAILURE_MESSAGES = {
    "card_declined": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "expired_card": "Your card has expired.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
}
NO_EVIDENCE = dict.fromkeys(
    (
        "access_activity_log",
        "billing_address",
        "cancellation_policy",
        "cancellation_policy_disclosure",
        "cancellation_rebuttal",
        "customer_communication",
        "customer_email_address",
        "customer_name",
        "customer_purchase_ip",
        "customer_signature",
        "duplicate_charge_documentation",
        "duplicate_charge_explanation",
        "duplicate_charge_id",
        "product_description",
        "receipt",
        "refund_policy",
        "refund_policy_disclosure",
        "refund_refusal_explanation",
        "service_date",
        "service_documentation",
        "shipping_address",
        "shipping_carrier",
        "shipping_date",
        "shipping_documentation",
        "shipping_tracking_number",
        "uncategorized_file",
        "uncategorized_text",
    )
)
CHECKS = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}


def payment_intent(p: PaymentIntent) -> Object:
    failed = p.charge is not None and p.charge.failure is not None and p.status == "requires_payment_method"
    error: Object | None = None
    if failed and p.charge and p.charge.failure:
        error = {
            "charge": p.charge.id,
            "code": p.charge.failure,
            "message": FAILURE_MESSAGES[p.charge.failure],
            "type": "card_error",
        }
    return {
        "id": p.id,
        "object": "payment_intent",
        "amount": p.amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": p.amount if p.status == "succeeded" else 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": p.canceled_at,
        "cancellation_reason": "void_invoice" if p.canceled_at else None,
        "capture_method": "automatic",
        "client_secret": f"{p.id}_secret_simulated",
        "confirmation_method": "automatic",
        "created": p.created,
        "currency": p.currency,
        "customer": p.customer.id,
        "customer_account": None,
        "description": "Subscription" if p.invoice and p.invoice.subscription else "Invoice",
        "excluded_payment_method_types": None,
        "last_payment_error": error,
        "latest_charge": p.charge.id if p.charge else None,
        "livemode": False,
        "managed_payments": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None if failed else f"pm_1S{p.customer.id[4:]}",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": "off_session",
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": p.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def charge(c: Charge) -> Object:
    intent, customer = c.intent, c.intent.customer
    brand, last4 = c.card
    paid = c.failure is None
    outcome: Object = {
        "advice_code": None if paid else "try_again_later",
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network" if paid else "declined_by_network",
        "reason": c.failure,
        "risk_level": "normal",
        "risk_score": 12,
        "seller_message": "Payment complete." if paid else "The bank did not return any further details.",
        "type": "authorized" if paid else "issuer_declined",
    }
    card: Object = {
        "amount_authorized": intent.amount if paid else None,
        "authorization_code": None,
        "brand": brand,
        "checks": CHECKS,
        "country": customer.country,
        "exp_month": 8,
        "exp_year": 2031,
        "fingerprint": "Sandbox000000001",
        "funding": "credit",
        "installments": None,
        "last4": last4,
        "mandate": None,
        "network": brand,
        "network_token": {"used": False},
        "network_transaction_id": None,
        "regulated_status": "unregulated",
        "three_d_secure": None,
        "wallet": None,
    }
    return {
        "id": c.id,
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": intent.amount if paid else 0,
        "amount_refunded": c.refunded,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": c.transaction,
        "billing_details": {
            "address": {**NO_ADDRESS, "country": customer.country},
            "email": customer.email,
            "name": customer.name,
            "phone": None,
            "tax_id": None,
        },
        "calculated_statement_descriptor": "SANDBOX",
        "captured": paid,
        "created": c.created,
        "currency": intent.currency,
        "customer": customer.id,
        "description": "Subscription" if intent.invoice and intent.invoice.subscription else "Invoice",
        "disputed": c.disputed,
        "failure_balance_transaction": None,
        "failure_code": c.failure,
        "failure_message": FAILURE_MESSAGES[c.failure] if c.failure else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "on_behalf_of": None,
        "outcome": outcome,
        "paid": paid,
        "payment_intent": intent.id,
        "payment_method": f"pm_1S{customer.id[4:]}",
        "payment_method_details": {"card": card, "type": "card"},
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": f"https://receipts.example.com/{c.id}" if paid else None,
        "refunded": c.refunded == intent.amount,
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "succeeded" if paid else "failed",
        "transfer_data": None,
        "transfer_group": None,
    }


def refund(r: Refund) -> Object:
    return {
        "id": r.id,
        "object": "refund",
        "amount": r.amount,
        "balance_transaction": r.transaction,
        "charge": r.charge.id,
        "created": r.created,
        "currency": r.charge.intent.currency,
        "destination_details": {"card": {"type": "refund"}, "type": "card"},
        "metadata": {},
        "payment_intent": r.charge.intent.id,
        "reason": r.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def dispute(d: Dispute, now: int) -> Object:
    due = d.created + 20 * DAY
    return {
        "id": d.id,
        "object": "dispute",
        "amount": d.amount,
        "balance_transactions": [balance_transaction(t, now) for t in d.transactions],
        "charge": d.charge.id,
        "created": d.created,
        "currency": d.charge.intent.currency,
        "enhanced_eligibility_types": [],
        "evidence": {**NO_EVIDENCE, "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": due,
            "enhanced_eligibility": {},
            "has_evidence": d.status != "needs_response",
            "past_due": False,
            "submission_count": int(d.status != "needs_response"),
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": d.charge.intent.id,
        "payment_method_details": {
            "card": {"brand": d.charge.card[0], "case_type": "chargeback", "network_reason_code": "10.4"},
            "type": "card",
        },
        "reason": d.reason,
        "status": d.status,
    }


def credit_note(n: CreditNote) -> Object:
    i = n.invoice
    entry = {
        "id": n.line_id,
        "object": "credit_note_line_item",
        "amount": n.amount,
        "description": n.line.description,
        "discount_amount": 0,
        "discount_amounts": [],
        "invoice_line_item": n.line.id,
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": None,
        "tax_rates": [],
        "taxes": [],
        "type": "invoice_line_item",
        "unit_amount": None,
        "unit_amount_decimal": None,
    }
    back: list[Any] = []
    if n.refund is not None:
        of = {"amount_refunded": n.refund.amount, "refund": n.refund.id}
        back.append({**of, "payment_record_refund": None, "type": "refund"})
    return {
        "id": n.id,
        "object": "credit_note",
        "amount": n.amount,
        "amount_shipping": 0,
        "created": n.created,
        "currency": i.currency,
        "customer": i.customer.id,
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": n.created,
        "invoice": i.id,
        "lines": {"object": "list", "data": [entry], "has_more": False, "url": f"/v1/credit_notes/{n.id}/lines"},
        "livemode": False,
        "memo": None,
        "metadata": {},
        "number": n.number,
        "out_of_band_amount": None,
        "pdf": f"https://invoice.example.com/credit_notes/{n.id}/pdf",
        "post_payment_amount": n.amount,
        "pre_payment_amount": 0,
        "pretax_credit_amounts": [],
        "reason": n.reason,
        "refunds": back,
        "shipping_cost": None,
        "status": "issued",
        "subtotal": n.amount,
        "subtotal_excluding_tax": n.amount,
        "total": n.amount,
        "total_excluding_tax": n.amount,
        "total_taxes": [],
        "type": "post_payment",
        "voided_at": None,
    }


def balance_transaction(t: BalanceTransaction, now: int) -> Object:
    fee = {"amount": t.fee, "application": None, "currency": t.currency, "type": "stripe_fee"}
    return {
        "id": t.id,
        "object": "balance_transaction",
        "amount": t.amount,
        "available_on": t.available_on,
        "balance_type": "payments",
        "created": t.created,
        "currency": t.currency,
        "description": t.description,
        "exchange_rate": None,
        "fee": t.fee,
        "fee_details": [{**fee, "description": "Processing fees"}] if t.fee else [],
        "net": t.amount - t.fee,
        "reporting_category": t.category,
        "source": t.source,
        "status": "available" if t.available_on <= now else "pending",
        "type": t.type,
    }


def payout(p: Payout) -> Object:
    return {
        "id": p.id,
        "object": "payout",
        "amount": p.amount,
        "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": p.arrival,
        "automatic": True,
        "balance_transaction": p.transaction,
        "created": p.created,
        "currency": p.currency,
        "description": "STRIPE PAYOUT",
        "destination": f"ba_1Sandbox{p.currency.upper()}",
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "original_payout": None,
        "payout_method": None,
        "reconciliation_status": "completed" if p.status == "paid" else "in_progress",
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": None,
        "status": p.status,
        "trace_id": {"status": "supported" if p.status == "paid" else "pending", "value": None},
        "type": "bank_account",
    }
