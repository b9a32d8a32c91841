"""Discovers the tables of a MySQL or MariaDB database, their keys, and the warehouse types of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pymysql

from churnguard_pipelines.connectors.mysql.connection import execute, quoted
from churnguard_pipelines.connectors.mysql.protocol import Connection
from churnguard_pipelines.connectors.mysql.types import UNKNOWN, Kind, kind_of, members
from churnguard_pipelines.connectors.sdk.database import row_number
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import SourceColumn, SourceTable

ROW_FORMAT_ENGINES = ("innodb", "aria", "myisam", "rocksdb", "tokudb", "ndbcluster")

_TABLES = """
SELECT TABLE_NAME, TABLE_ROWS, IFNULL(ENGINE, ''), TABLE_TYPE = 'SYSTEM VERSIONED'
  FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = {database} AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED'){only}
"""
_COLUMNS = """
SELECT TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE), COLUMN_TYPE, CHARACTER_SET_NAME, GENERATION_EXPRESSION
  FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {database}{only} ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
_KEYS = """
SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART FROM information_schema.STATISTICS
 WHERE TABLE_SCHEMA = {database} AND NON_UNIQUE = 0{only} ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX
"""
_JSON_CHECKS = """
SELECT TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
 WHERE CONSTRAINT_SCHEMA = {database} AND CHECK_CLAUSE LIKE 'json_valid(%'{only}
"""


# InnoDB changes the rows of such a table without a word in the binary log.
_CASCADED = """
SELECT DISTINCT TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
 WHERE CONSTRAINT_SCHEMA = {database}{only}
   AND ('CASCADE' IN (DELETE_RULE, UPDATE_RULE) OR 'SET NULL' IN (DELETE_RULE, UPDATE_RULE))
"""


