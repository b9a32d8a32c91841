"""The API as its callers reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.sql import SQL, Identifier
from starlette.applications import Starlette
from starlette.routing import Mount

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.model import Organization
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.store.control.api_keys import Role, create_key
from churnguard_pipelines.store.control.key_rotation import rotate_all
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import as_administrator, settings_for
from webhook_gateway.api.app import create_api
from webhook_gateway.dashboard.authentication import Authentication

Call = Callable[..., httpx.Response]


@pytest.fixture
def settings(store: Store) -> Settings:
    assert store.settings.encryption_key is not None
    made = settings_for(store.settings.home, store.database_url, store.settings.encryption_key.get_secret_value())
    return made.model_copy(update={"webhook_port": free_port()})  # where no gateway of somebody else answers


@pytest.fixture
def call(store: Store, settings: Settings) -> Iterator[Call]:
    """Requests to the API behind its door, by default with an operator's key; paths are below ``/api``."""
    engine = IntegrationEngine(settings)
    app = Authentication(Starlette(routes=[Mount("/api", create_api(engine))]), store)
    operator = create_key(store, "operator", actor="test")

    def called(method: str, path: str, key: str = operator, **arguments: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://ours") as client:
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
                return await client.request(method, f"/api{path}", headers=headers, timeout=60, **arguments)

        return asyncio.run(go())

    yield called
    asyncio.run(engine.close())


def integration(organization: str = "org_123", **fields: Any) -> dict[str, Any]:
    return {
        "organization_id": organization, "integration_name": "Stripe", "provider_name": "stripe",
        "integration_type": "payment", "credentials": {"credential_type": "api_key", "api_key": "rk_canary"},
        "sync_config": {"sync_mode": "incremental", "sync_frequency": 3600, "batch_size": 1000},
    } | fields  # fmt: skip


def key_of(store: Store, organization: str, role: Role = Role.ADMIN) -> str:
    add_organization(store, Organization(organization_id=organization, name=organization), actor="test")
    return create_key(store, organization, actor="test", organization_id=organization, role=role)


def noted(store: Store, key: str, subject: str) -> list[tuple[str, dict[str, Any]]]:
    """The audit log's actions of a key on a subject, with their details."""
    statement = "SELECT action, detail FROM control.audit_log WHERE actor = %s AND subject = %s ORDER BY id"
    with store.operator() as connection:
        rows = connection.exec_driver_sql(statement, ("_".join(key.split("_")[:2]), subject))
        return [(row.action, row.detail) for row in rows]


def nowhere_in_the_database(store: Store, secret: str) -> None:
    tables = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('control', 'ingest', 'raw', 'analytics')"
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        for names in connection.execute(tables).fetchall():
            for row in connection.execute(SQL("SELECT t::text FROM {} AS t").format(Identifier(*names))):
                assert secret not in row[0], names


@contextmanager
def resealed(store: Store) -> Iterator[Store]:
    """The store as it is once every secret is sealed under another key, and the old one is gone."""
    assert store.settings.encryption_key is not None
    old, new = store.settings.encryption_key.get_secret_value(), Fernet.generate_key().decode()
    with closing(Store.open(settings_for(store.settings.home, store.database_url, f"{new},{old}"))) as both:
        rotate_all(both)
    with closing(Store.open(settings_for(store.settings.home, store.database_url, new))) as after:
        yield after
