"""Bodies as HTML forms send them, with PHP's names for nested values: ``data[merges][FNAME]=Ada``."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from webhook_gateway.schemes.bodies import DEPTH
from webhook_gateway.schemes.sdk import MalformedBody

CONTENT_TYPES = ("application/x-www-form-urlencoded",)

_MOST_FIELDS = 5000
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def fields(body: bytes) -> list[tuple[str, str]]:
    """In the body's order, decoded. Raises ``MalformedBody``."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:  # also of the wrong UTF-8
        raise MalformedBody(f"the body is not a form in UTF-8 of at most {_MOST_FIELDS} fields.") from None


def nested(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """``data[a][b]=1`` as ``{"data": {"a": {"b": "1"}}}``; a name that is repeated becomes a list of its values."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        found = _NAME.fullmatch(name)
        if found is None or name.count("[") >= DEPTH:
            raise MalformedBody("a field of the form has a name that is not closed, empty, or nested too deeply.")
        *outer, last = [found[1], *found[2][1:-1].split("][")] if found[2] else [found[1]]
        place = made
        for key in outer:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise MalformedBody("the form has a value and values within it under one name.")
        if last not in place:
            place[last] = value
        elif isinstance(place[last], dict):
            raise MalformedBody("the form has a value and values within it under one name.")
        elif isinstance(place[last], list):
            place[last].append(value)
        else:
            place[last] = [place[last], value]
    return made
