"""One broker for all tests of this folder; each has topics of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest

from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.kafka import Kafka
from tests.sources.kafka import KafkaServer, running_kafka

_numbers = itertools.count(1)

Sources = Callable[..., Kafka]


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    with running_kafka() as server:
        server.add_user()
        yield server


@pytest.fixture
def topic(kafka: KafkaServer) -> str:
    """One partition."""
    return kafka.create(f"events.{next(_numbers)}")


def stream(*topics: str, servers: str, **fields: Any) -> StreamConfiguration:
    """``fields``: the model's; everything else is of the connection."""
    own = {name: fields.pop(name) for name in list(fields) if name in StreamConfiguration.model_fields}
    return StreamConfiguration.model_validate(
        {
            "stream_id": "usage",
            "organization_id": "acme",
            "name": "Usage",
            "stream_type": "kafka",
            "topics": list(topics),
            "connection_config": {"bootstrap_servers": servers} | fields,
        }
        | own
    )


def opened(configuration: StreamConfiguration) -> Kafka:
    return Kafka(configuration, guard_of(configuration), Event())


@pytest.fixture
def source(kafka: KafkaServer) -> Sources:
    """Of topics on this broker; ``fields`` as those of :func:`stream`."""

    def made(*topics: str, **fields: Any) -> Kafka:
        return opened(stream(*topics, **{"servers": kafka.address} | fields))

    return made
