"""The schemes: one module per provider; all other modules are what schemes are made with."""

from __future__ import annotations

from functools import cache

from churnguard_pipelines.registry import Registry
from webhook_gateway.schemes.sdk import Scheme

_TOOLS = {"sdk", "signatures", "bodies", "forms", "soap"}
_registry = Registry(__name__, __path__, Scheme, _TOOLS, "churnguard.webhook_schemes", "webhook scheme")  # type: ignore[type-abstract]


def providers() -> tuple[str, ...]:
    return _registry.providers


@cache
def scheme(provider: str) -> Scheme:
    """Raises ``InvalidConfiguration`` naming the providers there are."""
    return _registry.find(provider)()


def schemes() -> dict[str, Scheme]:
    return {provider: scheme(provider) for provider in providers()}
