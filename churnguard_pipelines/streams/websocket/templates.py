"""Messages, addresses and headers with places that are filled in when they are sent: ``{last_sequence}``, ``{token}``.

A message is a JSON document, and what is filled in is a value of it, never a piece of its text: no data, whoever's, can
become more than that value. Where there is nothing to fill in, the field or the URL's parameter is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.errors import InvalidConfiguration

NAMES = ("topic", "topics", "last_sequence", "last_timestamp", "last_id", "token", "sequence", "id")
_PLACE = re.compile(r"\{(" + "|".join(NAMES) + r")\}")
_PLAIN = re.compile(r"[\w.:+/=@-]*")
"""What may be filled into a message that is no JSON, whose rules nobody knows here."""
_ABSENT = object()

Values = Mapping[str, Any]


def names(template: Any) -> frozenset[str]:
    """Of the places in it."""
    return frozenset(_names(template))


def message(template: Any, values: Values) -> str:
    """The text to send. Raises ``ValueError`` for a value that a message which is no JSON cannot hold."""
    if isinstance(template, str):
        return _PLACE.sub(lambda place: _plain(values.get(place[1])), template)
    filled = _filled(template, values)
    return exact_json.dumps({} if filled is _ABSENT else filled).decode()


def url(template: str, values: Values) -> str:
    """Parameters of the query that have no value are left out."""
    address, mark, query = template.partition("?")
    kept = [each for each in query.split("&") if all(values.get(name) is not None for name in names(each))]
    return _in_url(address, values) + (mark + "&".join(_in_url(each, values) for each in kept) if kept else "")


def headers(wanted: Mapping[str, str], values: Values, what: str, setting: str, stream_id: str) -> dict[str, str]:
    """Raises ``InvalidConfiguration`` for what would be another line, or is no ASCII. ``what`` it is, and in which
    ``setting``, for people."""
    filled = {name: text(template, values) for name, template in wanted.items()}
    if not all(each.isprintable() and each.isascii() for each in filled.values()):
        raise InvalidConfiguration(
            f"{what} cannot be sent: a header holds no line breaks, and nothing but ASCII.",
            integration_id=stream_id,
            remedy=f"Correct {setting}.",
        )
    return filled


def text(template: str, values: Values) -> str:
    return _PLACE.sub(lambda place: _text(values.get(place[1])), template)


def as_document(template: Any) -> Any:
    """Of a message that may be written as JSON text: the document, so that what is filled in stays within its value."""
    if isinstance(template, str) and template.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(template)
        except ValueError:
            return template
    return template


def _names(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        yield from _PLACE.findall(template)
    elif isinstance(template, (dict, list)):
        for each in template.values() if isinstance(template, dict) else template:
            yield from _names(each)


def _filled(template: Any, values: Values) -> Any:
    match template:
        case dict():
            within = {name: _filled(each, values) for name, each in template.items()}
            return {name: each for name, each in within.items() if each is not _ABSENT}
        case list():
            return [each for each in (_filled(each, values) for each in template) if each is not _ABSENT]
        case str():
            whole = _PLACE.fullmatch(template)
            if whole is None:
                return text(template, values)
            value = values.get(whole[1])
            return _ABSENT if value is None else value
        case _:
            return template


def _plain(value: Any) -> str:
    text = _text(value)
    if not _PLAIN.fullmatch(text):
        raise ValueError("a message that is no JSON cannot hold this value")
    return text


def _in_url(template: str, values: Values) -> str:
    return _PLACE.sub(lambda place: quote(_text(values.get(place[1])), safe=""), template)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
