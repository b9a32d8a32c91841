"""A WebSocket as a source of messages: connected all the time, and what a cut swallowed is found again."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Generator, Mapping, Sequence
from threading import Event
from typing import ClassVar
from urllib.parse import urlsplit

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import InvalidConfiguration, Stopped
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.sdk import READ_WITHIN, MessageBatch, Seek, StreamSource, Watermark
from churnguard_pipelines.streams.websocket import templates
from churnguard_pipelines.streams.websocket.backfill import Backfill
from churnguard_pipelines.streams.websocket.client import Client
from churnguard_pipelines.streams.websocket.ending import Ended
from churnguard_pipelines.streams.websocket.following import Following
from churnguard_pipelines.streams.websocket.messages import MessageReader
from churnguard_pipelines.streams.websocket.options import read_options
from churnguard_pipelines.streams.websocket.progress import PARTITION, Progress


class WebSocket(StreamSource):
    """One lane, as providers allow few connections: its position has a place for each topic."""

    provider = "websocket"
    pushes = True
    retry: ClassVar[RetryPolicy] = RetryPolicy(attempts=8, backoff_base=0.5, cap=60.0)
    """Of connections in a row that failed; then whoever reads is told."""

    def __init__(self, stream: StreamConfiguration, guard: AddressGuard, cancelled: Event) -> None:
        super().__init__(stream, guard, cancelled)
        self._options = options = read_options(stream)
        self._client = Client(stream, options, guard, cancelled)
        self._reader = MessageReader(options, self._client.topic)
        self._backfill: Backfill | None = None
        if options.backfill is not None:
            token = self._client.token
            names = templates.names([options.backfill.url, options.backfill.parameters, options.backfill.headers])
            buys = token.get if token is not None and "token" in names else None
            self._backfill = Backfill(options.backfill, guard, self._reader, buys, cancelled)

    def identity(self) -> str:
        parts = urlsplit(self._options.url)
        path = hashlib.sha256(parts.path.encode()).hexdigest()[:16]  # some have a key in it
        return f"{parts.hostname}:{parts.port or parts.scheme}/{path}"

    def check(self) -> None:
        self.guard.check_url(self._options.url)
        if self._options.backfill is not None:
            self.guard.check_url(self._options.backfill.url)
        try:
            if self._client.token is not None:
                self._client.token.get()
            connection = self._client.connect(self._progress(None))
            while not connection.opened(READ_WITHIN) and not self.cancelled.is_set():
                pass
        except Ended as ended:
            raise self._client.failure(ended) from None
        finally:
            self._client.disconnect()

    def partitions(self) -> Sequence[str]:
        return (PARTITION,)

    def watermarks(self, stored: Mapping[str, Position]) -> Mapping[str, Watermark]:
        return {}

    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        following = Following(
            self._client,
            self._reader,
            self._backfill,
            self._progress(position),
            batch_size=self.stream.batch_size,
            resumed=position is not None,
            retry=self.retry,
            acknowledges=not self.again,
            cancelled=self.cancelled,
        )
        try:
            for batch in following.batches():
                self.trouble = following.trouble
                yield batch
        except Stopped:
            return

    def sought(self, seek: Seek) -> Mapping[str, Position]:
        progress = self._progress(None)
        progress.now_at(time.time())
        if isinstance(seek.to, Mapping):
            for topic, sequence in self._sequences(seek.to).items():
                progress.topics[topic] = {"sequence": sequence - 1}
        elif seek.to != "latest":
            raise self._cannot_seek("it has no past that it could be asked for")
        return {PARTITION: progress.position}

    def _sequences(self, offsets: Mapping[str, str]) -> Mapping[str, int]:
        """By topic. They have one position together: what is left out of it would begin with what comes next, and what
        was sent of it meanwhile be missed in silence."""
        if not self._options.counts_on:
            raise self._cannot_seek("its messages have no sequence that lasts")
        found: dict[str, int] = {}
        for topic, offset in offsets.items():
            if not re.fullmatch("[0-9]{1,18}", offset):
                raise self._cannot_seek(f"a sequence is a number, as {on_one_line(topic, 100)}'s is not")
            found[self._client.topic if topic == PARTITION else topic] = int(offset)
        own = set(self.stream.topics) if self._options.counts_topics else {self._client.topic}
        if not self._options.counts_topics and (unknown := found.keys() - own):
            raise self._cannot_seek(f"it has one sequence, and none of {on_one_line(min(unknown), 100)}")
        if found.keys() & own and (left_out := own - found.keys()):
            raise self._cannot_seek(
                f"{on_one_line(min(left_out), 100)} is left out, and its place is in the same position"
            )
        return found

    def send(self, message: str) -> None:
        self._client.send(message)

    def close(self) -> None:
        self._client.disconnect()
        if self._backfill is not None:
            self._backfill.close()

    def _progress(self, position: Position | None) -> Progress:
        return Progress(self.stream.stream_id, self._options, position)

    def _cannot_seek(self, why: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"a WebSocket cannot be read from there: {why}.",
            integration_id=self.stream.stream_id,
            remedy="Seek to `latest` or, where there are sequences and a back-fill, to a sequence of each topic.",
        )
