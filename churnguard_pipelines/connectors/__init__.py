"""The connectors: one module or package per provider, and in ``sdk`` what their authors need."""

from __future__ import annotations

from churnguard_pipelines.connectors.sdk import ApiConnector, Connector
from churnguard_pipelines.connectors.sdk.database import DatabaseConnector
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.registry import Registry

_registry = Registry(__name__, __path__, Connector, {"sdk"}, "churnguard.connectors", "connector")  # type: ignore[type-abstract]


def providers() -> tuple[str, ...]:
    return _registry.providers


def connector(provider: str) -> type[Connector]:
    """Raises ``InvalidConfiguration`` naming the providers there are."""
    return _registry.find(provider)


def api_connector(provider: str) -> type[ApiConnector]:
    """Raises ``InvalidConfiguration`` for a provider that is none with an API."""
    found = connector(provider)
    if not issubclass(found, ApiConnector):
        raise InvalidConfiguration(f"{found.title} is no provider with an API.")
    return found


def database_connector(provider: str) -> type[DatabaseConnector]:
    """Raises ``InvalidConfiguration`` for a provider that is no database."""
    found = connector(provider)
    if not issubclass(found, DatabaseConnector):
        raise InvalidConfiguration(f"{found.title} is no database.")
    return found


def connectors() -> tuple[type[Connector], ...]:
    return tuple(connector(provider) for provider in providers())


def databases() -> tuple[str, ...]:
    """The providers that are databases."""
    return tuple(found.provider for found in connectors() if issubclass(found, DatabaseConnector))


def followable() -> tuple[str, ...]:
    """The providers whose changes a session can follow."""
    return tuple(found.provider for found in connectors() if found.followable)
