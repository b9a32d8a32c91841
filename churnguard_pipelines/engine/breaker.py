"""The circuit breaker of one integration: after enough failures nobody calls the provider for a while, in any process.

The state is a row of ``ingest.breakers``, so the next run skips at once and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Condition

from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    CircuitOpen,
    PermissionMissing,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
)
from churnguard_pipelines.store.ingest.breakers import BreakerRow, load_breaker, locked_breaker
from churnguard_pipelines.store.ingest.due import NEW_RETRY_SECONDS, has_synced
from churnguard_pipelines.store.postgres.database import Store

THRESHOLD = 5
FIRST_PAUSE = timedelta(seconds=60)
LONGEST_PAUSE = timedelta(hours=1)
NEW_PAUSE = timedelta(seconds=NEW_RETRY_SECONDS)
"""Of an integration that has not synced yet: whoever sets it up is mending the cause."""
PROBE_TIME = timedelta(minutes=10)
"""How long one caller may try a half-open integration; if its process died, the next may try after this."""

CACHED_SECONDS = 1.0

COUNTED = (ProviderUnavailable, RateLimited)
ALIVE = (PermissionMissing, RequestRefused, ProviderMisbehaved)
"""Failures that prove the provider answers; they close a circuit rather than open it."""


class Breaker:
    """The circuit breaker of one integration. Ask :meth:`before_call`, then report exactly one of :meth:`success` and
    :meth:`failure`. Thread-safe.

    ``closed`` → ``open`` after 5 failed requests in a row (each after its retries), for 60 s doubling to 1 h, or for
    30 s each time while the integration has not synced yet; refused credentials open it at once and until somebody
    calls :func:`~churnguard_pipelines.store.ingest.breakers.close_breaker`. When the pause is over one caller tries
    (``half_open``): the other threads of its process wait for the outcome, other processes are still refused.
    """

    def __init__(self, store: Store, organization_id: str, integration_id: str, *, clock: Clock | None = None) -> None:
        self._store = store
        self._key = (organization_id, integration_id)
        self._clock = clock or Clock()
        self._changed = Condition()
        self._row = BreakerRow()
        self._loaded_at: float | None = None
        self._probing = False

    def before_call(self) -> None:
        """Returns if the call may go. Raises ``CircuitOpen`` in a word why not and until when."""
        with self._changed:
            while self._probing:
                self._changed.wait(1.0)
                self._clock.wait(0.0)  # notices a cancelled run
            row = self._current()
            if row.state == "closed":
                return
            if row.retry_at is None or row.retry_at > self._now() or not self._claim():
                raise self._refusal(self._row)
            self._probing = True

    def success(self) -> None:
        """The provider answered. Writes only if something had gone wrong before."""
        with self._changed:
            # A call that was under way when the circuit opened does not close it again; the one that tries does.
            if self._probing or (self._row.state == "closed" and self._row.failures):
                self._finish(BreakerRow())

    def failure(self, error: BaseException) -> None:
        """Counts ``ProviderUnavailable`` and ``RateLimited``; opens at once for ``AuthenticationFailed``.

        An answer that refuses only this request is a sign of life; anything else (the run was stopped, our own
        mistake) says nothing about the provider.
        """
        if isinstance(error, ALIVE):
            self.success()
            return
        with self._changed:
            if isinstance(error, (*COUNTED, AuthenticationFailed)):
                self._count(error)
            elif self._probing:  # we learned nothing: let somebody else try
                self._finish(replace(self._row, state="open", retry_at=self._now()))

    def _current(self) -> BreakerRow:
        if self._loaded_at is None or self._clock.monotonic() - self._loaded_at > CACHED_SECONDS:
            self._remember(load_breaker(self._store, *self._key))
        return self._row

    def _claim(self) -> bool:
        """True if this caller is the one to try."""
        now = self._now()
        with locked_breaker(self._store, *self._key) as shared:
            row = shared.row
            mine = row.state == "closed" or (row.retry_at is not None and row.retry_at <= now)
            if mine and row.state != "closed":
                shared.row = replace(row, state="half_open", retry_at=now + PROBE_TIME)
        self._remember(shared.row)
        return mine

    def _count(self, error: ProviderError) -> None:
        with self._done(), locked_breaker(self._store, *self._key) as shared:
            row = shared.row
            # Calls that were still under way when it opened must not lengthen the pause.
            if row.state != "open" or (isinstance(error, AuthenticationFailed) and row.retry_at is not None):
                shared.row = self._after(row, error)
            self._remember(shared.row)

    def _after(self, row: BreakerRow, error: ProviderError) -> BreakerRow:
        """The row after one more failure."""
        now = self._now()
        failures = row.failures + 1
        counted = replace(row, failures=failures, reason=error.message, remedy=error.remedy)
        if isinstance(error, AuthenticationFailed):
            return replace(counted, state="open", opened_at=row.opened_at or now, retry_at=None)
        if failures < THRESHOLD and row.state == "closed":
            return counted
        pause = NEW_PAUSE
        if has_synced(self._store, *self._key):
            pause = min(FIRST_PAUSE * 2 ** min(max(failures - THRESHOLD, 0), 10), LONGEST_PAUSE)
        return replace(counted, state="open", opened_at=row.opened_at or now, retry_at=now + pause)

    def _finish(self, row: BreakerRow) -> None:
        with self._done(), locked_breaker(self._store, *self._key) as shared:
            shared.row = row
            self._remember(row)

    @contextmanager
    def _done(self) -> Iterator[None]:
        """The try, if there was one, is over, whatever happens to the database meanwhile."""
        try:
            yield
        finally:
            self._probing = False
            self._changed.notify_all()

    def _remember(self, row: BreakerRow) -> None:
        self._row = row
        self._loaded_at = self._clock.monotonic()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)

    def _refusal(self, row: BreakerRow) -> CircuitOpen:
        when = f"not tried again before {row.retry_at:%Y-%m-%d %H:%M:%S} UTC" if row.retry_at else "paused"
        times = f"after {row.failures} failures in a row" if row.retry_at else "because the credentials were refused"
        return CircuitOpen(
            f"skipped without a call, {when}, {times}. The last one: {row.reason}",
            integration_id=self._key[1],
            retry_at=row.retry_at,
            remedy=row.remedy or f"`churnguard integrations resume {self._key[1]}` tries at once.",
        )
