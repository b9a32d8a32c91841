"""The application of port 8080: the hot path beside FastAPI's health page, and what keeps both going."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.exposure import refuse_unsigned
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.intake.answers import Receive, Scope, Send
from webhook_gateway.intake.committer import Committer
from webhook_gateway.intake.directory import Directory
from webhook_gateway.intake.intake import HEALTH, PREFIX, Intake, Limits
from webhook_gateway.intake.large_bodies import LargeBodies
from webhook_gateway.intake.metrics import EVENTS_HELD, STORING
from webhook_gateway.shared_rates import EXCHANGE_EVERY, exchange

COUNT_EVERY = 1.0
PARTITIONS_EVERY = 3600.0

_log = logging.getLogger(__name__)


class Gateway:
    """An ASGI application. Raises ``InvalidConfiguration`` for settings that would take unsigned deliveries."""

    def __init__(self, store: Store) -> None:
        settings = store.settings
        refuse_unsigned(settings)
        self._store = store
        self._committer = Committer(store.database_url)
        self._directory = Directory(store)
        self._large_bodies = LargeBodies(settings.webhook_max_payload_size)
        self._intake = Intake(
            self._directory,
            self._committer,
            self._large_bodies,
            Limits(settings.webhook_max_payload_size, settings.webhook_rate_limit_per_minute),
            public_url=settings.webhook_public_url,
            check_signatures=settings.webhook_signature_validation,
        )
        self._exchange = exchange(store, "endpoint")
        self._pages = self._fastapi()
        self.at_once = self._intake.at_once
        EVENTS_HELD.set_function(lambda: self._committer.held)
        STORING.set_function(lambda: self._committer.available)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(PREFIX) and path != HEALTH:
            await self._intake(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    def _fastapi(self) -> FastAPI:
        pages = FastAPI(title="ChurnGuard webhooks", lifespan=self._lifespan, docs_url=None, redoc_url=None)

        @pages.get(HEALTH)
        def health(response: Response) -> dict[str, str]:
            """200 while deliveries can be stored, 503 while they cannot."""
            available = self._committer.available
            response.status_code = 200 if available else 503
            return {"status": "healthy" if available else "unavailable"}

        return pages

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(self._directory.load)
        await asyncio.to_thread(inbox.keep_partitions, self._store)
        async with asyncio.TaskGroup() as group:
            loops: tuple[Coroutine[Any, Any, None], ...] = (
                self._committer.work(),
                self._large_bodies.work(),
                self._directory.keep_fresh(),
                self._keep_counts(),
                self._share_rates(),
                self._keep_partitions(),
            )
            tasks = [group.create_task(loop) for loop in loops]
            await self._committer.store([])  # healthy from the first moment, or not
            yield
            for task in tasks:
                task.cancel()
        await self._store_counts()

    async def _keep_counts(self) -> None:
        while True:
            await asyncio.sleep(COUNT_EVERY)
            await self._store_counts()

    async def _store_counts(self) -> None:
        """What is counted meanwhile is the next time's: only the storing is another thread's."""
        taken = dict(self._intake.outcomes)
        self._intake.outcomes.clear()
        try:
            await asyncio.to_thread(inbox.count, self._store, [(*key, events) for key, events in taken.items()])
        except ChurnGuardError as error:
            _log.warning("counts of webhooks wait: %s", error)
            self._intake.outcomes.update(taken)

    async def _share_rates(self) -> None:
        rate = self._intake.rate
        while True:
            await asyncio.sleep(EXCHANGE_EVERY)
            if taken := rate.take_out():
                try:
                    full_in = await asyncio.to_thread(self._exchange, taken)
                except ChurnGuardError as error:
                    rate.put_back(taken, error, time.monotonic())
                else:
                    rate.learn(full_in, time.monotonic())

    async def _keep_partitions(self) -> None:
        while True:
            await asyncio.sleep(PARTITIONS_EVERY)
            try:
                await asyncio.to_thread(inbox.keep_partitions, self._store)
            except ChurnGuardError as error:
                _log.warning("the partitions of the coming days wait: %s", error)
