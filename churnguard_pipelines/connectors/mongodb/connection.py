"""Connections to a customer's MongoDB: bounded in time, the same decoding everywhere, errors in our own words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bson import Timestamp
from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern

from churnguard_pipelines.connectors.mongodb.address import address_of
from churnguard_pipelines.connectors.mongodb.documents import DECODING
from churnguard_pipelines.connectors.mongodb.pipelines import pipelines
from churnguard_pipelines.connectors.mongodb.pool import guarded_pool
from churnguard_pipelines.connectors.sdk.database_credentials import (
    certificate_file,
    clear_fields,
    server_of,
    tls_context,
)
from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.allowance import (
    CONNECT_SECONDS,
    STAYS,
    WRONG_HOST,
    Exhausted,
    connected_socket,
)
from churnguard_pipelines.engine.server_messages import quoted
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderMisbehaved,
    ProviderUnavailable,
    RequestRefused,
    SourceChanged,
)
from churnguard_pipelines.model import IntegrationConfiguration

ANSWER_SECONDS = 120  # the first documents of a scan that finds few may take their time
_PROBE_SECONDS = 3
_TLS = ("disable", "prefer", "require", "verify-full")
_REFUSED = (18, 8000)  # the latter is Atlas's
_FORBIDDEN = (13, 33)
_OF_ALL = (None, 6, 7, 43, 89, 91, 134, 189, 237, 262, 9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436)
"""Codes that tell of the server, the network or the moment: shut down, stepped down, interrupted, a cursor gone."""
_LOST = (260, 280, 286)  # InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost

_MAJORITY = ReadConcern("majority")  # what is read is never rolled back, as what change streams tell

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Target:
    """``hosts``: those that the configuration names. ``options``: the client's."""

    hosts: tuple[tuple[str, int], ...]
    database: str
    options: dict[str, Any]
    authority: str | None = None
    tls_preferred: bool = False


