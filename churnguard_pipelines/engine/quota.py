"""The rate budget of one provider account, shared by all processes that call it.

A token bucket in ``ingest.quotas`` paces everybody. A gate leases small blocks of *slots* (moments at which one call
may go), so that a fast integration asks the database once for many calls. Refusals halve the shared rate, successes
raise it slowly again (AIMD); the provider's own headers correct the guess it started from.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from threading import BoundedSemaphore, Lock

from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.retry import parse_retry_after
from churnguard_pipelines.engine.tokens import without_token
from churnguard_pipelines.errors import RateLimited
from churnguard_pipelines.model import IntegrationConfiguration, revealed
from churnguard_pipelines.store.ingest.quotas import LockedQuota, QuotaRow, locked_quota
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.locks import PlaceLocks
from churnguard_pipelines.telemetry.tallies import CALLS

BURST_SECONDS = 1.0
"""A quiet account saves up at most this many seconds' worth of calls."""

LEASE_SECONDS = 0.5
"""A lease is worth this long, and a slot is void this long after its moment."""

FLOOR = 0.02
"""Refusals never lower the rate below this share of the ceiling."""

RECOVERY = 0.02
"""Each second's worth of successes adds this share of the ceiling."""

UNTOLD_PAUSE = 1.0
"""Seconds to stay away after a refusal that does not say for how long."""

LOOK_EVERY = 0.02
"""Seconds until a process that found no place looks again."""

KEPT_SECONDS = 1.0
"""That a process hands a place on among its own calls. Then it leaves it to whoever else looks for one, if anybody."""

LONGEST_PAUSE = 31 * 86_400.0
"""Seconds; no quota's window is longer, and a moment in the year 33,715 is one that nobody can read."""


@dataclass(frozen=True)
class Quota:
    """What a provider allows one account. ``per_second``: the starting guess, corrected by answers' headers; finite,
    since calls are promised for moments.
    ``burst``: most calls at once where it is less than a second's worth. ``reserve``: the share left to the
    customer's other tools. ``connections``: calls that may be under way at once, of everybody who calls with these
    credentials, where the provider counts them."""

    per_second: float
    burst: int | None = None
    reserve: float = 0.2
    connections: int | None = None

    def __post_init__(self) -> None:
        assert 0 < self.per_second < inf


@dataclass(frozen=True)
class Limits:
    """A provider's own figures from an answer's headers; None for what it does not say.

    ``remaining``: calls left in its current window; ``limit``: calls per window; ``window`` and ``reset_after``:
    the window's length and the time to its end, in seconds.
    """

    remaining: float | None = None
    limit: float | None = None
    window: float | None = None
    reset_after: float | None = None


@dataclass(frozen=True)
class Pace:
    """How fast calls may be made. ``rate``: calls a second; ``capacity``: most calls at once. In any window of w
    seconds at most ``capacity + rate · (w + LEASE_SECONDS)`` calls go."""

    rate: float
    capacity: float

    @property
    def lease(self) -> int:
        return max(1, int(self.rate * LEASE_SECONDS))


def pace(quota: Quota, requests_per_minute: float) -> Pace:
    """The pace within both ceilings; ``requests_per_minute`` holds strictly, in every minute, bursts included."""
    provider = quota.per_second * (1 - quota.reserve)
    wanted = min(provider, requests_per_minute / 60)
    capacity = max(1.0, min(wanted * BURST_SECONDS, quota.burst or inf))
    lingering = wanted * LEASE_SECONDS if int(wanted * LEASE_SECONDS) > 1 else 0.0
    strict = (requests_per_minute - (capacity - 1) - lingering) / 60
    return Pace(min(provider, strict), capacity)


def take(row: QuotaRow, now: float, pace: Pace, count: int) -> tuple[QuotaRow, list[float]]:
    """Promises ``count`` calls: the row after it, and when each may go (the database's clock, ascending)."""
    start = max(now, row.blocked_until, row.refilled_at)
    rate = min(pace.rate, row.rate)
    tokens = min(pace.capacity, row.tokens + (start - row.refilled_at) * rate)
    slots = [start + max(0.0, (number - tokens) / rate) for number in range(1, count + 1)]
    return replace(row, capacity=pace.capacity, tokens=tokens - count, refilled_at=start), slots


def refused(row: QuotaRow, now: float, pace: Pace, pause: float) -> QuotaRow:
    """After a refusal: half the rate, once per pause however many calls were under way; nobody calls before its end."""
    rate = row.rate
    if now >= row.blocked_until:
        rate = max(min(pace.rate, row.rate) / 2, pace.rate * FLOOR)
    return blocked(replace(row, rate=rate), now + pause)


def blocked(row: QuotaRow, until: float) -> QuotaRow:
    """Nobody calls before ``until``, and nothing is saved up for then."""
    if until <= row.blocked_until:
        return row
    return replace(row, tokens=min(row.tokens, 0.0), refilled_at=max(row.refilled_at, until), blocked_until=until)


