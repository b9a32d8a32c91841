"""Tenants are partitions: one dynamic set per provider, whose keys are the integrations' ids."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from churnguard_pipelines.connectors import providers
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.integrations import list_integration_ids, organization_of

INTEGRATION_TAG = "churnguard/integration"
ORGANIZATION_TAG = "churnguard/organization"
FIRST_MONTH = "2011-01-01"  # Stripe's first customers; no provider of ours is older


def integrations_of(provider: str) -> dg.DynamicPartitionsDefinition:
    return dg.DynamicPartitionsDefinition(name=provider)


def months() -> dg.MonthlyPartitionsDefinition:
    """Of a history. Keys read ``2024-01-01``; whose history it is says :func:`of_history`, or there would be a key for
    each integration and month."""
    return dg.MonthlyPartitionsDefinition(start_date=FIRST_MONTH, timezone="UTC", end_offset=1)


def window_of(month: str) -> Window:
    """``2024-01-01`` -> from the first of January on, before the first of February."""
    start = datetime.fromisoformat(month).replace(tzinfo=UTC)
    return Window(start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1))


def of_history(context: dg.OpExecutionContext, configured: str) -> str:
    """The integration that a history's run is of."""
    integration_id = configured or context.run.tags.get(INTEGRATION_TAG, "")
    if not integration_id:
        raise dg.Failure(
            description="no integration is named. Give it in the op's configuration (`integration`), or as the tag "
            f'`{INTEGRATION_TAG}`, e.g. dagster job backfill --tags \'{{"{INTEGRATION_TAG}": "acme"}}\'.',
            allow_retries=False,
        )
    return integration_id


def tags_of(partition_key: str) -> dict[str, str]:
    """What the queue limits runs by: one per integration, a few per organization."""
    return {INTEGRATION_TAG: partition_key, ORGANIZATION_TAG: organization_of(current_store(), partition_key)}


def reconcile(instance: dg.DagsterInstance, provider: str) -> tuple[list[str], list[str]]:
    """Make the partitions those integrations that are registered; returns (added, removed)."""
    wanted = set(list_integration_ids(current_store(), provider))
    present = set(instance.get_dynamic_partitions(provider))
    added, removed = sorted(wanted - present), sorted(present - wanted)
    if added:
        instance.add_dynamic_partitions(provider, added)
    for key in removed:
        instance.delete_dynamic_partition(provider, key)
    return added, removed


@dg.sensor(
    name="partition_keeper",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes an integration that was added anywhere a partition, and forgets those that were removed.",
)
def partition_keeper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    changes = list(_changes(context.instance))
    return dg.SkipReason("; ".join(changes) or "Every integration has its partition.")


def _changes(instance: dg.DagsterInstance) -> Iterator[str]:
    for provider in providers():
        added, removed = reconcile(instance, provider)
        if added:
            yield f"{provider}: added {', '.join(added)}"
        if removed:
            yield f"{provider}: removed {', '.join(removed)}"
