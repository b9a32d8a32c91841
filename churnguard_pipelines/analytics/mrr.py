"""`analytics.mrr_movements` and what it is made of: computed for one organization, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from churnguard_pipelines.analytics.evidence import Key, collect
from churnguard_pipelines.analytics.exchange import load_rates
from churnguard_pipelines.analytics.facts import Fact, replace
from churnguard_pipelines.analytics.money import format_money
from churnguard_pipelines.analytics.months import Calendar, instant, moment
from churnguard_pipelines.analytics.movements import KINDS, Movements, Totals
from churnguard_pipelines.analytics.subscriptions import Segment, Worth, timeline, worth_before
from churnguard_pipelines.connectors import api_connector
from churnguard_pipelines.foreign_text import as_code
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.organizations import get_organization
from churnguard_pipelines.store.postgres import locks
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse

SHOWN_MONTHS = 12
SHOWN_UNVALUED = 50
SOURCES = ("subscriptions", "invoices", "invoice_items", "prices", "coupons")

_COLUMNS = tuple(each.name for each in fields(Movements))
_SHOWN = ("month", "starting", *KINDS, "ending")
_MOVEMENTS = Fact("mrr_movements", ("month",), _COLUMNS[1:], dated=True)
_BY_CURRENCY = Fact("mrr_movements_by_currency", ("month", "currency"), _COLUMNS[2:], dated=True)
_CUSTOMERS = Fact("customer_mrr", ("month", "integration_id", "customer", "currency"), ("mrr", "carried"))
_TIMELINE = Fact(
    "subscription_timeline",
    ("integration_id", "subscription", "valid_from"),
    ("valid_to", "customer", "currency", "mrr", "evidence", "cause"),
)
_UNVALUED = Fact("unvalued", ("integration_id", "subscription", "problem"), ("since", "until"))


class _Life(NamedTuple):
    subscription: Key
    customer: Key
    currency: str
    segments: Sequence[Segment]


class Unvalued(NamedTuple):
    """Something of a subscription that could not be valued and counted nothing. ``until`` None: it still does."""

    integration_id: str
    subscription: str
    problem: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class MrrReport:
    """The MRR movements of one organization. ``movements``: every month, oldest first, in the organization's reporting
    ``currency``; ``by_currency``: the same in each billing currency; ``unvalued``: what is not in them because it could
    not be valued."""

    organization_id: str
    currency: str
    movements: list[Movements]
    by_currency: list[Movements]
    unvalued: list[Unvalued] = field(default_factory=list)


def compute_mrr(
    store: Store, organization_id: str, *, now: datetime, months: tuple[date, date] | None = None
) -> MrrReport:
    """Compute every month until ``now`` and store them, or only those from ``months[0]`` to ``months[1]``.

    `analytics.subscription_timeline` is always stored whole. Raises ``InvalidConfiguration`` for a currency without an
    exchange rate; nothing is stored then.
    """
    organization = get_organization(store, organization_id)
    warehouse, stripe = Warehouse(store), api_connector("stripe")
    for name in SOURCES:  # empty where nothing was synced yet
        warehouse.ensure(stripe.table(name))
    with store.organization(organization_id) as connection:
        # Two computations of one organization at once: the second waits, reads what is there then, and its rows stand.
        lock = sa.text(locks.taking_own(locks.Own.MRR, ":organization_id"))
        connection.execute(lock, {"organization_id": organization_id})
        return _compute(store, connection, organization, now, months or (date.min, date.max))


def read_movements(store: Store, organization_id: str, *, by_currency: bool = False) -> list[Movements]:
    """The stored movements, oldest month first: in the reporting currency, or in each billing currency."""
    table = "mrr_movements_by_currency" if by_currency else "mrr_movements"
    statement = sa.text(f"SELECT {', '.join(_COLUMNS)} FROM analytics.{table} ORDER BY month, currency")
    with store.organization(organization_id) as connection:
        return [Movements(*row) for row in connection.execute(statement)]


def mrr_table(report: MrrReport) -> str:
    """The latest months as a markdown table."""
    lines = [_SHOWN, ("---",) * len(_SHOWN)]
    for row in report.movements[-SHOWN_MONTHS:]:
        values = (format_money(getattr(row, name), report.currency) for name in _SHOWN[1:])
        lines.append((f"{row.month:%Y-%m}", *values))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def unvalued_table(report: MrrReport) -> str:
    """What could not be valued, as a markdown table; the words of the source as code."""
    lines: list[tuple[str, ...]] = [("subscription", "problem", "since", "until"), ("---",) * 4]
    for row in report.unvalued[:SHOWN_UNVALUED]:
        until = f"{row.until:%Y-%m-%d}" if row.until else "now"
        lines.append((as_code(row.subscription), as_code(row.problem), f"{row.since:%Y-%m-%d}", until))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _compute(
    store: Store,
    connection: sa.Connection,
    organization: Organization,
    now: datetime,
    months: tuple[date, date],
) -> MrrReport:
    organization_id, reporting = organization.organization_id, organization.reporting_currency
    lives = [
        _Life(each.key, each.customer, each.currency, segments)
        for each in collect(connection, organization_id, unpaid_counts=organization.unpaid_counts)
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
    unvalued = list(_unvalued(lives))
    replace(connection, organization_id, _TIMELINE, _timeline_rows(lives))
    replace(connection, organization_id, _UNVALUED, unvalued)
    replace(connection, organization_id, _CUSTOMERS, customers, scope=scope, parameters=parameters)
    for fact, movements in ((_MOVEMENTS, totals.movements), (_BY_CURRENCY, totals.by_currency)):
        rows = [tuple(getattr(each, name) for name in _COLUMNS) for each in movements if first <= each.month <= last]
        replace(connection, organization_id, fact, rows, scope=scope, parameters=parameters)
    return MrrReport(organization_id, reporting, totals.movements, totals.by_currency, unvalued)


def _timeline_rows(lives: Iterable[_Life]) -> Iterator[tuple[Any, ...]]:
    for (integration_id, subscription), (_, customer), currency, segments in lives:
        for segment, end in _until(segments):
            yield (
                integration_id, subscription, moment(segment.start), end, customer, currency,
                segment.mrr, segment.evidence, segment.cause,
            )  # fmt: skip


def _unvalued(lives: Iterable[_Life]) -> Iterator[Unvalued]:
    """Each thing once for a subscription, from when it first could not be valued until it last could not."""
    for (integration_id, subscription), _, _, segments in lives:
        spans: dict[str, tuple[datetime, datetime | None]] = {}
        for segment, end in _until(segments):
            for problem in segment.unvalued:
                since, _ = spans.get(problem, (moment(segment.start), None))
                spans[problem] = since, end
        for problem, (since, until) in spans.items():
            yield Unvalued(integration_id, subscription, problem, since, until)


def _until(segments: Sequence[Segment]) -> Iterator[tuple[Segment, datetime | None]]:
    return zip(segments, [*(moment(segment.start) for segment in segments[1:]), None], strict=True)


def _customer_rows(lives: Iterable[_Life], calendar: Calendar, totals: Totals) -> Iterator[tuple[Any, ...]]:
    """Who had MRR at which month's end; every customer goes into the totals."""
    customers: dict[Key, dict[str, list[Worth]]] = {}
    for life in lives:
        worth = list(worth_before(life.segments, calendar.ends))
        if any(mrr or paused for mrr, paused in worth):
            known = customers.setdefault(life.customer, {})
            other = known.get(life.currency)
            known[life.currency] = (
                worth
                if other is None
                else [
                    Worth(one.mrr + more.mrr, one.paused + more.paused) for one, more in zip(other, worth, strict=True)
                ]
            )
    for (integration_id, customer), by_currency in customers.items():
        mrr = {currency: [each.mrr for each in worth] for currency, worth in by_currency.items()}
        paused = {currency: [each.paused for each in worth] for currency, worth in by_currency.items()}
        mrr = {currency: values for currency, values in mrr.items() if any(values)}
        for month, currency, mrr_then, carried in totals.add(mrr, paused) if mrr else ():
            yield month, integration_id, customer, currency, mrr_then, carried
