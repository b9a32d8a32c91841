"""What the demo brought, held against what its simulated sources and businesses say themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from rich.table import Table

from churnguard_pipelines.cli.terminal import out
from churnguard_pipelines.model import Organization

if TYPE_CHECKING:
    from churnguard_pipelines.analytics.movements import Movements
    from churnguard_pipelines.store.postgres.database import Store

MOVEMENTS = ("starting", "new", "expansion", "contraction", "churn", "reactivation", "ending")
WIDE = 100  # columns of a terminal that the whole table of movements fits
SAME, OTHER = "[green]=[/green]", "[red]≠[/red]"


@dataclass(frozen=True, slots=True)
class Compared:
    """A source. ``rows``: of each object how many are here and how many there, None where nobody counts them; ``same``:
    whether what they are agrees, too, where that was looked at."""

    title: str
    organizations: str
    rows: Sequence[tuple[str, int, int | None]]
    same: bool = True

    @property
    def agrees(self) -> bool:
        return self.same and all(there in (None, here) for _, here, there in self.rows)

    @property
    def here(self) -> int:
        return sum(here for _, here, _ in self.rows)

    @property
    def ahead(self) -> int:
        """How many more the source has."""
        return sum(max(there - here, 0) for _, here, there in self.rows if there is not None)


@dataclass(frozen=True, slots=True)
class ComparedMrr:
    """An organization's months. ``agreeing``: those of which the business's own books say the same, by currency."""

    organization: Organization
    months: dict[date, list[int]]
    agreeing: frozenset[date]
    currencies: Sequence[str]

    @property
    def agrees(self) -> bool:
        return self.agreeing == set(self.months)


def compared_stripe(store: Store, organization_id: str, theirs: dict[str, int]) -> Compared:
    """``theirs``: what the simulated Stripe has, by Stripe's own names."""
    from churnguard_pipelines.connectors import api_connector
    from churnguard_pipelines.store.raw.warehouse import Warehouse

    warehouse = Warehouse(store)
    there = {"invoice_items" if name == "invoiceitems" else name: count for name, count in theirs.items()}
    rows = [
        (item.name, warehouse.count(f"stripe_{item.name}", organization_id, organization_id), there[item.name])
        for item in api_connector("stripe").objects
    ]
    return Compared("Stripe", organization_id, rows)


def compared_tables(store: Store, organization_id: str, integration_id: str, url: str) -> Compared:
    """``url``: of the product's database."""
    import psycopg
    from psycopg.sql import SQL, Identifier

    from churnguard_pipelines.store.ingest.catalogue import entries
    from churnguard_pipelines.store.raw.tables import quoted

    rows = []
    with psycopg.connect(url) as source, store.organization(organization_id) as warehouse:
        for name, entry in entries(store, integration_id).items():
            (theirs,) = source.execute(SQL("SELECT count(*) FROM {}").format(Identifier(name))).fetchone() or (0,)
            here = f"SELECT count(*) FROM {quoted(entry.raw_table)} WHERE deleted_at IS NULL"
            rows.append((name, warehouse.exec_driver_sql(here).scalar_one(), theirs))
    return Compared("Product database", organization_id, rows)


def compared_mrr(store: Store, organization: Organization, books: Sequence[dict[str, Any]]) -> ComparedMrr:
    """``books``: the business's own, a row per month and currency."""
    from churnguard_pipelines.analytics.mrr import read_movements

    name = organization.organization_id
    ours = {row.month: _values(row) for row in read_movements(store, name)}
    by_currency = {(row.month, row.currency): _values(row) for row in read_movements(store, name, by_currency=True)}
    theirs = _summed(books)
    wrong = {
        month
        for row in books
        if by_currency.get((month := date.fromisoformat(row["month"]), row["currency"])) != [row[m] for m in MOVEMENTS]
    }
    agreeing = frozenset(month for month, values in ours.items() if theirs.get(month) == values and month not in wrong)
    months = dict.fromkeys(theirs, [0] * len(MOVEMENTS)) | ours
    return ComparedMrr(organization, months, agreeing, sorted({row["currency"].upper() for row in books}))


def print_summary(sources: Sequence[Compared], mrr: Sequence[ComparedMrr], seconds: float) -> None:
    """A line for each source, and for each business's MRR. A source that lives on is ahead of us."""
    from churnguard_pipelines.analytics.money import format_money

    table = Table("source", "of", box=None, pad_edge=False, title=f"Synced in {seconds:,.0f} s", title_justify="left")
    for heading in ("objects", "rows here"):
        table.add_column(heading, justify="right")
    table.add_column("and at the source")
    for each in sources:
        counted = any(there is not None for _, _, there in each.rows)
        state = f"as many {SAME}" if counted else "which does not count them"
        if each.ahead:
            state = f"{each.ahead:,} newer by now: they are on their way"
        elif not each.agrees:
            state = "it is changing"
        table.add_row(each.title, each.organizations, f"{len(each.rows)}", f"{each.here:,}", state)
    out.print(table)
    for found in mrr:
        month, values = max(found.months.items())
        currency = found.organization.reporting_currency
        ending = f"{format_money(values[-1], currency)} {currency.upper()}"
        out.print(
            f"{found.organization.name}: {ending} MRR in {month:%Y-%m}; of {len(found.months)} months "
            f"{len(found.agreeing)} agree with the business's own books, whose last one goes on",
            soft_wrap=True,
        )


def print_details(sources: Sequence[Compared], mrr: Sequence[ComparedMrr]) -> None:
    """Each object's count beside the source's own, each month beside the books."""
    for each in sources:
        title = f"\n{each.title} of {each.organizations}"
        table = Table("object", box=None, pad_edge=False, title=title, title_justify="left")
        for heading in ("in the warehouse", "at the source"):
            table.add_column(heading, justify="right")
        for name, here, there in each.rows:
            if here or there:
                sign = SAME if here == there else OTHER
                table.add_row(name, f"{here:,}", "" if there is None else f"{there:,} {sign}")
        out.print(table)
        if not each.same:
            out.print("[red]✗[/red] As many as these or not, they are not the same.")
    for found in mrr:
        _print_months(found)


def _print_months(found: ComparedMrr) -> None:
    from churnguard_pipelines.analytics.money import format_money

    currency = found.organization.reporting_currency
    title = f"\n{found.organization.name}: MRR movements in {currency.upper()}"
    table = Table("month", box=None, pad_edge=False, title=title, title_justify="left")
    shown = MOVEMENTS if out.width >= WIDE else MOVEMENTS[1:]  # a month starts as the one before ended
    for column in shown:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("books")
    for month, values in found.months.items():
        cells = [format_money(value, currency) for value in values[-len(shown) :]]
        table.add_row(f"{month:%Y-%m}", *cells, SAME if month in found.agreeing else OTHER)
    out.print(table)
    out.print(
        f"[green]✓[/green] Agrees with the business's own books, every month, in {', '.join(found.currencies)}"
        if found.agrees
        else "[red]✗[/red] Differs from the business's own books"
    )


def _values(row: Movements) -> list[int]:
    return [getattr(row, name) for name in MOVEMENTS]


def _summed(books: Sequence[dict[str, Any]]) -> dict[date, list[int]]:
    """The books have a row per month and currency; their reporting currency's figures, per month."""
    months: dict[date, list[int]] = {}
    for row in books:
        figures = [row["reporting"][name] for name in MOVEMENTS]
        month = date.fromisoformat(row["month"])
        months[month] = [mine + more for mine, more in zip(months.get(month, [0] * 7), figures, strict=True)]
    return months
