"""The Python interface: register integrations, start syncs, ask how they are doing.

    engine = IntegrationEngine()
    integration_id = await engine.register_integration(IntegrationConfiguration(…))
    sync_id = await engine.start_sync(integration_id)
    status = await engine.get_sync_status(integration_id)

    streams = StreamingManager()
    stream_id = await streams.create_stream(StreamConfiguration(…))
    metrics = await streams.get_stream_metrics(stream_id)

The calls are coroutines over the synchronous store; none of them blocks the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.engine.fair_threads import FairThreads
from churnguard_pipelines.errors import ChurnGuardError, ProviderUnavailable
from churnguard_pipelines.model import (
    DataSyncMode,
    IntegrationConfiguration,
    IntegrationStatus,
    Organization,
    StreamConfiguration,
)
from churnguard_pipelines.monitoring.stream_numbers import StreamMetrics, measured
from churnguard_pipelines.orchestration.processes.children import SyncRequest, refuse_unknown
from churnguard_pipelines.orchestration.processes.sync_queue import SyncQueue
from churnguard_pipelines.records import Position
from churnguard_pipelines.settings import Settings, load_settings
from churnguard_pipelines.store.control.integrations import add_integration, get_integration
from churnguard_pipelines.store.ingest.ledger import Deviation, SyncReport, find_sync, latest_sync
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.streams import managing
from churnguard_pipelines.syncing.streams.status import StreamStatus, list_streams

ACTOR = "python"
ASKED_AT_ONCE, ASKED_AT_ONCE_EACH = 16, 4  # sources, of all organizations and of each
LONG_WORKS = 4  # at once, one of each organization
ANSWER_WITHIN = 30.0  # seconds, for all that one call asks

Answer = TypeVar("Answer")
Asked = IntegrationConfiguration | StreamConfiguration
"""Whose source is asked."""
Question = tuple[Asked, Callable[[], Answer]]
_log = logging.getLogger(__name__)


class SyncStatus(BaseModel):
    """How a sync is doing. ``progress`` (0 to 1) and ``estimated_remaining`` are measured, or None where nothing is
    known yet. ``status``: ``queued`` while a sync waits for its turn. ``deviation``: how far the plan was off, where
    there was one."""

    integration_id: str
    sync_id: str | None
    status: IntegrationStatus | Literal["queued"]
    progress: float | None
    records_processed: int
    estimated_remaining: str | None
    error: str | None = None
    deviation: Deviation | None = None


class IntegrationEngine:
    """One installation. ``settings`` come from the environment if omitted. Close it, or use ``async with``."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or load_settings()
        self._sources = FairThreads("asks-a-source", ASKED_AT_ONCE, ASKED_AT_ONCE_EACH)
        self._long_works = FairThreads("long-work", LONG_WORKS, 1)

    @cached_property
    def store(self) -> Store:
        return Store.open(self._settings)

    @cached_property
    def _syncs(self) -> SyncQueue:
        return SyncQueue(self.store)

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
        """Start a sync in a process of its own, or have it wait for its turn, and return its ``sync_id``, which is the
        Dagster run id too; that of the one that runs or waits already if it is the same.

        Raises ``NotFound`` for an unknown integration, ``InvalidConfiguration`` for an unknown object,
        ``AlreadyRunning`` while another sync of the integration is running or waiting, ``TooBusy`` and
        ``ProviderUnavailable`` where its database has to be asked for its tables and does not answer.
        """
        integration = await asyncio.to_thread(get_integration, self.store, integration_id)
        if objects:
            await self.ask_source(integration, partial(refuse_unknown, self.store, integration, objects))
        request = SyncRequest(integration_id, mode, objects and list(dict.fromkeys(objects)))
        return await asyncio.to_thread(lambda: self._syncs.start(integration, request))

    async def get_sync_status(self, integration_id: str) -> SyncStatus:
        """How the integration's latest sync is doing. Raises ``NotFound`` for an unknown integration."""
        return await asyncio.to_thread(self._status, integration_id)

    async def wait_for_sync(self, integration_id: str) -> SyncStatus:
        """Return when the sync that this engine started for the integration has ended."""
        if active := self._syncs.find(integration_id):
            await asyncio.wait([asyncio.wrap_future(active.ends)])
        return await self.get_sync_status(integration_id)

    async def in_turn(self, organization_id: str, work: Callable[[], Answer]) -> Answer:
        """The answer of what takes as long as the organization has rows, or keeps them locked: done in threads that
        serve nothing else, one thing of each organization at a time. Raises what it raises."""
        return await asyncio.wrap_future(self._long_works.submit(organization_id, work))

    async def ask_source(self, asked: Asked, question: Callable[[], Answer]) -> Answer:
        """The answer of something that has to wait for the integration's or the stream's source, which may be silent.

        Raises what it raises, ``ProviderUnavailable`` if there is no answer in time, ``TooBusy`` without asking.
        """
        (answer,) = await self.ask_sources([(asked, question)])
        if isinstance(answer, ChurnGuardError):
            raise answer
        return answer

    async def ask_sources(self, questions: Sequence[Question[Answer]]) -> list[Answer | ChurnGuardError]:
        """The same of many at once, in their order; an error stands for one that failed.

        They are asked in threads that serve nothing else, a few for each organization. ``TooBusy`` is raised if all of
        them are of organizations whose threads still wait for answers.
        """
        refused: dict[str, ChurnGuardError] = {}
        for organization_id in {each.organization_id for each, _ in questions}:
            try:
                self._sources.refuse_if_full(organization_id)
            except ChurnGuardError as error:
                refused[organization_id] = error
        if refused and all(each.organization_id in refused for each, _ in questions):
            raise next(iter(refused.values()))
        asked = {
            place: asyncio.wrap_future(self._sources.submit(each.organization_id, question))
            for place, (each, question) in enumerate(questions)
            if each.organization_id not in refused
        }
        if asked:
            await asyncio.wait(asked.values(), timeout=ANSWER_WITHIN)
        return [
            _answer(each, asked[place]) if place in asked else refused[each.organization_id]
            for place, (each, _) in enumerate(questions)
        ]

    async def close(self) -> None:
        """Stop syncs that still run (the next one goes on from their checkpoint) and leave the database."""
        await asyncio.to_thread(self._close)

    def _register(self, configuration: IntegrationConfiguration) -> str:
        connector(configuration.provider_name).check_fields(configuration)
        organization_id = configuration.organization_id
        organization = Organization(organization_id=organization_id, name=organization_id)
        add_integration(self.store, configuration, ACTOR, organization)
        return configuration.integration_id

    def _status(self, integration_id: str) -> SyncStatus:
        integration = get_integration(self.store, integration_id)
        if active := self._syncs.find(integration_id):
            report = find_sync(self.store, active.request.sync_id)
            status: IntegrationStatus | Literal["queued"] = (
                "queued" if active.waits(report) else IntegrationStatus.SYNCING
            )
        else:
            report = latest_sync(self.store, integration_id)
            status = "queued" if report and report.status == "queued" else integration.status
        progress, remaining = _estimate(report)
        return SyncStatus(
            integration_id=integration_id,
            sync_id=report.sync_id if report else None,
            status=status,
            progress=progress,
            records_processed=sum(item.counts.read for item in report.objects.values()) if report else 0,
            estimated_remaining=remaining,
            error=report.error if report else None,
            deviation=report.deviation if report else None,
        )

    def _close(self) -> None:
        if "_syncs" in self.__dict__:
            self._syncs.stop()
        if "store" in self.__dict__:
            self.store.close()


