"""The report of one sync, which the ledger keeps: begun, kept alive, each object's end noted, finished."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    CircuitOpen,
    RateLimited,
    SourceChanged,
    Stopped,
)
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.records import Position
from churnguard_pipelines.store.control.integrations import set_status
from churnguard_pipelines.store.ingest import ledger
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store

_log = logging.getLogger(__name__)

_RESTING = (IntegrationStatus.PAUSED, IntegrationStatus.INACTIVE)  # a person's word, which a sync does not overrule


@dataclass(frozen=True, slots=True)
class ObjectEnd:
    """What is noted of an object that was read to its end; ``rows``: None if they were not counted."""

    checkpoint_before: Position | None
    checkpoint_after: Position | None
    rows: int | None


def run_reported(
    store: Store,
    integration: IntegrationConfiguration,
    sync_id: str,
    mode: DataSyncMode,
    names: Sequence[str],
    trigger: str,
    work: Callable[[], ChurnGuardError | None],
) -> SyncReport:
    """Do ``work``, which returns the failure that ended the whole sync, if one did; returns the report."""
    ledger.start_sync(store, sync_id, integration, mode, names, trigger)
    set_status(store, integration.integration_id, IntegrationStatus.SYNCING, unless=_RESTING)
    try:
        with ledger.heartbeat(store, sync_id):
            failure = work()
    except BaseException as error:
        with suppress(ChurnGuardError):  # if the database is what failed, the ledger will know by the heartbeat
            _abandon(store, integration, sync_id, error)
        raise
    return _finish(store, integration, sync_id, failure)


def each_object(
    store: Store,
    sync_id: str,
    names: Iterable[str],
    one: Callable[[str], ObjectEnd],
    new_calls: Callable[[], int],
    on_object: Callable[[str], None],
) -> ChurnGuardError | None:
    """Call ``one`` for each object; one that fails does not stop the rest, unless no other can succeed either.

    Returns the failure that ended it early. ``new_calls``: requests made since it was asked last.
    """
    for name in names:
        try:
            ledger.set_object(store, sync_id, name, status="running")
            end = one(name)
            ledger.set_object(
                store, sync_id, name, status="succeeded", calls=new_calls(), checkpoint_before=end.checkpoint_before,
                checkpoint_after=end.checkpoint_after, rows=end.rows,
            )  # fmt: skip
        except ChurnGuardError as error:
            ledger.set_object(store, sync_id, name, status="failed", error=error.explanation, calls=new_calls())
            if isinstance(error, AuthenticationFailed | CircuitOpen | SourceChanged | Stopped):
                return error
        except Exception as error:
            _log.exception("%s of %s ended unexpectedly", name, sync_id)
            ledger.set_object(
                store, sync_id, name, status="failed", error=failure_of(error).explanation, calls=new_calls()
            )
        finally:
            on_object(name)
    return None


def _abandon(store: Store, integration: IntegrationConfiguration, sync_id: str, error: BaseException) -> None:
    """An error nobody foresaw goes on its way, but the ledger does not say "running" for ever."""
    failure = failure_of(error)
    for name, item in ledger.get_sync(store, sync_id).objects.items():
        if item.status == "running":
            ledger.set_object(store, sync_id, name, status="failed", error=failure.explanation)
    _finish(store, integration, sync_id, failure)


def failure_of(error: BaseException) -> ChurnGuardError:
    """The error itself, or what is said of one that nobody foresaw."""
    if isinstance(error, ChurnGuardError):
        return error
    return ChurnGuardError(f"it ended unexpectedly ({type(error).__name__}).", remedy="The log has the details.")


def _finish(
    store: Store, integration: IntegrationConfiguration, sync_id: str, failure: ChurnGuardError | None
) -> SyncReport:
    report = ledger.get_sync(store, sync_id)
    failed = [name for name, item in report.objects.items() if item.status == "failed"]
    succeeded = any(item.status == "succeeded" for item in report.objects.values())
    error = failure.explanation if failure else f"failed: {', '.join(failed)}" if failed else None
    status: Literal["succeeded", "partial", "failed"] = (
        "succeeded" if error is None else "partial" if succeeded else "failed"
    )
    closed_at = ledger.finish_sync(store, sync_id, status, error)
    set_status(store, integration.integration_id, _status(failure, failed), error, unless=_RESTING)
    if closed_at is None:
        return ledger.get_sync(store, sync_id)
    return replace(report, status=status, error=error, finished_at=closed_at)


def _status(failure: ChurnGuardError | None, failed: Sequence[str]) -> IntegrationStatus:
    if isinstance(failure, AuthenticationFailed):
        return IntegrationStatus.AUTHENTICATION_FAILED
    if isinstance(failure, RateLimited):
        return IntegrationStatus.RATE_LIMITED
    return IntegrationStatus.ERROR if failure or failed else IntegrationStatus.ACTIVE
