"""`analytics.mrr_movements`: computed for one organization, all months or some, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from churnguard_pipelines.analytics.evidence import Evidence, Key, collect
from churnguard_pipelines.analytics.exchange import load_rates
from churnguard_pipelines.analytics.money import format_money
from churnguard_pipelines.analytics.movements import CustomerMonth, Movements, follow
from churnguard_pipelines.analytics.subscriptions import mrr_at
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.organizations import get_organization
from churnguard_pipelines.store.warehouse import Warehouse

SHOWN_MONTHS = 12
_COLUMNS = tuple(field.name for field in fields(Movements))


@dataclass(frozen=True, slots=True)
class MrrReport:
    """``movements``: every month, oldest first, in the organization's reporting ``currency``; ``by_currency``: the same
    in each billing currency; ``customers``: who had MRR at which month's end."""

    organization_id: str
    currency: str
    movements: list[Movements]
    by_currency: list[Movements]
    customers: list[CustomerMonth]


def compute_mrr(
    store: Store, organization_id: str, *, now: datetime, months: tuple[date, date] | None = None
) -> MrrReport:
    """Compute every month until ``now`` and store them, or only those from ``months[0]`` to ``months[1]``.

    Raises ``InvalidConfiguration`` for a currency without an exchange rate; nothing is stored then.
    """
    reporting = get_organization(store, organization_id).reporting_currency
    _ensure_sources(store)
    with store.organization(organization_id) as connection:
        subscriptions = collect(connection, organization_id)
    report = _movements(store, organization_id, reporting, subscriptions, now)
    _store(store, report, months)
    return report


def read_movements(store: Store, organization_id: str, *, by_currency: bool = False) -> list[Movements]:
    """The stored movements, oldest month first: in the reporting currency, or in each billing currency."""
    table = "mrr_movements_by_currency" if by_currency else "mrr_movements"
    statement = sa.text(f"SELECT {', '.join(_COLUMNS)} FROM analytics.{table} ORDER BY month, currency")
    with store.organization(organization_id) as connection:
        return [Movements(*row) for row in connection.execute(statement)]


def mrr_table(report: MrrReport) -> str:
    """The latest months as a markdown table."""
    lines = [_COLUMNS[:1] + _COLUMNS[2:], ("---",) * (len(_COLUMNS) - 1)]
    for row in report.movements[-SHOWN_MONTHS:]:
        values = (format_money(getattr(row, name), report.currency) for name in _COLUMNS[2:])
        lines.append((f"{row.month:%Y-%m}", *values))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ensure_sources(store: Store) -> None:
    """The tables the facts are made of, empty where nothing was synced yet."""
    from churnguard_pipelines.connectors import connector

    warehouse, stripe = Warehouse(store), connector("stripe")
    for name in ("subscriptions", "invoices", "invoice_items", "prices", "coupons"):
        warehouse.ensure(stripe.table(name))


def _movements(
    store: Store, organization_id: str, reporting: str, subscriptions: Sequence[Evidence], now: datetime
) -> MrrReport:
    months, instants = _calendar((item.started for item in subscriptions if not item.never), now)
    customers = _per_customer(subscriptions, instants)
    currencies = sorted({currency for _, currency in customers})
    rates = load_rates(store, {*currencies, reporting})
    total = {month: Movements(month, reporting) for month in months}
    local = {(month, currency): Movements(month, currency) for month in months for currency in currencies}

    def add(month: date, currency: str, kind: str | None, before: int, after: int, carried: int, value: int) -> None:
        local[month, currency].add(kind, before, after)
        total[month].add(kind, carried, value)

    def rate(currency: str, month: date) -> Any:
        return rates.rate(currency, reporting, min(_next(month) - timedelta(days=1), now.date()))

    kept: list[CustomerMonth] = []
    for (customer, currency), mrr in sorted(customers.items()):
        kept += follow(customer, currency, months, mrr, rate, add)
    by_currency = [row for _, row in sorted(local.items())]
    return MrrReport(organization_id, reporting, list(total.values()), by_currency, kept)


def _per_customer(subscriptions: Sequence[Evidence], instants: Sequence[int]) -> dict[tuple[Key, str], list[int]]:
    """MRR of each customer and currency just before each instant."""
    customers: dict[tuple[Key, str], list[int]] = {}
    for item in subscriptions:
        mrr = list(mrr_at(item, instants))
        if any(mrr):
            known = customers.get((item.customer, item.currency))
            customers[item.customer, item.currency] = (
                mrr if known is None else [*map(sum, zip(known, mrr, strict=True))]
            )
    return customers


def _calendar(started: Iterable[int], now: datetime) -> tuple[list[date], list[int]]:
    """Months from the first subscription's to the running one, and the instants at which they end, in milliseconds."""
    earliest = min(started, default=None)
    if earliest is None:
        return [], []
    month = datetime.fromtimestamp(earliest / 1000, UTC).date().replace(day=1)
    months, ends = [], []
    while month <= now.date():
        months.append(month)
        month = _next(month)
        ends.append(int(datetime(month.year, month.month, 1, tzinfo=UTC).timestamp()) * 1000)
    ends[-1] = int(now.timestamp() * 1000) + 1000
    return months, ends


def _next(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)


def _store(store: Store, report: MrrReport, months: tuple[date, date] | None) -> None:
    first, last = months or (date.min, date.max)
    chosen = {"first": first, "last": last}
    with store.organization(report.organization_id) as connection:
        # Two computations of one organization at once: the second waits, and its rows stand.
        lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('mrr ' || :organization_id, 0))")
        connection.execute(lock, {"organization_id": report.organization_id})
        for table, rows in (
            ("mrr_movements", report.movements),
            ("mrr_movements_by_currency", report.by_currency),
            ("customer_mrr", report.customers),
        ):
            connection.execute(sa.text(f"DELETE FROM analytics.{table} WHERE month BETWEEN :first AND :last"), chosen)
            values = [_values(row) for row in rows if first <= row.month <= last]
            _insert(connection, table, report.organization_id, values)


def _values(row: Movements | CustomerMonth) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    if isinstance(row, CustomerMonth):
        values["integration_id"], values["customer"] = row.customer
    return values


def _insert(connection: sa.Connection, table: str, organization_id: str, rows: Sequence[dict[str, Any]]) -> None:
    """One statement for all rows: a column of each goes over as one array."""
    if not rows:
        return
    types = {"month": "date", "currency": "text", "customer": "text", "integration_id": "text"}
    names = list(rows[0])
    arrays = ", ".join(f"CAST(:{name} AS {types.get(name, 'bigint')}[])" for name in names)
    connection.execute(
        sa.text(
            f"INSERT INTO analytics.{table} (organization_id, {', '.join(names)}) SELECT :own, * FROM unnest({arrays})"
        ),
        {"own": organization_id, **{name: [row[name] for row in rows] for name in names}},
    )
