"""Reads a partition as the frame does: what was yielded is stored before it is resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.kafka import Kafka
from churnguard_pipelines.streams.sdk import Message, MessageBatch
from tests.waiting import PATIENCE_SECONDS


@dataclass
class Read:
    position: Position | None = None
    messages: list[Message] = field(default_factory=list)
    batches: list[MessageBatch] = field(default_factory=list)

    @property
    def values(self) -> list[bytes | None]:
        return [message.value for message in self.messages]

    @property
    def offset(self) -> int:
        return int(self.position["offset"]) if self.position else 0


def read(source: Kafka, partition: str, until: Callable[[Read], object], position: Position | None = None) -> Read:
    """From the position on until that holds, which is asked after each batch and in each pause."""
    done = Read(position)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with closing(source.batches(partition, position)) as batches:
        for batch in batches:
            if batch is not None:
                done.position = batch.position
                done.messages += batch.messages
                done.batches.append(batch)
            if until(done):
                return done
            assert time.monotonic() < deadline, f"only {len(done.messages)} messages, position {done.position}"
    raise AssertionError("it ended by itself")
