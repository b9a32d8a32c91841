"""Hand-made billing histories: objects shaped as Stripe lists them, stored as a sync stores them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from churnguard_pipelines.analytics.exchange import load_rates, set_operator_rate
from churnguard_pipelines.analytics.movements import KINDS, Movements
from churnguard_pipelines.analytics.mrr import MrrReport, compute_mrr
from churnguard_pipelines.connectors.stripe import Stripe
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import DeleteKind, Deletion, Record
from churnguard_pipelines.store.control.organizations import add_organization, set_unpaid_counts
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from tests.conftest import Copied, settings_for

JSON = dict[str, Any]
ONLY_LISTED = ("tiers", "currency_options")
FOREVER = "9999-12-31"


def at(text: str) -> int:
    """Epoch seconds: ``at("2025-01-31")`` is midnight, ``at("2025-01-31 23:59:59")`` is not."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def moved(row: Movements) -> dict[str, int]:
    """A month's movements that are not 0."""
    return {kind: getattr(row, kind) for kind in KINDS if getattr(row, kind)}


def endings(report: MrrReport) -> dict[str, int]:
    """MRR by the end of month, in the reporting currency: ``{"2025-01": 1900}``."""
    return {f"{row.month:%Y-%m}": row.ending for row in report.movements}


class Billing:
    """One integration of one organization. Unless told otherwise prices are in usd, a month each."""

    def __init__(self, store: Store, organization_id: str, integration_id: str) -> None:
        self.organization_id, self._integration_id = organization_id, integration_id
        self._store, self._warehouse = store, Warehouse(store)
        self._numbers = itertools.count(1)
        self.prices: dict[str, JSON] = {}

    def put(self, object: str, payload: JSON, seen: str = "2025-12-31 12:00") -> JSON:
        """Store the object as a sync at ``seen`` would."""
        table = Stripe.table(object)
        self._warehouse.ensure(table)
        mapped = Mapper(table).rows([Record(payload, at(seen) * 1000)])
        assert not mapped.rejected, mapped.rejected
        with self._warehouse.transaction(self.organization_id) as transaction:
            transaction.upsert(table, self._integration_id, mapped.rows)
        return payload

    def vanish(self, object: str, key: str, seen: str) -> None:
        table = Stripe.table(object)
        with self._warehouse.transaction(self.organization_id) as transaction:
            transaction.delete(table, self._integration_id, [Deletion(key, DeleteKind.INFERRED, at(seen) * 1000)])

    def price(
        self, id: str, unit_amount: int | None, interval: str = "month", count: int = 1, *, currency: str = "usd",
        usage: str = "licensed", listed: bool = True, **fields: Any,
    ) -> JSON:  # fmt: skip
        """``listed``: whether the sync got it from the list of prices, with what is read in full only there."""
        self.prices[id] = {
            "id": id,
            "object": "price",
            "currency": currency,
            "unit_amount": unit_amount,
            "unit_amount_decimal": None if unit_amount is None else str(unit_amount),
            "recurring": {"interval": interval, "interval_count": count, "usage_type": usage},
            **{name: value for name, value in fields.items() if name not in ONLY_LISTED},
        }
        if listed:
            self.put("prices", self.prices[id] | fields)
        return self.prices[id]

    def coupon(
        self, id: str, duration: str, *, percent: float | None = None, amount: int | None = None, **fields: Any
    ) -> str:
        self.put("coupons", {"id": id, "duration": duration, "percent_off": percent, "amount_off": amount, **fields})
        return id

    def rate(self, day: str, currency: str, per_euro: str) -> None:
        set_operator_rate(self._store, date.fromisoformat(day), currency, Decimal(per_euro))

    def count_unpaid(self) -> None:
        set_unpaid_counts(self._store, self.organization_id, True)

    def causes(self) -> list[str | None]:
        """Why the only subscription was worth nothing, from its start on."""
        statement = sa.text("SELECT cause FROM analytics.subscription_timeline ORDER BY valid_from")
        with self._store.organization(self.organization_id) as connection:
            return [cause for cause, _ in itertools.groupby(connection.execute(statement).scalars())]

    @staticmethod
    def discount(coupon: str, start: str, end: str | None = None, subscription: str | None = "sub_1") -> JSON:
        return {
            "id": f"di_{coupon}_{start}",
            "source": {"type": "coupon", "coupon": coupon},
            "start": at(start),
            "end": at(end) if end else None,
            "subscription": subscription,
        }

    def subscription(self, id: str, *items: tuple[str, str, int], start: str, **fields: Any) -> JSON:
        """``items``: (item, price, quantity). ``seen``: when a sync met it so; times may be texts."""
        seen = fields.pop("seen", "2025-12-31 12:00")
        payload = {
            "id": id,
            "customer": "cus_1",
            "currency": "usd",
            "status": "active",
            "start_date": at(start),
            "created": at(start),
            "items": {
                "data": [
                    {"id": item, "price": self.prices[price], "quantity": quantity} for item, price, quantity in items
                ]
            },
            "discounts": [],
            "pause_collection": None,
        }
        times = {"trial_start", "trial_end", "ended_at", "start_date"}
        payload |= {name: at(value) if name in times else value for name, value in fields.items()}
        return self.put("subscriptions", payload, seen)

    def line(
        self, item: str, price: str, quantity: int, start: str, end: str, *, proration: bool = False,
        amount: int | None = None, credited: bool = False, subscription: str = "sub_1",
    ) -> JSON:  # fmt: skip
        unit = int(self.prices[price]["unit_amount"] or 0)
        return {
            "id": f"il_{next(self._numbers)}",
            "amount": unit * quantity if amount is None else amount,
            "quantity": quantity,
            "period": {"start": at(start), "end": at(end)},
            "pricing": {"price_details": {"price": price}, "unit_amount_decimal": str(unit)},
            "parent": {
                "type": "subscription_item_details",
                "subscription_item_details": {
                    "subscription": subscription,
                    "subscription_item": item,
                    "proration": proration,
                    "proration_details": {"credited_items": {"invoice": "in_0"} if credited else None},
                },
            },
        }

    def credit(self, item: str, price: str, quantity: int, start: str, end: str, **fields: Any) -> JSON:
        """Unused time given back."""
        return self.line(item, price, quantity, start, end, proration=True, amount=-1, credited=True, **fields)

    def debit(self, item: str, price: str, quantity: int, start: str, end: str, **fields: Any) -> JSON:
        """Remaining time of new terms."""
        return self.line(item, price, quantity, start, end, **{"proration": True, "amount": 1} | fields)

    def invoice(self, created: str, *lines: JSON, subscription: str = "sub_1", **fields: Any) -> JSON:
        payload = {
            "id": f"in_{next(self._numbers)}",
            "customer": "cus_1",
            "currency": "usd",
            "status": "paid",
            "created": at(created),
            "billing_reason": "subscription_cycle",
            "collection_method": "charge_automatically",
            "auto_advance": True,
            "parent": {"subscription_details": {"subscription": subscription}},
            "lines": {"data": list(lines), "has_more": False},
            "discounts": [],
            "status_transitions": {"paid_at": None},
        }
        return self.put("invoices", payload | fields)

    def periods(self, item: str, price: str, quantity: int, *starts: str, **fields: Any) -> None:
        """An invoice for each period between two of the dates."""
        for start, end in itertools.pairwise(starts):
            self.invoice(start, self.line(item, price, quantity, start, end), **fields)

    def pending(self, line: JSON) -> None:
        """An invoice item that waits for its invoice, with what the line would have."""
        details = line["parent"]["subscription_item_details"]
        self.put(
            "invoice_items",
            {
                "id": line["id"].replace("il", "ii"),
                "customer": "cus_1",
                "invoice": None,
                "proration": True,
                "proration_details": details["proration_details"],
                "parent": {"type": "subscription_details", "subscription_details": details},
                **{name: line[name] for name in ("amount", "quantity", "period", "pricing")},
            },
        )

    def mrr(self, now: str = "2025-12-31 12:00", months: tuple[date, date] | None = None) -> MrrReport:
        return compute_mrr(self._store, self.organization_id, now=datetime.fromtimestamp(at(now), UTC), months=months)


@pytest.fixture(scope="session")
def with_published_rates(copied: Copied, _template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database that has the published history of exchange rates: to bring it takes seconds."""
    with copied(_template) as url:
        store = Store.open(settings_for(tmp_path_factory.mktemp("rates"), url))
        load_rates(store, ["eur", "usd"])
        store.close()
        yield str(conninfo_to_dict(url)["dbname"])


@pytest.fixture
def database_url(copied: Copied, with_published_rates: str) -> Iterator[str]:
    with copied(with_published_rates) as url:
        yield url


@pytest.fixture
def books(store: Store, organization: Organization) -> Billing:
    """The only integration of the organization ``acme``, which reports in usd."""
    return Billing(store, organization.organization_id, "acme-stripe")


@pytest.fixture
def another(store: Store) -> Callable[..., Billing]:
    """An integration of any organization: ``another("globex", currency="eur")``."""

    def made(organization_id: str, integration_id: str = "other", currency: str = "usd") -> Billing:
        organization = Organization(organization_id=organization_id, name=organization_id, reporting_currency=currency)
        add_organization(store, organization, actor="test")
        return Billing(store, organization_id, integration_id)

    return made
