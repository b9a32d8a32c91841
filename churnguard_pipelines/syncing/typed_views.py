"""What an integration's view shows: declared columns, the account's own fields, and the integration's field mappings.

The raw table holds what the connector declares, for all organizations alike. Everything else of a record is in
``extra``; what it means to one integration is said by that integration's view alone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from churnguard_pipelines.connectors.sdk.selection import is_chosen
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration, is_column_name
from churnguard_pipelines.records import JSON, TEXT, Column, ColumnType, Drift, Field, Lane, Table
from churnguard_pipelines.store.ingest import objects
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.ingest.objects import KnownObject, versions_view
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.names import free
from churnguard_pipelines.store.raw import views
from churnguard_pipelines.store.raw.tables import OWN_COLUMNS, VALIDITY, versions_name
from churnguard_pipelines.store.raw.views import View, ViewColumn

MOST_COLUMNS = 1500
"""Of a view; PostgreSQL has 1,600. What is beyond stays in ``extra``."""
_OWN = ("organization_id", "integration_id")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """``columns``: of the view, in order. ``viewed``: those that are read out of the record's undeclared part."""

    columns: tuple[ViewColumn, ...]
    viewed: tuple[Column, ...]


def shown(integration: IntegrationConfiguration, table: Table, fields: Sequence[Field]) -> Shown:
    """Raises ``InvalidConfiguration`` for a field mapping that cannot work.

    ``field_mappings``: source path -> ``column``, or ``column:type``. A declared column that is read from that path
    is shown under that name; otherwise what lies there is read as the type, else as the declared column's of that
    name, the account's field's at that path, or as text.
    """
    declared = {column.source_path: column for column in table.columns}
    types = {column.name: column.type for column in table.columns}
    known = {field.source_path: field.type for field in fields}
    mapped = dict(_mappings(integration, table))
    taken_over = {name for name, _ in mapped.values()}
    first = [ViewColumn(name, name) for name in (*_OWN, table.key)]
    last: list[ViewColumn] = []
    viewed: list[Column] = []
    for column in table.columns:
        name, kind = mapped.get(column.source_path, (column.name, None))
        if kind not in (None, column.type):
            raise _refused(table, f"“{name}” is {column.type} as declared, and cannot be {kind}")
        if column.source_path in mapped or name not in taken_over:
            first.append(ViewColumn(name, column.name))
    for path, (name, kind) in mapped.items():
        if path in declared:
            continue
        asked = kind or types.get(name) or known.get(path) or TEXT
        place = _placed(table, declared, name, path, asked)
        if place is None:
            raise _refused(table, f"{path} lies in a column that is no JSON document")
        last.append(place)
        viewed.append(Column(name, asked, path))
    taken = {*OWN_COLUMNS, *VALIDITY, *(column.name for column in (*first, *last))}
    for field in fields:
        if field.source_path in declared or field.source_path in mapped:
            continue
        if len(first) + len(last) + len(OWN_COLUMNS) + len(VALIDITY) >= MOST_COLUMNS:
            break
        name = free(field.name, taken, "custom_")
        if (place := _placed(table, declared, name, field.source_path, field.type)) is None:
            continue
        taken.add(name)
        last.append(place)
        viewed.append(Column(name, field.type, field.source_path))
    kept = [ViewColumn(name, name) for name in OWN_COLUMNS if name not in _OWN]
    return Shown((*first, *kept, *last), tuple(viewed))


def merged(known: Sequence[Field], found: Sequence[Field]) -> tuple[tuple[Field, ...], list[Drift]]:
    """The account's fields as they are now, in the order in which they were first seen, and what changed of those that
    were known. One that is gone stays, so that what reads the view goes on."""
    now = {field.name: field for field in found if _can_be_named(field.name)}
    drift: list[Drift] = []
    fields: list[Field] = []
    for before in known:
        field = now.pop(before.name, None)
        if field is None:
            field = replace(before, gone=True)
            if not before.gone:
                drift.append(Drift(before.name, "gone_field", "the account does not have it any more"))
        elif field.type != before.type:
            drift.append(Drift(before.name, "type_changed", f"it was {before.type} and is {field.type} now"))
        fields.append(field)
    return (*fields, *now.values()), drift


