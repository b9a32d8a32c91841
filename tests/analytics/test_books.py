"""Both simulated businesses, synced over HTTP: our movements are their own books, to the minor unit, in every currency.

The businesses keep their books as things happen and share no code with us; what we know came through their API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from churnguard_pipelines.analytics.movements import KINDS, Movements
from churnguard_pipelines.analytics.mrr import compute_mrr
from churnguard_pipelines.model import IntegrationCredentials, Organization, SyncConfiguration
from churnguard_pipelines.sandbox.serve import Account, Sandbox, serve
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration

ANCHOR = int(datetime(2026, 9, 17, 10, 30, tzinfo=UTC).timestamp())
OBJECTS = ("prices", "coupons", "subscriptions", "invoices", "invoice_items")
FIGURES = ("starting", *KINDS, "ending")
HOUR = 3600


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("sandbox"), seed=7, anchor=ANCHOR, scale=0.08) as served:
        yield served


def register(store: Store, sandbox: Sandbox, name: str, reporting: str) -> None:
    add_organization(store, Organization(organization_id=name, name=name, reporting_currency=reporting))
    credentials = IntegrationCredentials.model_validate({"credential_type": "api_key", "api_key": f"rk_sandbox_{name}"})
    sync = SyncConfiguration(requests_per_minute=60_000)
    added = configuration(name, organization_id=name, base_url=sandbox.url, credentials=credentials, sync_config=sync)
    add_integration(store, added, actor="test")


def sync(store: Store, name: str) -> None:
    report = sync_integration(store, name, sync_id=f"{name}-{datetime.now(UTC).timestamp()}", objects=OBJECTS)
    assert report.status == "succeeded", report


def figures(rows: list[Movements]) -> dict[tuple[str, str], list[int]]:
    return {(row.month.isoformat(), row.currency): [getattr(row, name) for name in FIGURES] for row in rows}


def assert_agrees(store: Store, account: Account, name: str, reporting: str) -> None:
    report = compute_mrr(store, name, now=datetime.fromtimestamp(account.now, UTC))
    books = account.movements()
    ours = figures(report.by_currency)
    assert ours == {key: row for key, row in _of(books).items() if key in ours or any(row)}
    total: Counter[tuple[str, str]] = Counter()
    for kept in books:
        for place in FIGURES:
            total[kept["month"], place] += kept["reporting"][place]
    for (month, currency), row in figures(report.movements).items():
        assert currency == reporting
        assert dict(zip(FIGURES, row, strict=True)) == {place: total[month, place] for place in FIGURES}, month


def _of(books: list[dict[str, object]]) -> dict[tuple[str, str], list[int]]:
    return {(str(row["month"]), str(row["currency"])): [int(str(row[name])) for name in FIGURES] for row in books}


@pytest.mark.parametrize(("name", "reporting"), [("acme", "usd"), ("globex", "eur")])
def test_the_past_before_the_first_sync_and_what_happens_after(
    sandbox: Sandbox, store: Store, name: str, reporting: str
) -> None:
    account = sandbox.account(name)
    register(store, sandbox, name, reporting)
    for _ in range(3):
        sync(store, name)
        assert_agrees(store, account, name, reporting)
        account.tick(40, seconds=12 * HOUR)  # three weeks, over the end of a month
        account.advance(2 * 60)  # the list of events is read up to a minute ago
