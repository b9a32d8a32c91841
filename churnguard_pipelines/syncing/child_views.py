"""Shows lists inside of records as tables of their own: views of the records' rows, one row per item.

Nothing is stored twice: an item that left its list, or whose record is gone, is gone here as well.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from churnguard_pipelines import record_paths
from churnguard_pipelines.connectors.sdk import ChildView
from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration, is_column_name
from churnguard_pipelines.records import TEXT, ColumnType, Drift, Table
from churnguard_pipelines.store.ingest import objects
from churnguard_pipelines.store.ingest.objects import KnownObject
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw import views
from churnguard_pipelines.store.raw.views import View, ViewColumn

_OF_RECORD = ("organization_id", "integration_id")
_OF_ITEM = ("position", "element")
_STATE = ("deleted_at", "synced_at")
_log = logging.getLogger(__name__)


def child_name(table: Table, child: ChildView) -> str:
    """What the list is called among the integration's objects."""
    return f"{table.object}.{child.name}"


def show_children(
    store: Store,
    integration: IntegrationConfiguration,
    table: Table,
    children: Sequence[ChildView],
    known: Mapping[str, KnownObject],
) -> list[Drift]:
    """Make their views what they are to be; a list that is not wanted any more loses its own. Cheap if nothing differs.

    As of other views, why one could not follow is drift. Raises ``InvalidConfiguration`` for a mapping that cannot be.
    """
    drift: list[Drift] = []
    wanted = {child_name(table, child): child for child in children}
    for name, child in wanted.items():
        columns, path = _columns(table, child), _path(table, child)
        before = known.get(name)
        if before is None or before.view_digest != _digest(integration, table, before, columns, path):
            drift += _show(store, integration, table, name, columns, path)
    gone = [name for name in known if name.startswith(f"{table.object}.") and name not in wanted]
    if gone:
        with store.operator() as connection:
            views.drop_of(connection, integration.organization_id, integration.integration_id, gone)
    return drift


def _show(
    store: Store,
    integration: IntegrationConfiguration,
    table: Table,
    name: str,
    columns: tuple[ViewColumn, ...],
    path: tuple[str, ...],
) -> list[Drift]:
    with store.operator() as connection:
        noted = objects.note(connection, integration, name, custom=True)
        try:
            with connection.begin_nested():
                views.put(connection, _view(integration, table, noted, columns, path))
        except ChurnGuardError as error:
            _log.warning("%s: %s", integration.integration_id, error)
            return [Drift(noted.view, "view_unchanged", error.explanation)]
        digest = _digest(integration, table, noted, columns, path)
        objects.keep(connection, integration, replace(noted, view_digest=digest))
    return []


def _view(
    integration: IntegrationConfiguration,
    table: Table,
    noted: KnownObject,
    columns: tuple[ViewColumn, ...],
    path: tuple[str, ...],
) -> View:
    own = integration.organization_id, integration.integration_id
    return View(noted.view, table.name, *own, columns, path)


def _digest(
    integration: IntegrationConfiguration,
    table: Table,
    noted: KnownObject,
    columns: tuple[ViewColumn, ...],
    path: tuple[str, ...],
) -> str:
    return views.digest((_view(integration, table, noted, columns, path),))


def _columns(table: Table, child: ChildView) -> tuple[ViewColumn, ...]:
    own = (*_OF_RECORD, table.key, *_OF_ITEM, *_STATE)
    mapped: list[ViewColumn] = []
    for path, written in child.field_mappings.items():
        name, _, kind = written.partition(":")
        if not is_column_name(name) or name in own or name in [each.name for each in mapped]:
            raise _refused(child, f"“{name}” cannot be a column")
        if kind and kind not in {*ColumnType}:
            raise _refused(child, f"there is no type “{kind}”; use one of {', '.join(ColumnType)}")
        mapped.append(ViewColumn(name, "element", tuple(path.split(".")), ColumnType(kind) if kind else TEXT))
    return (*(ViewColumn(name, name) for name in own), *mapped)


def _path(table: Table, child: ChildView) -> tuple[str, ...]:
    steps = record_paths.parse(child.path).steps
    if not steps or not all(isinstance(step, str) for step in steps):
        raise _refused(child, f"its path `{child.path}` must be the names that lead to the list")
    return steps


def _refused(child: ChildView, what: str) -> InvalidConfiguration:
    return InvalidConfiguration(f"the child table {child.name}: {what}.", remedy="Correct it in `children`.")
