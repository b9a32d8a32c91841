"""A MongoDB as a customer's product database, and a real PostgreSQL as the warehouse."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from churnguard_pipelines.connectors.mongodb import MongoDB
from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.mirrors import SourceTable
from churnguard_pipelines.model import (
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
)
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.sources.mongodb import PASSWORD, REAL, USER, MongoDBServer, running_mongodb

Source = Database[dict[str, Any]]
Configure = Callable[..., IntegrationConfiguration]
Connect = Callable[..., MongoDB]
_numbers = itertools.count(1)

needs_own_server = pytest.mark.skipif(REAL is not None, reason="the server is not ours to kill")


@pytest.fixture(scope="session")
def source_server() -> Iterator[MongoDBServer]:
    with running_mongodb() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[MongoDBServer]:
    """One that a test may kill."""
    with running_mongodb() as server:
        yield server


@pytest.fixture(scope="session")
def client(source_server: MongoDBServer) -> Iterator[MongoClient[dict[str, Any]]]:
    with source_server.client() as opened:
        yield opened


@pytest.fixture
def source(client: MongoClient[dict[str, Any]]) -> Iterator[Source]:
    """A database of one's own, even on a server that other processes test with."""
    name = f"product_{os.getpid()}_{next(_numbers)}"
    client.drop_database(name)
    yield client[name]
    client.drop_database(name)


def integration_of(server: MongoDBServer, database: str, **fields: Any) -> IntegrationConfiguration:
    """``fields``: ``user``, ``password``, ``custom`` (fields of the credentials), those of the configuration."""
    credentials = {
        "credential_type": "basic_auth",
        "username": fields.pop("user", USER),
        "password": fields.pop("password", PASSWORD),
        "custom_fields": server.fields(database) | fields.pop("custom", {}),
    }
    return configuration(
        "acme-db",
        integration_name="Acme's product",
        integration_type=IntegrationType.DATABASE,
        provider_name="mongodb",
        credentials=IntegrationCredentials.model_validate(credentials),
        entity_mappings=fields.pop("entity_mappings", {}),
        sync_config={"sync_mode": "full"} | fields,
    )


@pytest.fixture
def connect(source_server: MongoDBServer, source: Source) -> Iterator[Connect]:
    """A connector of the source; see :func:`integration_of`."""
    opened: list[MongoDB] = []

    def connected(**fields: Any) -> MongoDB:
        opened.append(MongoDB(integration_of(source_server, source.name, **fields)))
        return opened[-1]

    yield connected
    for each in opened:
        each.close()


@pytest.fixture
def register(store: Store, organization: Organization, source_server: MongoDBServer, source: Source) -> Configure:
    """Stores the integration ``acme-db`` with the source."""

    def registered(**fields: Any) -> IntegrationConfiguration:
        made = integration_of(source_server, source.name, **fields)
        replace_integration(store, made, actor="test")
        return made

    return registered


class Replica:
    """What a reader of the change log makes of it: rows by table and key. Versions never fall within one stream."""

    def __init__(self, tables: list[SourceTable]) -> None:
        self.rows: dict[str, dict[str, tuple[Any, ...]]] = {table.object: {} for table in tables}
        self.versions: list[int] = []
        self.position: Any = None

    def follow(self, log: ChangeLog, *, until: Callable[[], bool], steps: int = 10_000) -> None:
        for _ in range(steps):
            batch = log.read(0.3)
            if batch is not None:
                self.position = batch.position
                for change in batch.changes:
                    self._apply(change)
            elif until():
                return
        raise AssertionError("it did not happen")

    def _apply(self, change: Any) -> None:
        rows = self.rows[change.object]
        self.versions.append(change.version)
        if change.kind == "upsert":
            rows[change.values[0]] = change.values
        elif change.kind == "delete":
            rows.pop(change.key[0], None)
        else:
            assert change.kind == "truncate"
            rows.clear()
