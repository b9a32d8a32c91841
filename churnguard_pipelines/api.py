"""The Python interface: register integrations, start syncs, ask how they are doing.

    engine = IntegrationEngine()
    integration_id = await engine.register_integration(IntegrationConfiguration(…))
    sync_id = await engine.start_sync(integration_id)
    status = await engine.get_sync_status(integration_id)

The calls are coroutines over the synchronous store; none of them blocks the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType

from pydantic import BaseModel

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataSyncMode, IntegrationConfiguration, IntegrationStatus, Organization
from churnguard_pipelines.orchestration.process import SyncProcess, SyncRequest
from churnguard_pipelines.settings import Settings, load_settings
from churnguard_pipelines.store.database import Store
from churnguard_pipelines.store.integrations import add_integration, get_integration
from churnguard_pipelines.store.ledger import SyncReport, latest_sync
from churnguard_pipelines.store.organizations import add_organization

ACTOR = "python"


class SyncStatus(BaseModel):
    """``progress`` (0 to 1) and ``estimated_remaining`` are measured, or None where nothing is known yet."""

    integration_id: str
    sync_id: str | None
    status: IntegrationStatus
    progress: float | None
    records_processed: int
    estimated_remaining: str | None
    error: str | None = None


class IntegrationEngine:
    """One installation. ``settings`` come from the environment if omitted. Close it, or use ``async with``."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or load_settings()
        self._syncs: dict[str, SyncProcess] = {}

    @cached_property
    def store(self) -> Store:
        return Store.open(self._settings)

    async def __aenter__(self) -> IntegrationEngine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def register_integration(self, configuration: IntegrationConfiguration) -> str:
        """Store the integration, its secrets sealed; an unknown organization is added with its id for a name.

        Raises ``InvalidConfiguration`` for an unknown provider or an id that exists already.
        """
        return await asyncio.to_thread(self._register, configuration)

    async def start_sync(
        self, integration_id: str, *, mode: DataSyncMode | None = None, objects: Sequence[str] | None = None
    ) -> str:
        """Start a sync in a process of its own and return its ``sync_id``, which is the Dagster run id too.

        Raises ``NotFound`` for an unknown integration, ``InvalidConfiguration`` for an unknown object or while
        a sync that this engine started is still running.
        """
        return await asyncio.to_thread(self._start, integration_id, mode, objects)

    async def get_sync_status(self, integration_id: str) -> SyncStatus:
        """How the integration's latest sync is doing. Raises ``NotFound`` for an unknown integration."""
        return await asyncio.to_thread(self._status, integration_id)

    async def wait_for_sync(self, integration_id: str) -> SyncStatus:
        """Return when the sync that this engine started for the integration has ended."""
        if process := self._syncs.get(integration_id):
            await asyncio.to_thread(process.wait)
        return await self.get_sync_status(integration_id)

    async def close(self) -> None:
        """Stop syncs that still run (the next one goes on from their checkpoint) and leave the database."""
        await asyncio.to_thread(self._close)

    def _register(self, configuration: IntegrationConfiguration) -> str:
        connector(configuration.provider_name).check_fields(configuration)
        organization_id = configuration.organization_id
        add_organization(self.store, Organization(organization_id=organization_id, name=organization_id), actor=ACTOR)
        add_integration(self.store, configuration, actor=ACTOR)
        return configuration.integration_id

    def _start(self, integration_id: str, mode: DataSyncMode | None, objects: Sequence[str] | None) -> str:
        if (running := self._syncs.get(integration_id)) and running.running:
            raise InvalidConfiguration(
                "a sync is running already.", integration_id=integration_id, remedy="Wait for it with wait_for_sync()."
            )
        request = SyncRequest(integration_id, mode, objects)
        self._syncs[integration_id] = SyncProcess(self.store, request)
        return request.sync_id

    def _status(self, integration_id: str) -> SyncStatus:
        integration = get_integration(self.store, integration_id)
        report = latest_sync(self.store, integration_id)
        error = report.error if report else None
        process = self._syncs.get(integration_id)
        running = process is not None and process.running  # asked before its page is read: then None means never begun
        if process is not None:
            ours = process.progress()
            if running or ours is None:
                report, error = ours, ours.error if ours else None
            if not running and ours is None:
                error = process.last_words()
        progress, remaining = _estimate(report)
        return SyncStatus(
            integration_id=integration_id,
            sync_id=report.sync_id if report else process.request.sync_id if process else None,
            status=IntegrationStatus.SYNCING if running else integration.status,
            progress=progress,
            records_processed=sum(item.counts.read for item in report.objects.values()) if report else 0,
            estimated_remaining=remaining,
            error=error,
        )

    def _close(self) -> None:
        for process in self._syncs.values():
            process.stop()
        if "store" in self.__dict__:
            self.store.close()


def _estimate(report: SyncReport | None) -> tuple[float | None, str | None]:
    """Share done and time left, from the objects' expected counts; (None, None) where nothing is known."""
    if report is None:
        return None, None
    if report.finished_at is not None:
        return 1.0, "0 seconds"
    expected = sum(item.expected or 0 for item in report.objects.values())
    done = sum(item.counts.read for item in report.objects.values() if item.expected)
    if not expected or not done:
        return None, None
    share = min(done / expected, 1.0)
    seconds = (datetime.now(UTC) - report.started_at).total_seconds() * (1 - share) / share
    return share, duration(seconds)


def duration(seconds: float) -> str:
    """For people, e.g. ``10 minutes``."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
