"""A registry of providers' classes, found by name and imported on demand: modules of a package of ours, or entry points
of packages that are installed beside it."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from churnguard_pipelines.errors import InvalidConfiguration

Base = TypeVar("Base")


class Registry(Generic[Base]):
    """Finds the providers of a package. ``tools``: modules of the package that are no provider, like every one with an
    underscore in its name; ``group``: the entry points' that add others; ``what``: the classes are, for people. A
    provider of our own is never replaced by another package's."""

    def __init__(
        self, package: str, path: Iterable[str], base: type[Base], tools: Collection[str], group: str, what: str
    ) -> None:
        self._package, self._path, self._base, self._tools = package, path, base, tools
        self._group, self._what = group, what
        self._found: dict[str, type[Base]] = {}

    @cached_property
    def providers(self) -> tuple[str, ...]:
        return tuple(sorted({*self._own, *self._added}))

    @cached_property
    def _own(self) -> Collection[str]:
        names = {module.name for module in pkgutil.iter_modules(self._path) if "_" not in module.name}
        return names.difference(self._tools)

    @cached_property
    def _added(self) -> Mapping[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)}

    def find(self, provider: str) -> type[Base]:
        """Raises ``InvalidConfiguration`` naming the providers there are."""
        if provider not in self.providers:
            near = get_close_matches(provider, self.providers, n=1)
            meant = f"Is `{near[0]}` meant? " if near else ""
            raise InvalidConfiguration(
                f"there is no {self._what} for {provider!r}.", remedy=f"{meant}There are: {', '.join(self.providers)}."
            )
        if provider not in self._found:
            self._found[provider] = self._own_class(provider) if provider in self._own else self._added_class(provider)
        return self._found[provider]

    def _own_class(self, provider: str) -> type[Base]:
        module = import_module(f"{self._package}.{provider}")
        classes = [
            item
            for _, item in inspect.getmembers(module, inspect.isclass)
            if issubclass(item, self._base) and item.__module__ == module.__name__
        ]
        assert len(classes) == 1, f"{module.__name__} must define one {self._base.__name__}"
        return classes[0]

    def _added_class(self, provider: str) -> type[Base]:
        point = self._added[provider]
        found: Any = point.load()
        if not (inspect.isclass(found) and issubclass(found, self._base) and found.provider == provider):  # type: ignore[attr-defined]
            raise InvalidConfiguration(
                f"the entry point {provider} = {point.value} names no {self._base.__name__} of this provider.",
                remedy=f"Correct it in the package that has it under [project.entry-points.{self._group!r}].",
            )
        return found
