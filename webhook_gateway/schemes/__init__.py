"""The registry: one module per provider; a module is imported when its provider is asked for."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module

from churnguard_pipelines.errors import InvalidConfiguration
from webhook_gateway.schemes.sdk import Scheme

_TOOLS = {
    "sdk",
    "signatures",
    "bodies",
    "forms",
    "soap",
}  # what schemes are made with; every other module is a provider


@cache
def providers() -> tuple[str, ...]:
    return tuple(sorted({module.name for module in pkgutil.iter_modules(__path__)} - _TOOLS))


@cache
def scheme(provider: str) -> Scheme:
    """Raises ``InvalidConfiguration`` naming the providers there are."""
    if provider not in providers():
        raise InvalidConfiguration(
            f"there are no webhooks of {provider!r}.", remedy=f"There are: {', '.join(providers())}."
        )
    module = import_module(f"{__name__}.{provider}")
    found = [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Scheme) and item.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define one Scheme"
    made = found[0]()
    assert isinstance(made, Scheme)
    return made


def schemes() -> dict[str, Scheme]:
    return {provider: scheme(provider) for provider in providers()}
