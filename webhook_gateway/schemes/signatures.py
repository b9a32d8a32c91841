"""What verifying is made with: comparing in constant time, the time tolerance, secrets in URLs."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from urllib.parse import parse_qsl

from webhook_gateway.schemes.sdk import Delivery, Trust

TOLERANCE = 300.0
"""Seconds, both ways: what Stripe, HubSpot and Standard Webhooks recommend against replays. Their own libraries look
only for deliveries that are too old; one dated in the future would stay replayable until then."""

_LONGEST_HEADER = 4096  # characters; what proves a delivery is 700 at most, and a stranger's is not taken apart at all
_LONGEST_QUERY = 4096
_MOST_SIGNATURES = 16  # no sender signs with more secrets at once, and each costs a comparison with each of ours


def as_bytes(text: str) -> bytes:
    """Never fails, and two different texts never become the same bytes."""
    return text.encode("utf-8", "surrogatepass")


def header(delivery: Delivery, name: str) -> str:
    """What a header says; empty where there is none, or one that is too long to be a provider's."""
    value = delivery.headers.get(name, "")
    return value if len(value) <= _LONGEST_HEADER else ""


def any_equal(offered: Sequence[bytes], expected: Sequence[bytes]) -> bool:
    """Whether one of the offered is one of the expected, in a time that does not tell which, or how much of it."""
    if len(offered) > _MOST_SIGNATURES:
        return False
    found = False
    for right in expected:
        for candidate in offered:
            found |= hmac.compare_digest(right, candidate)
    return found


def is_recent(timestamp: str, now: float, *, per_second: int = 1) -> bool:
    """Whether it is a whole, decimal, unsigned number of seconds (or of parts of one) within the tolerance."""
    if not (len(timestamp) <= 16 and timestamp.isascii() and timestamp.isdigit()):
        return False
    return abs(now - int(timestamp) / per_second) <= TOLERANCE


def from_base64(text: str) -> bytes:
    """The bytes; empty unless the text is exactly what encoding them gives, so that no changed text means the same."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return decoded if base64.b64encode(decoded) == text.encode("ascii") else b""


def has_url_secret(delivery: Delivery, trust: Trust) -> bool:
    """Whether the URL's query has one ``secret``, and it is an active one: for providers that sign nothing."""
    text = delivery.url.partition("?")[2]
    if len(text) > _LONGEST_QUERY:
        return False
    try:
        query = parse_qsl(text, keep_blank_values=True, max_num_fields=16)
    except ValueError:
        return False
    offered = [as_bytes(value) for name, value in query if name == "secret"]
    return len(offered) == 1 and any_equal(offered, trust.keys)
