"""Wakes the sessions that work off the inbox: of each commit they are told after it, by another connection.

A transaction that notifies commits alone, whoever else wants to: the commits of all gateways would wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import psycopg

from churnguard_pipelines.store.ingest.inbox import TELL

REST = 0.05
"""Seconds after telling, in which more is gathered: a hundred commits a second need no hundred notifications."""
_RETRY = 1.0
_log = logging.getLogger(__name__)


class Notifier:
    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._told: set[str] = set()
        self._wake = asyncio.Event()

    def tell(self, integration_ids: Iterable[str]) -> None:
        """That they have events; soon, or never where the database is away: sessions look by themselves, too."""
        self._told.update(integration_ids)
        self._wake.set()

    async def work(self) -> None:
        """Returns never."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=5
                ) as connection:
                    await connection.execute("SET synchronous_commit = off")  # it says nothing that has to last
                    while True:
                        await self._wake.wait()
                        self._wake.clear()
                        told, self._told = list(self._told), set()
                        await connection.execute(TELL, [told], prepare=True)
                        await asyncio.sleep(REST)
            except psycopg.Error as error:
                _log.warning("sessions are not told of webhooks: %s", error)
                await asyncio.sleep(_RETRY)
