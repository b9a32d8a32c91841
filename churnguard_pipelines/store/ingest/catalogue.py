"""The catalogue of source tables: the tables of customers' databases as last seen, their mirrors, and why one is not
read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.mirror_types import MirrorType
from churnguard_pipelines.mirrors import Lag, SourceColumn, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.store.control.ownership import of_integration
from churnguard_pipelines.store.ingest.tables import change_logs, source_tables
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.names import readable

_table = source_tables.c


@dataclass(frozen=True, slots=True)
class Entry:
    """A source table as the catalogue has it. ``problem``: why it is not read any more, None if it is."""

    table: SourceTable
    raw_table: str
    problem: str | None
    seen_at: datetime


def entries(store: Store, integration_id: str) -> dict[str, Entry]:
    """Object -> what is known of it, in the order of the names."""
    statement = sa.select(source_tables).where(of_integration(source_tables, integration_id)).order_by(_table.object)
    with store.operator() as connection:
        return {
            row.object: Entry(_read(row.object, row.definition), row.raw_table, row.problem, row.seen_at)
            for row in connection.execute(statement)
        }


def remember(
    store: Store, integration: IntegrationConfiguration, tables: Iterable[tuple[SourceTable, str]]
) -> dict[str, str]:
    """Note these tables as they are now, each with its wanted name in the warehouse; returns object -> raw table.

    A table keeps the raw table that it has. Two whose readable names are the same get different ones.
    """
    named: dict[str, str] = {}
    with store.operator() as connection:
        for table, name in tables:
            named[table.object] = _note(connection, integration, table, name)
    return named


def forget(store: Store, organization_id: str, integration_id: str) -> list[str]:
    """Forget an integration's tables; returns the raw tables they had."""
    own = _table.organization_id == organization_id, _table.integration_id == integration_id
    statement = sa.delete(source_tables).where(*own).returning(_table.raw_table)
    with store.operator() as connection:
        return list(connection.scalars(statement))


def set_problem(store: Store, integration_id: str, object: str, problem: str | None) -> None:
    here = of_integration(source_tables, integration_id), _table.object == object
    with store.operator() as connection:
        connection.execute(sa.update(source_tables).where(*here).values(problem=problem))


def set_lag(store: Store, integration: IntegrationConfiguration, lag: Lag) -> None:
    values = {
        "lag_bytes": lag.bytes,
        "lag_seconds": lag.seconds,
        "horizon": lag.horizon,
        "detail": dict(lag.detail),
        "looked_at": sa.func.clock_timestamp(),
    }
    statement = insert(change_logs).values(
        organization_id=integration.organization_id, integration_id=integration.integration_id, **values
    )
    with store.operator() as connection:
        connection.execute(statement.on_conflict_do_update(constraint="change_logs_pkey", set_=values))


def get_lag(store: Store, integration_id: str) -> Lag | None:
    """As it was last looked at."""
    with store.operator() as connection:
        row = connection.execute(
            sa.select(change_logs).where(of_integration(change_logs, integration_id))
        ).one_or_none()
    return Lag(row.lag_bytes, row.lag_seconds, row.horizon, row.detail) if row else None


def forget_lag(store: Store, integration_id: str) -> None:
    """Its change log is not followed any more."""
    with store.operator() as connection:
        connection.execute(sa.delete(change_logs).where(of_integration(change_logs, integration_id)))


def raw_name(provider: str, integration_id: str, name: str, *, unique: str | None = None) -> str:
    """``postgresql_acme_users``."""
    return readable(provider, integration_id, name, unique=unique)


def _note(connection: Connection, integration: IntegrationConfiguration, table: SourceTable, name: str) -> str:
    seen = {"definition": _written(table), "seen_at": sa.func.clock_timestamp()}
    owner = {"organization_id": integration.organization_id, "integration_id": integration.integration_id}
    here = (*(_table[name] == value for name, value in owner.items()), _table.object == table.object)
    known: str | None = connection.scalar(
        sa.update(source_tables).where(*here).values(seen).returning(_table.raw_table)
    )
    if known is not None:
        return known
    for unique in (None, table.object):
        wanted = raw_name(integration.provider_name, integration.integration_id, name, unique=unique)
        statement = insert(source_tables).values(**owner, object=table.object, raw_table=wanted, **seen)
        made = statement.on_conflict_do_nothing(index_elements=["raw_table"]).returning(_table.raw_table)
        if connection.scalar(made) is not None:
            return wanted
    raise AssertionError(f"no name for the mirror of {table.object}")


def _written(table: SourceTable) -> dict[str, Any]:
    columns = [
        {"name": column.name, "type": str(column.type), "source_type": column.source_type} for column in table.columns
    ]
    return {
        "columns": columns, "key": table.key, "keyless": table.keyless, "rows": table.rows,
        "fingerprint": table.fingerprint,
    }  # fmt: skip


def _read(object: str, definition: dict[str, Any]) -> SourceTable:
    try:
        columns = tuple(
            SourceColumn(column["name"], MirrorType.parse(column["type"]), column["source_type"])
            for column in definition["columns"]
        )
    except ValueError as error:
        raise InvalidConfiguration(
            f"what is noted of the table {object!r} cannot be used: {error}.",
            remedy="`churnguard integrations reset` with this object notes it anew.",
        ) from None
    return SourceTable(
        object, columns, tuple(definition["key"]), keyless=definition["keyless"], rows=definition["rows"],
        fingerprint=definition.get("fingerprint", ""),
    )  # fmt: skip
