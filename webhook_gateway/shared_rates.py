"""Rates that all replicas grant together, in Redis where there is one, else in PostgreSQL.

Nobody asks another process before it answers: each judges by what it knows, tells twice a second what it has granted,
and learns what the others have. So for a moment each replica may grant what is left as far as it knows; what was too
much all of them make up for. Where the others cannot be reached, each goes by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa

from churnguard_pipelines.errors import ChurnGuardError, DatabaseUnavailable, InvalidConfiguration
from churnguard_pipelines.store.ingest import rates
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.limits import RateLimit

EXCHANGE_EVERY = 0.5
"""Seconds."""
_REDIS_SECONDS = 2
_PREFIX = "churnguard:{rates}:"  # on one node of a cluster
# Microseconds of Redis' own clock; a key ends when it is full.
_EXCHANGE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local left = {}
for number, key in ipairs(KEYS) do
    local full = math.max(tonumber(redis.call('GET', key) or 0), now) + tonumber(ARGV[number])
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
    left[number] = string.format('%.0f', full - now)
end
return left
"""

_log = logging.getLogger(__name__)


class Exchange(Protocol):
    def __call__(self, taken: Mapping[str, float], /) -> Mapping[str, float]:
        """As ``rates.exchange``. Raises ``ChurnGuardError``."""


class SharedRate(RateLimit):
    """A ``RateLimit`` that also counts what others granted, as of the last exchange."""

    def __init__(self, per_minute: int) -> None:
        super().__init__(per_minute)
        self._taken: dict[str, float] = {}
        self._alone = False

    def wait(self, name: str, now: float) -> float:
        seconds = super().wait(name, now)
        if not seconds:
            self._taken[name] = self._taken.get(name, 0.0) + 1 / self._per_second
        return seconds

    def take_out(self) -> dict[str, float]:
        """What was granted since the last time, as ``rates.exchange`` wants it."""
        taken, self._taken = self._taken, {}
        return taken

    def learn(self, full_in: Mapping[str, float], now: float) -> None:
        """What the exchange returned."""
        if self._alone:
            self._alone = False
            _log.info("rates are shared with other processes again")
        for name, seconds in full_in.items():
            if name in self._full_at or self._has_room(now):
                full_at = now + seconds + self._taken.get(name, 0.0)
                self._full_at[name] = max(self._full_at.get(name, now), full_at)

    def put_back(self, taken: Mapping[str, float], error: ChurnGuardError, now: float) -> None:
        """The exchange failed: it is the next one's, but for what has filled up meanwhile. However long the others are
        away, nobody owes them more than the rate."""
        if not self._alone:
            self._alone = True
            _log.warning("rates are this process's own for now: %s", error)
        for name, seconds in taken.items():
            owed = min(self._taken.pop(name, 0.0) + seconds, self._full_at.get(name, now) - now)
            if owed > 0:
                self._taken[name] = owed


def exchange(store: Store, kind: str) -> Exchange:
    """``kind``: of names, which are others than those of another kind. Raises ``InvalidConfiguration`` for a
    ``REDIS_URL`` that is none."""
    url = store.settings.redis_url
    return partial(_in_postgresql, store, kind) if url is None else _in_redis(url.get_secret_value(), kind)


def _in_postgresql(store: Store, kind: str, taken: Mapping[str, float]) -> Mapping[str, float]:
    prefix = f"{kind} "
    try:
        found = rates.exchange(store, {prefix + name: seconds for name, seconds in taken.items()})
    except (sa.exc.SQLAlchemyError, psycopg.Error) as error:
        raise DatabaseUnavailable(f"rates cannot be stored: {type(error).__name__}.") from error
    return {name.removeprefix(prefix): seconds for name, seconds in found.items()}


def _in_redis(url: str, kind: str) -> Exchange:
    import redis

    try:
        client: Any = redis.Redis.from_url(url, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS)
        client.connection_pool.make_connection()  # not opened; an option that there is none of is refused here only
    except (ValueError, TypeError):
        raise InvalidConfiguration(
            "REDIS_URL is no URL of a Redis.", remedy="Write redis://host:6379/0, or rediss:// for TLS."
        ) from None
    script = client.register_script(_EXCHANGE)

    def exchanged(taken: Mapping[str, float], /) -> Mapping[str, float]:
        keys = [f"{_PREFIX}{kind}:{name}" for name in taken]
        try:
            left = script(keys, [int(seconds * 1e6) for seconds in taken.values()])
        except redis.RedisError as error:
            raise DatabaseUnavailable(
                f"Redis at REDIS_URL does not take them ({type(error).__name__}).", remedy="Check that it is running."
            ) from error
        return {name: int(each) / 1e6 for name, each in zip(taken, left, strict=True)}

    return exchanged
