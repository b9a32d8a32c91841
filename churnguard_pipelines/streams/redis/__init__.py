"""Redis Streams (Redis 7.0 and newer, Valkey): a stream is a partition, read in a consumer group of our own.

The library takes a while to import, so that nothing here imports it before it is needed.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.redis.ids import EntryId, parsed
from churnguard_pipelines.streams.redis.options import options_of, target_of
from churnguard_pipelines.streams.sdk import MessageBatch, Seek, StreamSource, Watermark

if TYPE_CHECKING:
    from churnguard_pipelines.streams.redis.server import Server


class Redis(StreamSource):
    provider = "redis"

    def __init__(self, stream: StreamConfiguration, guard: AddressGuard, cancelled: Event) -> None:
        super().__init__(stream, guard, cancelled)
        self._options = options_of(stream)
        self._target = target_of(stream, self._options, guard)
        self._reading: Server | None = None

    def identity(self) -> str:
        """The server's address, or what its Sentinels call it: it has no number of its own that lasts."""
        return self._target.name

    def check(self) -> None:
        from churnguard_pipelines.streams.redis.check import check

        with self._server() as server:
            check(server, self.stream)

    def partitions(self) -> Sequence[str]:
        from churnguard_pipelines.streams.redis.topics import topics_of

        with self._server() as server:
            return topics_of(server, self.stream)

    def watermarks(self, stored: Mapping[str, Position]) -> Mapping[str, Watermark]:
        from churnguard_pipelines.streams.redis.topics import topics_of
        from churnguard_pipelines.streams.redis.watermarks import watermarks

        with self._server() as server:
            return watermarks(server, self.stream, topics_of(server, self.stream), stored)

    def batches(self, partition: str, position: Position | None) -> Generator[MessageBatch | None]:
        from churnguard_pipelines.streams.redis.place import Place
        from churnguard_pipelines.streams.redis.reading import GroupReading, batches_again
        from churnguard_pipelines.streams.redis.server import Server

        place = None if position is None else Place.of(position)
        with closing(Server(self._target, self.guard, self.cancelled)) as server:
            self._reading = server
            if self.again:
                yield from batches_again(
                    server, self.stream, self._options, partition, place or Place(), self.cancelled
                )
            else:
                reading = GroupReading(server, self.stream, self._options, partition, self.cancelled)
                yield from reading.batches(place)

    def sought(self, seek: Seek) -> Mapping[str, Position]:
        """A moment is one of the ids' clock; an offset is the id of the entry that is to be read next."""
        from churnguard_pipelines.streams.redis.place import Place
        from churnguard_pipelines.streams.redis.topics import all_facts, topics_of

        with self._server() as server:
            topics = topics_of(server, self.stream)
            facts = all_facts(server, self.stream, topics)
        if isinstance(seek.to, Mapping):
            if unknown := seek.to.keys() - set(topics):
                raise self._refused(f"“{min(unknown)}” is none of its streams", "Name those of its topics.")
            entries = {topic: self._id(text) for topic, text in seek.to.items()}
            return {topic: Place.before(entry, facts[topic]).position for topic, entry in entries.items()}
        if isinstance(seek.to, datetime):
            entry = EntryId(max(int(seek.to.astimezone(UTC).timestamp() * 1000), 0), 0)
            return {topic: Place.before(entry, each).position for topic, each in facts.items()}
        match seek.to:
            case "earliest":
                return {topic: Place.earliest(each).position for topic, each in facts.items()}
            case "latest":
                return {topic: Place.latest(each).position for topic, each in facts.items()}
        raise self._refused(f"“{seek.to[:100]}” is no place in a stream", "Say earliest, latest, a time, or ids.")

    def close(self) -> None:
        if self._reading is not None:
            self._reading.close()

    def _server(self) -> AbstractContextManager[Server]:
        from churnguard_pipelines.streams.redis.servers import lent

        return lent(self._target, self.guard, self.cancelled)

    def _id(self, text: str) -> EntryId:
        try:
            return parsed(text)
        except ValueError:
            raise self._refused("that is no id of an entry", "Ids look like 1764177000000-0.") from None

    def _refused(self, what: str, remedy: str) -> InvalidConfiguration:
        return InvalidConfiguration(f"{what}.", integration_id=self.stream.stream_id, remedy=remedy)