class StreamingManager:
    """The streams of one installation. ``settings`` come from the environment if omitted. Close it, or use ``async
    with``. What asks a source raises what that raises, and ``ProviderUnavailable`` if it does not answer in time."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._engine = IntegrationEngine(settings)

    async def __aenter__(self) -> StreamingManager:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create_stream(self, configuration: StreamConfiguration, *, check: bool = True) -> str:
        """Store the stream, its secrets sealed; an unknown organization is added with its id for a name. It is read
        from then on. ``check``: ask its source first whether all that is configured is there.

        Raises ``InvalidConfiguration``, also for an id that exists already.
        """
        return await asyncio.to_thread(self._create, configuration, check)

    async def get_stream_metrics(self, stream_id: str) -> StreamMetrics:
        """What was measured in the last minute. Raises ``NotFound``."""
        return await asyncio.to_thread(measured, self._engine.store, stream_id)

    async def list_streams(self, organization_id: str | None = None) -> list[StreamStatus]:
        """With their states, and how far they are behind."""
        return await asyncio.to_thread(list_streams, self._engine.store, organization_id)

    async def test_stream(self, stream_id: str) -> None:
        """Ask the source and the format whether all that is configured can be read. Raises ``NotFound``, too."""
        await asyncio.to_thread(managing.test, self._engine.store, stream_id)

    async def pause_stream(self, stream_id: str) -> None:
        """What reads it ends within seconds. Raises ``NotFound``."""
        await asyncio.to_thread(managing.pause, self._engine.store, stream_id, actor=ACTOR)

    async def resume_stream(self, stream_id: str) -> None:
        """Also one that paused itself, or failed. Raises ``NotFound``."""
        await asyncio.to_thread(managing.resume, self._engine.store, stream_id, actor=ACTOR)

    async def seek_stream(self, stream_id: str, to: str | datetime | Mapping[str, str]) -> Mapping[str, Position]:
        """Read on from ``earliest``, ``latest``, a moment or offsets by partition; returns the positions. What is
        stored stays. Raises ``NotFound``, and ``InvalidConfiguration`` where the source cannot."""
        place = managing.place(to)
        return await asyncio.to_thread(managing.seek, self._engine.store, stream_id, place, actor=ACTOR)

    async def remove_stream(self, stream_id: str, *, purge: bool = False) -> None:
        """``purge``: the rows it brought, too. Raises ``NotFound``."""
        await asyncio.to_thread(managing.remove, self._engine.store, stream_id, actor=ACTOR, purge=purge)

    async def close(self) -> None:
        await self._engine.close()

    def _create(self, configuration: StreamConfiguration, check: bool) -> str:
        name = configuration.organization_id
        organization = Organization(organization_id=name, name=name)
        managing.create(self._engine.store, configuration, actor=ACTOR, checks=check, organization=organization)
        return configuration.stream_id


def _estimate(report: SyncReport | None) -> tuple[float | None, str | None]:
    """Share done and time left, from the objects' expected counts; (None, None) where nothing is known."""
    if report is None or not report.objects:
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


def _answer(of: Asked, asked: asyncio.Future[Any]) -> Any:
    """Its answer, or the error that stands for it."""
    name = of.stream_id if isinstance(of, StreamConfiguration) else of.integration_id
    if not asked.done():
        asked.cancel()  # one that has not begun will not; one that has keeps its thread until its source lets go
        return ProviderUnavailable(
            f"its source did not answer within {ANSWER_WITHIN:.0f} s.",
            integration_id=name,
            remedy="See that it can be reached from here, and try again.",
        )
    error = asked.exception()
    if error is None or isinstance(error, ChurnGuardError):
        return error or asked.result()
    _log.error("%s: its source could not be asked", name, exc_info=error)
    return ProviderUnavailable(
        f"its source could not be asked ({type(error).__name__}).",
        integration_id=name,
        remedy="Check its configuration; the log has the details.",
    )
