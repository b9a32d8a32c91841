"""The fields of an integration's credentials that every database server needs."""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from churnguard_pipelines.connectors.sdk.access import Access, Entry
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration

USER = (
    Entry("username", "of a user that may read; `churnguard integrations test` says what it lacks"),
    Entry("password", "of that user", secret=True),
)
TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
# A name or an address, or the folder of a socket. Drivers take some texts for lists or for whole connection strings.
_HOST = re.compile(r"[\w.:%-]{1,255}|/[^\s,]{0,255}")
_PORT = re.compile(r"[0-9]{1,5}")
_MOST_OF_A_NAME = 128
_MOST_OF_A_CERTIFICATE = 2**18


def server_access(port: int, *more: Entry, tls_modes: Sequence[str] = TLS_MODES) -> Access:
    """By a user's password at one server. ``port``: the usual one; ``more``: what else the credentials may hold."""
    entries = (
        Entry("host", "the server's name or address"),
        Entry("port", f"a number, {port} if left out", optional=True),
        Entry("database", "the one to read"),
        *USER,
        Entry("tls", "how the connection is encrypted, `prefer` if left out", optional=True, choices=tuple(tls_modes)),
        Entry(
            "tls_ca", "the authority's certificate itself, in PEM, for a `tls` that verifies", optional=True, long=True
        ),
        *more,
    )
    return Access("password", "User and password", CredentialType.BASIC_AUTH, entries)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a database server is and how to connect to it. ``authority``: whose certificates are trusted, in PEM; None
    for those that this machine trusts."""

    host: str
    port: int
    database: str
    tls: str
    authority: str | None


def server_of(
    integration: IntegrationConfiguration, title: str, port: int, tls_modes: Sequence[str], verifying: Sequence[str]
) -> Server:
    """``port``: if it was left out, as ``tls`` is ``prefer``. ``verifying``: the modes that look at certificates.

    Raises ``InvalidConfiguration`` naming the field that is missing of username, host and database, or is wrong.
    """
    credentials = integration.credentials
    given = clear_fields(integration)
    for field, value in (("username", credentials.username), ("custom_fields.host", given.get("host")),
                         ("custom_fields.database", given.get("database"))):  # fmt: skip
        if not value:
            raise InvalidConfiguration(
                f"credentials.{field} is missing.",
                integration_id=integration.integration_id,
                remedy=f"A {title} source needs username, password, and custom_fields host, port and database.",
            )
    if not _HOST.fullmatch(given["host"]):
        raise refused(integration, "host", given["host"], "It is one name or address, without a port.")
    if len(given["database"]) > _MOST_OF_A_NAME or "\0" in given["database"]:
        raise refused(integration, "database", given["database"], "It is one database's name.")
    tls = given.get("tls", "prefer")
    if tls not in tls_modes:
        raise refused(integration, "tls", tls, f"It is one of {', '.join(tls_modes)}.")
    authority = given.get("tls_ca")
    if authority is not None:
        if tls not in verifying:
            raise refused(integration, "tls", tls, f"With tls_ca it is {' or '.join(verifying)}.")
        _check_certificate(integration, authority)
    return Server(given["host"], _port(integration, given.get("port", str(port))), given["database"], tls, authority)


def clear_fields(integration: IntegrationConfiguration) -> dict[str, str]:
    """The custom fields with their values."""
    return {name: value.get_secret_value() for name, value in integration.credentials.custom_fields.items()}


def refused(integration: IntegrationConfiguration, field: str, value: str, rule: str) -> InvalidConfiguration:
    """``rule``: what the custom field may be."""
    return InvalidConfiguration(
        f"credentials.custom_fields.{field} cannot be {value[:_MOST_OF_A_NAME]!r}.",
        integration_id=integration.integration_id,
        remedy=rule,
    )


@contextmanager
def certificate_file(authority: str) -> Iterator[str]:
    """For drivers that take nothing but a path: a file that only we may read, gone at the end."""
    with tempfile.NamedTemporaryFile("w", prefix="churnguard-ca-", suffix=".pem", encoding="ascii") as file:
        file.write(authority)
        file.flush()
        yield file.name


def tls_context(authority: str | None, *, verify: bool) -> ssl.SSLContext:
    """Not to ``verify`` helps against listeners, not against somebody in the server's place, as libpq's `require`."""
    context = ssl.create_default_context(cadata=authority)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _port(integration: IntegrationConfiguration, port: str) -> int:
    if not (_PORT.fullmatch(port) and 0 < int(port) < 65536):
        raise refused(integration, "port", port, "It is a number from 1 to 65535.")
    return int(port)


def _check_certificate(integration: IntegrationConfiguration, authority: str) -> None:
    try:
        if not 0 < len(authority) <= _MOST_OF_A_CERTIFICATE:  # of an empty one Python makes those that it trusts itself
            raise ValueError("too short or too long")
        tls_context(authority, verify=True)
    except (ssl.SSLError, ValueError, TypeError):
        raise InvalidConfiguration(
            "credentials.custom_fields.tls_ca is no certificate.",
            integration_id=integration.integration_id,
            remedy="It is the authority's certificate itself, from -----BEGIN CERTIFICATE----- on; not a file's name.",
        ) from None
