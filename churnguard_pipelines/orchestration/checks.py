"""Asset checks over all integrations of a provider: is it fresh, has its shape changed, does it match the source.

Checks are not partitioned, so each speaks for every integration and names those that are not well.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import dagster as dg
import sqlalchemy as sa

from churnguard_pipelines.connectors.sdk import ApiConnector, Object
from churnguard_pipelines.connectors.sdk.selection import is_chosen
from churnguard_pipelines.engine.fair_threads import FairThreads
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.monitoring.vitals import DRIFT_DAYS, late_after
from churnguard_pipelines.orchestration.resources import current_store
from churnguard_pipelines.orchestration.sessions import Materializer
from churnguard_pipelines.orchestration.syncs import key_of
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.control.integrations import survey_integrations
from churnguard_pipelines.store.ingest.ledger import last_success
from churnguard_pipelines.store.ingest.tables import schema_drift
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import parity

_log = logging.getLogger(__name__)
AT_ONCE, AT_ONCE_EACH = 8, 2  # integrations that are looked at, of all organizations and of each
PATIENCE, LEAST_PATIENCE = 1800.0, 5.0  # seconds, for all objects together and for each of those that come after
_MAX_NAMED = 20
_RESTING = (IntegrationStatus.PAUSED, IntegrationStatus.INACTIVE)


_SENTENCES = {
    "fresh": "Every integration was synced within twice its sync_frequency.",
    "schema_drift": "All values fit their columns; fields that are not declared are counted, and kept in `extra`.",
    "counts_match_provider": "The provider has as many records as we have; where not, what is missing is read again.",
    "rows_match_provider": "The provider has the same records of the last days by their keys; what is missing is read "
    "again.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. ``problem``: what is wrong with an integration's object, None if nothing is; ``note``: what
    is to be said of it all the same; ``numbers``: for the metadata; ``written``: what it did to the object's rows."""

    problem: str | None = None
    note: str | None = None
    written: Counts = field(default_factory=Counts)
    numbers: Mapping[str, int] = field(default_factory=dict)


Look = Callable[[Store, type[ApiConnector], IntegrationConfiguration, Object], Finding]
Compare = Callable[[Store, IntegrationConfiguration, Object], parity.Comparison]


def cheap_checks(connector: type[ApiConnector]) -> dg.AssetChecksDefinition:
    """``fresh`` and ``schema_drift`` of every object, from our own tables."""

    @dg.multi_asset_check(
        name=f"{connector.provider}_health",
        specs=_specs(connector, "fresh", "schema_drift"),
        can_subset=True,
        description=f"Is every object of every integration of {connector.title} fresh, and does it fit its columns?",
    )
    def health(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, connector, {"fresh": _fresh, "schema_drift": _drift})

    return health


def parity_checks(connector: type[ApiConnector]) -> list[dg.AssetChecksDefinition]:
    """``counts_match_provider``: how many records there are, of a provider that counts; ``rows_match_provider``: the
    keys created lately, of one that lists them. What differs is read again."""
    offered = {
        "counts": (connector.count is not ApiConnector.count, "counts_match_provider", parity.compare_counts),
        "parity": (connector.keys is not ApiConnector.keys, "rows_match_provider", parity.compare_keys),
    }
    return [_parity_check(connector, name, check, compare) for name, (has, check, compare) in offered.items() if has]


def _parity_check(connector: type[ApiConnector], name: str, check: str, compare: Compare) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=f"{connector.provider}_{name}",
        specs=_specs(connector, check),
        can_subset=True,
        description=f"Does {connector.title} have what we have? What is missing is read again.",
    )
    def rows(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, connector, {check: partial(_parity, compare)})

    return rows


def _specs(connector: type[ApiConnector], *names: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(name, asset=key_of(connector, item.name), description=_SENTENCES[name])
        for item in connector.objects
        for name in names
    ]


def _results(
    context: dg.AssetCheckExecutionContext, connector: type[ApiConnector], looks: Mapping[str, Look]
) -> Iterator[dg.AssetCheckResult]:
    store = current_store()
    readable, unreadable = _integrations(store, connector.provider)
    threads, deadline = FairThreads("check", AT_ONCE, AT_ONCE_EACH), time.monotonic() + PATIENCE
    mended = Materializer(context.op_execution_context.log_event, context.run.run_id, "Mended by a check")
    for item in connector.objects:
        chosen = [each for each in readable if is_chosen(each, item.name)]
        for name, look in looks.items():
            if dg.AssetCheckKey(key_of(connector, item.name), name) in context.selected_asset_check_keys:
                asked = {
                    each.integration_id: threads.submit(
                        each.organization_id, partial(_careful, look, store, connector, each, item)
                    )
                    for each in chosen
                }
                found = _found(asked, deadline)
                mended.worked(
                    {(key, item.name): each.written for key, each in found.items() if each.written != Counts()}
                )
                yield _result(key_of(connector, item.name), name, unreadable | found)
    mended.tell()


