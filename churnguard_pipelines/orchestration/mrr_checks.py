"""Asset checks of `analytics/mrr_movements`, over all organizations: is all of it valued, are the exchange rates young.

From our own tables; what a source wrote (ids of prices and coupons) is shown on one line.
"""

from collections.abc import Iterator

import dagster as dg
import sqlalchemy as sa

from churnguard_pipelines.analytics.exchange import OLD_AFTER, PUBLISHED_AT, published_until
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.orchestration.mrr import KEY
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.store.postgres.database import Store

VALUED, RATES = "everything_is_valued", "exchange_rates_are_young"
_MAX_NAMED = 20
# Per organization the problems that last; ended ones stay in the table, beside the months they are about.
_UNVALUED = """
    SELECT organization_id, integration_id, subscription, problem, count(*) OVER () AS number
      FROM analytics.unvalued
     WHERE until IS NULL AND organization_id IN (SELECT organization_id FROM control.organizations)
     ORDER BY organization_id, integration_id, subscription, problem LIMIT :most
"""
_CONVERTED = """
    SELECT EXISTS (
        SELECT FROM analytics.mrr_movements_by_currency AS movement
          JOIN control.organizations AS organization USING (organization_id)
         WHERE movement.currency <> organization.reporting_currency
    )
"""


@dg.multi_asset_check(
    name="mrr_health",
    description="Could all of the MRR be valued, with exchange rates that go on?",
    specs=[
        dg.AssetCheckSpec(VALUED, asset=KEY, description="Nothing counted 0 because it could not be valued."),
        dg.AssetCheckSpec(RATES, asset=KEY, description="The published exchange rates go on, where any are used."),
    ],
)
def mrr_health() -> Iterator[dg.AssetCheckResult]:
    yield valued(current_store())
    yield rates_are_young(current_store())


def valued(store: Store) -> dg.AssetCheckResult:
    with store.operator() as connection:
        rows = connection.execute(sa.text(_UNVALUED), {"most": _MAX_NAMED}).all()
    named = [on_one_line(f"{row.integration_id} {row.subscription}: {row.problem}", 300) for row in rows]
    return _result(VALUED, "; ".join(named), {"subscriptions_unvalued": rows[0].number if rows else 0})


def rates_are_young(store: Store) -> dg.AssetCheckResult:
    with store.operator() as connection:
        used = bool(connection.scalar(sa.text(_CONVERTED)))
    until = published_until(store)
    age = store.now().date() - until
    problem = f"the published rates end {age.days} days ago, on {until}. Run: churnguard rates import {PUBLISHED_AT}"
    return _result(
        RATES, problem if used and age > OLD_AFTER else "", {"published_until": str(until), "age_days": age.days}
    )


def _result(name: str, problem: str, metadata: dict[str, str | int]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=name,
        passed=not problem,
        severity=dg.AssetCheckSeverity.WARN,
        description=problem or None,
        metadata=metadata,
    )