def bring_up_to_date(
    store: Store,
    integration: IntegrationConfiguration,
    table: Table,
    known: KnownObject | None,
    fields: Sequence[Field],
    columns: Sequence[ViewColumn],
    *,
    label: str | None = None,
    custom: bool = False,
    told_apart: bool = False,
) -> list[Drift]:
    """The catalogue knows these fields, and the view shows these columns. Cheap if nothing differs.

    ``told_apart``: another object of the account reads alike, and its view has the plain name.

    Rows are stored whatever becomes of the view: why it could not follow is drift, and the next sync tries again.
    """
    now = tuple(fields), label
    if (
        known
        and (known.fields, known.label) == now
        and known.view_digest == _digest(integration, table, known, columns)
    ):
        return []
    with store.operator() as connection:
        noted = objects.note(connection, integration, table.object, label=label, custom=custom, told_apart=told_apart)
        wanted = _digest(integration, table, noted, columns)
        drift: list[Drift] = []
        if noted.view_digest != wanted:
            try:
                with connection.begin_nested():
                    for view in _views(integration, table, noted, columns):
                        views.put(connection, view)
            except ChurnGuardError as error:
                _log.warning("%s: %s", integration.integration_id, error)
                drift = [Drift(noted.view, "view_unchanged", error.explanation)]
                wanted = noted.view_digest or ""
        objects.keep(connection, integration, replace(noted, fields=tuple(fields), view_digest=wanted or None))
    return drift


def tidy_up(
    store: Store, integration: IntegrationConfiguration, known: Mapping[str, KnownObject], there: Collection[str]
) -> None:
    """After a sync of all of the integration's objects, which are ``there``: one that it does not want any more loses
    its view, one that is wanted and gone keeps it."""
    for name in known.keys() - there:
        if not is_chosen(integration, name):
            try:
                with store.operator() as connection:
                    views.drop_of(connection, integration.organization_id, integration.integration_id, [name])
            except ChurnGuardError as error:  # it is in use; the next sync tries again
                _log.warning("%s: %s", integration.integration_id, error)
        else:
            lane = Lane(integration.organization_id, integration.integration_id, name)
            with store.organization(integration.organization_id) as connection:
                record_drift(
                    connection, lane, name, [Drift(name, "gone_object", "the account does not have it any more")]
                )


def _views(
    integration: IntegrationConfiguration, table: Table, known: KnownObject, columns: Sequence[ViewColumn]
) -> Iterator[View]:
    own = integration.organization_id, integration.integration_id
    yield View(known.view, table.name, *own, tuple(columns))
    if table.versioned:
        place = next((place for place, column in enumerate(columns) if column.path), len(columns))
        validity = [ViewColumn(name, name) for name in VALIDITY]
        ordered = (*columns[:place], *validity, *columns[place:])
        yield View(versions_view(known.view), versions_name(table), *own, ordered)


def _digest(
    integration: IntegrationConfiguration, table: Table, known: KnownObject, columns: Sequence[ViewColumn]
) -> str:
    return views.digest(tuple(_views(integration, table, known, columns)))


def _mappings(
    integration: IntegrationConfiguration, table: Table
) -> Iterator[tuple[str, tuple[str, ColumnType | None]]]:
    """Source path -> (column, type if one is given)."""
    mappings = integration.sync_config.field_mappings.get(table.object, {})
    names = [written.partition(":")[0] for written in mappings.values()]
    for (path, written), name in zip(mappings.items(), names, strict=True):
        kind = written.partition(":")[2]
        if not is_column_name(name) or name == table.key or not _can_be_named(path):
            raise _refused(
                table, f"“{name}” cannot be a column",
                "Use up to 63 lower-case letters, digits and underscores, none of them the product's own.",
            )  # fmt: skip
        if names.count(name) > 1:
            raise _refused(table, f"two fields go to the column “{name}”", "Give each field a column of its own.")
        if kind and kind not in {*ColumnType}:
            raise _refused(table, f"there is no type “{kind}”", f"Use one of {', '.join(ColumnType)}.")
        yield path, (name, ColumnType(kind) if kind else None)


def _placed(table: Table, declared: Mapping[str, Column], name: str, path: str, kind: ColumnType) -> ViewColumn | None:
    """Where the raw table has what lies at the path: in ``extra``, or in a declared JSON column with all that is below.

    None if it is in a column that is no document.
    """
    if path == table.key:
        return ViewColumn(name, table.key)
    parts = tuple(path.split("."))
    for length in range(1, len(parts)):
        if (whole := declared.get(".".join(parts[:length]))) is not None:
            return ViewColumn(name, whole.name, parts[length:], kind) if whole.type is JSON else None
    return ViewColumn(name, "extra", parts, kind)


def _can_be_named(name: str) -> bool:
    """PostgreSQL keeps neither NUL nor half a surrogate pair."""
    try:
        return bool(name) and "\0" not in name and bool(name.encode())
    except UnicodeEncodeError:
        return False


def _refused(table: Table, what: str, remedy: str | None = None) -> InvalidConfiguration:
    return InvalidConfiguration(f"field_mappings of {table.object}: {what}.", remedy=remedy)