def _found(asked: Mapping[str, Future[Finding]], deadline: float) -> dict[str, Finding]:
    """What is known by then; those that are silent keep nobody waiting."""
    wait(asked.values(), max(deadline - time.monotonic(), LEAST_PATIENCE))
    silent = Finding("its provider did not answer in time")
    return {name: silent if future.cancel() or not future.done() else future.result() for name, future in asked.items()}


def _integrations(store: Store, provider: str) -> tuple[list[IntegrationConfiguration], dict[str, Finding]]:
    """Those to look at, and those whose secrets cannot be opened. What a person paused is left alone."""
    found = survey_integrations(store, provider)
    readable = [
        each for each in found.values()
        if isinstance(each, IntegrationConfiguration) and each.status not in _RESTING
    ]  # fmt: skip
    return readable, {name: Finding(each.message) for name, each in found.items() if isinstance(each, ChurnGuardError)}


def _careful(
    look: Look, store: Store, connector: type[ApiConnector], integration: IntegrationConfiguration, item: Object
) -> Finding:
    try:
        return look(store, connector, integration, item)
    except ChurnGuardError as error:
        return Finding(error.message)
    except Exception as error:
        _log.exception("%s: %s could not be checked", integration.integration_id, item.name)
        return Finding(f"could not be checked ({type(error).__name__})")


def _result(asset: dg.AssetKey, name: str, found: Mapping[str, Finding]) -> dg.AssetCheckResult:
    wrong = [f"{key}: {finding.problem}" for key, finding in found.items() if finding.problem]
    notes = [f"{key}: {finding.note}" for key, finding in found.items() if finding.note]
    numbers: Counter[str] = Counter()
    for finding in found.values():
        numbers.update(finding.numbers)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join([*wrong, *notes][:_MAX_NAMED]) or None,
        metadata={"integrations": len(found), "integrations_with_findings": len(wrong), **numbers},
    )


def _fresh(store: Store, connector: type[ApiConnector], integration: IntegrationConfiguration, item: Object) -> Finding:
    latest = last_success(store, integration.integration_id, item.name)
    if latest is None:
        return Finding("never synced")
    age = store.now() - latest
    limit = late_after(integration.sync_config.sync_frequency)
    return Finding(f"last synced {age.total_seconds() / 60:,.0f} minutes ago" if age > limit else None)


def _drift(store: Store, connector: type[ApiConnector], integration: IntegrationConfiguration, item: Object) -> Finding:
    """New fields are kept in ``extra`` and only counted; values that do not fit their column lose records."""
    table = schema_drift.c
    statement = (
        sa.select(table.column, table.kind)
        .where(
            table.organization_id == integration.organization_id,
            table.integration_id == integration.integration_id,
            table.object == item.name,
            table.last_seen_at > store.now() - timedelta(days=DRIFT_DAYS),
        )
        .order_by(table.column)
    )
    with store.operator() as connection:
        rows = connection.execute(statement).all()
    misfits = [row.column for row in rows if row.kind == "type_mismatch"]
    fields = sum(row.kind == "new_field" for row in rows)
    problem = f"values do not fit the columns {', '.join(misfits)}" if misfits else None
    return Finding(problem, numbers={"undeclared_fields": fields})


def _parity(
    compare: Compare, store: Store, connector: type[ApiConnector], integration: IntegrationConfiguration, item: Object
) -> Finding:
    """A hole that was mended is told, and is no problem any more."""
    found = compare(store, integration, item)
    numbers = {
        "missing_here": found.missing,
        "gone_there": found.extra,
        "mended": found.mended,
        "rejected": found.rejected,
        "not_compared": int(found.skipped is not None),
        "spans_left": found.uncompared,
    }
    if not (found.missing or found.extra):
        return Finding(numbers=numbers)
    told = f"{found.missing} missing here, {found.extra} gone there; {found.mended} mended"
    return Finding(told if found.left else None, None if found.left else told, found.written, numbers)
