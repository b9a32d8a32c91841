"""The tables of schema ``raw``: one per provider object, made and widened from the connectors' declarations."""

from __future__ import annotations

import sqlalchemy as sa
from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import Connection

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.records import Drift, Table
from churnguard_pipelines.store.postgres import locks
from churnguard_pipelines.store.postgres.row_security import READ, protect

OWN_COLUMNS = {
    "organization_id": "text",
    "integration_id": "text",
    "extra": "jsonb",
    "source_version": "bigint",
    "deleted_at": "timestamptz",
    "delete_kind": "text",
    "synced_at": "timestamptz",
}
VALIDITY = ("valid_from", "valid_to")
_LONGEST_NAME = 63

# By a join: to_regclass() answers from a cache that does not see what another process created since the first look.
_COLUMNS = sa.text("""
SELECT a.attname, format_type(a.atttypid, NULL)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'raw' AND c.relname = :name AND a.attnum > 0 AND NOT a.attisdropped
""")
# format_type's word for a type, where it differs from the declarations'.
_SPELLING = {"timestamp with time zone": "timestamptz"}


def quoted(name: str) -> str:
    """``raw.<name>`` for a statement of the driver, to which a percent sign begins a parameter."""
    return Identifier("raw", name).as_string(None).replace("%", "%%")


def versions_name(table: Table) -> str:
    return f"{table.name}_versions"


def check_declaration(table: Table) -> None:
    """Raises ``InvalidConfiguration`` for names that PostgreSQL would cut, and for columns that collide with ours."""
    names = [table.key, *(column.name for column in table.columns)]
    taken = {name for name in names if name in OWN_COLUMNS or name in VALIDITY or names.count(name) > 1}
    if taken:
        raise InvalidConfiguration(
            f"raw.{table.name} cannot have the column {', '.join(sorted(taken))} as declared: the name is taken.",
            remedy="Give the column another name in the connector or in field_mappings.",
        )
    for name in (*names, versions_name(table)):
        if not 0 < len(name.encode()) <= _LONGEST_NAME or "\0" in name:
            raise InvalidConfiguration(
                f"{name!r} cannot be a name in raw.{table.name}.", remedy=f"Use 1 to {_LONGEST_NAME} bytes."
            )


def missing_columns(connection: Connection, table: Table) -> tuple[bool, list[Drift]]:
    """Whether anything has to be created, and how the declaration differs from what exists."""
    incomplete = False
    drift: dict[str, Drift] = {}
    for name in (table.name, versions_name(table))[: 1 + table.versioned]:
        existing = _existing(connection, name)
        incomplete |= not existing
        for column in table.columns if existing else ():
            found = existing.get(column.name)
            if found is None:
                incomplete = True
                drift[column.name] = Drift(column.name, "added_column", column.type)
            elif found != column.type:
                detail = f"the table has {found}, the declaration says {column.type}; the table keeps its type"
                drift[column.name] = Drift(column.name, "type_mismatch", detail)
    return incomplete, list(drift.values())


def create_or_widen(connection: Connection, table: Table) -> None:
    """As owner, one process at a time; types of existing columns are never changed.

    Raises ``DatabaseUnavailable`` if others do not let go of a table; nothing is changed then.
    """
    locks.take(connection, locks.Shared.RAW_TABLES)
    for name in (table.name, versions_name(table))[: 1 + table.versioned]:
        existing = _existing(connection, name)
        if not existing:
            _execute(connection, _creation(table, name))
            for statement in protect("raw", name, operator=READ):
                connection.exec_driver_sql(statement.replace("%", "%%"))
        elif added := [column for column in table.columns if column.name not in existing]:
            clauses = [SQL("ADD COLUMN {} {}").format(Identifier(item.name), SQL(item.type)) for item in added]
            locks.take_table(connection, name)
            _execute(connection, SQL("ALTER TABLE {} ").format(Identifier("raw", name)) + SQL(", ").join(clauses))


def _creation(table: Table, name: str) -> Composed:
    key = ["organization_id", "integration_id", table.key]
    columns: list[Composable] = [SQL("{} text NOT NULL").format(Identifier(column)) for column in key]
    columns += [SQL("{} {}").format(Identifier(column.name), SQL(column.type)) for column in table.columns]
    columns += [
        SQL("extra jsonb, source_version bigint NOT NULL, deleted_at timestamptz, delete_kind text"),
        SQL("synced_at timestamptz NOT NULL"),
    ]
    if name == versions_name(table):
        columns.append(SQL("valid_from timestamptz NOT NULL, valid_to timestamptz"))
        key.append("valid_from")
    columns.append(SQL("PRIMARY KEY ({})").format(SQL(", ").join(map(Identifier, key))))
    return SQL("CREATE TABLE {} ({})").format(Identifier("raw", name), SQL(", ").join(columns))


def _existing(connection: Connection, name: str) -> dict[str, str]:
    rows = connection.execute(_COLUMNS, {"name": name}).all()
    return {column: _SPELLING.get(type_name, type_name) for column, type_name in rows}


def _execute(connection: Connection, statement: Composed) -> None:
    connection.exec_driver_sql(statement.as_string(None).replace("%", "%%"))
