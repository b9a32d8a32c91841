"""Which tables of a database are wanted, and what their mirrors look like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import count

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import Mirror, MirrorColumn, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration, is_column_name
from churnguard_pipelines.store.mirror_tables import OWN_COLUMNS, SYSTEM_COLUMNS

_LONGEST_NAME = 63
_DOCUMENTS = (MirrorType(Base.JSON), MirrorType(Base.JSONB))


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
        chosen = [table for table in chosen if _matches(table.object, objects)]
    return chosen


def chosen_tables(integration: IntegrationConfiguration, tables: Sequence[SourceTable]) -> list[SourceTable]:
    """Those that the configuration's patterns choose; that one matches nothing is no matter."""
    return [table for table in tables if is_chosen(integration, table.object)]


def is_chosen(integration: IntegrationConfiguration, object: str) -> bool:
    sync = integration.sync_config
    return _matches(object, sync.objects) and not (sync.exclude and _matches(object, sync.exclude))


def unknown_patterns(patterns: Sequence[str] | None, objects: Iterable[str]) -> list[str]:
    """Those that match none of the objects."""
    there = list(objects)
    return [each for each in patterns or () if not any(_matches(object, [each]) for object in there)]


def mirror_of(integration: IntegrationConfiguration, table: SourceTable, raw_table: str) -> Mirror:
    """With the integration's field mappings; a column named as one of ours or of PostgreSQL's is called
    ``source_…``.

    Raises ``InvalidConfiguration`` for a mapping of a field that is not there.
    """
    mappings = integration.sync_config.field_mappings.get(table.object, {})
    names = {column.name for column in table.columns}
    columns: list[MirrorColumn] = []
    taken = {*OWN_COLUMNS, *SYSTEM_COLUMNS, "", *mappings.values()}
    for column in table.columns:
        name = mappings.get(column.name) or _free(column.name, taken)
        taken.add(name)
        columns.append(MirrorColumn(name, column.type, column.name))
    by_source = {column.source: column for column in columns}
    for path, name in mappings.items():
        first, *rest = path.split(".")
        if path in names:
            continue
        document = by_source.get(first)
        if document is None or not rest or document.type not in _DOCUMENTS or not is_column_name(name):
            raise InvalidConfiguration(
                f"field_mappings of {table.object}: there is no field {path!r}.",
                integration_id=integration.integration_id,
                remedy="Name a column, or a path into a JSON column, e.g. `profile.email`.",
            )
        columns.append(MirrorColumn(name, MirrorType(Base.TEXT), document.name, tuple(rest)))
    key = tuple(by_source[name].name for name in table.key)
    return Mirror(raw_table, table.object, tuple(columns), key)


def entity_of(integration: IntegrationConfiguration, table: SourceTable) -> str:
    """What the table is called in the warehouse."""
    return integration.entity_mappings.get(table.object, table.object)


def _matches(object: str, patterns: Sequence[str] | None) -> bool:
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


def _free(name: str, taken: set[str]) -> str:
    """As it is, else with ``source_`` in front, else numbered: many long names begin alike."""
    for wanted in (_cut(name, ""), f"source_{name}", f"source_source_{name}"):
        if wanted not in taken and len(wanted.encode()) <= _LONGEST_NAME:
            return wanted
    return next(wanted for number in count(2) if (wanted := _cut(name, f"_{number}")) not in taken)


def _cut(name: str, ending: str) -> str:
    shown = name.replace("\0", "\u2400").encode()
    return shown[: _LONGEST_NAME - len(ending)].decode(errors="ignore") + ending
