"""What reading bodies is made with: strict JSON of bounded depth, and ids that every store can keep."""

from __future__ import annotations

import hashlib
import json
from array import array
from itertools import accumulate
from typing import Any

from churnguard_pipelines.engine import exact_json
from webhook_gateway.schemes.sdk import MOST_EVENTS, MalformedBody, TooManyEvents
from webhook_gateway.schemes.signatures import as_bytes

DEPTH = 64
LONGEST = 200

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one level down, one level up: 1 and -1 as signed bytes
_PIECE = 32 * 1024
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def _steps(body: bytes) -> array[int]:
    """Of each bracket outside strings whether it leads a level down or up. Whether they match is the parser's to say.
    In pieces, since nothing else runs during one."""
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # each quote that is left begins or ends a string
    outside, in_string = bytearray(), 0
    for start in range(0, len(text), _PIECE):
        parts = text[start : start + _PIECE].split(b'"')
        outside += b"".join(parts[in_string::2])
        in_string = (in_string + len(parts) - 1) % 2
    return array("b", outside.translate(_STEPS, _NO_BRACKETS))


def _is_deep(body: bytes) -> bool:
    """Whether something is nested deeper than ``DEPTH``. Most bodies have few enough brackets to be sure at once."""
    if body.count(b"{") + body.count(b"[") <= DEPTH:
        return False
    return max(accumulate(_steps(body)), default=0) > DEPTH


def _has_too_many(body: bytes) -> bool:
    """Whether an array has more than ``MOST_EVENTS`` objects: to read them all first would hold everybody up."""
    if body.count(b"{") <= MOST_EVENTS:
        return False
    steps = _steps(body)
    return sum(step > 0 and level == 2 for step, level in zip(steps, accumulate(steps), strict=True)) > MOST_EVENTS


def parsed(body: bytes) -> Any:
    """The value of strict JSON: UTF-8, no NaN, no lone surrogates, at most ``DEPTH`` levels; whole numbers exactly."""
    if _is_deep(body):
        raise MalformedBody(f"the body is nested deeper than {DEPTH} levels.")
    try:
        return exact_json.loads(body)
    except json.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error.msg} at byte {error.pos}.") from None


def parsed_object(body: bytes) -> dict[str, Any]:
    value = parsed(body)
    if not isinstance(value, dict):
        raise MalformedBody("the body is not a JSON object.")
    return value


def parsed_batch(body: bytes) -> list[dict[str, Any]]:
    if _has_too_many(body):
        raise TooManyEvents
    value = parsed(body)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MalformedBody("the body is not a JSON array of objects.")
    return value


def as_json(value: Any) -> str:
    return exact_json.dumps(value).decode()


def scalar(value: Any) -> str:
    """A text or a whole number, as text; empty for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def required(item: dict[str, Any], name: str) -> str:
    found = scalar(item.get(name))
    if not found:
        raise MalformedBody(f"an event has no {name!r}.")
    return found


def storable(text: str) -> str:
    """The text itself, or its hash where it is too long for an index or holds what PostgreSQL does not store."""
    return text if len(text) <= LONGEST and text.isprintable() else digest(text)


def entity(kind: str, identifier: Any) -> str:
    """Empty where there is nothing that could be identified."""
    found = scalar(identifier)
    return storable(f"{kind}:{found}") if found else ""


def digest(*parts: str | bytes) -> str:
    """A SHA-256 of all parts; where one ends and the next begins counts."""
    made = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else as_bytes(part)
        made.update(b"%d:" % len(data) + data)
    return made.hexdigest()


def digest_of(item: dict[str, Any], *, without: str = "") -> str:
    """The id of an event that has none: what it says, whatever the order of its fields."""
    fields = {name: value for name, value in item.items() if name != without}
    return digest(exact_json.dumps(fields, sort_keys=True))