@dataclass(frozen=True, slots=True)
class FoundColumn:
    """A column of a source table. ``charset``: of its characters, None if it has none. ``ends``: it tells until when a
    version of the row held, of a table that keeps its history."""

    name: str
    kind: Kind
    data_type: str
    source_type: str
    charset: str | None
    members: tuple[str, ...]
    unsigned: bool
    known: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A source table and what reading and following it need. ``columns``: in the source's order. ``index``: of the key.
    ``ordered``: the leading columns of the key by whose values it can be cut into ranges. ``cascaded``: foreign keys
    change rows of it. ``hidden``: columns that stand at the end of its rows in the log and nowhere else; ``ends``: that
    of the one that tells until when a version of a row held, of a table that keeps its history (MariaDB's
    system-versioned ones)."""

    table: SourceTable
    columns: tuple[FoundColumn, ...]
    index: str | None
    ordered: tuple[str, ...]
    unfollowable: str | None
    cascaded: bool
    hidden: tuple[FoundColumn, ...] = ()
    ends: str | None = None

    @property
    def name(self) -> str:
        return quoted(self.table.object)

    def column(self, name: str) -> FoundColumn:
        return next(column for column in self.columns if column.name == name)

    def line(self, *leading: str) -> str:
        """An expression for a row as a line of COPY, of all columns after the ``leading`` ones."""
        return copy_line([*leading, *(column.kind.field(quoted(column.name)) for column in self.columns)])


def copy_line(fields: Sequence[str]) -> str:
    """Bytes, as UTF-8; null for a line longer than ``max_allowed_packet``."""
    joined = r", '\t', ".join(fields)
    return rf"CAST(CONCAT({joined}, '\n') AS BINARY)"


def is_mariadb(connection: Connection) -> bool:
    return "mariadb" in str(connection.get_server_info()).lower()  # type: ignore[no-untyped-call]


def find_tables(connection: Connection, database: str, only: str | None = None) -> dict[str, FoundTable]:
    """Every table that the user may read, or ``only`` this one, by name, in the order of their names."""
    parts = {
        "database": connection.escape(database),
        "only": f" AND TABLE_NAME = {connection.escape(only)}" if only is not None else "",
    }

    def rows(query: str) -> list[tuple[Any, ...]]:
        return execute(connection, query.replace("{database}", parts["database"]).replace("{only}", parts["only"]))

    columns, keys = _by_table(rows(_COLUMNS)), _by_table(rows(_KEYS))
    checks = _by_table(rows(_JSON_CHECKS)) if is_mariadb(connection) else {}
    cascaded = {name for (name,) in rows(_CASCADED)}
    tables: dict[str, FoundTable] = {}
    for name, estimate, engine, versioned in sorted(rows(_TABLES)):
        checked = {clause for (clause,) in checks.get(name, [])}
        found = [_column(row, checked) for row in columns.get(name, [])]
        if found and _readable(connection, name, found):
            table = _table(name, estimate, engine.lower(), found, keys.get(name, []), name in cascaded)
            tables[name] = _with_history(table) if versioned else table
    return tables


def _by_table(rows: Iterable[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row[1:])
    return found


def _readable(connection: Connection, table: str, columns: Sequence[FoundColumn]) -> bool:
    """Grants may come from roles, patterns and single columns; the server knows best."""
    listed = ", ".join(quoted(column.name) for column in columns)
    try:
        execute(connection, f"SELECT {listed} FROM {quoted(table)} LIMIT 0")
    except pymysql.Error as error:
        if error.args[0] in (1142, 1143, 1146, 1932):  # forbidden, or gone meanwhile, or without its files
            return False
        raise
    return True


def _column(row: tuple[Any, ...], checked: set[str]) -> FoundColumn:
    name, data_type, column_type, charset, expression = row
    kind = kind_of(data_type, column_type, json_checked=f"json_valid({quoted(name)})" in checked)
    return FoundColumn(
        name, kind or UNKNOWN, data_type, column_type, charset,
        members(column_type) if data_type in ("enum", "set") else (),
        "unsigned" in column_type.split(), kind is not None, expression == "ROW END",
    )  # fmt: skip


def _table(
    name: str,
    estimate: int | None,
    engine: str,
    columns: list[FoundColumn],
    keys: list[tuple[Any, ...]],
    cascaded: bool,
) -> FoundTable:
    ends = next((column.name for column in columns if column.ends), None)
    found = _key([part for part in keys if part[1] != ends], {column.name for column in columns})
    index, key = found if found is not None else (None, [])
    declared = [SourceColumn(column.name, column.kind.type, column.source_type) for column in columns]
    number = row_number({column.name for column in columns})
    if index is None:
        declared.insert(0, SourceColumn(number, MirrorType(Base.BIGINT), "row number"))
    by_name = {column.name: column for column in columns}
    ordered: list[str] = []
    for column, _, part in key:
        if part is not None or by_name[column].kind.orderable is None:
            break
        ordered.append(column)
    names = tuple(column for column, _, _ in key) or (number,)
    table = SourceTable(name, tuple(declared), names, keyless=index is None, rows=estimate)
    unfollowable = _unfollowable(name, engine, index, columns)
    return FoundTable(table, tuple(columns), index, tuple(ordered), unfollowable, cascaded)


_MOMENT = kind_of("timestamp", "timestamp(6)", json_checked=False) or UNKNOWN
_ROW_PERIOD = tuple(
    FoundColumn(name, _MOMENT, "timestamp", "timestamp(6)", None, (), False, True, name == "row_end")
    for name in ("row_start", "row_end")
)


def _with_history(found: FoundTable) -> FoundTable:
    """Rows that are updated or deleted stay in it, as versions that have ended."""
    ends = next((column for column in found.columns if column.ends), None)
    if ends is None:
        return replace(found, hidden=_ROW_PERIOD, ends=_ROW_PERIOD[-1].name)
    unfollowable = found.unfollowable
    if ends.data_type != "timestamp":
        unfollowable = unfollowable or (
            "its versions have numbers of transactions, so statements are logged in place of rows. Versions by "
            "timestamp would change that, or a full sync."
        )
    return replace(found, ends=ends.name, unfollowable=unfollowable)


def _key(rows: list[tuple[Any, ...]], columns: set[str]) -> tuple[str, list[tuple[Any, ...]]] | None:
    """The primary key, or else the first unique one without nulls: its index, and its (column, nullable, part)."""
    indexes: dict[str, list[tuple[Any, ...]]] = {}
    for index, *rest in rows:
        indexes.setdefault(index, []).append(tuple(rest))
    for index in sorted(indexes, key=lambda name: (name != "PRIMARY", name)):
        parts = indexes[index]
        if all(
            column in columns and nullable != "YES" and (part is None or index == "PRIMARY")
            for column, nullable, part in parts
        ):
            return index, parts
    return None


def _unfollowable(name: str, engine: str, index: str | None, columns: list[FoundColumn]) -> str | None:
    if index is None:
        return f"it has no key. `ALTER TABLE {quoted(name)} ADD PRIMARY KEY (…)` would change that, or a full sync."
    if engine not in ROW_FORMAT_ENGINES:
        return f"its engine {engine} does not log rows. `ALTER TABLE {quoted(name)} ENGINE = InnoDB` would change that."
    for column in columns:
        if not column.known:
            return f"its column {column.name} is of the type {column.source_type}, which only a full sync can read."
    return None
