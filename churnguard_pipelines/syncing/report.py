"""The report of one sync, which the ledger keeps: begun, kept alive, each object's end noted, finished."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from churnguard_pipelines.engine.fair_threads import FairThreads
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
from churnguard_pipelines.store.ingest.ledger import SyncOutcome, SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.telemetry import logs, traces

_log = logging.getLogger(__name__)

_END_ALL = (AuthenticationFailed, SourceChanged, CircuitOpen, Stopped)
"""After them no other object can succeed. Of several at once the first of these is said: the others follow from it."""
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
        ids = {"organization": integration.organization_id, "integration": integration.integration_id}
        with (
            logs.about(**ids),
            traces.working(f"sync {integration.provider_name}", {**ids, "sync_id": sync_id, "mode": str(mode)}),
            ledger.heartbeat(store, sync_id),
        ):
            failure = work()
    except BaseException as error:
        with suppress(ChurnGuardError):  # if the database is what failed, the ledger will know by the heartbeat
            _abandon(store, integration, sync_id, error)
        raise
    return _finish(store, integration, sync_id, failure)


Told = Callable[[str, float], None]
"""An object's name, and the seconds that were spent on it."""


@dataclass(frozen=True, slots=True)
class Helpers:
    """Threads that take objects off a sync's own, as far as they have nothing else to do: ``most`` of them at once."""

    threads: FairThreads
    organization_id: str
    most: int


def each_object(
    store: Store,
    sync_id: str,
    names: Iterable[str],
    one: Callable[[str], ObjectEnd],
    calls_of: Callable[[str], int],
    on_object: Told,
    helpers: Helpers | None = None,
) -> ChurnGuardError | None:
    """Call ``one`` for each object; one that fails does not stop the rest, unless no other can succeed either.

    Returns the failure that ended it early. ``calls_of``: requests made for the object. ``helpers``: work some of the
    objects beside each other; all that is given is called in their threads, too. Without any of them free, this thread
    works all there is.
    """
    waiting = deque(names)
    failures: list[ChurnGuardError] = []
    futures: list[Future[None]] = []

    def next_one() -> bool:
        try:
            name = waiting.popleft()
        except IndexError:
            return False
        began = time.monotonic()
        try:
            failure = _one_object(store, sync_id, name, one, calls_of)
            on_object(name, time.monotonic() - began)
        except BaseException:
            waiting.clear()
            raise
        if failure is not None:
            failures.append(failure)
            waiting.clear()
        return True

    def begin_to_help() -> None:
        assert helpers is not None
        futures.append(helpers.threads.submit(helpers.organization_id, help_out))

    def help_out() -> None:
        """With one object. Then others may have the thread."""
        if next_one() and waiting:
            begin_to_help()

    for _ in range(min(helpers.most, len(waiting) - 1) if helpers is not None else 0):
        begin_to_help()
    error: BaseException | None = None
    try:
        while next_one():
            pass
    except Exception as mistake:
        error = mistake
    for future in futures:  # grows only while one of those that came before is at work
        if not future.cancel():
            error = future.exception() or error
    if error is not None:
        raise error
    return min(failures, key=lambda each: list(map(partial(isinstance, each), _END_ALL)).index(True), default=None)


def _one_object(
    store: Store, sync_id: str, name: str, one: Callable[[str], ObjectEnd], calls_of: Callable[[str], int]
) -> ChurnGuardError | None:
    """The failure, if no other object can succeed because of it."""
    try:
        ledger.set_object(store, sync_id, name, status="running")
        end = one(name)
        ledger.set_object(
            store, sync_id, name, status="succeeded", calls=calls_of(name), checkpoint_before=end.checkpoint_before,
            checkpoint_after=end.checkpoint_after, rows=end.rows,
        )  # fmt: skip
    except ChurnGuardError as error:
        status: ledger.ObjectStatus = "cancelled" if isinstance(error, Stopped) else "failed"
        ledger.set_object(store, sync_id, name, status=status, error=error.explanation, calls=calls_of(name))
        if isinstance(error, _END_ALL):
            return error
    except Exception as error:
        _log.exception("%s of %s ended unexpectedly", name, sync_id)
        ledger.set_object(
            store, sync_id, name, status="failed", error=failure_of(error).explanation, calls=calls_of(name)
        )
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
    status: SyncOutcome = "succeeded" if error is None else "partial" if succeeded else "failed"
    if isinstance(failure, Stopped) and not failed:
        status = "cancelled"
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
    wrong = failed or (failure and not isinstance(failure, Stopped))
    return IntegrationStatus.ERROR if wrong else IntegrationStatus.ACTIVE
