"""Reads a change log's next batch while the last one is stored, as long as the log is behind."""

from __future__ import annotations

from concurrent.futures import Future, wait

from churnguard_pipelines.connectors.sdk.change_memory import CHANGE_MEMORY
from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.mirrors import ChangeBatch
from churnguard_pipelines.records import Position

BEHIND = 1000  # changes in one batch, after which more is waiting; smaller ones grow while the last is stored
PATIENCE = 0.05  # seconds; a confirmation waits for as long
LEAVES_WITHIN = 5.0  # seconds; a log that hangs is left to itself


class ReadAhead(ChangeLog):
    """At most one batch more than what is being stored."""

    def __init__(self, log: ChangeLog) -> None:
        self._log = log
        self._ahead: Future[ChangeBatch | None] | None = None
        self._behind = False
        self._progress = 0
        CHANGE_MEMORY.enter()

    def read(self, timeout: float) -> ChangeBatch | None:
        ahead, self._ahead = self._ahead, None
        batch = ahead.result() if ahead is not None else None
        if batch is None:
            batch = self._log.read(timeout)
        self._progress = self._log.progress()
        self._behind = batch is not None and len(batch.changes) >= BEHIND
        return batch

    def read_on(self) -> None:
        """Begin to read the next batch, once. To be called when PostgreSQL has the last one and we would wait for it:
        two threads of one process that both compute only hold each other up."""
        if self._behind:
            self._behind = False
            self._ahead = in_thread("read-ahead", lambda: self._log.read(PATIENCE))

    def end(self) -> int | None:
        self._settle()
        return self._log.end()

    def progress(self) -> int:
        return self._progress

    def confirm(self, position: Position) -> None:
        self._settle()
        self._log.confirm(position)

    def close(self) -> None:
        CHANGE_MEMORY.leave()
        if self._ahead is not None:
            wait([self._ahead], LEAVES_WITHIN)
        self._log.close()

    def _settle(self) -> None:
        """The log is for one thread at a time."""
        if self._ahead is not None:
            wait([self._ahead])
