"""Customers, checkout and the catalog as Stripe shows them in API version 2026-05-27.dahlia.

Source of the shapes: Stripe's published OpenAPI description and sample objects. In this version a discount's coupon is
in `source`, a promotion code's in `promotion`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from churnguard_pipelines.sandbox.business.entities import (
    CheckoutSession,
    Coupon,
    Customer,
    Discount,
    Plan,
    Price,
    Product,
    PromotionCode,
)

Object = dict[str, Any]

NO_ADDRESS = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
METER = "mtr_sandbox_api_calls"


def customer(c: Customer) -> Object:
    return {
        "id": c.id,
        "object": "customer",
        "address": {**NO_ADDRESS, "country": c.country},
        "balance": c.balance,
        "created": c.created,
        "currency": c.currency,
        "customer_account": None,
        "default_source": None,
        "delinquent": c.delinquent,
        "description": c.description,
        "discount": None,
        "email": c.email,
        "invoice_prefix": f"{c.number:08X}",
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": f"pm_1S{c.id[4:]}",
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {"crm_id": f"C-{c.number:05d}"},
        "name": c.name,
        "next_invoice_sequence": 1,
        "phone": c.phone,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def product(p: Product) -> Object:
    return {
        "id": p.id,
        "object": "product",
        "active": p.active,
        "created": p.created,
        "default_price": p.default_price,
        "description": p.description,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": p.name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "unit_label": None,
        "updated": p.updated,
        "url": None,
    }


def price(p: Price, expand: Collection[str] = ()) -> Object:
    recurring = p.interval and {
        "interval": p.interval,
        "interval_count": 1,
        "meter": METER if p.metered else None,
        "usage_type": "metered" if p.metered else "licensed",
    }
    shown: Object = {
        "id": p.id,
        "object": "price",
        "active": p.active,
        "billing_scheme": _scheme(p),
        "created": p.created,
        "currency": p.currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": p.nickname,
        "product": p.product.id,
        "recurring": recurring,
        "tax_behavior": "unspecified",
        "tiers_mode": "volume" if p.tiers else None,
        "transform_quantity": {"divide_by": p.package, "round": "up"} if p.package > 1 else None,
        "type": "recurring" if recurring else "one_time",
        **_unit(p),
    }
    if "tiers" in expand and p.tiers:
        shown["tiers"] = _tiers(p)
    if "currency_options" in expand:  # its own currency is one of them; their tiers are another matter
        shown["currency_options"] = {
            p.currency: {"custom_unit_amount": None, "tax_behavior": "unspecified", **_unit(p)}
        }
    return shown


def _scheme(p: Price) -> str:
    return "tiered" if p.tiers else "per_unit"


def _unit(p: Price) -> Object:
    amount = None if p.tiers else p.unit_amount
    return {"unit_amount": amount, "unit_amount_decimal": None if amount is None else str(amount)}


def _tiers(p: Price) -> list[Object]:
    return [
        {
            "flat_amount": None,
            "flat_amount_decimal": None,
            "unit_amount": unit,
            "unit_amount_decimal": str(unit),
            "up_to": up_to,
        }
        for up_to, unit in p.tiers
    ]


def plan(p: Plan, expand: Collection[str] = ()) -> Object:
    shown: Object = {
        "id": p.id,
        "object": "plan",
        "active": p.price.active,
        **{name.removeprefix("unit_"): value for name, value in _unit(p.price).items()},
        "billing_scheme": _scheme(p.price),
        "created": p.created,
        "currency": p.price.currency,
        "interval": p.price.interval,
        "interval_count": 1,
        "livemode": False,
        "metadata": {},
        "meter": METER if p.price.metered else None,
        "nickname": p.price.nickname,
        "product": p.price.product.id,
        "tiers_mode": "volume" if p.price.tiers else None,
        "transform_usage": {"divide_by": p.price.package, "round": "up"} if p.price.package > 1 else None,
        "trial_period_days": None,
        "usage_type": "metered" if p.price.metered else "licensed",
    }
    if "tiers" in expand and p.price.tiers:
        shown["tiers"] = _tiers(p.price)
    return shown


def coupon(c: Coupon, expand: Collection[str] = ()) -> Object:
    shown: Object = {
        "id": c.id,
        "object": "coupon",
        "amount_off": c.amount_off,
        "created": c.created,
        "currency": c.currency if c.amount_off is not None else None,
        "duration": c.duration,
        "duration_in_months": c.months,
        "livemode": False,
        "max_redemptions": None,
        "metadata": {},
        "name": c.name,
        "percent_off": c.percent_off,
        "redeem_by": None,
        "times_redeemed": c.times_redeemed,
        "valid": True,
    }
    if "applies_to" in expand and c.products:
        shown["applies_to"] = {"products": list(c.products)}
    if "currency_options" in expand and c.amount_off is not None:
        shown["currency_options"] = {c.currency: {"amount_off": c.amount_off}}
    return shown


def promotion_code(p: PromotionCode) -> Object:
    return {
        "id": p.id,
        "object": "promotion_code",
        "active": p.active,
        "code": p.code,
        "created": p.created,
        "customer": None,
        "customer_account": None,
        "expires_at": None,
        "livemode": False,
        "max_redemptions": None,
        "metadata": {},
        "promotion": {"coupon": p.coupon.id, "type": "coupon"},
        "restrictions": {"first_time_transaction": False, "minimum_amount": None, "minimum_amount_currency": None},
        "times_redeemed": p.times_redeemed,
    }


def discount(d: Discount) -> Object:
    return {
        "id": d.id,
        "object": "discount",
        "checkout_session": d.checkout_session,
        "customer": d.customer,
        "customer_account": None,
        "end": d.end,
        "invoice": None,
        "invoice_item": None,
        "promotion_code": d.promotion_code,
        "source": {"coupon": d.coupon.id, "type": "coupon"},
        "start": d.start,
        "subscription": d.subscription,
        "subscription_item": None,
    }


def checkout_session(s: CheckoutSession) -> Object:
    return {
        "id": s.id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": True,
        "amount_subtotal": s.amount,
        "amount_total": s.amount,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": "https://example.com/cancel",
        "client_reference_id": None,
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": s.created,
        "currency": s.currency,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": s.customer,
        "customer_account": None,
        "customer_creation": "always",
        "customer_details": {
            "address": NO_ADDRESS,
            "business_name": None,
            "email": s.email,
            "individual_name": None,
            "name": s.name,
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        },
        "customer_email": None,
        "discounts": [],
        "excluded_payment_method_types": [],
        "expires_at": s.expires,
        "invoice": s.invoice,
        "invoice_creation": None,
        "livemode": False,
        "locale": None,
        "metadata": {},
        "mode": "subscription",
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": "paid" if s.status == "complete" else "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": s.status,
        "submit_type": None,
        "subscription": s.subscription,
        "success_url": "https://example.com/success",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"https://checkout.example.com/c/{s.id}" if s.status == "open" else None,
        "wallet_options": None,
    }
