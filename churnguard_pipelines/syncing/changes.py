"""Sessions that follow changes: a lane is a database's change log or an API's feed of events, and keeps its turn while
its source is quiet."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event

from churnguard_pipelines.connectors import databases, followable
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    NotFound,
    SourceChanged,
    Stopped,
)
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.integrations import set_status, survey_integrations
from churnguard_pipelines.store.ingest import catalogue, checkpoints
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import LANE, ChangeLane, lane_of
from churnguard_pipelines.syncing.database import CHANGES
from churnguard_pipelines.syncing.events.lane import EventLane
from churnguard_pipelines.syncing.session import LaneKind, Turn
from churnguard_pipelines.syncing.source import opened_database

STEP = 1.0  # seconds that a lane waits for changes before it looks whether it should end
LAG_EVERY = 10.0
_RESTING = (IntegrationStatus.PAUSED, IntegrationStatus.INACTIVE, IntegrationStatus.AUTHENTICATION_FAILED)

_log = logging.getLogger(__name__)


def followed_integrations(store: Store) -> list[IntegrationConfiguration]:
    """Whose changes are to be followed, and whose first sync has begun."""
    with store.operator() as connection:
        begun = checkpoints.integrations_with(connection, LANE)
    return [
        integration
        for provider in (followable() if begun else ())
        for integration in survey_integrations(store, provider).values()
        if isinstance(integration, IntegrationConfiguration)
        and integration.integration_id in begun
        and integration.sync_config.sync_mode == DataSyncMode.REAL_TIME
        and integration.status not in _RESTING
    ]


class ChangeLogs(LaneKind):
    name = CHANGES
    at_once = 64
    at_once_each = None
    lanes_each = 64
    quiet_turn, busy_turn = 20.0, 120.0
    keeps_its_turn = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self._warehouse = Warehouse(store)
        self._followed: dict[Lane, IntegrationConfiguration] = {}
        self._at_work: dict[Lane, IntegrationConfiguration] = {}

    def waiting(self) -> Sequence[Lane]:
        self._followed = {lane_of(each): each for each in followed_integrations(self._store)}
        return list(self._followed)

    def wanted(self, turn: Turn) -> bool:
        """One that is configured otherwise now ends, and is begun next time; whatever its status says meanwhile."""
        before, now = self._at_work.get(turn.lane), self._followed.get(turn.lane)
        if before is None:  # its thread has not come so far
            return True
        return now is not None and now.model_copy(update={"status": before.status}) == before

    def work(self, turn: Turn) -> bool:
        integration = self._followed.get(turn.lane)
        if integration is None:
            return False
        self._at_work[turn.lane] = integration
        try:
            self._follow(turn, integration)
        except Stopped:
            pass
        except (SourceChanged, AuthenticationFailed, InvalidConfiguration) as error:
            self._needs_somebody(integration, error)
            raise
        finally:
            del self._at_work[turn.lane]
        return False

    def _follow(self, turn: Turn, integration: IntegrationConfiguration) -> None:
        looked = time.monotonic()
        with self._opened(integration, turn.stop) as lane:
            while not turn.stop.is_set():
                stored = lane.step(STEP)
                if stored is not None and stored.counts:
                    turn.note(stored.counts)
                elif lane.stays_warm:
                    turn.note({})
                if time.monotonic() - looked >= LAG_EVERY:
                    looked = time.monotonic()
                    catalogue.set_lag(self._store, integration, lane.lag(stored))

    @contextmanager
    def _opened(self, integration: IntegrationConfiguration, stop: Event) -> Iterator[ChangeLane | EventLane]:
        if integration.provider_name not in databases():
            with EventLane(self._store, self._warehouse, integration, stop) as events:
                yield events
            return
        with (
            opened_database(self._store, integration) as connector,
            ChangeLane(self._store, self._warehouse, integration, connector) as lane,
        ):
            yield lane

    def _needs_somebody(self, integration: IntegrationConfiguration, error: ChurnGuardError) -> None:
        _log.error("%s", error)
        refused = isinstance(error, AuthenticationFailed)
        status = IntegrationStatus.AUTHENTICATION_FAILED if refused else IntegrationStatus.ERROR
        with suppress(NotFound):  # it was removed meanwhile
            set_status(self._store, integration.integration_id, status, error.explanation)
