"""The checks of the MRR movements: what could not be valued is named, and old exchange rates where any are used."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import sqlalchemy as sa

from churnguard_pipelines.analytics.exchange import published_until
from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.postgres.database import Store

UNVALUED = """
    INSERT INTO analytics.unvalued (organization_id, integration_id, subscription, problem, since, until)
    VALUES ('acme', 'acme-stripe', 'sub_1', E'the tiers of the price x\\n| are not known', now(), NULL),
           ('acme', 'acme-stripe', 'sub_2', 'something that is over', now(), now())
"""
MOVEMENTS = """
    INSERT INTO analytics.mrr_movements_by_currency
        (organization_id, month, currency, starting, new, expansion, contraction, churn, reactivation, ending)
    VALUES ('acme', '2026-10-01', :currency, 0, 5, 0, 0, 0, 0, 5)
"""
PUBLISHED = """
    INSERT INTO analytics.exchange_rates (day, currency, per_euro, source) VALUES (:day, 'usd', 1.1, 'ecb')
"""


def found(instance: dg.DagsterInstance) -> dict[str, tuple[bool, str]]:
    result = definitions.resolve_job_def("mrr_health_checks").execute_in_process(instance=instance)
    return {each.check_name: (each.passed, each.description or "") for each in result.get_asset_check_evaluations()}


def test_what_a_person_has_to_know_about_the_numbers(
    instance: dg.DagsterInstance, store: Store, organization: Organization
) -> None:
    until = published_until(store)
    own = {"currency": organization.reporting_currency}
    with store.organization("acme") as connection:
        connection.execute(sa.text(MOVEMENTS), own)
    assert found(instance) == {"everything_is_valued": (True, ""), "exchange_rates_are_young": (True, "")}
    with store.organization("acme") as connection:
        connection.execute(sa.text(UNVALUED))
        connection.execute(sa.text(MOVEMENTS), {"currency": "eur"})
    said = found(instance)
    assert said["everything_is_valued"] == (False, r"acme-stripe sub_1: the tiers of the price x\n| are not known")
    young, problem = said["exchange_rates_are_young"]
    age = store.now().date() - until
    assert young == (age <= timedelta(days=7))
    assert young or f"end {age.days} days ago, on {until}. Run: churnguard rates import https://" in problem
    with store.operator() as connection:
        connection.execute(sa.text(PUBLISHED), {"day": store.now().date() - timedelta(days=7)})
    assert found(instance)["exchange_rates_are_young"][0]
