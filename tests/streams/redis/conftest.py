from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from threading import Event

import pytest
import redis

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.redis import Redis
from tests.sources.redis import RedisServer, running_redis

_numbers = itertools.count(1)
Opened = Callable[..., Redis]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as started:
        yield started


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing came is known soon."""
    from churnguard_pipelines.streams.redis import reading

    monkeypatch.setattr(reading, "READ_WITHIN", 0.05)


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client as connected:
        yield connected


@pytest.fixture
def topic(client: redis.Redis) -> Iterator[str]:
    """The key of a stream of one's own, which does not exist yet."""
    name = f"events:{next(_numbers)}"
    yield name
    client.delete(name)


@pytest.fixture
def opened(server: RedisServer, topic: str) -> Iterator[Opened]:
    """Makes sources of the stream ``acme-events``; ``connection`` goes to its connection_config."""
    made: list[Redis] = []

    def make(connection: dict[str, object] | None = None, *, tenant: bool = False, **fields: object) -> Redis:
        source = Redis(*parts(server, topic, connection, tenant=tenant, **fields))
        made.append(source)
        return source

    yield make
    for source in made:
        source.cancelled.set()
        source.close()


def parts(
    server: RedisServer,
    topic: str,
    connection: dict[str, object] | None = None,
    *,
    tenant: bool = False,
    **fields: object,
) -> tuple[StreamConfiguration, AddressGuard, Event]:
    given: dict[str, object] = {
        "stream_id": "acme-events",
        "organization_id": "acme",
        "name": "Events",
        "stream_type": "redis",
        "topics": [topic],
        "connection_config": {"url": server.url} | (connection or {}),
    }
    stream = StreamConfiguration.model_validate(given | fields)
    return stream, AddressGuard(stream.stream_id, restricted=tenant), Event()
