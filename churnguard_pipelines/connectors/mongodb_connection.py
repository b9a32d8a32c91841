"""Connections to a customer's MongoDB: bounded in time, the same decoding everywhere, errors in our own words."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from bson import Timestamp
from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from churnguard_pipelines.connectors.database_credentials import custom_fields, refused
from churnguard_pipelines.connectors.mongodb_documents import DECODING
from churnguard_pipelines.connectors.mongodb_pipelines import pipelines
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    ChurnGuardError,
    InvalidConfiguration,
    PermissionMissing,
    ProviderUnavailable,
    SourceChanged,
)
from churnguard_pipelines.model import IntegrationConfiguration

CONNECT_SECONDS = 10
ANSWER_SECONDS = 120  # the first documents of a scan that finds few may take their time
_PROBE_SECONDS = 3
_TLS = ("disable", "prefer", "require", "verify-full")
_REFUSED = (18, 8000)  # the latter is Atlas's
_FORBIDDEN = (13, 33)
_LOST = (260, 280, 286)  # InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost

_MAJORITY = ReadConcern("majority")  # what is read is never rolled back, as what change streams tell

Document = dict[str, Any]


class Source:
    """One database of a server. Connects when first asked; may be used by several threads."""

    def __init__(self, integration: IntegrationConfiguration) -> None:
        self.integration = integration
        given = {name: value.get_secret_value() for name, value in integration.credentials.custom_fields.items()}
        self._options, self.name = _parameters(integration, given)
        self._tls_preferred = given.get("tls", "prefer") == "prefer" and "port" in self._options
        self.pipelines = pipelines(integration, given.get("pipelines"))
        self.with_content = given.get("gridfs_content", "false").lower() == "true"

    @property
    def user(self) -> str | None:
        return self.integration.credentials.username

    @property
    def address(self) -> str:
        """Of the server that the configuration names."""
        return f"{self._options['host']}:{self._options['port']}" if "port" in self._options else "standalone"

    @cached_property
    def client(self) -> MongoClient[Document]:
        options = dict(self._options)
        if self._tls_preferred and _speaks_tls(options["host"], options["port"]):
            options |= {"tls": True, "tlsInsecure": True}
        with self.translated():
            return MongoClient(**options)

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
        said = self.hello()
        return "setName" in said or said.get("msg") == "isdbgrid"

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
        said = self.hello()
        return said["operationTime"] if "operationTime" in said else Timestamp(said["localTime"], 0)

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The driver's errors become ours."""
        try:
            yield
        except (PyMongoError, BSONError, OSError) as error:
            raise as_ours(self.integration, error) from None


def version_of(time: Timestamp) -> int:
    """Below 2**63 until 2038."""
    return (time.time << 32) | time.inc


def as_ours(integration: IntegrationConfiguration, error: Exception) -> ChurnGuardError:
    name = integration.integration_id
    code = error.code if isinstance(error, OperationFailure) else None
    said = _said(error)
    if code in _REFUSED:
        return AuthenticationFailed(
            f"MongoDB refuses the credentials: {said}.",
            integration_id=name,
            remedy="Correct username and password; if the user is not of the database `admin`, set "
            "credentials.custom_fields.auth_database.",
        )
    if code in _FORBIDDEN:
        return PermissionMissing(
            f"MongoDB says: {said}.", integration_id=name, remedy="Grant the user the role `read` on the database."
        )
    if code in _LOST:
        return SourceChanged(
            f"MongoDB does not keep the changes since our position any more: {said}.",
            integration_id=name,
            remedy=f"`churnguard integrations reset {name}`, and the next sync reads all anew. That the server keeps "
            "them longer: `db.adminCommand({replSetResizeOplog: 1, minRetentionHours: 72})`.",
        )
    if isinstance(error, ConfigurationError):
        return InvalidConfiguration(
            f"MongoDB cannot be connected to: {said}.", integration_id=name, remedy="Correct the credentials' fields."
        )
    return ProviderUnavailable(
        f"MongoDB cannot be used: {said}.",
        integration_id=name,
        remedy="Whatever was stored stays; the next sync goes on from there.",
    )


def _said(error: Exception) -> str:
    if isinstance(error, OperationFailure):
        text = str((error.details or {}).get("errmsg") or error)
    elif isinstance(error, ServerSelectionTimeoutError):
        text = str(error).split(", Timeout:")[0]  # what follows describes the driver's inner life
    else:
        text = str(error)
    return text.strip().rstrip(".") or type(error).__name__


def _parameters(integration: IntegrationConfiguration, given: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Of the client, and the database's name. Raises ``InvalidConfiguration`` naming the field that is wrong."""
    credentials, own = integration.credentials, integration.integration_id
    options: dict[str, Any] = {
        "appname": f"churnguard {own}",
        "serverSelectionTimeoutMS": CONNECT_SECONDS * 1000,
        "connectTimeoutMS": CONNECT_SECONDS * 1000,
        "socketTimeoutMS": ANSWER_SECONDS * 1000,
    }
    if address := given.get("connection_string"):
        return options | {"host": address}, given.get("database") or _database_of(integration, address)
    given = custom_fields(integration, "MongoDB", _TLS)
    port = given.get("port", "27017")
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise refused(integration, "port", port, "It is a number, 27017 as a rule.")
    # Of a replica set the one member that is named: the others' names may mean nothing here.
    options |= {"host": given["host"], "port": int(port), "directConnection": True}
    if given["tls"] in ("require", "verify-full"):
        options |= {"tls": True, "tlsInsecure": given["tls"] == "require"}
    if given["tls"] == "verify-full" and "tls_ca" in given:
        options["tlsCAFile"] = given["tls_ca"]
    if credentials.password is None:
        raise InvalidConfiguration(
            "credentials.password is missing.",
            integration_id=own,
            remedy="For a server that asks for no user, give custom_fields.connection_string.",
        )
    options |= {"username": credentials.username, "password": credentials.password.get_secret_value()}
    return options | {"authSource": given.get("auth_database", "admin")}, given["database"]


def _database_of(integration: IntegrationConfiguration, address: str) -> str:
    try:
        named = parse_uri(address, validate=False).get("database") if address.startswith("mongodb://") else None
    except (PyMongoError, ValueError):  # its words may have the password in them
        raise InvalidConfiguration(
            "credentials.custom_fields.connection_string is not a connection string of MongoDB.",
            integration_id=integration.integration_id,
            remedy="It looks like mongodb://user:password@host1,host2/database?replicaSet=name; signs like @ : / % in "
            "user and password are written %40 %3A %2F %25.",
        ) from None
    if not named:
        raise InvalidConfiguration(
            "credentials.custom_fields.database is missing.",
            integration_id=integration.integration_id,
            remedy="Name the database whose collections are to be read.",
        )
    return str(named)


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False
