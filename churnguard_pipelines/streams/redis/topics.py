"""The streams that a configuration names, by their keys or by patterns."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence

from redis.exceptions import ResponseError

from churnguard_pipelines.errors import InvalidConfiguration, Stopped
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.redis.place import NOTHING, Facts, facts_of
from churnguard_pipelines.streams.redis.server import Server

MOST_STREAMS = 1000
MOST_KEYS = 2_000_000
"""Of a database that is looked through for a pattern."""
_AT_ONCE = 2000
_LOOKED_UP_FOR = 30.0
_LONGEST = 400
_MEANT = re.compile(r"[?\[\]\\^]")

_log = logging.getLogger(__name__)
_found: dict[tuple[object, ...], tuple[float, Sequence[str]]] = {}
"""What patterns matched lately, so that who looks every few seconds does not go through a database each time."""


def topics_of(server: Server, stream: StreamConfiguration) -> Sequence[str]:
    """In the order of their names. Raises ``InvalidConfiguration`` if they are too many."""
    named = {topic for topic in stream.topics if "*" not in topic}
    patterns = sorted({topic for topic in stream.topics if "*" in topic})
    if patterns:
        named.update(_matching(server, stream, patterns))
    if len(named) > MOST_STREAMS:
        raise _too_many(stream, f"its topics are more than {MOST_STREAMS:,} streams")
    return sorted(named)


def all_facts(server: Server, stream: StreamConfiguration, topics: Sequence[str]) -> Mapping[str, Facts]:
    """Those of :data:`NOTHING` for a stream that is not there."""
    answers = server.ask_all([("XINFO", "STREAM", topic) for topic in topics])
    facts = {}
    for topic, answer in zip(topics, answers, strict=True):
        if not isinstance(answer, ResponseError):
            facts[topic] = facts_of(answer, stream.stream_id)
        elif "no such key" in str(answer):
            facts[topic] = NOTHING
        else:
            with server.translated():
                raise answer
    return facts


def _matching(server: Server, stream: StreamConfiguration, patterns: Sequence[str]) -> Sequence[str]:
    asked = (server.target, *patterns)
    now = time.monotonic()
    if (known := _found.get(asked)) is not None and now - known[0] < _LOOKED_UP_FOR:
        return known[1]
    if server.ask("DBSIZE") > MOST_KEYS:
        raise _too_many(stream, f"the database has more than {MOST_KEYS:,} keys, too many to look for a pattern")
    found: set[str] = set()
    for pattern in patterns:
        found.update(_scanned(server, stream, pattern))
    for each, (moment, _) in list(_found.items()):
        if now - moment >= _LOOKED_UP_FOR:
            _found.pop(each, None)
    _found[asked] = now, sorted(found)
    return _found[asked][1]


def _scanned(server: Server, stream: StreamConfiguration, pattern: str) -> set[str]:
    glob = _MEANT.sub(r"\\\g<0>", pattern)  # only * is a wildcard
    found: set[str] = set()
    cursor = "0"
    for _ in range(2 * MOST_KEYS // _AT_ONCE):
        if server.cancelled.is_set():
            raise Stopped("the stream was told to stop.", integration_id=stream.stream_id)
        told, keys = server.ask("SCAN", cursor, "MATCH", glob, "COUNT", _AT_ONCE, "TYPE", "stream")
        for key in keys:
            try:
                name = key.decode()
            except UnicodeDecodeError:
                name = ""
            if 0 < len(name) <= _LONGEST and name.isprintable():
                found.add(name)
            else:
                _log.warning("%s: a stream's key is no name: %s", stream.stream_id, on_one_line(repr(key), 200))
        if len(found) > MOST_STREAMS:
            break
        cursor = told.decode("ascii", "replace")
        if cursor == "0":
            break
    return found


def _too_many(stream: StreamConfiguration, what: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{what}.", integration_id=stream.stream_id, remedy="Name fewer, or name their keys instead of a pattern."
    )
