"""What the account itself shows: who it is, and its balance."""

from __future__ import annotations

from collections import Counter

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.stripe.objects import Object


def account(business: Business) -> Object:
    profile = business.profile
    return {
        "id": profile.account,
        "object": "account",
        "business_profile": {
            "annual_revenue": None,
            "estimated_worker_count": None,
            "mcc": None,
            "name": profile.title,
            "product_description": None,
            "support_address": None,
            "support_email": None,
            "support_phone": None,
            "support_url": None,
            "url": None,
        },
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "controller": {"type": "account"},
        "country": profile.country,
        "created": business.opened,
        "default_currency": profile.reporting_currency,
        "details_submitted": True,
        "email": f"owner@{profile.name}.example.com",
        "metadata": {},
        "payouts_enabled": True,
        "settings": None,
        "type": "standard",
    }


def balance(business: Business, now: int) -> Object:
    available: Counter[str] = Counter(dict.fromkeys(business.profile.currencies, 0))
    pending: Counter[str] = Counter(dict.fromkeys(business.profile.currencies, 0))
    for transaction in business.balance_transactions:
        amounts = available if transaction.available_on <= now else pending
        amounts[transaction.currency] += transaction.amount - transaction.fee
    return {
        "object": "balance",
        "available": [_amount(amount, currency) for currency, amount in available.items()],
        "connect_reserved": [{"amount": 0, "currency": currency} for currency in available],
        "livemode": False,
        "pending": [_amount(amount, currency) for currency, amount in pending.items()],
    }


def _amount(amount: int, currency: str) -> Object:
    return {"amount": amount, "currency": currency, "source_types": {"card": amount}}
