"""A warm session: follows the change logs of all databases that want it, until all were quiet for a while."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from churnguard_pipelines.connectors import databases
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.engine.sharing import fair_share
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    LaneTakenOver,
    NotFound,
    SourceChanged,
)
from churnguard_pipelines.mirrors import Lag
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationStatus
from churnguard_pipelines.records import Counts
from churnguard_pipelines.store.control.integrations import set_status, survey_integrations
from churnguard_pipelines.store.ingest import catalogue, sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.change_lane import ChangeLane, lane_of, load_checkpoint
from churnguard_pipelines.syncing.database import CHANGES, opened_database

LINGER = 60.0
MAX_AGE = 900.0
LOOK_EVERY = 5.0  # for integrations to follow, and for a younger session
STEP = 1.0  # seconds that a reader waits for changes before it looks whether it should end
LAG_EVERY = 10.0
TELL_EVERY = 1.0
MOST_LANES = 64
QUIET_TURN, BUSY_TURN = 20.0, 120.0
"""Seconds after which a lane that was quiet so long, or that was served so long, makes room if others wait for one."""
END_WITHIN = 10.0  # seconds; a source that does not let go of its thread by then keeps it, and nothing else
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # of a lane whose source or whose place cannot be had
_RESTING = (IntegrationStatus.PAUSED, IntegrationStatus.INACTIVE, IntegrationStatus.AUTHENTICATION_FAILED)

_log = logging.getLogger(__name__)

Worked = dict[tuple[str, str], Counts]
"""Counts of records by (integration, object)."""


def followed_integrations(store: Store) -> list[IntegrationConfiguration]:
    """Whose changes are to be followed, and whose first sync has begun."""
    return [
        integration
        for provider in databases()
        for integration in survey_integrations(store, provider).values()
        if isinstance(integration, IntegrationConfiguration)
        and integration.sync_config.sync_mode == DataSyncMode.REAL_TIME
        and integration.status not in _RESTING
        and load_checkpoint(store, lane_of(integration)) is not None
    ]


def look_at(store: Store, integration: IntegrationConfiguration) -> Lag | None:
    """How far behind it is; remembered, too. None before its first sync. Raises what the connector does."""
    checkpoint = load_checkpoint(store, lane_of(integration))
    if checkpoint is None:
        return None
    with opened_database(store, integration) as connector:
        lag = connector.lag(checkpoint.position)
    catalogue.set_lag(store, integration, lag)
    return lag


@dataclass(slots=True)
class _Reader:
    """One integration's thread. ``active``: when it last stored a change."""

    integration: IntegrationConfiguration
    stop: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)
    active: float = field(default_factory=time.monotonic)
    thread: threading.Thread | None = None

    def had_its_turn(self) -> bool:
        now = time.monotonic()
        return now - self.active > QUIET_TURN or now - self.begun > BUSY_TURN


