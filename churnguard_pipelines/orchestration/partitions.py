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


def months_of(provider: str) -> dg.MultiPartitionsDefinition:
    """Integration × month. Keys read ``acme|2024-01-01``."""
    months = dg.MonthlyPartitionsDefinition(start_date=FIRST_MONTH, timezone="UTC", end_offset=1)
    return dg.MultiPartitionsDefinition({"integration": integrations_of(provider), "month": months})


def split_month(partition_key: str) -> tuple[str, Window]:
    """``acme|2024-01-01`` -> the integration and its month."""
    integration_id, _, month = partition_key.partition("|")
    start = datetime.fromisoformat(month).replace(tzinfo=UTC)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return integration_id, Window(start, end)


def tags_of(partition_key: str) -> dict[str, str]:
    """What the queue limits runs by: one per integration, a few per organization."""
    integration_id = partition_key.partition("|")[0]
    return {INTEGRATION_TAG: integration_id, ORGANIZATION_TAG: organization_of(current_store(), integration_id)}


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
