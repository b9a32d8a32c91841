"""A real PostgreSQL as a customer's product database, and one as the warehouse."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from churnguard_pipelines.model import (
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
)
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.sources.homes import temporary_home
from tests.sources.postgresql import PASSWORD, PostgreSQLServer

Register = Callable[..., IntegrationConfiguration]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def source_server() -> Iterator[PostgreSQLServer]:
    with temporary_home() as home:
        server = PostgreSQLServer(home)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def source(source_server: PostgreSQLServer) -> Iterator[psycopg.Connection[Any]]:
    """A database of one's own, as its owner."""
    name = f"product_{next(_numbers)}"
    source_server.new_database(name)
    with source_server.connect(name) as connection:
        yield connection
    source_server.drop_database(name)


@pytest.fixture
def register(
    store: Store, organization: Organization, source_server: PostgreSQLServer, source: psycopg.Connection[Any]
) -> Register:
    """Stores the integration ``acme-db`` with the source; the fields given go into its sync configuration."""

    def registered(
        *,
        user: str = "owner",
        password: str = PASSWORD,
        fields: dict[str, str] | None = None,
        entity_mappings: dict[str, str] | None = None,
        **sync: object,
    ) -> IntegrationConfiguration:
        where = {"host": "127.0.0.1", "port": str(source_server.port), "database": source.info.dbname}
        made = configuration(
            "acme-db",
            integration_name="Acme's product",
            integration_type=IntegrationType.DATABASE,
            provider_name="postgresql",
            credentials=IntegrationCredentials.model_validate(
                {
                    "credential_type": "basic_auth",
                    "username": user,
                    "password": password,
                    "custom_fields": where | (fields or {}),
                }
            ),
            entity_mappings=entity_mappings or {},
            sync_config={"sync_mode": "full"} | sync,
        )
        replace_integration(store, made, actor="test")
        return made

    return registered


def in_source(source: psycopg.Connection[Any], table: str, *columns: str) -> list[tuple[Any, ...]]:
    listed = ", ".join(f'"{name}"::text' for name in columns)
    source.execute("SET timezone = 'UTC'")
    return sorted((tuple(row) for row in source.execute(f"SELECT {listed} FROM {table}")), key=repr)


@pytest.fixture
def users(source: psycopg.Connection[Any]) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email text, updated_at timestamptz DEFAULT now())")
    source.execute("INSERT INTO users SELECT n, 'u' || n FROM generate_series(1, 100) n")
