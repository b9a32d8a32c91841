"""How Mailchimp names things, and how it writes instants."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache


def subscriber_hash(email: str) -> str:
    """Of an address in lower case: the id of a member, the same in every list."""
    return hashlib.md5(email.lower().encode(), usedforsecurity=False).hexdigest()


@lru_cache(100_000)
def ten(*parts: object) -> str:
    """Ten hexadecimal digits, as lists, campaigns and interests have."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:10]


def contact_id(account: str, member: int) -> str:
    """Stays when the address changes."""
    return hashlib.sha256(f"{account}/contact/{member}".encode()).hexdigest()[:32]


@lru_cache(100_000)
def iso(at: int | None) -> str:
    """To the second; nothing is an empty string."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
