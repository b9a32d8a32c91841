"""`compute_mrr` in the database: what is stored, in which currency, for whom, and what a second computation changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.analytics.exchange import set_operator_rate
from churnguard_pipelines.analytics.movements import Movements
from churnguard_pipelines.analytics.mrr import mrr_table, read_movements
from churnguard_pipelines.errors import InvalidConfiguration, NotFound
from churnguard_pipelines.store.postgres.database import Store
from tests.analytics.conftest import Billing, endings, moved

Make = Callable[..., Billing]


def customer(
    billing: Billing, name: str, start: str, *, currency: str, quantity: int = 1, ended: str | None = None
) -> None:
    """Pays 1000 minor units of the currency a month for each seat."""
    billing.price(f"p_{currency}", 1000, currency=currency)
    fields: dict[str, Any] = {"ended_at": ended, "status": "canceled"} if ended else {}
    items = (f"si_{name}", f"p_{currency}", quantity)
    billing.subscription(f"sub_{name}", items, start=start, customer=f"cus_{name}", currency=currency, **fields)


def rows(store: Store, organization_id: str, table: str, columns: str) -> list[tuple[Any, ...]]:
    with store.organization(organization_id) as connection:
        return [
            tuple(row) for row in connection.execute(sa.text(f"SELECT {columns} FROM analytics.{table} ORDER BY 1, 2"))
        ]


def test_euros_and_yen_reported_in_dollars(another: Make, store: Store) -> None:
    """ECB, for one euro: 1.0393 dollars and 160.99 yen on 31 January 2025; 1.0411 dollars on 28 February."""
    globex = another("globex")
    customer(globex, "a", "2025-01-10", currency="eur")
    customer(globex, "b", "2025-01-12", currency="jpy", quantity=3)
    customer(globex, "c", "2025-02-10", currency="eur")
    report = globex.mrr("2025-03-20")
    euros, yen = round(1000 * 1.0393), round(3000 * 100 * 1.0393 / 160.99)
    january, february, march = report.movements
    assert moved(january) == {"new": euros + yen}
    assert moved(february) == {"new": round(1000 * 1.0411)}
    assert march == Movements(date(2025, 3, 1), "usd", starting=february.ending, ending=february.ending)
    assert [(row.month.month, row.currency, row.ending) for row in report.by_currency] == [
        (1, "eur", 1000), (1, "jpy", 3000), (2, "eur", 2000), (2, "jpy", 3000), (3, "eur", 2000), (3, "jpy", 3000),
    ]  # fmt: skip
    assert read_movements(store, "globex") == report.movements
    assert read_movements(store, "globex", by_currency=True) == report.by_currency
    carried = rows(store, "globex", "customer_mrr", "month::text, customer, currency, mrr, carried")
    assert carried[:2] == [("2025-01-01", "cus_a", "eur", 1000, euros), ("2025-01-01", "cus_b", "jpy", 3000, yen)]


def test_a_currency_without_a_rate_stops_the_computation_and_stores_nothing(another: Make, store: Store) -> None:
    globex = another("globex")
    customer(globex, "a", "2025-01-10", currency="eur")
    before = globex.mrr("2025-03-20").movements
    customer(globex, "b", "2025-02-10", currency="ars")
    with pytest.raises(InvalidConfiguration, match="ars"):
        globex.mrr("2025-03-20")
    assert read_movements(store, "globex") == before
    set_operator_rate(store, date(2025, 2, 1), "ars", Decimal("1041.1"))
    assert moved(globex.mrr("2025-03-20").movements[1]) == {"new": 1}


def test_a_second_computation_replaces_the_first(books: Billing, store: Store) -> None:
    customer(books, "a", "2025-10-10", currency="usd")
    customer(books, "b", "2025-10-10", currency="usd")
    books.mrr("2025-12-05")
    customer(books, "b", "2025-10-10", currency="usd", ended="2025-10-20")
    customer(books, "c", "2025-12-01", currency="usd", quantity=5)
    report = books.mrr("2025-12-06")
    assert endings(report) == {"2025-10": 1000, "2025-11": 1000, "2025-12": 6000}
    assert read_movements(store, "acme") == report.movements
    assert rows(store, "acme", "customer_mrr", "month::text, customer, mrr") == [
        ("2025-10-01", "cus_a", 1000), ("2025-11-01", "cus_a", 1000),
        ("2025-12-01", "cus_a", 1000), ("2025-12-01", "cus_c", 5000),
    ]  # fmt: skip
    assert [mrr for *_, mrr in rows(store, "acme", "subscription_timeline", "subscription, valid_from, mrr")] == [
        1000, 1000, 0, 5000,
    ]  # fmt: skip


def test_computing_again_touches_only_rows_that_differ(books: Billing, store: Store) -> None:
    customer(books, "a", "2025-10-10", currency="usd")
    customer(books, "b", "2025-11-10", currency="usd")
    places = {
        "customer_mrr": "month, customer, ctid::text",
        "subscription_timeline": "subscription, valid_from, ctid::text",
    }
    books.mrr("2025-12-05")
    before = {table: rows(store, "acme", table, columns) for table, columns in places.items()}
    books.mrr("2025-12-05")
    assert {table: rows(store, "acme", table, columns) for table, columns in places.items()} == before


def test_movements_say_when_they_were_computed(books: Billing, store: Store) -> None:
    customer(books, "a", "2025-12-01", currency="usd")
    said: list[datetime] = []
    for _ in range(2):
        books.mrr()
        said += [at for _, at in rows(store, "acme", "mrr_movements", "month, computed_at")]
    assert said[0] < said[1]


def test_only_the_months_asked_for_are_stored(books: Billing, store: Store) -> None:
    customer(books, "a", "2025-08-10", currency="usd")
    november = date(2025, 11, 1)
    report = books.mrr(months=(november, november))
    assert len(report.movements) == 5
    assert [row.month for row in read_movements(store, "acme")] == [november]
    assert [month for month, _ in rows(store, "acme", "customer_mrr", "month, customer")] == [november]
    books.mrr(months=(date(2025, 8, 1), date(2025, 9, 1)))
    assert [row.month.month for row in read_movements(store, "acme")] == [8, 9, 11]


def test_organizations_do_not_see_each_other(books: Billing, another: Make, store: Store) -> None:
    globex = another("globex", "globex-stripe")
    customer(books, "a", "2025-12-10", currency="usd")
    customer(globex, "a", "2025-12-10", currency="usd", quantity=7)
    assert endings(books.mrr()) == {"2025-12": 1000}
    assert endings(globex.mrr()) == {"2025-12": 7000}
    assert read_movements(store, "acme")[0].ending == 1000


def test_sums_that_do_not_add_up_cannot_be_stored(store: Store) -> None:
    statement = "INSERT INTO analytics.mrr_movements VALUES ('acme', '2025-01-01', 'usd', 0, 5, 0, 0, 0, 0, 6)"
    with pytest.raises(sa.exc.IntegrityError, match="mrr_movements_check"), store.organization("acme") as connection:
        connection.execute(sa.text(statement))


def test_an_unknown_organization(books: Billing) -> None:
    books.organization_id = "nobody"
    with pytest.raises(NotFound, match="nobody"):
        books.mrr()


def test_a_table_for_people_shows_the_last_year(books: Billing) -> None:
    customer(books, "a", "2024-11-10", currency="usd", quantity=1234)
    table = mrr_table(books.mrr()).splitlines()
    assert table[0] == "| month | starting | new | expansion | contraction | churn | reactivation | ending |"
    assert len(table) == 2 + 12
    assert table[-1] == "| 2025-12 | 12,340.00 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 | 12,340.00 |"
