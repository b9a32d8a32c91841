"""Masks the secrets inside a JSON document, puts them back, and keeps them over a change.

A secret is known by its path, the names that lead to it. Only names: a list that holds one is a secret as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from churnguard_pipelines.errors import InvalidConfiguration

MASK = "**********"
"""What stands for a secret wherever it is shown."""

Document = dict[str, Any]
Path = tuple[str, ...]
Secrets = Sequence[tuple[Sequence[str], Any]]
"""Each with its path."""

_SECRET_NAME = re.compile(
    "password|passwd|passphrase|passcode|pwd|secret|token|credential|authorization|cookie|jaas|bearer|signature|hmac"
    "|(access|account|api|auth|client|consumer|encryption|functions|master|private|shared|signing|ssl|subscription)key"
    "|^(x?auth|key|pass|pw|sas|sig)$"
)
_NAMED = re.compile(r"""(?<![^?&#;,:\s{("'])([^=:?&#;,\s{}()"']*+)["']? ?[=:]""")
"""A name before its value, as in URLs, connection strings and JSON. It ends where another could begin: each is read
once."""
_USERINFO = re.compile(r"(?:[a-z][a-z0-9+.-]*+:)?//.*@|[^:/@\s]*+:[^/@\s]*+@", re.IGNORECASE | re.DOTALL)
_SPEAKS_FOR_ITSELF = re.compile(r"\s*+(?:bearer|basic)\s++\S{8}|\s*+-----BEGIN [A-Z ]{0,32}PRIVATE KEY", re.IGNORECASE)


def looks_secret(name: str, value: Any) -> bool:
    """By its name; or as a URL with a password, a text that holds a value of such a name, what is sent to sign in, or a
    private key."""
    if _named_secret(name):
        return True
    if not isinstance(value, str):
        return False
    known = _USERINFO.match(value) or _SPEAKS_FOR_ITSELF.match(value)
    return bool(known) or any(map(_named_secret, _NAMED.findall(value)))


def mask(document: Document, secret: Callable[[Path, Any], bool]) -> tuple[Document, Secrets]:
    """The document with ``MASK`` in the place of each value that ``secret`` says is one, and those. Null is none.

    Raises ``InvalidConfiguration`` naming a place that holds the mask itself: what it stood for is not known.
    """
    found: list[tuple[Path, Any]] = []

    def walk(path: Path, value: Any) -> Any:
        if value == MASK:
            raise InvalidConfiguration(
                f"{'.'.join(path)}: {MASK} stands for a secret, and none is stored there.", remedy="Give the secret."
            )
        if path and value is not None and secret(path, value):
            return take(path, value)
        if isinstance(value, dict):
            return {name: walk((*path, name), item) for name, item in value.items()}
        if isinstance(value, list):
            before = len(found)
            items = [walk(path, item) for item in value]
            if len(found) > before:
                del found[before:]
                return take(path, value)
            return items
        return value

    def take(path: Path, value: Any) -> str:
        found.append((path, value))
        return MASK

    masked: Document = walk((), document)
    return masked, found


def unmask(document: Document, secrets: Secrets) -> Document:
    """The opposite of ``mask``."""
    whole = deepcopy(document)
    for (*names, last), value in secrets:
        node = whole
        for name in names:
            node = node[name]
        node[last] = value
    return whole


def keep(document: Document, secrets: Secrets) -> None:
    """Put each secret into its place if that is left out or holds the mask; null there means to forget it."""
    for (*names, last), value in secrets:
        node: Any = document
        for name in names:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                break
        else:
            if node.setdefault(last, value) == MASK:
                node[last] = value


def _named_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(re.sub("[^a-z]", "", name.lower())))
