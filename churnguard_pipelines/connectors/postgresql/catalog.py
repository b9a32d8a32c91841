"""Discovers the tables of a PostgreSQL database, their keys, and the warehouse types of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from churnguard_pipelines.connectors.postgresql.fingerprint import Fingerprint, digest, own_types
from churnguard_pipelines.connectors.postgresql.following import (
    GENERATED_ARE_PUBLISHED,
    Key,
    Leaf,
    chosen_key,
    unfollowable,
)
from churnguard_pipelines.connectors.postgresql.types import Types
from churnguard_pipelines.connectors.sdk.database import row_number
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import SourceColumn, SourceTable

_ONLY = Literal(0)

# reltuples is -1 of what was never analyzed: then nobody knows. Where that is so of some partitions, which are mostly
# those that nothing is in yet, the others tell about how many rows there are.
_TABLES = """
SELECT n.nspname, c.relname, c.oid::bigint, c.relkind = 'p', c.relreplident::text,
       CASE WHEN c.relkind = 'r' THEN nullif(c.reltuples, -1) ELSE (
         WITH RECURSIVE tree (oid) AS (
           SELECT c.oid
           UNION ALL
           SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
         )
         SELECT nullif(pg_catalog.sum(nullif(leaf.reltuples, -1)),
                       CASE WHEN pg_catalog.min(leaf.reltuples) < 0 THEN 0 END)
           FROM tree JOIN pg_catalog.pg_class leaf ON leaf.oid = tree.oid
          WHERE leaf.relkind <> 'p'
       ) END::bigint, pg_catalog.row_security_active(c.oid)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
 ORDER BY n.nspname, c.relname
"""
_LEAVES = """
WITH RECURSIVE tree (root, oid, joined) AS (
  SELECT c.oid, c.oid, '' FROM pg_catalog.pg_class c WHERE c.oid = ANY(%s)
  UNION ALL
  SELECT tree.root, i.inhrelid, tree.joined || i.xmin || ' '
    FROM tree JOIN pg_catalog.pg_class parent ON parent.oid = tree.oid AND parent.relkind = 'p'
    JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid AND NOT i.inhdetachpending
)
SELECT tree.root::bigint, n.nspname, c.relname, c.oid::bigint, c.relkind::text, c.relpersistence = 'u',
       c.relreplident::text, c.relfilenode::bigint, tree.joined,
       c.relkind = 'r' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
         AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT pg_catalog.row_security_active(c.oid)
  FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind <> 'p' ORDER BY 1, 2, 3
"""
_COLUMNS = """
SELECT a.attrelid::bigint, a.attname, a.atttypid::bigint, a.atttypmod, a.attgenerated::text, a.attnum,
       CASE WHEN a.attgenerated <> '' THEN d.adbin::text END
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum
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
    """A source table and what reading and following it need. ``casts``: by column. ``leaves``: the tables that hold the
    rows. ``unfollowable``: why its changes cannot be followed. ``unlogged``: columns that no change log carries and
    that are left out for it; those of them among the table's columns are read as null. ``generated``: whether it has
    columns that a log carries only if told to."""

    table: SourceTable
    schema: str
    name: str
    fingerprint: Fingerprint
    casts: dict[str, MirrorType | None]
    leaves: tuple[Leaf, ...]
    unfollowable: str | None
    unlogged: frozenset[str]
    generated: bool

    @property
    def oid(self) -> int:
        return self.fingerprint.oid

    @property
    def relation(self) -> Composable:
        """For a statement: the table with its partitions, but without what inherits from it."""
        return (SQL("{}") if self.fingerprint.partitioned else SQL("ONLY {}")).format(
            Identifier(self.schema, self.name)
        )

    def selected(self, version: int, leaf: Composable = _ONLY) -> Composable:
        """What a COPY selects: the version, then the table's columns as the warehouse takes them. ``leaf``: the place
        of the one that a row is in."""
        values = [self.value(column.name, leaf) for column in self.table.columns]
        return SQL(", ").join([SQL("{}::bigint").format(Literal(version)), *values])

    def value(self, column: str, leaf: Composable = _ONLY) -> Composable:
        if self.table.keyless and column == self.table.key[0]:
            place = SQL("(ctid::text::point)")  # (page, number in it); a page has less than 65,536
            number = SQL("({} * 281474976710656 + {place}[0]::bigint * 65536 + {place}[1]::bigint)")
            return number.format(leaf, place=place)
        cast = self.casts[column]
        if column in self.unlogged:
            return SQL("NULL::{}").format(next(each.type for each in self.table.columns if each.name == column).sql)
        if cast is None:
            return Identifier(column)
        if cast.array:  # as its text has it: a cast of each element cuts blanks
            return SQL("{}::text::{}").format(Identifier(column), cast.sql)
        return SQL("{}::{}").format(Identifier(column), cast.sql)

    def written(self, column: str) -> Composable:
        """As its type writes it, of columns that a change log carries."""
        return SQL("NULL") if column in self.unlogged else Identifier(column)

    def with_unlogged(self, known: SourceTable) -> FoundTable:
        """With those left out that the mirror has of earlier: it had better say nothing than what they were once."""
        names = {column.name for column in self.table.columns}
        left = tuple(each for each in known.columns if each.name in self.unlogged - names)
        table = replace(self.table, columns=(*self.table.columns, *left))
        return replace(self, table=table, casts=self.casts | dict.fromkeys((each.name for each in left), None))


