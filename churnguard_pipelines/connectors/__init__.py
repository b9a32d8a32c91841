"""The registry: one module per provider; a module is imported when its provider is asked for."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module

from churnguard_pipelines.connectors.sdk import Connector
from churnguard_pipelines.errors import InvalidConfiguration

_TOOLS = {"sdk", "sync", "paging"}  # what connectors are made with; every other module is a provider


@cache
def providers() -> tuple[str, ...]:
    names = {module.name for module in pkgutil.iter_modules(__path__) if "_" not in module.name}
    return tuple(sorted(names - _TOOLS))


@cache
def connector(provider: str) -> type[Connector]:
    """Raises ``InvalidConfiguration`` naming the providers there are."""
    if provider not in providers():
        raise InvalidConfiguration(
            f"there is no connector for {provider!r}.", remedy=f"There are: {', '.join(providers())}."
        )
    module = import_module(f"{__name__}.{provider}")
    found = [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Connector) and item.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define one Connector"
    return found[0]


def connectors() -> tuple[type[Connector], ...]:
    return tuple(connector(provider) for provider in providers())
