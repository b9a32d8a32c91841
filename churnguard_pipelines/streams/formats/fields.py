"""Refuses what names a field that messages do not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import StreamConfiguration

Missing = Callable[[Sequence[str]], Sequence[str] | None]
"""Of a path through a document: None if it may be there, else the names that there are where it leads astray."""
MOST_NAMED = 20


def check_fields(stream: StreamConfiguration, missing: Missing) -> None:
    """Raises ``InvalidConfiguration``."""
    for option, path in _named(stream):
        names = missing(path.split("."))
        if names is not None:
            there = on_one_line(", ".join(sorted(names)[:MOST_NAMED]), 1000) or "none there"
            more = ", …" if len(names) > MOST_NAMED else ""
            raise InvalidConfiguration(
                f"{option}: messages have no field “{on_one_line(path, 200)}”.",
                integration_id=stream.stream_id,
                remedy=f"There are: {there}{more}.",
            )


def _named(stream: StreamConfiguration) -> Iterator[tuple[str, str]]:
    yield from (("field_mappings", path) for path in stream.field_mappings)
    yield from (("key", path) for path in stream.key or ())
    yield from (("filters", each.field) for each in stream.filters)
