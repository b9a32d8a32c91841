"""Topics by name or pattern, and the names of their partitions."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def is_pattern(topic: str) -> bool:
    return "*" in topic


def is_topic(topic: str) -> bool:
    """Whether Kafka could have a topic of this name, or of one that the pattern means."""
    return bool(_TOPIC.fullmatch(topic.replace("*", "")) or set(topic) == {"*"}) and topic not in (".", "..")


def matching(patterns: Iterable[str], topics: Iterable[str]) -> set[str]:
    """Kafka's own topics, such as ``__consumer_offsets``, are only meant by their names."""
    wanted = list(patterns)
    return {
        topic
        for topic in topics
        if topic in wanted
        or (not topic.startswith("__") and any(is_pattern(each) and _matches(each, topic) for each in wanted))
    }


def _matches(pattern: str, topic: str) -> bool:
    """``*`` is any characters or none. Each part is looked for once: no pattern takes long."""
    first, *between, last = pattern.split("*")
    place, end = len(first), len(topic) - len(last)
    if not (topic.startswith(first) and topic.endswith(last) and place <= end):
        return False
    for part in between:
        found = topic.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def partition_name(topic: str, number: int) -> str:
    return f"{topic}/{number}"


def parsed(partition: str) -> tuple[str, int]:
    topic, _, number = partition.rpartition("/")
    return topic, int(number)
