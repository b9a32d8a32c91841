"""The churn fact `analytics/mrr_movements`: computed by itself after a sync, and by month in a back-fill."""

import base64
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from churnguard_pipelines.analytics.money import exponent
from churnguard_pipelines.analytics.mrr import SOURCES, MrrReport, compute_mrr, mrr_table, unvalued_table
from churnguard_pipelines.analytics.waterfall import waterfall_png
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.orchestration.dead_runs import MAX_RUNTIME
from churnguard_pipelines.orchestration.partitions import (
    integrations_of,
    months,
    of_history,
    window_of,
)
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.store.control.integrations import organization_of

KEY = dg.AssetKey(["analytics", "mrr_movements"])
BILLING = "stripe"

WHEN_SOMETHING_CHANGED = (
    dg.AutomationCondition.eager()
    .replace(
        "any_deps_updated",
        dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
        | dg.AutomationCondition.cron_tick_passed("11 0 * * *"),
    )
    # Dagster's own also counts what is missing at the daemon's first look as handled: synced first, started later.
    .replace("handled", dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated())
)
"""A sync that brought nothing new changes no fact; but every day may begin a month, end a trial, move a rate."""


@dg.asset(
    key=KEY,
    deps=[dg.AssetKey([BILLING, name]) for name in SOURCES],
    partitions_def=integrations_of(BILLING),
    group_name="analytics",
    kinds={"postgres", "matplotlib"},
    automation_condition=WHEN_SOMETHING_CHANGED,
    description="Monthly MRR movements of the integration's organization: new, expansion, contraction, churn and "
    "reactivation, in analytics.mrr_movements.",
)
def mrr_movements(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata=_metadata(_compute(context.partition_key)))


class MonthConfig(dg.Config):
    """``integration``: whose month; the run's tag `churnguard/integration` if empty."""

    integration: str = ""


@dg.op(name="mrr_month")
def mrr_month(context: dg.OpExecutionContext, config: MonthConfig) -> None:
    integration_id, first = of_history(context, config.integration), window_of(context.partition_key).start.date()
    report = _compute(integration_id, (first, first))
    context.log_event(dg.AssetMaterialization(KEY, partition=integration_id, metadata=_metadata(report)))


@dg.job(
    config=dg.PartitionedConfig(months(), run_config_for_partition_key_fn=lambda key: {}),
    executor_def=dg.in_process_executor,
    tags=MAX_RUNTIME,
    description="Compute one month of an organization's MRR movements again.",
)
def mrr_history() -> None:
    mrr_month()


mrr_job = dg.define_asset_job(
    "mrr", selection=dg.AssetSelection.assets(mrr_movements), executor_def=dg.in_process_executor, tags=MAX_RUNTIME,
    description="Compute the MRR movements of an integration's organization.",
)  # fmt: skip


def _compute(integration_id: str, months: Any = None) -> MrrReport:
    try:
        organization_id = organization_of(current_store(), integration_id)
        return compute_mrr(current_store(), organization_id, now=datetime.now(UTC), months=months)
    except ChurnGuardError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def _metadata(report: MrrReport) -> dict[str, Any]:
    picture = base64.b64encode(waterfall_png(report)).decode()
    latest = report.movements[-1] if report.movements else None
    return {
        "waterfall": dg.MetadataValue.md(f"![MRR movements](data:image/png;base64,{picture})"),
        "movements": dg.MetadataValue.md(mrr_table(report)),
        "currency": report.currency.upper(),
        "months": len(report.movements),
        "subscriptions_unvalued": len(report.unvalued),
        **({"unvalued_table": dg.MetadataValue.md(unvalued_table(report))} if report.unvalued else {}),
        **(_money(report.currency, ending_mrr=latest.ending, churned_mrr=-latest.churn) if latest else {}),
    }


def _money(currency: str, **amounts: int) -> dict[str, float]:
    """In the currency's own unit, which the name says: `ending_mrr_usd`. ``amounts``: in minor units."""
    return {f"{name}_{currency}": amount / 10 ** exponent(currency) for name, amount in amounts.items()}
