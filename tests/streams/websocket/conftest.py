from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Event
from typing import Any

import pytest

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.sdk import Loss, Message, MessageBatch
from churnguard_pipelines.streams.websocket import WebSocket
from tests.sources.websocket_server import WebSocketServer, serve_websocket


class Quick(WebSocket):
    """Tries again at once, a few times."""

    retry = RetryPolicy(attempts=3, backoff_base=0.01, cap=0.05)


def stream_of(url: str, **options: Any) -> StreamConfiguration:
    fields = {name: options.pop(name) for name in list(options) if name in StreamConfiguration.model_fields}
    told: dict[str, Any] = {
        "stream_id": "ticks",
        "organization_id": "acme",
        "name": "Ticks",
        "stream_type": "websocket",
        "topics": [],
        "connection_config": {"url": url, "reorder_seconds": 0.2, **options},
    }
    return StreamConfiguration.model_validate(told | fields)


class Reader:
    """Reads as the frame does: what was yielded is stored before it goes on."""

    def __init__(self, source: WebSocket, position: dict[str, Any] | None = None) -> None:
        self.source = source
        self.position = position
        self.stored: list[Message] = []
        self.lost: list[Loss] = []
        self.batches: list[MessageBatch] = []

    @property
    def values(self) -> list[bytes | None]:
        return [each.value for each in self.stored]

    @property
    def offsets(self) -> list[str]:
        return [each.offset for each in self.stored]

    def read(self, until: Callable[[Reader], object], most: int = 400) -> Reader:
        """Until that is so; ``most``: moments with nothing."""
        with closing(self.source.batches("messages", self.position)) as batches:
            for batch in batches:
                if batch is None:
                    most -= 1
                    assert most, f"it did not happen: {self.offsets} {self.lost}"
                else:
                    self.stored += batch.messages
                    self.lost += batch.lost
                    self.batches.append(batch)
                    self.position = dict(batch.position)
                if until(self):
                    return self
        return self


@contextmanager
def reading(
    stream: StreamConfiguration, *, restricted: bool = False, kind: type[WebSocket] = Quick, **guard: Any
) -> Iterator[Reader]:
    cancelled = Event()
    source = kind(stream, AddressGuard(stream.stream_id, restricted, **guard), cancelled)
    try:
        yield Reader(source)
    finally:
        cancelled.set()
        source.close()


@pytest.fixture
def server() -> Iterator[WebSocketServer]:
    with serve_websocket() as told:
        yield told
