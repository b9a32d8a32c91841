"""The connectors: one module per provider; all other modules are what connectors are made with."""

from __future__ import annotations

from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.registry import Registry

_registry = Registry(__name__, __path__, Connector, {"sdk", "sync", "paging"}, "connector")  # type: ignore[type-abstract]


def providers() -> tuple[str, ...]:
    return _registry.providers


def connector(provider: str) -> type[Connector]:
    """Raises ``InvalidConfiguration`` naming the providers there are."""
    return _registry.find(provider)


def connectors() -> tuple[type[Connector], ...]:
    return tuple(connector(provider) for provider in providers())