class ChangeSession:
    """``linger``: seconds of quiet after which it ends; ``max_age``: after which it ends anyway, as it does when a
    younger session has begun. One thread per integration, up to ``MOST_LANES``; if there are more integrations, they
    take turns, with as many places for each organization as for any other."""

    def __init__(
        self,
        store: Store,
        session_id: str,
        *,
        linger: float = LINGER,
        max_age: float = MAX_AGE,
        on_worked: Callable[[Worked], None] = lambda worked: None,
    ) -> None:
        self._store = store
        self._session_id = session_id
        self._linger, self._max_age = linger, max_age
        self._on_worked = on_worked
        self._warehouse = Warehouse(store)
        self._readers: dict[str, _Reader] = {}
        self._ended: dict[str, float] = {}  # integration: when its last turn did
        self._worked: Worked = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End soon; what was stored stays."""
        self._stop.set()

    def run(self) -> None:
        """Returns when all was quiet for ``linger``, when it is too old, when a younger one has begun, or after
        :meth:`stop`."""
        begun = time.monotonic()
        with sessions.alive(self._store, self._session_id, CHANGES):
            try:
                looked = -LOOK_EVERY
                while not self._stop.is_set() and time.monotonic() - begun < self._max_age:
                    if time.monotonic() - looked >= LOOK_EVERY:
                        looked = time.monotonic()
                        self._begin_readers()
                        if self._replaced():
                            break
                    self._tell()
                    if self._quiet(begun):
                        break
                    self._stop.wait(TELL_EVERY)
            finally:
                self._end_readers()
        self._tell()

    def _end_readers(self) -> None:
        for reader in self._readers.values():
            reader.stop.set()
        deadline = time.monotonic() + END_WITHIN
        for name, reader in self._readers.items():
            assert reader.thread is not None
            reader.thread.join(max(deadline - time.monotonic(), 0))
            if reader.thread.is_alive():
                _log.warning("%s: its source does not let go; the session ends without it.", name)

    def _begin_readers(self) -> None:
        """One for each integration that has its turn; one whose integration is configured otherwise now ends, and is
        begun next time."""
        wanted = {each.integration_id: each for each in followed_integrations(self._store)}
        for name, reader in list(self._readers.items()):
            if not _same(reader.integration, wanted.get(name)):
                reader.stop.set()
            if reader.thread is not None and not reader.thread.is_alive():
                del self._readers[name]
                self._ended[name] = time.monotonic()
        self._ended = {name: moment for name, moment in self._ended.items() if name in wanted}
        chosen = self._chosen(wanted)
        for name in self._readers.keys() - chosen:
            self._readers[name].stop.set()
        for name in chosen - self._readers.keys():
            reader = self._readers[name] = _Reader(wanted[name])
            reader.thread = threading.Thread(target=self._follow, args=[reader], name=f"changes-{name}", daemon=True)
            reader.thread.start()

    def _chosen(self, wanted: Mapping[str, IntegrationConfiguration]) -> set[str]:
        """Those that have their turn now: first who has it already, then who waits, longest first, then who had it.

        A thread that is to end counts for its organization until it has: who hangs does not get more by it.
        """
        candidates = {name: reader.integration for name, reader in self._readers.items()} | dict(wanted)

        def rank(integration: IntegrationConfiguration) -> tuple[int, float]:
            reader = self._readers.get(integration.integration_id)
            if reader is None:
                return 1, self._ended.get(integration.integration_id, -math.inf)
            over = reader.had_its_turn() and not reader.stop.is_set()
            return (2 if over else 0), reader.begun

        lanes = sorted(candidates.values(), key=rank)
        return {each.integration_id for each in fair_share(lanes, lambda each: each.organization_id, MOST_LANES)}

    def _replaced(self) -> bool:
        ages = sessions.ages(self._store, CHANGES)
        own = ages.get(self._session_id)
        return own is not None and any(age < own for name, age in ages.items() if name != self._session_id)

    def _quiet(self, begun: float) -> bool:
        active = max([begun, *(reader.active for reader in self._readers.values())])
        return time.monotonic() - active > self._linger

    def _follow(self, reader: _Reader) -> None:
        """In a thread of its own, until the reader is to stop."""
        name, pause = reader.integration.integration_id, FIRST_PAUSE / 2
        while not reader.stop.is_set():
            active = reader.active
            try:
                self._read(reader)
            except LaneTakenOver:  # by a sync, so that we see the tables that it found
                continue
            except (SourceChanged, AuthenticationFailed, InvalidConfiguration) as error:
                self._give_up(reader.integration, error)
                return
            except Exception as error:
                level = logging.WARNING if isinstance(error, ChurnGuardError) else logging.ERROR
                pause = FIRST_PAUSE if reader.active > active else min(pause * 2, LONGEST_PAUSE)
                _log.log(level, "%s: its changes wait %.0f s: %s", name, pause, error)
                reader.stop.wait(pause)

    def _read(self, reader: _Reader) -> None:
        looked = time.monotonic()
        with (
            opened_database(self._store, reader.integration) as connector,
            ChangeLane(self._store, self._warehouse, reader.integration, connector) as lane,
        ):
            while not reader.stop.is_set():
                stored = lane.step(STEP)
                if stored is not None and stored.counts:
                    self._note(reader, stored.counts)
                if time.monotonic() - looked >= LAG_EVERY:
                    looked = time.monotonic()
                    self._look(reader, connector, lane, stored.committed_at if stored else None)

    def _look(
        self, reader: _Reader, connector: DatabaseConnector, lane: ChangeLane, committed_at: datetime | None
    ) -> None:
        assert lane.checkpoint is not None
        lag = connector.lag(lane.checkpoint.position)
        if lag.seconds is None and committed_at is not None:
            lag = replace(lag, seconds=(datetime.now(UTC) - committed_at).total_seconds())
        catalogue.set_lag(self._store, reader.integration, lag)

    def _note(self, reader: _Reader, counts: dict[str, Counts]) -> None:
        reader.active = time.monotonic()
        with self._lock:
            for name, count in counts.items():
                self._worked.setdefault((reader.integration.integration_id, name), Counts()).add(count)

    def _give_up(self, integration: IntegrationConfiguration, error: ChurnGuardError) -> None:
        _log.error("%s", error)
        refused = isinstance(error, AuthenticationFailed)
        status = IntegrationStatus.AUTHENTICATION_FAILED if refused else IntegrationStatus.ERROR
        with suppress(NotFound):  # it was removed meanwhile
            set_status(self._store, integration.integration_id, status, error.explanation)

    def _tell(self) -> None:
        with self._lock:
            worked, self._worked = self._worked, {}
        if worked:
            self._on_worked(worked)


def _same(before: IntegrationConfiguration, now: IntegrationConfiguration | None) -> bool:
    """Whatever its status says meanwhile."""
    return now is not None and now.model_copy(update={"status": before.status}) == before
