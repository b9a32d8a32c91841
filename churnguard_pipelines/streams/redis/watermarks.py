"""How far streams reach beyond what is stored, for as little as that can be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.records import Position
from churnguard_pipelines.streams.redis.ids import EntryId, parsed
from churnguard_pipelines.streams.redis.place import NOTHING, Facts, Place
from churnguard_pipelines.streams.redis.server import Server
from churnguard_pipelines.streams.redis.topics import all_facts
from churnguard_pipelines.streams.sdk import Watermark


def watermarks(
    server: Server, stream: StreamConfiguration, topics: Sequence[str], stored: Mapping[str, Position]
) -> Mapping[str, Watermark]:
    """Of those that are there, or were when we stood in them."""
    facts = all_facts(server, stream, topics)
    places = {topic: Place.of(position) for topic, position in stored.items()}
    there = [topic for topic in topics if facts[topic] is not NOTHING or topic in places]
    ahead = [topic for topic in there if _is_ahead(facts[topic], places.get(topic))]
    asked = [("XRANGE", topic, f"({places[topic].id}" if topic in places else "-", "+", "COUNT", 1) for topic in ahead]
    firsts = dict(zip(ahead, server.ask_all(asked) if asked else (), strict=True))
    return {
        topic: Watermark(
            str(facts[topic].last),
            _behind(facts[topic], places.get(topic), stream),
            _moment(firsts.get(topic)),
        )
        for topic in there
    }


def _is_ahead(facts: Facts, place: Place | None) -> bool:
    return facts.length > 0 and (place is None or place.id < facts.last)


def _behind(facts: Facts, place: Place | None, stream: StreamConfiguration) -> int | None:
    """Entries that were deleted count until we have come to the end. A stream that was begun anew, or that is to be
    read from its end on, has to be looked at."""
    if place is None:
        return None if stream.start == "latest" else facts.length
    if place.id == facts.last:
        return 0
    if place.id > facts.last or place.added is None:
        return None
    return max(facts.added - place.added, 1)


def _moment(first: Any) -> datetime | None:
    if not isinstance(first, list) or not first:
        return None
    entry: EntryId = parsed(first[0][0])
    return None if entry.moment is None else datetime.fromtimestamp(entry.moment / 1000, UTC)
