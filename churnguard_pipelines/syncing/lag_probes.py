"""Asks many sources how far behind their change logs are, without waiting for those that are silent."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, as_completed
from functools import partial

from churnguard_pipelines.engine.fair_threads import FairThreads
from churnguard_pipelines.engine.sharing import fair_share
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.mirrors import Lag
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.ingest import catalogue
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.change_lane import lane_of, load_checkpoint
from churnguard_pipelines.syncing.source import opened_database

ASKED_AT_ONCE, ASKED_AT_ONCE_EACH = 16, 4  # of all organizations and of each
ASKED_IN_A_LOOK = 200
LOOK = 5.0  # seconds; Dagster gives a sensor 60

_log = logging.getLogger(__name__)


def look_at(store: Store, integration: IntegrationConfiguration) -> Lag | None:
    """How far behind it is; remembered, too. None before its first sync. Raises what the connector does."""
    checkpoint = load_checkpoint(store, lane_of(integration))
    if checkpoint is None:
        return None
    with opened_database(store, integration) as connector:
        lag = connector.lag(checkpoint.position)
    catalogue.set_lag(store, integration, lag)
    return lag


class LagProbes:
    """Asks sources for their lag in threads. What did not answer in one look counts in the one after it did. One thread
    at a time."""

    def __init__(self) -> None:
        self._threads = FairThreads("asks-for-lag", ASKED_AT_ONCE, ASKED_AT_ONCE_EACH)
        self._asked: dict[str, Future[bool]] = {}
        self._answered: dict[str, float] = {}

    def behind(self, store: Store, integrations: Sequence[IntegrationConfiguration]) -> list[str]:
        """Some of those that are behind; after at most ``LOOK`` seconds, and at once when one is known to be."""
        names = {each.integration_id for each in integrations}
        self._answered = {name: moment for name, moment in self._answered.items() if name in names}
        behind = self._told(names)
        if behind:
            return behind
        new = {self._ask(store, each) for each in self._next(integrations)}
        try:
            for future in as_completed(new, LOOK):
                if not future.cancelled() and future.result():
                    break
        except TimeoutError:
            pass
        for name, future in list(self._asked.items()):
            if future.cancel():  # its turn comes in the next look
                del self._asked[name]
        return self._told(names)

    def _next(self, integrations: Sequence[IntegrationConfiguration]) -> list[IntegrationConfiguration]:
        """Whoever was not asked for longest."""
        free = [each for each in integrations if each.integration_id not in self._asked]
        free.sort(key=lambda each: self._answered.get(each.integration_id, -math.inf))
        return fair_share(free, lambda each: each.organization_id, ASKED_IN_A_LOOK)

    def _ask(self, store: Store, integration: IntegrationConfiguration) -> Future[bool]:
        work = partial(_is_behind, store, integration)
        future = self._asked[integration.integration_id] = self._threads.submit(integration.organization_id, work)
        return future

    def _told(self, names: set[str]) -> list[str]:
        done = {name: future for name, future in self._asked.items() if future.done()}
        for name in done:
            del self._asked[name]
            self._answered[name] = time.monotonic()
        return [name for name, future in done.items() if name in names and future.result()]


def _is_behind(store: Store, integration: IntegrationConfiguration) -> bool:
    """One whose source cannot be asked is left to its next sync, which says why."""
    try:
        lag = look_at(store, integration)
    except ChurnGuardError:
        return False
    except Exception:
        _log.exception("%s: its source could not be asked for its lag", integration.integration_id)
        return False
    return bool(lag and (lag.bytes or lag.seconds))
