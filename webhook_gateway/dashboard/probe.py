"""What a probe without a key learns: whether the database can be used, and nothing else."""

from __future__ import annotations

import asyncio
import time

from starlette.responses import JSONResponse, Response

from churnguard_pipelines.errors import DatabaseUnavailable
from churnguard_pipelines.store.postgres.database import Store

PATH = "/api/dashboard/health"
GOOD_FOR_SECONDS = 1.0


class Probe:
    """Anybody may ask, however often: the database is asked once a second at most, and once at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._ready, self._asked = False, 0.0  # of the monotonic clock

    async def answer(self) -> Response:
        """200 while the database can be used and has our schema, 503 while it cannot or has not."""
        async with self._lock:
            if time.monotonic() - self._asked >= GOOD_FOR_SECONDS:
                self._ready = await asyncio.to_thread(self._look)
                self._asked = time.monotonic()
        return JSONResponse({"status": "healthy" if self._ready else "unavailable"}, 200 if self._ready else 503)

    def _look(self) -> bool:
        try:
            self._store.refuse_older_schema()
        except DatabaseUnavailable:
            return False
        return True
