"""What reading bodies is made with: strict JSON of bounded depth, and ids that every store can keep."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from itertools import accumulate
from typing import Any

from churnguard_pipelines.engine import exact_json
from webhook_gateway.schemes.sdk import MalformedBody
from webhook_gateway.schemes.signatures import as_bytes

DEPTH = 64
LONGEST = 200

# The closing quote may be missing: a search that started anew at every quote of such a body would take quadratic time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one level down, one level up: 1 and -1 as signed bytes
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def _is_deep(body: bytes) -> bool:
    """Whether something is nested deeper than ``DEPTH``. Looks at brackets outside strings only; whether they match is
    the parser's to say. Most bodies have few enough to be sure at once."""
    if body.count(b"{") + body.count(b"[") <= DEPTH:
        return False
    steps = _STRING.sub(b"", body).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(array("b", steps)), default=0) > DEPTH


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
    said = {name: value for name, value in item.items() if name != without}
    return digest(exact_json.dumps(said, sort_keys=True))
