"""Reads on over connections that end: what comes is put in order, what is missing is filled or told of."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from threading import Event

from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.streams.sdk import READ_WITHIN, Loss, Message, MessageBatch
from churnguard_pipelines.streams.websocket import templates
from churnguard_pipelines.streams.websocket.backfill import Backfill
from churnguard_pipelines.streams.websocket.client import Client
from churnguard_pipelines.streams.websocket.ending import Ended, Kind
from churnguard_pipelines.streams.websocket.messages import Item, MessageReader
from churnguard_pipelines.streams.websocket.ordering import WINDOW, Gap
from churnguard_pipelines.streams.websocket.progress import PARTITION, Missing, Progress

Batches = Generator[MessageBatch | None]

LASTING_SECONDS = 30.0
"""For which a connection has to be open to be no failure, though it brought nothing new."""
FILL_AGAIN = (0.5, 2.0)
"""Seconds after which a gap is asked for again: what has just been sent may not be at the endpoint yet."""
WAIT = READ_WITHIN / 2


class Following:
    """One lane's. ``resumed``: there was a position. ``retry``: of connections in a row that failed. ``acknowledges``:
    whether the server is told what has been stored."""

    def __init__(
        self,
        client: Client,
        reader: MessageReader,
        backfill: Backfill | None,
        progress: Progress,
        *,
        batch_size: int,
        resumed: bool,
        retry: RetryPolicy,
        acknowledges: bool,
        cancelled: Event,
    ) -> None:
        self._client = client
        self._options = client.options
        self._reader = reader
        self._backfill = backfill
        self._progress = progress
        self._batch_size = batch_size
        self._retry = retry
        self._acknowledges = acknowledges
        self._cancelled = cancelled
        self._unheard_since = progress.version if resumed else None
        """The version after which messages may have been sent to nobody; None while somebody listens."""
        self._news = False
        self._opened_at: float | None = None
        self.trouble: ChurnGuardError | None = None
        """Why there is no connection; None while there is one."""

    def batches(self) -> Batches:
        """Until it is cancelled. Raises what keeps it from being tried again."""
        failures = refusals = 0
        while not self._cancelled.is_set():
            try:
                yield from self._one_connection()
            except Ended as ended:
                if self._did_well:
                    failures = refusals = 0
                failures += 1
                if ended.kind in (Kind.REFUSED, Kind.FORBIDDEN):
                    refusals += 1
                    if self._client.token is not None:
                        self._client.token.forget()
                self.trouble = self._client.failure(ended) if failures > 1 else None
                yield from self._pause(self._wait_after(ended, failures, refusals))
            finally:
                self._client.disconnect()

    @property
    def _did_well(self) -> bool:
        """Whether the connection brought something new, or lasted."""
        lasted = self._opened_at is not None and time.monotonic() - self._opened_at > LASTING_SECONDS
        return self._news or lasted

    def _wait_after(self, ended: Ended, failures: int, refusals: int) -> float:
        """Seconds until the next try; raises where there is none. A refusal is the last word only where neither a new
        token nor the connection itself says something else."""
        tolerated = int(self._client.token is not None) + int(self._did_well)
        wait = self._retry.wait(failures)
        if (
            wait is None
            or refusals > tolerated
            or ended.kind is Kind.WRONG
            or (ended.kind is Kind.TOO_LARGE and failures > 1)
        ):
            raise self._client.failure(ended)
        return max(wait, min(ended.wait or 0.0, self._retry.cap))

    def _one_connection(self) -> Batches:
        """Until it ends: raises ``Ended``."""
        self._news, self._opened_at = False, None
        connection = self._client.connect(self._progress)
        while not connection.opened(WAIT):
            yield None
        self._opened_at = time.monotonic()
        self.trouble = None
        yield from self._store(self._progress.connected())
        self._client.greet(self._progress)
        yield from self._catch_up()
        while not self._cancelled.is_set():
            due = self._progress.due_in(time.monotonic())
            buffered = connection.buffered
            try:
                received = connection.take(self._batch_size, WAIT if due is None else min(due, WAIT))
            except Ended:
                self._unheard_since = self._unheard_since or int(time.time() * 1_000_000)
                raise
            again = self._take(received)
            yield from self._store(buffered=buffered)
            while not self._cancelled.is_set() and (missing := self._progress.missing(time.monotonic())) is not None:
                yield from self._fill(missing)
            yield from self._store()
            self._acknowledge(again)
            self._client.authenticate_again(self._progress)
            yield None

    def _take(self, received: Sequence[bytes]) -> list[Item]:
        """Those of the received that have been stored before, or are about to be."""
        again: list[Item] = []
        now = time.monotonic()
        for data in received:
            for item in self._reader.read(data):
                if self._progress.take(item, now):
                    self._news = True
                elif not self._progress.holds(item):
                    again.append(item)
        return again

    def _store(self, lost: Sequence[Loss] = (), buffered: float = 0.0) -> Batches:
        """Hand on what is ready, and acknowledge it once it is stored."""
        while self._progress.waits or lost:
            lost = [*lost, *self._unheard()]
            items: list[Item] = []
            messages: list[Message] = []
            for item, own in self._progress.handed_on(self._batch_size, time.time()):
                items.append(item)
                messages += own
            yield MessageBatch(self._progress.position, messages, lost, buffered)
            lost = ()
            self._acknowledge(items)

    def _unheard(self) -> list[Loss]:
        """Of a feed that has no lasting sequence and is not served again: what was sent while nobody was connected."""
        since, self._unheard_since = self._unheard_since, None
        if since is None or self._options.counts_on or self._options.served_again:
            return []
        until = self._progress.now_at(time.time())
        why = "we were not connected, and nothing tells whether something was sent meanwhile."
        return [Loss(self._client.topic, PARTITION, str(since), str(until), why, certain=False)]

    def _acknowledge(self, items: Sequence[Item]) -> None:
        template = self._options.acknowledge
        if template is None or not self._acknowledges:
            return
        if "id" not in templates.names(template):
            items = list({each.counter: each for each in sorted(items, key=lambda each: each.sequence or 0)}.values())
        for item in items:
            self._client.tell(template, {"topic": item.topic, "sequence": item.sequence, "id": item.id})

    def _catch_up(self) -> Batches:
        """Ask for all after the position, where that can be asked: the feed may have nothing to tell for long."""
        if self._backfill is not None and self._backfill.knows_the_end and self._options.counts_on:
            for counter, at in list(self._progress.topics.items()):
                if at.get("sequence") is not None:
                    yield from self._ask(counter, at["sequence"] + 1, None)

    def _fill(self, missing: Missing) -> Batches:
        """Fill a gap, and tell of what cannot be filled."""
        if self._backfill is not None:
            yield from self._ask(missing.topic, *missing.gap)
            for pause in FILL_AGAIN:
                gap = self._progress.still_missing(missing)
                if gap is None:
                    return
                yield from self._pause(pause)
                if self._cancelled.is_set():  # not asked enough to call it lost
                    return
                yield from self._ask(missing.topic, gap.first, missing.gap.last)
        yield from self._give_up(missing)

    def _ask(self, topic: str, first: int, last: int | None) -> Batches:
        assert self._backfill is not None, "only who can fill is asked to"
        held = 0
        for page in self._backfill.pages(topic, first, last):
            for item in page:
                self._progress.take(item, time.monotonic(), live=False)
            so_far = Missing(topic, Gap(first, page[-1].sequence or first))
            held = held + len(page) if self._progress.still_missing(so_far) is not None else 0
            if held > WINDOW:  # pages are in order: it does not come any more
                yield from self._give_up(so_far)
            yield from self._store()
            yield None

    def _give_up(self, missing: Missing) -> Batches:
        while (lost := self._progress.give_up(missing)) is not None:
            yield from self._store([lost])

    def _pause(self, seconds: float) -> Batches:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._cancelled.wait(min(left, WAIT)):
            yield None
