"""Finds the texts of a configuration that say where its requests, and its secrets with them, are sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import HttpUrl

Kind = Literal["url", "host", "port"]

_NAMED: Mapping[re.Pattern[str], Kind] = {
    re.compile(r"(?:url|uri|endpoint)$"): "url",
    re.compile(r"(?:host|hosts|hostaddr|server|servers|broker|brokers)$"): "host",
    re.compile(r"port$"): "port",
}
_NO_LETTERS = re.compile(r"[^a-z]+")


def destinations(value: object, name: str = "") -> Iterator[tuple[Kind, str]]:
    """Of all that is within ``value``, which is what the field ``name`` holds: `token_url`, `sasl.token.endpoint.url`
    and `tokenUrl` are names of URLs alike."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from destinations(item, str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from destinations(item, name)
    elif isinstance(value, (str, int, HttpUrl)):
        letters = _NO_LETTERS.sub("", name.lower())
        yield from ((kind, str(value)) for ending, kind in _NAMED.items() if ending.search(letters))