def recovered(row: QuotaRow, pace: Pace, successes: int) -> QuotaRow:
    """After ``successes`` good answers."""
    if row.rate == inf:
        return row
    rate = row.rate + successes / min(row.rate, pace.rate) * RECOVERY * pace.rate
    return replace(row, rate=rate if rate < pace.rate else inf)


_OUTCOMES = {429: "rate_limited", 4: "refused", 5: "failed"}


class QuotaGate:
    """One integration's way through its account's budget. Thread-safe.

    ``account``: the provider's account, so that integrations of an organization that share one share its budget.
    ``read_limits``: the connector's reader of the provider's rate-limit headers. ``max_wait``: seconds; if the
    provider asks for a longer pause, :meth:`acquire` raises ``RateLimited`` instead of waiting.
    ``left``: calls left in the provider's current window, ``limits``: all that it says of it; None until it says.
    """

    def __init__(
        self,
        store: Store,
        organization_id: str,
        provider: str,
        account: str,
        quota: Quota,
        *,
        requests_per_minute: float,
        concurrent_requests: int,
        integration_id: str | None = None,
        read_limits: Callable[[Mapping[str, str]], Limits | None] | None = None,
        max_wait: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        self.left: float | None = None
        self.limits: Limits | None = None
        self._store = store
        self._key = (organization_id, provider, account)
        self._quota = quota
        self._requests_per_minute = requests_per_minute
        self._pace = pace(quota, requests_per_minute)
        self._turns = Turns(concurrent_requests)
        self._shared = quota.connections and Places(store, f"{provider}/{account}", quota.connections)
        self._integration_id = integration_id
        self._read_limits = read_limits
        self._max_wait = max_wait
        self._clock = clock or Clock()
        self._lock = Lock()
        self._slots: deque[float] = deque()  # on our monotonic clock
        self._blocked_until = 0.0  # the same clock; what this gate knows of it
        self._successes = 0

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Waits for a place and a slot, then holds the place. Raises ``RateLimited`` (``max_wait``) or ``Stopped``."""
        with self._turns:
            try:
                self._wait_for_slot()
            except BaseException:
                self._let_go()
                raise
            with self._shared.held(self._clock, lambda: self._turns.waiting) if self._shared else nullcontext():
                yield

    def close(self) -> None:
        if self._shared:
            self._shared.close()

    def observe(self, status: int, headers: Mapping[str, str], pause: float | None = None) -> None:
        """Learns from an answer. ``pause``: seconds that it asks for in a way of its provider's own. Never raises for
        what a provider sends."""
        CALLS.add(self._key[1], _OUTCOMES.get(status) or _OUTCOMES.get(status // 100, "ok"))
        if status == 429:
            told = parse_retry_after(headers.get("retry-after"), self._clock.now()) if pause is None else pause
            self._close(UNTOLD_PAUSE if told is None else told, refusal=True)
            return
        if pause is not None:
            self._close(pause, refusal=False)
            return
        if status < 400:
            with self._lock:
                self._successes += 1
        limits = self._read_limits(headers) if self._read_limits else None
        if limits is not None:
            self._correct(limits)

    def _correct(self, limits: Limits) -> None:
        self.limits = limits
        if limits.remaining is not None:
            self.left = limits.remaining
        if limits.limit and limits.window:
            quota = replace(self._quota, per_second=limits.limit / limits.window)
            self._pace = pace(quota, self._requests_per_minute)
        if limits.remaining is None or limits.limit is None or limits.reset_after is None:
            return
        reached_reserve = limits.remaining <= limits.limit * self._quota.reserve
        if reached_reserve and self._clock.monotonic() + limits.reset_after > self._blocked_until + 1.0:
            self._close(limits.reset_after, refusal=False)

    def _close(self, pause: float, *, refusal: bool) -> None:
        pause = min(LONGEST_PAUSE, pause)
        with self._lock, self._locked() as shared:
            now = shared.now
            shared.row = refused(shared.row, now, self._pace, pause) if refusal else blocked(shared.row, now + pause)
            self._blocked_until = self._clock.monotonic() + shared.row.blocked_until - now
            self._slots.clear()

    def _wait_for_slot(self) -> None:
        while True:
            slot = self._next_slot()
            seconds = slot - self._clock.monotonic()
            if seconds > LOOK_EVERY:
                self._let_go()
            self._clock.wait(seconds)
            if slot >= self._blocked_until:  # no refusal came while this thread waited
                return

    def _let_go(self) -> None:
        """Of what is kept for a call that is not to come now."""
        if self._shared:
            self._shared.let_go()

    def _next_slot(self) -> float:
        with self._lock:
            while self._slots and self._slots[0] + LEASE_SECONDS < self._clock.monotonic():
                self._slots.popleft()
            if not self._slots:
                self._lease()
            return self._slots.popleft()

    def _lease(self) -> None:
        with self._locked() as shared:
            row = recovered(shared.row, self._pace, self._successes)
            self._successes = 0
            if row.blocked_until - shared.now > self._max_wait:
                until = datetime.fromtimestamp(row.blocked_until, UTC)
                raise RateLimited(
                    f"the provider's quota of this account is used up until {until:%Y-%m-%d %H:%M:%S} UTC.",
                    integration_id=self._integration_id,
                    remedy="The next scheduled sync after that goes on from here.",
                )
            rate = min(self._pace.rate, row.rate)
            shared.row, slots = take(row, shared.now, self._pace, replace(self._pace, rate=rate).lease)
        offset = self._clock.monotonic() - shared.now
        self._slots.extend(slot + offset for slot in slots)

    def _locked(self) -> AbstractContextManager[LockedQuota]:
        return locked_quota(self._store, *self._key, capacity=self._pace.capacity)


class Turns:
    """``most`` at once. ``waiting``: how many more want to."""

    def __init__(self, most: int) -> None:
        self.waiting = 0
        self._free = BoundedSemaphore(most)
        self._lock = Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.waiting += 1
        try:
            self._free.acquire()
        finally:
            with self._lock:
                self.waiting -= 1

    def __exit__(self, *_: object) -> None:
        self._free.release()


@dataclass(frozen=True, slots=True)
class _Place:
    """Of the connection that holds it: another one may have the same number, once this one is broken."""

    locks: PlaceLocks
    number: int
    since: float


class Places:
    """``most`` of a ``name`` for all processes together: a provider's connections, where it counts them by key.

    A place is held by a connection to our own database, opened when it is first used, so that a process that is killed
    leaves none taken. A call that ends hands its place to one that waits beside it, which costs no question to the
    database and no connection of the provider's a moment without work; but only for ``KEPT_SECONDS`` where another
    process looks for one, so that no run keeps others waiting. Thread safe.
    """

    def __init__(self, store: Store, name: str, most: int) -> None:
        self._store, self._name, self._most = store, name, most
        self._locks: PlaceLocks | None = None
        self._kept: list[_Place] = []
        self._not_before = 0.0
        self._lock = Lock()

    @contextmanager
    def held(self, clock: Clock, waiting: Callable[[], int] = lambda: 0) -> Iterator[None]:
        """Waits for a place and holds it. ``waiting``: calls of this process that will want one next. Raises
        ``Stopped`` when the run is cancelled."""
        while (place := self._take(clock)) is None:
            clock.wait(LOOK_EVERY)
        try:
            yield
        finally:
            self._leave(place, clock, waiting())

    def let_go(self) -> None:
        """What is kept for calls that will not come so soon."""
        with self._lock:
            while self._kept:
                kept = self._kept.pop()
                kept.locks.leave(kept.number)

    def close(self) -> None:
        with self._lock:
            self._kept.clear()
            if self._locks is not None:
                self._locks.close()
                self._locks = None

    def _take(self, clock: Clock) -> _Place | None:
        with self._lock:
            while self._kept:
                if not (kept := self._kept.pop()).locks.broken:  # a lost connection has lost its places
                    return kept
            if clock.monotonic() < self._not_before:
                return None
            if self._locks is None or self._locks.broken:
                self._locks = PlaceLocks(self._store.database_url, self._name, self._most)
            number = self._locks.take()
            if number is None:
                self._not_before = clock.monotonic() + LOOK_EVERY
                return None
            return _Place(self._locks, number, clock.monotonic())

    def _leave(self, place: _Place, clock: Clock, waiting: int) -> None:
        with self._lock:
            now = clock.monotonic()
            had_long = now - place.since >= KEPT_SECONDS
            others_turn = had_long and place.locks.wanted()
            if waiting > len(self._kept) and not others_turn:
                self._kept.append(replace(place, since=now) if had_long else place)
                return
            if others_turn:
                self._not_before = now + LOOK_EVERY
            place.locks.leave(place.number)


def quota_account(integration: IntegrationConfiguration) -> str:
    """Whose quota it is: everything that calls with the same credentials shares it. Of an app, which many accounts let
    in, each integration is an account's own."""
    own = integration.credentials
    lasting = without_token(own.custom_fields)
    if own.api_key is not None:
        known = own.api_key.get_secret_value()
    elif own.access_token is not None and own.refresh_token is None and lasting == own.custom_fields:
        known = own.access_token.get_secret_value()  # nobody renews it
    else:
        kept = own.model_copy(update={"custom_fields": lasting})
        known = repr(revealed(kept.model_dump(exclude={"access_token", "refresh_token"})))
        known += str(integration.base_url) + (integration.integration_id if own.refresh_token else "")
    return hashlib.sha256(known.encode()).hexdigest()[:16]
