"""Tenants are partitions: one dynamic set per provider, whose keys are the integrations' ids, and one per kind of
stream, whose keys are the streams'."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from churnguard_pipelines.connectors import providers
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.control.integrations import list_integration_ids, organization_of
from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.stream_options import StreamType

INTEGRATION_TAG = "churnguard/integration"
ORGANIZATION_TAG = "churnguard/organization"
PARTITION_TAG = "dagster/partition"  # Dagster gives it no public name
FIRST_MONTH = "2011-01-01"  # Stripe's first customers; no provider of ours is older
FIRST_DAY = "2020-01-01"  # what is older, hardly any broker keeps


def integrations_of(provider: str) -> dg.DynamicPartitionsDefinition:
    return dg.DynamicPartitionsDefinition(name=provider)


def streams_of(kind: StreamType) -> dg.DynamicPartitionsDefinition:
    return dg.DynamicPartitionsDefinition(name=f"{kind}_streams")


def days() -> dg.DailyPartitionsDefinition:
    """Of what a stream reads again, by UTC. Keys read ``2024-01-31``; whose it is says :func:`of_history`."""
    return dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)


def months() -> dg.MonthlyPartitionsDefinition:
    """Of a history. Keys read ``2024-01-01``; whose history it is says :func:`of_history`, or there would be a key for
    each integration and month."""
    return dg.MonthlyPartitionsDefinition(start_date=FIRST_MONTH, timezone="UTC", end_offset=1)


def window_of(month: str) -> Window:
    """``2024-01-01`` -> from the first of January on, before the first of February."""
    start = datetime.fromisoformat(month).replace(tzinfo=UTC)
    return Window(start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1))


def window_of_day(day: str) -> Window:
    """``2024-01-31`` -> from its midnight on, before that of the next day."""
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return Window(start, start + timedelta(days=1))


def of_history(context: dg.OpExecutionContext, configured: str, what: str = "integration") -> str:
    """The integration, or stream, that a history's run is of."""
    integration_id = configured or context.run.tags.get(INTEGRATION_TAG, "")
    if not integration_id:
        raise dg.Failure(
            description=f"no {what} is named. Give it in the op's configuration (`{what}`), or as the tag "
            f'`{INTEGRATION_TAG}`, e.g. dagster job backfill --tags \'{{"{INTEGRATION_TAG}": "acme"}}\'.',
            allow_retries=False,
        )
    return integration_id


def tags_of(partition_key: str) -> dict[str, str]:
    """What the queue limits runs by: one per integration, a few per organization."""
    return {INTEGRATION_TAG: partition_key, ORGANIZATION_TAG: organization_of(current_store(), partition_key)}


def reconcile(instance: dg.DagsterInstance, provider: str) -> tuple[list[str], list[str]]:
    """Make the partitions those integrations that are registered; returns (added, removed)."""
    return _keep(instance, provider, list_integration_ids(current_store(), provider))


def reconcile_streams(instance: dg.DagsterInstance, kind: StreamType) -> tuple[list[str], list[str]]:
    """The same of the streams of a kind."""
    return _keep(instance, f"{kind}_streams", STREAMS.ids(current_store(), kind))


def _keep(instance: dg.DagsterInstance, name: str, keys: Iterable[str]) -> tuple[list[str], list[str]]:
    wanted, present = set(keys), set(instance.get_dynamic_partitions(name))
    added, removed = sorted(wanted - present), sorted(present - wanted)
    if added:
        instance.add_dynamic_partitions(name, added)
    for key in removed:
        instance.delete_dynamic_partition(name, key)
    return added, removed


@dg.sensor(
    name="partition_keeper",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes an integration or a stream that was added anywhere a partition, and forgets those that were "
    "removed.",
)
def partition_keeper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    changes = list(_changes(context.instance))
    return dg.SkipReason("; ".join(changes) or "Every integration and every stream has its partition.")


def _changes(instance: dg.DagsterInstance) -> Iterator[str]:
    looks = [(provider, partial(reconcile, instance, provider)) for provider in providers()]
    looks += [(f"{kind} streams", partial(reconcile_streams, instance, kind)) for kind in StreamType]
    for name, look in looks:
        added, removed = look()
        if added:
            yield f"{name}: added {', '.join(added)}"
        if removed:
            yield f"{name}: removed {', '.join(removed)}"