def object_name(schema: str, name: str) -> str:
    """``users``, ``billing.invoices``; a name with a point in it is quoted, so that no two tables have one name."""
    quoted = [f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & {".", '"'} else part for part in (schema, name)]
    return quoted[1] if schema == "public" else ".".join(quoted)


def find_tables(connection: psycopg.Connection[Any], *, followed: bool) -> list[FoundTable]:
    """Every table the user may read. ``followed``: without the columns that a change log does not carry, where the
    table can be followed."""
    rows = connection.execute(_TABLES).fetchall()
    oids = [row[2] for row in rows]
    leaves: dict[int, list[Leaf]] = {}
    for root, *leaf in connection.execute(_LEAVES, [oids]):
        leaves.setdefault(root, []).append(Leaf(*leaf))
    columns: dict[int, list[Any]] = {}
    for row in connection.execute(_COLUMNS, [oids]):
        columns.setdefault(row[0], []).append(row)
    keys: dict[int, list[Key]] = {}
    holding = {*oids, *(leaf.oid for each in leaves.values() for leaf in each)}
    for oid, index, primary, identity, names in connection.execute(_KEYS, [list(holding)]):
        keys.setdefault(oid, []).append(Key(index, primary, identity, tuple(names)))
    catalog = _Catalog(connection, leaves, columns, keys, followed=followed)
    return [catalog.table(row) for row in rows]


class _Catalog:
    def __init__(
        self,
        connection: psycopg.Connection[Any],
        leaves: dict[int, list[Leaf]],
        columns: dict[int, list[Any]],
        keys: dict[int, list[Key]],
        *,
        followed: bool,
    ) -> None:
        self._leaves, self._columns, self._keys = leaves, columns, keys
        self._followed = followed
        self._user = Identifier(connection.info.user).as_string(None)
        self._version = connection.info.server_version
        self._types = Types(connection)
        self._own = own_types(connection, list({row[2] for each in columns.values() for row in each}))

    def table(self, row: Any) -> FoundTable:
        schema, name, oid, partitioned, identity, estimate, hides = row
        leaves, columns = self._leaves.get(oid, []), self._columns.get(oid, [])
        key = chosen_key(identity, self._keys.get(oid, []), leaves, self._keys)
        unpublished = [each[1] for each in columns if each[4] and not self._publishes(each[4])]
        hidden = f"row-level security hides rows from the user. Run `ALTER ROLE {self._user} BYPASSRLS`."
        problem = hidden if hides else None
        quoted = Identifier(schema, name).as_string(None)
        reason = unfollowable(quoted, key, leaves, self._keys, unpublished, self._version)
        unlogged = frozenset(unpublished if self._followed and reason is None else ())
        kinds = {each[1]: self._types.kind(each[2], each[3]) for each in columns if each[1] not in unlogged}
        declared = tuple(SourceColumn(column, kind.type, kind.source_type) for column, kind in kinds.items())
        number = row_number(kinds)
        if key is None:
            declared = (SourceColumn(number, MirrorType(Base.BIGINT), "ctid"), *declared)
        fingerprint = self._fingerprint(oid, leaves, columns, partitioned=partitioned)
        table = SourceTable(
            object_name(schema, name), declared, key.columns if key else (number,), keyless=key is None,
            rows=estimate, problem=problem, fingerprint=str(fingerprint),
        )  # fmt: skip
        casts = {column: kind.cast for column, kind in kinds.items()}
        generated = any(self._publishes(each[4]) for each in columns)
        return FoundTable(table, schema, name, fingerprint, casts, tuple(leaves), reason, unlogged, generated)

    def _publishes(self, generated: str) -> bool:
        return generated == "s" and self._version >= GENERATED_ARE_PUBLISHED

    def _fingerprint(
        self, oid: int, leaves: Sequence[Leaf], columns: Sequence[Any], *, partitioned: bool
    ) -> Fingerprint:
        types: dict[str, str] = {}
        for each in columns:
            types |= self._own.get(each[2], {})
        return Fingerprint(
            oid,
            partitioned,
            {str(leaf.oid): digest(leaf.file, leaf.joined) for leaf in leaves},
            {str(each[5]): digest(each[1], each[2], each[6]) for each in columns},
            types,
        )
