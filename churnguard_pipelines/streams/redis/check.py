"""Whether a stream's configuration is one with which it can be read, asked before it is."""

from __future__ import annotations

from redis.exceptions import NoPermissionError, ResponseError

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.redis.place import NOTHING
from churnguard_pipelines.streams.redis.server import Command, Server
from churnguard_pipelines.streams.redis.topics import all_facts, topics_of

_NOBODY = "churnguard-check"
"""A group that there is not: who may not use one is told of that first."""

_MOST_TOLD = 5


def check(server: Server, stream: StreamConfiguration) -> None:
    """Changes nothing. Raises what :class:`StreamSource` does."""
    server.ask("PING")
    facts = all_facts(server, stream, topics_of(server, stream))
    if missing := [f"“{on_one_line(topic, 100)}”" for topic in stream.topics if facts.get(topic) is NOTHING]:
        raise InvalidConfiguration(
            f"there is no Redis stream {', '.join(missing[:_MOST_TOLD])} in this database.",
            integration_id=stream.stream_id,
            remedy="Correct `topics`, or add a first entry.",
        )
    if not facts:
        raise InvalidConfiguration(
            "no Redis stream has a name like its topics.",
            integration_id=stream.stream_id,
            remedy="Correct `topics`, or add a first entry to one of them.",
        )
    topic = min(facts)
    asked: list[Command] = [
        ("XREADGROUP", "GROUP", _NOBODY, _NOBODY, "COUNT", 1, "STREAMS", topic, ">"),
        ("XACK", topic, _NOBODY, "0-1"),
        ("XAUTOCLAIM", topic, _NOBODY, _NOBODY, 0, "0-0", "COUNT", 1, "JUSTID"),
        ("XCLAIM", topic, _NOBODY, _NOBODY, 0, "0-1", "JUSTID"),
        ("XPENDING", topic, _NOBODY, "-", "+", 1),
        ("XGROUP", "SETID", topic, _NOBODY, "0-0"),
        ("XINFO", "GROUPS", topic),
        ("XRANGE", topic, "0-1", "0-1", "COUNT", 1),
        ("XREAD", "COUNT", 1, "STREAMS", topic, "$"),
    ]
    for answer in server.ask_all(asked):
        if isinstance(answer, NoPermissionError) or (isinstance(answer, ResponseError) and not _no_group(answer)):
            with server.translated():
                raise answer
    server.ask_at_once([("XINFO", "GROUPS", topic)])


def _no_group(error: ResponseError) -> bool:
    return "NOGROUP" in str(error) or "No such key" in str(error)
