"""`analytics.mrr_movements` and what it is made of: computed for one organization, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from churnguard_pipelines.analytics.evidence import Key, collect
from churnguard_pipelines.analytics.exchange import load_rates
from churnguard_pipelines.analytics.facts import Fact, replace
from churnguard_pipelines.analytics.money import format_money
from churnguard_pipelines.analytics.months import Calendar, instant, moment
from churnguard_pipelines.analytics.movements import Movements, Totals
from churnguard_pipelines.analytics.subscriptions import Segment, mrr_before, timeline
from churnguard_pipelines.connectors import api_connector
from churnguard_pipelines.store import locks
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.organizations import get_organization
from churnguard_pipelines.store.warehouse import Warehouse

SHOWN_MONTHS = 12
SOURCES = ("subscriptions", "invoices", "invoice_items", "prices", "coupons")

_COLUMNS = tuple(field.name for field in fields(Movements))
_MOVEMENTS = Fact("mrr_movements", ("month",), _COLUMNS[1:], dated=True)
_BY_CURRENCY = Fact("mrr_movements_by_currency", ("month", "currency"), _COLUMNS[2:], dated=True)
_CUSTOMERS = Fact("customer_mrr", ("month", "integration_id", "customer", "currency"), ("mrr", "carried"))
_TIMELINE = Fact(
    "subscription_timeline",
    ("integration_id", "subscription", "valid_from"),
    ("valid_to", "customer", "currency", "mrr", "evidence"),
)


class _Life(NamedTuple):
    subscription: Key
    customer: Key
    currency: str
    segments: Sequence[Segment]


@dataclass(frozen=True, slots=True)
class MrrReport:
    """``movements``: every month, oldest first, in the organization's reporting ``currency``; ``by_currency``: the same
    in each billing currency."""

    organization_id: str
    currency: str
    movements: list[Movements]
    by_currency: list[Movements]


def compute_mrr(
    store: Store, organization_id: str, *, now: datetime, months: tuple[date, date] | None = None
) -> MrrReport:
    """Compute every month until ``now`` and store them, or only those from ``months[0]`` to ``months[1]``.

    `analytics.subscription_timeline` is always stored whole. Raises ``InvalidConfiguration`` for a currency without an
    exchange rate; nothing is stored then.
    """
    reporting = get_organization(store, organization_id).reporting_currency
    warehouse, stripe = Warehouse(store), api_connector("stripe")
    for name in SOURCES:  # empty where nothing was synced yet
        warehouse.ensure(stripe.table(name))
    with store.organization(organization_id) as connection:
        # Two computations of one organization at once: the second waits, reads what is there then, and its rows stand.
        lock = sa.text(locks.taking_own(locks.Own.MRR, ":organization_id"))
        connection.execute(lock, {"organization_id": organization_id})
        return _compute(store, connection, organization_id, reporting, now, months or (date.min, date.max))


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


def _compute(
    store: Store,
    connection: sa.Connection,
    organization_id: str,
    reporting: str,
    now: datetime,
    months: tuple[date, date],
) -> MrrReport:
    lives = [
        _Life(each.key, each.customer, each.currency, segments)
        for each in collect(connection, organization_id)
        if (segments := timeline(each, until=int(now.timestamp()) * 1000 + 999))
    ]
    calendar = Calendar.since(min((life.segments[0].start for life in lives), default=instant(date.max)), now)
    rates = load_rates(store, {reporting, *(life.currency for life in lives)})
    totals = Totals(
        calendar.months,
        reporting,
        (life.currency for life in lives),
        lambda currency, month: rates.rate(currency, reporting, calendar.last_day(month)),
    )
    first, last = months
    scope, parameters = "month BETWEEN %(first)s AND %(last)s", {"first": first, "last": last}
    customers = (row for row in _customer_rows(lives, calendar, totals) if first <= row[0] <= last)
    replace(connection, organization_id, _TIMELINE, _timeline_rows(lives))
    replace(connection, organization_id, _CUSTOMERS, customers, scope=scope, parameters=parameters)
    for fact, movements in ((_MOVEMENTS, totals.movements), (_BY_CURRENCY, totals.by_currency)):
        rows = [tuple(getattr(each, name) for name in _COLUMNS) for each in movements if first <= each.month <= last]
        replace(connection, organization_id, fact, rows, scope=scope, parameters=parameters)
    return MrrReport(organization_id, reporting, totals.movements, totals.by_currency)


def _timeline_rows(lives: Iterable[_Life]) -> Iterator[tuple[Any, ...]]:
    for (integration_id, subscription), (_, customer), currency, segments in lives:
        ends = [*(moment(segment.start) for segment in segments[1:]), None]
        for (start, mrr, evidence), end in zip(segments, ends, strict=True):
            yield integration_id, subscription, moment(start), end, customer, currency, mrr, evidence


def _customer_rows(lives: Iterable[_Life], calendar: Calendar, totals: Totals) -> Iterator[tuple[Any, ...]]:
    """Who had MRR at which month's end; every customer goes into the totals."""
    customers: dict[Key, dict[str, list[int]]] = {}
    for life in lives:
        mrr = list(mrr_before(life.segments, calendar.ends))
        if any(mrr):
            known = customers.setdefault(life.customer, {})
            other = known.get(life.currency)
            known[life.currency] = mrr if other is None else [*map(sum, zip(other, mrr, strict=True))]
    for (integration_id, customer), by_currency in customers.items():
        for month, currency, mrr_then, carried in totals.add(by_currency):
            yield month, integration_id, customer, currency, mrr_then, carried
