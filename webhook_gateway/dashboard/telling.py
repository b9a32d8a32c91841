"""What the dashboard does while it is served, besides answering: it keeps its numbers fresh, and sends alerts of what
it shows of integrations and streams, and of the installation's parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import wait
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

from starlette.applications import Starlette

from churnguard_pipelines.monitoring.causes import INSTALLATION, Cause
from churnguard_pipelines.monitoring.health import Severity
from churnguard_pipelines.monitoring.monitor import Monitor
from churnguard_pipelines.monitoring.telling import Teller
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.api.dashboard import parts_of
from webhook_gateway.api.dashboard_shapes import Component

STARTS, CATCHES_UP = timedelta(minutes=1), timedelta(minutes=2)
FIRST_SECONDS = 10.0
"""That the first numbers may take before the port is opened without them."""


def telling(store: Store, monitor: Monitor) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """The lifespan of an application."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with monitor.kept_fresh() as first, Teller(store, monitor.picture, Parts(store).causes):
            await asyncio.to_thread(wait, [first], FIRST_SECONDS)
            yield

    return lifespan


class Parts:
    """The installation's parts that do not work. One that is starting is no cause yet, and one that is back has to
    catch up first: what has waited for it is told only if it goes on waiting."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._down: dict[str, tuple[datetime, datetime, Component]] = {}
        """Of each part since when, until when, and what was said last."""

    def causes(self) -> Sequence[Cause]:
        now = datetime.now(UTC)
        for part in asyncio.run(parts_of(self._store)):
            if not part.ok:
                since = self._down[part.component][0] if part.component in self._down else now
                self._down[part.component] = since, now, part
        self._down = {name: each for name, each in self._down.items() if now - each[1] < CATCHES_UP}
        return [_cause(since, part) for since, until, part in self._down.values() if until - since >= STARTS]


def _cause(since: datetime, part: Component) -> Cause:
    text = f"the {part.component} does not work: {part.cause}"
    return Cause(INSTALLATION, None, INSTALLATION, part.component, Severity.CRITICAL, since, text, part.remedy)
