"""Stripe: its objects and their columns. ``reading`` knows how they are read, ``api`` how Stripe is called.

Facts are the API reference's of version 2026-05-27.dahlia. Money is in minor units of its currency, as Stripe gives it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from churnguard_pipelines.connectors.sdk import (
    ApiConnector,
    ConnectionReport,
    Object,
    ObjectAccess,
    Reading,
    StoredVersions,
)
from churnguard_pipelines.connectors.sdk.access import Access, Entry, Setting
from churnguard_pipelines.connectors.sdk.columns import columns
from churnguard_pipelines.connectors.stripe.api import API_VERSION, HOST, PAGE, StripeApi, secret_key, should_retry
from churnguard_pipelines.connectors.stripe.reading import TRAIL, StripeOptions, StripeReader
from churnguard_pipelines.engine.auth import Bearer, Credential, TokenKeeper
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.errors import PermissionMissing
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration, IntegrationType
from churnguard_pipelines.records import Batch, Deletion, Record, Window

LIVE_PER_SECOND, TEST_PER_SECOND = 100, 25
"""Read requests a second that Stripe allows an account: docs.stripe.com/rate-limits."""
RESERVE = 0.1  # share of it that is left to the customer's other tools


IGNORED_EVENTS = frozenset(
    {
        # of Connect platforms and of money on its way: neither is synced
        *("account.application.authorized", "account.application.deauthorized", "account.updated"),
        *(f"account.external_account.{what}" for what in ("created", "updated", "deleted")),
        *(f"transfer.{what}" for what in ("created", "updated", "paid", "failed", "reversed")),
        "balance.available",
        # come together with an update of the customer or the subscription
        *(f"customer.discount.{what}" for what in ("created", "updated", "deleted")),
        # how customers pay, and what is not yet a sale
        *(f"customer.source.{what}" for what in ("created", "updated", "deleted", "expiring")),
        *(f"payment_method.{what}" for what in ("attached", "detached", "updated", "automatically_updated")),
        *(f"setup_intent.{what}" for what in ("created", "succeeded", "setup_failed", "canceled", "requires_action")),
        *(f"quote.{what}" for what in ("created", "finalized", "accepted", "canceled")),
        *(f"payment_link.{what}" for what in ("created", "updated")),
        *(f"tax_rate.{what}" for what in ("created", "updated")),
        "mandate.updated",
        # a forecast of an invoice that does not exist yet, so it has no id
        "invoice.upcoming",
    }
)


def obj(name: str, path: str, options: StripeOptions, *, versioned: bool = False, **kinds: str) -> Object:
    return Object(name, path, columns(**kinds), versioned=versioned, options=options, created_column=options.created)


def changed_by(*events: str, **options: object) -> StripeOptions:
    return StripeOptions(events=events, **options)  # type: ignore[arg-type]


class Stripe(ApiConnector):
    provider, kind, title = "stripe", IntegrationType.PAYMENT, "Stripe"
    access = (
        Access(
            "api_key", "Restricted key", CredentialType.API_KEY,
            (
                Entry("api_key", "rk_live_… with Read permissions: Developers → API keys in Stripe", secret=True),
                Entry("stripe_account", "the connected account to read, of a platform's key", optional=True),
            ),
        ),
    )  # fmt: skip
    settings = (
        *ApiConnector.settings,
        Entry(Setting.API_VERSION, f"of Stripe's API, {API_VERSION} if left out", optional=True),
    )
    own_hosts = frozenset({HOST})
    should_retry = staticmethod(should_retry)
    ignored_events = IGNORED_EVENTS
    trails_by = timedelta(seconds=TRAIL)
    page_size = PAGE
    objects = (
        obj(
            "products", "/v1/products",
            changed_by("product.created", "product.updated", "product.deleted"),
            TEXT="name description statement_descriptor unit_label", BOOLEAN="active livemode",
            TIMESTAMP="created updated", JSON="metadata",
        ),
        obj(
            "prices", "/v1/prices",
            changed_by(
                "price.created", "price.updated", "price.deleted",
                expand=("tiers", "currency_options", "currency_options.*.tiers"),
            ),
            TEXT="product currency type billing_scheme lookup_key nickname tiers_mode", BIGINT="unit_amount",
            NUMERIC="unit_amount_decimal", BOOLEAN="active livemode", TIMESTAMP="created",
            JSON="recurring tiers currency_options transform_quantity metadata",
        ),
        obj(
            "plans", "/v1/plans",
            changed_by("plan.created", "plan.updated", "plan.deleted"),
            TEXT="product currency interval usage_type billing_scheme nickname tiers_mode",
            BIGINT="amount interval_count trial_period_days", NUMERIC="amount_decimal", BOOLEAN="active livemode",
            TIMESTAMP="created", JSON="metadata",
        ),
        obj(
            "coupons", "/v1/coupons",
            changed_by(
                "coupon.created", "coupon.updated", "coupon.deleted", expand=("applies_to", "currency_options")
            ),
            TEXT="name currency duration", BIGINT="amount_off duration_in_months max_redemptions times_redeemed",
            NUMERIC="percent_off", BOOLEAN="valid livemode", TIMESTAMP="created redeem_by",
            JSON="applies_to currency_options metadata",
        ),
        obj(
            "promotion_codes", "/v1/promotion_codes",
            changed_by("promotion_code.created", "promotion_code.updated"),
            TEXT="code customer coupon=promotion.coupon", BIGINT="max_redemptions times_redeemed",
            BOOLEAN="active livemode", TIMESTAMP="created expires_at", JSON="restrictions metadata",
        ),
        obj(
            "customers", "/v1/customers",
            changed_by("customer.created", "customer.updated", "customer.deleted"),
            TEXT="email name description currency phone", BIGINT="balance", BOOLEAN="delinquent livemode",
            TIMESTAMP="created", JSON="address discount metadata",
        ),
        obj(
            "subscriptions", "/v1/subscriptions",
            changed_by(
                *(
                    f"customer.subscription.{name}"
                    for name in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end",
                                 "pending_update_applied", "pending_update_expired")
                ),
                parameters={"status": "all"},  # without it the list hides the canceled ones
                expand=("discounts", "items.data.discounts"),
                nested=("items", "/v1/subscription_items", "subscription"),
            ),
            versioned=True,
            TEXT="customer status currency collection_method default_payment_method latest_invoice schedule",
            BOOLEAN="cancel_at_period_end livemode",
            TIMESTAMP="created start_date trial_start trial_end billing_cycle_anchor cancel_at canceled_at ended_at",
            JSON="items=items.data discounts pause_collection cancellation_details metadata",
        ),
        obj(
            "subscription_schedules", "/v1/subscription_schedules",
            changed_by(
                *(
                    f"subscription_schedule.{name}"
                    for name in ("created", "updated", "released", "aborted", "canceled", "completed", "expiring")
                )
            ),
            TEXT="customer subscription status end_behavior released_subscription", BOOLEAN="livemode",
            TIMESTAMP="created canceled_at completed_at released_at", JSON="current_phase phases metadata",
        ),
        obj(
            "invoices", "/v1/invoices",
            changed_by(
                # `upcoming` is left out: it has no id
                *(
                    f"invoice.{name}"
                    for name in ("created", "updated", "finalized", "finalization_failed", "sent", "paid",
                                 "payment_succeeded", "payment_failed", "payment_action_required", "overdue",
                                 "overpaid", "will_be_due", "marked_uncollectible", "voided", "deleted")
                ),
                expand=("discounts", "lines.data.discounts"), nested=("lines", "/v1/invoices/{id}/lines", None),
            ),
            TEXT="customer status currency number billing_reason collection_method customer_email "
            "subscription=parent.subscription_details.subscription",
            BIGINT="subtotal total amount_due amount_paid amount_remaining attempt_count starting_balance "
            "ending_balance",
            BOOLEAN="attempted auto_advance livemode",
            TIMESTAMP="created period_start period_end due_date effective_at next_payment_attempt",
            JSON="lines=lines.data discounts total_discount_amounts total_taxes status_transitions parent metadata",
        ),
        obj(
            "invoice_items", "/v1/invoiceitems",
            # no event tells a change, and the list filters by `created`, which the record calls `date`
            changed_by("invoiceitem.created", "invoiceitem.deleted", created="date", relist=True),
            TEXT="customer invoice currency description price=pricing.price_details.price "
            "subscription=parent.subscription_details.subscription",
            BIGINT="amount net_amount quantity", BOOLEAN="proration discountable livemode", TIMESTAMP="date",
            JSON="period pricing parent discounts proration_details metadata",
        ),
        obj(
            "charges", "/v1/charges",
            changed_by(
                *(
                    f"charge.{name}"
                    for name in ("captured", "expired", "failed", "pending", "refunded", "succeeded", "updated")
                )
            ),
            TEXT="customer payment_intent balance_transaction status currency description failure_code "
            "failure_message payment_method receipt_email",
            BIGINT="amount amount_captured amount_refunded", BOOLEAN="paid captured refunded disputed livemode",
            TIMESTAMP="created", JSON="billing_details outcome payment_method_details metadata",
        ),
        obj(
            "payment_intents", "/v1/payment_intents",
            changed_by(
                *(
                    f"payment_intent.{name}"
                    for name in ("created", "succeeded", "canceled", "payment_failed", "processing",
                                 "requires_action", "amount_capturable_updated", "partially_funded")
                )
            ),
            TEXT="customer latest_charge status currency description payment_method cancellation_reason",
            BIGINT="amount amount_capturable amount_received", BOOLEAN="livemode", TIMESTAMP="created canceled_at",
            JSON="last_payment_error payment_details metadata",
        ),
        obj(
            "refunds", "/v1/refunds",
            changed_by("refund.created", "refund.updated", "refund.failed", "charge.refund.updated"),
            TEXT="charge payment_intent balance_transaction status reason currency failure_reason", BIGINT="amount",
            TIMESTAMP="created", JSON="metadata",
        ),
        obj(
            "disputes", "/v1/disputes",
            changed_by(
                *(
                    f"charge.dispute.{name}"
                    for name in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")
                )
            ),
            TEXT="charge payment_intent status reason currency", BIGINT="amount",
            BOOLEAN="is_charge_refundable livemode", TIMESTAMP="created",
            JSON="balance_transactions evidence_details metadata",
        ),
        obj(
            "credit_notes", "/v1/credit_notes",
            changed_by(
                "credit_note.created", "credit_note.updated", "credit_note.voided",
                nested=("lines", "/v1/credit_notes/{id}/lines", None),
            ),
            TEXT="customer invoice number status type reason currency memo",
            BIGINT="amount subtotal total discount_amount out_of_band_amount pre_payment_amount post_payment_amount",
            BOOLEAN="livemode", TIMESTAMP="created effective_at voided_at", JSON="lines=lines.data metadata",
        ),
        obj(
            "balance_transactions", "/v1/balance_transactions",
            StripeOptions(relist=True),  # it becomes available without an event
            TEXT="source type reporting_category status currency description", BIGINT="amount fee net",
            NUMERIC="exchange_rate", TIMESTAMP="created available_on", JSON="fee_details",
        ),
        obj(
            "payouts", "/v1/payouts",
            changed_by(
                *(
                    f"payout.{name}"
                    for name in ("created", "updated", "paid", "failed", "canceled", "reconciliation_completed")
                )
            ),
            TEXT="status type method currency destination balance_transaction failure_code description",
            BIGINT="amount", BOOLEAN="automatic livemode", TIMESTAMP="created arrival_date", JSON="metadata",
        ),
        obj(
            "checkout_sessions", "/v1/checkout/sessions",
            # no event tells that one was created: new ones are listed
            changed_by(
                *(
                    f"checkout.session.{name}"
                    for name in ("completed", "expired", "async_payment_failed", "async_payment_succeeded")
                ),
                list_new=True,
            ),
            TEXT="customer subscription payment_intent invoice mode status payment_status currency "
            "client_reference_id customer_email",
            BIGINT="amount_subtotal amount_total", BOOLEAN="livemode", TIMESTAMP="created expires_at",
            JSON="customer_details total_details metadata",
        ),
        obj(
            "events", "/v1/events",
            StripeOptions(list_new=True, fades=True),
            TEXT="type api_version account object_id=data.object.id object_type=data.object.object",
            BIGINT="pending_webhooks", BOOLEAN="livemode", TIMESTAMP="created", JSON="data request",
        ),
    )  # fmt: skip

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        super().__init__(integration, http)
        self._api = StripeApi(integration, http)
        self._reader = StripeReader(self._api, integration.sync_config.concurrent_requests)

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        return Bearer(secret_key(integration))

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        test = "_test_" in secret_key(integration)
        return Quota(per_second=TEST_PER_SECOND if test else LIVE_PER_SECOND, reserve=RESERVE)

    def identity(self) -> str | None:
        return self._api.identity()

    def check(self) -> ConnectionReport:
        return ConnectionReport(self.integration.integration_id, self.identity(), tuple(map(self._access, self.chosen)))

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        return self._reader.read(item, reading)

    @classmethod
    def object_of(cls, event: Mapping[str, Any]) -> str | None:
        return _object_of_type().get(event["type"])

    def changes(
        self, item: Object, events: Sequence[Mapping[str, Any]], stored: StoredVersions
    ) -> tuple[Sequence[Record], Sequence[Deletion]]:
        return self._reader.changes(item, events, stored)

    def keys(self, item: Object, window: Window, limit: int) -> Sequence[str] | None:
        return self._reader.keys(item, window, limit)

    def fetch(self, item: Object, keys: Sequence[str]) -> tuple[Sequence[Record], Sequence[Deletion]]:
        return self._reader.fetch(item, keys)

    def _access(self, item: Object) -> ObjectAccess:
        try:
            self._api.get(item.path, limit=1, **item.options.parameters)
        except PermissionMissing as error:
            return ObjectAccess(item.name, readable=False, problem=error.message, remedy=error.remedy)
        return ObjectAccess(item.name, readable=True)


@cache
def _object_of_type() -> Mapping[str, str]:
    listed = {type_: item.name for item in Stripe.objects for type_ in item.options.events}
    return {"invoiceitem.updated": "invoice_items", **listed}  # old API versions tell that, too
