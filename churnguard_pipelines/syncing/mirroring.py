"""Lays out the mirror of a source table (its columns, their names, its key), and makes it so."""

from __future__ import annotations

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import Mirror, MirrorColumn, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration, is_column_name
from churnguard_pipelines.records import Drift, Lane
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.ingest.drift import record_drift
from churnguard_pipelines.store.postgres.names import free
from churnguard_pipelines.store.raw import mirror_tables
from churnguard_pipelines.store.raw.mirror_tables import OWN_COLUMNS, SYSTEM_COLUMNS
from churnguard_pipelines.store.raw.warehouse import WarehouseTransaction

_DOCUMENTS = (MirrorType(Base.JSON), MirrorType(Base.JSONB))


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
        name = mappings.get(column.name) or free(column.name, taken)
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


def ensure_mirror(transaction: WarehouseTransaction, lane: Lane, mirror: Mirror) -> list[Drift]:
    """Make it, or change it as its table has changed; what was changed is noted. If it holds less than its table now,
    its lane's checkpoint is forgotten with that: whatever ends us next, all of the table is read once more.

    A new column counts: rows that nothing changes have its default, which only reading them tells. Raises as
    :func:`~churnguard_pipelines.store.raw.mirror_tables.ensure`.
    """
    was_there = mirror_tables.exists(transaction.connection, mirror.table)
    with transaction.as_owner() as connection:
        drift = mirror_tables.ensure(connection, mirror)
    record_drift(transaction.connection, lane, mirror.object, drift)
    if not was_there or any(each.kind != "widened_column" for each in drift):
        checkpoints.forget(transaction.connection, lane)
    return drift


def entity_of(integration: IntegrationConfiguration, table: SourceTable) -> str:
    """What the table is called in the warehouse."""
    return integration.entity_mappings.get(table.object, table.object)