class Source:
    """One database of a server. Connects when first asked; may be used by several threads."""

    def __init__(self, integration: IntegrationConfiguration) -> None:
        self.integration = integration
        given = clear_fields(integration)
        read = _from_string if "connection_string" in given else _from_fields
        self._target = read(integration, given)
        self.name = self._target.database
        self.pipelines = pipelines(integration, given.get("pipelines"))
        self.with_content = given.get("gridfs_content", "false").lower() == "true"

    @property
    def user(self) -> str | None:
        return self.integration.credentials.username

    @property
    def grant(self) -> str:
        """The command that lets the user read the database; it is given where the user is defined."""
        options = self._target.options
        where, user = options.get("authSource", "admin"), options.get("username", "…")
        return (
            f"`db.getSiblingDB({json.dumps(where)}).grantRolesToUser({json.dumps(user)}, "
            f'[{{role: "read", db: {json.dumps(self.name)}}}])`'
        )

    @property
    def address(self) -> str:
        """Of the server that the configuration names."""
        return _written(*self._target.hosts[0]) if len(self._target.hosts) == 1 else "standalone"

    @cached_property
    def client(self) -> MongoClient[Document]:
        guard, target = guard_of(self.integration), self._target
        found = [guard.resolve(host, port) for host, port in target.hosts]
        options = _own_options(self.integration) | target.options
        if target.hosts:
            options["host"] = [_written(host, port) for host, port in target.hosts]
        with self.translated(), certificate_file(target.authority) if target.authority else nullcontext() as authority:
            if target.tls_preferred and _speaks_tls(found[0], target.hosts[0][1]):
                options |= {"tls": True, "tlsInsecure": True}
            if authority is not None:
                options["tlsCAFile"] = authority
            return MongoClient(**options, _pool_class=guarded_pool(guard))

    @property
    def database(self) -> Database[Document]:
        return self.client.get_database(self.name, codec_options=DECODING, read_concern=_MAJORITY)

    def collection(self, name: str) -> Collection[Document]:
        return self.database[name]

    def aggregate(self, name: str, stages: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[Document]:
        return iter(self.collection(name).aggregate(list(stages), **options))

    def hello(self) -> Document:
        with self.translated():
            return dict(self.client.admin.command("hello"))

    def follows(self) -> bool:
        """Whether the server keeps a change log at all: it is in a replica set, or leads to sharded ones."""
        hello = self.hello()
        return "setName" in hello or hello.get("msg") == "isdbgrid"

    def cluster(self) -> str | None:
        """The replica set's or sharded cluster's own number; None if the user may not see it."""
        sharded = self.hello().get("msg") == "isdbgrid"
        with self.translated():
            try:
                if sharded:
                    found = self.client["config"]["version"].find_one() or {}
                    number = found.get("clusterId")
                else:
                    found = self.client.admin.command("replSetGetConfig")["config"]
                    number = found.get("settings", {}).get("replicaSetId")
            except OperationFailure:
                return None
        return None if number is None else str(number)

    def now(self) -> Timestamp:
        """The server's logical time. A server that keeps no change log has none: its clock then."""
        hello = self.hello()
        return hello["operationTime"] if "operationTime" in hello else Timestamp(hello["localTime"], 0)

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The driver's errors become ours."""
        try:
            yield
        except (PyMongoError, BSONError, OSError) as error:
            raise as_ours(self.integration, error, self.grant) from None
        except Exhausted as error:
            raise error.as_ours(self.integration, "MongoDB") from None


def version_of(time: Timestamp) -> int:
    """Below 2**63 until 2038."""
    return (time.time << 32) | time.inc


def as_ours(integration: IntegrationConfiguration, error: Exception, grant: str) -> ChurnGuardError:
    """``grant``: what lets the user read."""
    name = integration.integration_id
    code = error.code if isinstance(error, OperationFailure) else None
    quote = quoted(integration, _said(error))
    if code in _REFUSED:
        return AuthenticationFailed(
            f"MongoDB refuses the credentials{quote}.",
            integration_id=name,
            remedy="Correct username and password; if the user is not of the database `admin`, set "
            "credentials.custom_fields.auth_database.",
        )
    if code in _FORBIDDEN:
        return PermissionMissing(
            f"MongoDB refuses permission{quote}.",
            integration_id=name,
            remedy=grant,
        )
    if code in _LOST:
        return SourceChanged(
            f"MongoDB does not keep the changes since our position any more{quote}.",
            integration_id=name,
            remedy=f"`churnguard integrations reset {name}`, and the next sync reads all anew. That the server keeps "
            "them longer: `db.adminCommand({replSetResizeOplog: 1, minRetentionHours: 72})`.",
        )
    if isinstance(error, ConfigurationError):
        return InvalidConfiguration(
            f"MongoDB cannot be connected to{quote}.", integration_id=name, remedy="Correct the credentials' fields."
        )
    if isinstance(error, BSONError):
        return ProviderMisbehaved(
            f"MongoDB sends what cannot be understood{quote}.", integration_id=name, remedy="The next sync asks again."
        )
    if isinstance(error, ServerSelectionTimeoutError):
        return ProviderUnavailable(f"MongoDB cannot be reached{quote}.", integration_id=name, remedy=WRONG_HOST)
    if isinstance(error, OperationFailure) and code not in _OF_ALL:
        return RequestRefused(
            f"MongoDB does not answer what it is asked{quote}.", integration_id=name, remedy="The next sync asks again."
        )
    return ProviderUnavailable(f"MongoDB cannot be used{quote}.", integration_id=name, remedy=STAYS)


def _said(error: Exception) -> str:
    if isinstance(error, OperationFailure):
        text = str((error.details or {}).get("errmsg") or error)
    elif isinstance(error, ServerSelectionTimeoutError):
        text = str(error).split(", Timeout:")[0]  # what follows describes the driver's inner life
    else:
        text = str(error)
    return text.strip().rstrip(".") or type(error).__name__


def _own_options(integration: IntegrationConfiguration) -> dict[str, Any]:
    return {
        "appname": f"churnguard {integration.integration_id}",
        "serverSelectionTimeoutMS": int(CONNECT_SECONDS * 1000),
        "connectTimeoutMS": int(CONNECT_SECONDS * 1000),
        "socketTimeoutMS": ANSWER_SECONDS * 1000,
        "serverMonitoringMode": "poll",  # in the other one a server tells of itself as often as it likes
    }


def _from_string(integration: IntegrationConfiguration, given: Mapping[str, str]) -> _Target:
    address = address_of(integration, given["connection_string"])
    database = given.get("database") or address.database
    if not database:
        raise InvalidConfiguration(
            "credentials.custom_fields.database is missing.",
            integration_id=integration.integration_id,
            remedy="Name the database whose collections are to be read.",
        )
    if address.looked_up:
        return _Target((), database, address.options | {"host": f"mongodb+srv://{address.hosts[0][0]}/"})
    return _Target(address.hosts, database, address.options)


def _from_fields(integration: IntegrationConfiguration, given: Mapping[str, str]) -> _Target:
    """Of a replica set the one member that is named: the others' names may mean nothing here."""
    server = server_of(integration, "MongoDB", 27017, _TLS, ("verify-full",))
    credentials = integration.credentials
    if credentials.password is None:
        raise InvalidConfiguration(
            "credentials.password is missing.",
            integration_id=integration.integration_id,
            remedy="For a server that asks for no user, give custom_fields.connection_string.",
        )
    options: dict[str, Any] = {"directConnection": True}
    if server.tls in ("require", "verify-full"):
        options |= {"tls": True, "tlsInsecure": server.tls == "require"}
    options |= {"username": credentials.username, "password": credentials.password.get_secret_value()}
    options["authSource"] = given.get("auth_database", "admin")
    return _Target(
        ((server.host, server.port),), server.database, options, server.authority, tls_preferred=server.tls == "prefer"
    )


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _speaks_tls(addresses: Sequence[str], port: int) -> bool:
    try:
        with connected_socket(addresses, port) as connected:
            connected.settimeout(_PROBE_SECONDS)
            with tls_context(None, verify=False).wrap_socket(connected):
                return True
    except OSError:
        return False
