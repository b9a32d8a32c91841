"""Selects the objects of an account, or the tables of a database, that its integration wants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirrors import SourceTable
from churnguard_pipelines.model import IntegrationConfiguration


def wanted_tables(
    integration: IntegrationConfiguration, tables: Sequence[SourceTable], objects: Sequence[str] | None = None
) -> list[SourceTable]:
    """Those that the configuration's patterns choose, or of these ``objects``, by name or pattern.

    Raises ``InvalidConfiguration`` for a name or pattern that no table has.
    """
    _refuse_unknown(integration, integration.sync_config.objects, tables)
    chosen = chosen_tables(integration, tables)
    if objects is not None:
        _refuse_unknown(integration, objects, chosen)
        chosen = [table for table in chosen if matches(table.object, objects)]
    return chosen


def chosen_tables(integration: IntegrationConfiguration, tables: Sequence[SourceTable]) -> list[SourceTable]:
    """Those that the configuration's patterns choose; that one matches nothing is no matter."""
    return [table for table in tables if is_chosen(integration, table.object)]


def is_chosen(integration: IntegrationConfiguration, object: str) -> bool:
    sync = integration.sync_config
    return matches(object, sync.objects) and not (sync.exclude and matches(object, sync.exclude))


def unknown_patterns(patterns: Sequence[str] | None, objects: Iterable[str]) -> list[str]:
    """Those that match none of the objects."""
    there = list(objects)
    return [each for each in patterns or () if not any(matches(object, [each]) for object in there)]


def matches(object: str, patterns: Sequence[str] | None) -> bool:
    """A pattern that is somebody's very name means it, too, whatever else it matches: ``a[1]`` is one of ``a1``."""
    return patterns is None or any(object == pattern or fnmatchcase(object, pattern) for pattern in patterns)


def _refuse_unknown(
    integration: IntegrationConfiguration, patterns: Sequence[str] | None, tables: Sequence[SourceTable]
) -> None:
    if unknown := unknown_patterns(patterns, [table.object for table in tables]):
        raise InvalidConfiguration(
            f"no table that may be read is called {', '.join(unknown)}.",
            integration_id=integration.integration_id,
            remedy=f"`churnguard integrations discover {integration.integration_id}` lists the tables.",
        )
