"""Databases as former versions made them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.store.postgres import schema, setup
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from churnguard_pipelines.store.postgres.row_security import SERVICE
from tests.conftest import on_database


@contextmanager
def former_database(server: EmbeddedPostgres, server_url: str, name: str, revision: str) -> Iterator[tuple[str, str]]:
    """(owner's URL, services' URL) of a database whose newest migration is this one; it is dropped in the end."""
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name}")
    owner_url, url = on_database(server_url, name), server.url(SERVICE, name)
    setup.prepare(owner_url, url)
    migrated_to(owner_url, revision)
    yield owner_url, url
    with psycopg.connect(server_url, autocommit=True) as administrator:
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


def migrated_to(owner_url: str, revision: str) -> None:
    """A database as the version with this migration made it."""

    def made(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS control")
        schema.upgrade(connection, revision)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "migrate", made)
        setup.migrate(owner_url)
