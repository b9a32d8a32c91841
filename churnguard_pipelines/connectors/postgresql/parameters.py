"""Connection parameters for libpq, all of them explicit: libpq looks up what is left out in our environment and home
folder, and would send our passwords, certificates and tickets to a customer's server."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from churnguard_pipelines.connectors.sdk.database_credentials import Server
from churnguard_pipelines.model import IntegrationConfiguration

TLS = ("disable", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = ("verify-ca", "verify-full")

# A folder that cannot be: an empty name would mean the one in the home folder.
_NOWHERE = "/dev/null/nowhere"
# Each proves the password without sending it. Sent in clear it is only to a server whose certificate was verified.
_PROVING: Mapping[str, str] = {"require_auth": "scram-sha-256,md5,none"}
_SAYING: Mapping[str, str] = {"require_auth": "scram-sha-256,md5,none,password"}

_FIXED: Mapping[str, str] = {
    "passfile": _NOWHERE,
    "channel_binding": "prefer",
    "client_encoding": "UTF8",
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "sslnegotiation": "postgres",
    "sslcompression": "0",
    "sslcert": _NOWHERE,
    "sslkey": _NOWHERE,
    "sslcertmode": "disable",
    "sslcrl": _NOWHERE,
    "sslcrldir": "",
    "sslsni": "1",
    "requirepeer": "",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "",
    "gssencmode": "disable",
    "krbsrvname": "postgres",
    "gsslib": "",
    "gssdelegation": "0",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
}


def parameters(
    integration: IntegrationConfiguration,
    server: Server,
    addresses: Sequence[str],
    authority: str | None,
    proof: Mapping[str, str] | None,
    options: str,
    *,
    replication: bool,
) -> dict[str, Any]:
    """``addresses``: the only ones that are connected to; of a socket its folder. ``authority``: the file with it.
    ``proof``: how we prove who we are, if the server was asked already."""
    credentials = integration.credentials
    verified = server.tls == "verify-full"
    named = {"host": server.host} if server.host.startswith("/") else {
        "host": ",".join([server.host] * len(addresses)), "hostaddr": ",".join(addresses),
    }  # fmt: skip
    return {
        **_FIXED,
        "hostaddr": "",
        **named,
        "port": str(server.port),
        "dbname": server.database,
        "user": str(credentials.username),
        "password": credentials.password.get_secret_value() if credentials.password else "",
        "sslmode": server.tls,
        "sslrootcert": authority or (_trusted() if verified else _NOWHERE),
        **(proof or (_SAYING if verified else _PROVING)),
        "application_name": f"churnguard {integration.integration_id}"[:63],
        "replication": "database" if replication else "false",
        "options": options,
    }


def _trusted() -> str:
    """The authorities that this machine trusts."""
    return ssl.get_default_verify_paths().cafile or "system"
