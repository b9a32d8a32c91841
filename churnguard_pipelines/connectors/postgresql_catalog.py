"""What a PostgreSQL database holds: its tables, their keys, and the types their values have in the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from churnguard_pipelines.connectors.database import row_number
from churnguard_pipelines.connectors.postgresql_types import Types
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import SourceColumn, SourceTable

_TABLES = """
SELECT n.nspname, c.relname, c.oid::bigint, c.relkind = 'p', c.relpersistence = 'u', c.relreplident::text,
       greatest(c.reltuples, 0)::bigint
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
 ORDER BY n.nspname, c.relname
"""
_COLUMNS = """
SELECT attrelid::bigint, attname, atttypid::bigint, atttypmod, attgenerated::text
  FROM pg_catalog.pg_attribute WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum
"""
_KEYS = """
SELECT i.indrelid::bigint, c.relname, i.indisprimary, i.indisreplident, pg_catalog.array_agg(a.attname ORDER BY k.place)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indrelid = ANY(%s) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
   AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
 GROUP BY 1, 2, 3, 4 HAVING pg_catalog.bool_and(a.attnotnull)
 ORDER BY i.indisreplident DESC, i.indisprimary DESC, c.relname
"""


@dataclass(frozen=True, slots=True)
class FoundTable:
    """``casts``: by column. ``leaves``: the tables that hold the rows. ``unfollowable``: why no change log can name its
    rows."""

    table: SourceTable
    schema: str
    name: str
    oid: int
    casts: dict[str, MirrorType | None]
    leaves: tuple[tuple[str, str], ...]
    unfollowable: str | None

    @property
    def identifier(self) -> Identifier:
        return Identifier(self.schema, self.name)

    def selected(self, version: int, leaf: int = 0) -> Composable:
        """What a COPY selects: the version, then the table's columns as the warehouse takes them."""
        values = [self.value(column.name, leaf) for column in self.table.columns]
        return SQL(", ").join([SQL("{}::bigint").format(Literal(version)), *values])

    def value(self, column: str, leaf: int = 0) -> Composable:
        if self.table.keyless and column == self.table.key[0]:
            place = SQL("(ctid::text::point)")  # (page, number in it); a page has less than 65,536
            number = SQL("({} * 281474976710656 + {place}[0]::bigint * 65536 + {place}[1]::bigint)")
            return number.format(Literal(leaf), place=place)
        cast = self.casts[column]
        return SQL("{}::{}").format(Identifier(column), cast.sql) if cast else Identifier(column)


def object_name(schema: str, name: str) -> str:
    return name if schema == "public" else f"{schema}.{name}"


def find_tables(connection: psycopg.Connection[Any], *, followed: bool) -> list[FoundTable]:
    """Every table the user may read. ``followed``: without generated columns, which a change log does not carry."""
    rows = connection.execute(_TABLES).fetchall()
    oids = [row[2] for row in rows]
    columns: dict[int, list[Any]] = {}
    for row in connection.execute(_COLUMNS, [oids]):
        if not (followed and row[4]):
            columns.setdefault(row[0], []).append(row)
    keys: dict[int, list[Any]] = {}
    for row in connection.execute(_KEYS, [oids]):
        keys.setdefault(row[0], []).append(row)
    types = Types(connection)
    return [_found(connection, row, columns.get(row[2], []), keys.get(row[2], []), types) for row in rows]


def _found(
    connection: psycopg.Connection[Any], row: Any, columns: Sequence[Any], keys: Sequence[Any], types: Types
) -> FoundTable:
    schema, name, oid, partitioned, unlogged, identity, estimate = row
    kinds = {column[1]: types.kind(column[2], column[3]) for column in columns}
    key = next((item for item in keys if item[3] or item[2] or identity != "i"), None)
    number = row_number(kinds)
    declared = tuple(SourceColumn(column, kind.type, kind.source_type) for column, kind in kinds.items())
    if key is None:
        declared = (SourceColumn(number, MirrorType(Base.BIGINT), "ctid"), *declared)
    table = SourceTable(
        object_name(schema, name), declared, tuple(key[4]) if key else (number,), keyless=key is None, rows=estimate
    )
    leaves: tuple[tuple[str, str], ...] = ((schema, name),)
    if partitioned:
        found = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_partition_tree(%s::oid::regclass) t "
            "JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE t.isleaf ORDER BY 1, 2",
            [oid],
        )
        leaves = tuple((leaf[0], leaf[1]) for leaf in found)
    casts = {column: kind.cast for column, kind in kinds.items()}
    return FoundTable(table, schema, name, oid, casts, leaves, _unfollowable(schema, name, key, identity, unlogged))


def _unfollowable(schema: str, name: str, key: Any, identity: str, unlogged: bool) -> str | None:
    quoted = Identifier(schema, name).as_string(None)
    if unlogged:
        return f"it is unlogged. `ALTER TABLE {quoted} SET LOGGED` would change that."
    if key is None:
        return f"it has no key. `ALTER TABLE {quoted} ADD PRIMARY KEY (…)` would change that, or a full sync."
    if identity == "n":
        return f"its replica identity is NOTHING. `ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT` would change that."
    if identity == "d" and not key[2]:
        index = Identifier(key[1]).as_string(None)
        return (
            f"it has no primary key. `ALTER TABLE {quoted} REPLICA IDENTITY USING INDEX {index}` lets the change log "
            "name its rows by that unique index."
        )
    return None
