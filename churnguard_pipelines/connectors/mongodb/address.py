"""Parses a MongoDB connection string. Only options that cannot turn our machine against us are accepted.

The driver would read files of this machine for some, or hand a server the identity that this machine has in its cloud.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration

_WRITTEN = re.compile(
    r"(?P<scheme>mongodb(?:\+srv)?)://(?:(?P<user>[^:@/?\s]+)(?::(?P<password>[^:@/?\s]*))?@)?"
    r"(?P<hosts>[^@/?\s]+)(?:/(?P<database>[^/?\s]*))?(?:\?(?P<options>\S*))?"
)
_HOST = re.compile(r"(?:[\w.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_MOST_HOSTS = 50


def _flag(value: str) -> bool:
    return {"true": True, "false": False}[value.lower()]


def _one_of(*values: str) -> Callable[[str], str]:
    return dict(zip(values, values, strict=True)).__getitem__


# In lower case, with the driver's own name and what its value may be.
_TAKEN: dict[str, tuple[str, Callable[[str], Any]]] = {
    "authsource": ("authSource", str),
    "authmechanism": ("authMechanism", _one_of("DEFAULT", "SCRAM-SHA-1", "SCRAM-SHA-256")),
    "replicaset": ("replicaSet", str),
    "directconnection": ("directConnection", _flag),
    "loadbalanced": ("loadBalanced", _flag),
    "readpreference": (
        "readPreference",
        _one_of("primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"),
    ),
    "tls": ("tls", _flag),
    "ssl": ("tls", _flag),
    "tlsinsecure": ("tlsInsecure", _flag),
    "tlsallowinvalidcertificates": ("tlsAllowInvalidCertificates", _flag),
    "tlsallowinvalidhostnames": ("tlsAllowInvalidHostnames", _flag),
}
# Of writers, or ours to choose.
_OVERLOOKED = frozenset(
    ("appname", "connecttimeoutms", "journal", "maxidletimems", "maxpoolsize", "minpoolsize", "retryreads",
     "retrywrites", "serverselectiontimeoutms", "sockettimeoutms", "timeoutms", "w", "wtimeoutms",
     "readconcernlevel")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed connection string. ``hosts``: with their ports; of a name that DNS has the servers of, it alone, and
    ``looked_up``. ``options``: the client's."""

    hosts: tuple[tuple[str, int], ...]
    looked_up: bool
    database: str | None
    options: dict[str, Any]


def address_of(integration: IntegrationConfiguration, text: str) -> Address:
    """Raises ``InvalidConfiguration`` naming the option; nothing else of the text, which has a password in it."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise _refused(integration, "is not a connection string of MongoDB")
    looked_up = found["scheme"] == "mongodb+srv"
    listed = found["hosts"].split(",")
    if len(listed) > _MOST_HOSTS or not all(_HOST.fullmatch(host) for host in listed):
        raise _refused(integration, "has something for a host that is none")
    if looked_up and (len(listed) > 1 or ":" in listed[0]):
        raise _refused(integration, "has more than one name after mongodb+srv")
    options = _options(integration, found["options"] or "")
    if found["user"]:
        options |= {"username": unquote(found["user"]), "password": unquote(found["password"] or "")}
        options.setdefault("authSource", unquote(found["database"] or "") or "admin")
    if looked_up:
        options.setdefault("tls", True)
    database = unquote(found["database"]) if found["database"] else None
    return Address(tuple(_host(integration, host) for host in listed), looked_up, database, options)


def _host(integration: IntegrationConfiguration, text: str) -> tuple[str, int]:
    name, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "27017")
    if not 0 < int(port) < 65536:
        raise _refused(integration, "has a port that is not from 1 to 65535")
    return name.strip("[]"), int(port)


def _options(integration: IntegrationConfiguration, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        if name.lower() in _OVERLOOKED:
            continue
        if name.lower() not in _TAKEN:
            known = ", ".join(sorted({taken for taken, _ in _TAKEN.values()}))
            raise _refused(integration, f"has the option {name[:60]!r}, which is not taken: {known} are")
        own, read = _TAKEN[name.lower()]
        try:
            options[own] = read(unquote(value))
        except KeyError:
            raise _refused(integration, f"has a value for {own} that is not taken") from None
    return options


def _refused(integration: IntegrationConfiguration, what: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"credentials.custom_fields.connection_string {what}.",
        integration_id=integration.integration_id,
        remedy="It looks like mongodb://user:password@host1,host2/database?replicaSet=name; signs like @ : / % in "
        "user and password are written %40 %3A %2F %25.",
    )
