"""Which endpoints there are, in memory: a delivery to a wrong address costs no query."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.store.control.webhook_endpoints import CHANGED, WebhookEndpoint, list_endpoints
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.schemes.sdk import Trust

REFRESH_EVERY = 30.0  # a replaced secret ends to count that much late at most
_RETRY = 1.0
_REST = 3.0
"""Times as long as a look is the pause after it: who changes endpoints all the time does not keep us looking."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint as the hot path needs it."""

    endpoint_id: str
    integration_id: str
    trust: Trust
    allowed_events: frozenset[str] | None


NOBODY = (Address("", "", Trust((secrets.token_hex(24),)), None),)
"""Whom a delivery to nobody is held against, so that it takes as long as one with a wrong signature."""


class Directory:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._addresses: Mapping[tuple[str, str], Sequence[Address]] = {}

    def find(self, provider: str, organization_id: str) -> Sequence[Address] | None:
        return self._addresses.get((provider, organization_id))

    def load(self) -> None:
        """Raises ``ChurnGuardError``, e.g. for secrets that the key does not open."""
        found: dict[tuple[str, str], list[Address]] = {}
        now = datetime.now(UTC)
        for endpoint in list_endpoints(self._store):
            found.setdefault((endpoint.provider, endpoint.organization_id), []).append(_address(endpoint, now))
        self._addresses = found

    async def keep_fresh(self) -> None:
        """Returns never: follows every change, and looks every now and then anyway."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._store.database_url, autocommit=True, connect_timeout=5
                ) as connection:
                    await connection.execute(f"LISTEN {CHANGED}")
                    while True:
                        started = time.monotonic()
                        await asyncio.to_thread(self.load)
                        await asyncio.sleep(_REST * (time.monotonic() - started))
                        async for _ in connection.notifies(timeout=REFRESH_EVERY, stop_after=1):
                            pass
            except (ChurnGuardError, psycopg.Error) as error:
                _log.warning("the endpoints known so far stay: %s", error)
                await asyncio.sleep(_RETRY)


def _address(endpoint: WebhookEndpoint, now: datetime) -> Address:
    trust = Trust(tuple(endpoint.active_secrets(now)), endpoint.options)
    return Address(endpoint.endpoint_id, endpoint.integration_id, trust, endpoint.allowed_events)
