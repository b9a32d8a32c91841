"""A registry of packages that have one module per provider, each with one class: found by name, imported on demand."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Collection, Iterable
from functools import cached_property
from importlib import import_module
from typing import Generic, TypeVar

from churnguard_pipelines.errors import InvalidConfiguration

Base = TypeVar("Base")


class Registry(Generic[Base]):
    """Finds the providers of a package. ``tools``: modules of the package that are no provider, like every one with an
    underscore in its name; ``what``: the classes are, for people."""

    def __init__(self, package: str, path: Iterable[str], base: type[Base], tools: Collection[str], what: str) -> None:
        self._package, self._path, self._base, self._tools, self._what = package, path, base, tools, what
        self._found: dict[str, type[Base]] = {}

    @cached_property
    def providers(self) -> tuple[str, ...]:
        names = {module.name for module in pkgutil.iter_modules(self._path) if "_" not in module.name}
        return tuple(sorted(names.difference(self._tools)))

    def find(self, provider: str) -> type[Base]:
        """Raises ``InvalidConfiguration`` naming the providers there are."""
        if provider not in self.providers:
            raise InvalidConfiguration(
                f"there is no {self._what} for {provider!r}.", remedy=f"There are: {', '.join(self.providers)}."
            )
        if provider not in self._found:
            module = import_module(f"{self._package}.{provider}")
            classes = [
                item
                for _, item in inspect.getmembers(module, inspect.isclass)
                if issubclass(item, self._base) and item.__module__ == module.__name__
            ]
            assert len(classes) == 1, f"{module.__name__} must define one {self._base.__name__}"
            self._found[provider] = classes[0]
        return self._found[provider]
