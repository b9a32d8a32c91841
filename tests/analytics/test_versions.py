"""What kept versions of a subscription tell, from the first sync on."""

from __future__ import annotations

import sqlalchemy as sa

from churnguard_pipelines.store.postgres.database import Store
from tests.analytics.conftest import Billing, endings, moved


def test_versions_tell_what_invoices_do_not(books: Billing) -> None:
    """A pause in the middle of a paid period, and its end."""
    books.price("p", 1000)
    life = {"start": "2025-09-01"}
    books.subscription("sub_1", ("si_1", "p", 1), **life, seen="2025-09-05")
    books.subscription("sub_1", ("si_1", "p", 1), **life, seen="2025-10-20", pause_collection={"behavior": "void"})
    books.subscription("sub_1", ("si_1", "p", 1), **life, seen="2025-11-20")
    books.periods("si_1", "p", 1, "2025-09-01", "2026-09-01")
    assert list(endings(books.mrr()).values()) == [1000, 0, 1000, 1000]


def test_canceling_at_the_periods_end_changes_nothing_until_then(books: Billing) -> None:
    books.price("p", 1000)
    life = {"start": "2025-09-10"}
    books.subscription("sub_1", ("si_1", "p", 1), **life, seen="2025-09-10")
    books.subscription("sub_1", ("si_1", "p", 1), **life, seen="2025-09-20", cancel_at_period_end=True)
    books.subscription("sub_1", ("si_1", "p", 1), **life, seen="2025-10-10", status="canceled", ended_at="2025-10-10")
    report = books.mrr("2025-10-20")
    assert [moved(row) for row in report.movements] == [{"new": 1000}, {"churn": -1000}]


def test_an_end_that_was_seen_late_was_an_end_in_time(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-10", seen="2025-09-15")
    books.subscription(
        "sub_1", ("si_1", "p", 1), start="2025-09-10", seen="2025-12-01", status="canceled", ended_at="2025-10-10"
    )
    assert list(endings(books.mrr("2025-12-02")).values()) == [1000, 0, 0, 0]


def test_a_trial_that_was_seen_ends_in_time(books: Billing) -> None:
    books.price("p", 1000)
    trial = {"start": "2025-09-20", "trial_start": "2025-09-20", "trial_end": "2025-10-04"}
    books.subscription("sub_1", ("si_1", "p", 1), **trial, seen="2025-09-21", status="trialing")
    assert list(endings(books.mrr("2025-11-02")).values()) == [0, 1000, 1000]


def test_invoices_tell_of_a_time_in_which_nobody_looked(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-08-10", seen="2025-08-12")
    books.subscription("sub_1", ("si_1", "p", 4), start="2025-08-10", seen="2025-12-20")
    books.periods("si_1", "p", 1, "2025-08-10", "2025-09-10", "2025-10-10")
    books.periods("si_1", "p", 4, "2025-10-10", "2025-11-10", "2025-12-10")
    assert list(endings(books.mrr()).values()) == [1000, 1000, 4000, 4000, 4000]


def test_a_discount_that_an_event_names_by_its_id_is_known_elsewhere(books: Billing) -> None:
    books.price("p", 1000)
    half = books.discount(books.coupon("half", "forever", percent=50), "2025-09-01")
    books.subscription(
        "sub_1", ("si_1", "p", 1), start="2025-09-01", seen="2025-09-02", discounts=[half["id"], "di_once"]
    )
    books.periods("si_1", "p", 1, "2025-09-01", "2025-10-01", discounts=[half])
    assert set(endings(books.mrr("2025-09-20")).values()) == {500}


def test_a_subscription_that_vanished_ended_when_it_was_last_seen(books: Billing) -> None:
    books.price("p", 1000)
    books.subscription("sub_1", ("si_1", "p", 1), start="2025-09-10", seen="2025-09-15")
    books.vanish("subscriptions", "sub_1", "2025-10-15")
    assert list(endings(books.mrr("2025-11-15")).values()) == [1000, 0, 0]


def test_the_timeline_shows_what_a_subscription_was_worth_when_and_why(books: Billing, store: Store) -> None:
    books.price("p", 1000)
    trial = {"trial_start": "2025-09-01", "trial_end": "2025-09-15"}
    life = {"start": "2025-09-01", **trial}
    books.subscription("sub_1", ("si_1", "p", 1), **life, seen="2025-11-20")
    books.subscription("sub_1", ("si_1", "p", 3), **life, seen="2025-11-25")
    books.periods("si_1", "p", 1, "2025-09-15", "2025-10-15", "2025-11-15", "2025-12-15")
    books.mrr("2025-11-30")
    with store.organization("acme") as connection:
        rows = connection.execute(
            sa.text(
                "SELECT valid_from::date::text, valid_to::date::text, mrr, evidence "
                "FROM analytics.subscription_timeline WHERE subscription = 'sub_1' AND customer = 'cus_1' "
                "AND currency = 'usd' ORDER BY valid_from"
            )
        ).all()
    assert [tuple(row) for row in rows] == [
        ("2025-09-01", "2025-09-15", 0, "invoice"),
        ("2025-09-15", "2025-11-20", 1000, "invoice"),
        ("2025-11-20", "2025-11-25", 1000, "version"),
        ("2025-11-25", None, 3000, "version"),
    ]
