"""Schema ``views``: per integration and object a view of its own rows, each column in its own type.

A view runs as whoever reads it (``security_invoker``): the table's row security holds through it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Connection

from churnguard_pipelines.errors import SchemaConflict, TableInUse
from churnguard_pipelines.records import ColumnType
from churnguard_pipelines.store.ingest import objects
from churnguard_pipelines.store.postgres.row_security import OPERATOR, RAW, open_view

_IN_USE_SECONDS = 5  # readers who come meanwhile wait behind us

_VIEW = SQL(
    "CREATE OR REPLACE VIEW {} WITH (security_invoker = true) AS\nSELECT {}\n  FROM {} AS stored\n"
    " WHERE stored.organization_id = {} AND stored.integration_id = {}"
)
# What is no list has no items.
_ITEMS = SQL(
    "(SELECT parent.*, item.element, item.position FROM {} AS parent\n"
    "        CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof({list}) WHEN 'array' THEN {list}\n"
    "                                                ELSE '[]' END) WITH ORDINALITY AS item (element, position))"
)
# What is no value of its type is null: see the functions in the migrations.
_READ_AS = {
    ColumnType.BIGINT: SQL("views.to_bigint({})"),
    ColumnType.NUMERIC: SQL("views.to_numeric({})"),
    ColumnType.DOUBLE: SQL("views.to_double({})"),
    ColumnType.BOOLEAN: SQL("views.to_boolean({})"),
    ColumnType.TIMESTAMP: SQL("views.to_timestamptz({})"),
    ColumnType.DATE: SQL("views.to_date({})"),
    ColumnType.JSON: SQL("views.to_jsonb({})"),
}


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """A column of the table as it is; with a ``path`` what lies there in it, a JSON document, read as ``type``."""

    name: str
    source: str
    path: tuple[str, ...] = ()
    type: ColumnType = ColumnType.TEXT


@dataclass(frozen=True, slots=True)
class View:
    """``views.<name>``: an integration's rows of ``raw.<table>``; with ``items`` those of a list that lies at this path
    in ``extra`` of each, which have the columns ``element`` and ``position``, from 1 on, besides the row's."""

    name: str
    table: str
    organization_id: str
    integration_id: str
    columns: tuple[ViewColumn, ...]
    items: tuple[str, ...] = ()


def digest(views: Sequence[View]) -> str:
    """Of the statements that make them. Cheap where many integrations show the same columns."""
    told = [
        (view.name, view.table, view.organization_id, view.integration_id, _columns_text(view.columns), *view.items)
        for view in views
    ]
    return hashlib.sha256(repr((_VIEW.as_string(None), told)).encode()).hexdigest()


def put(connection: Connection, view: View) -> None:
    """Make it, or make it what it is to be, within the operator's transaction: who reads meanwhile reads the former
    one, or waits for the new one.

    Raises ``TableInUse`` if others do not let go of it, ``SchemaConflict`` if a view of somebody else's stands on it;
    it is as it was then.
    """
    with _refusing(view.name), _as_owner(connection):
        try:
            with connection.begin_nested():  # columns that are added at the end disturb nobody's own views
                _execute(connection, _definition(view))
        except sa.exc.DBAPIError as error:
            if not isinstance(error.orig, errors.InvalidTableDefinition):
                raise
            _execute(connection, _dropping(view.name))
            _execute(connection, _definition(view))
        _execute(connection, open_view(view.name))


def drop_of(
    connection: Connection, organization_id: str, integration_id: str, names: Sequence[str] | None = None
) -> None:
    """The views of these objects of an integration, or of all, and what was known of the objects; in the operator's
    transaction. Raises as :func:`put` does, and nothing is dropped then."""
    with connection.begin_nested():
        for name in objects.forget(connection, organization_id, integration_id, names):
            with _refusing(name), _as_owner(connection):
                _execute(connection, _dropping(objects.versions_view(name)))
                _execute(connection, _dropping(name))


def _dropping(name: str) -> Composed:
    return SQL("DROP VIEW IF EXISTS {}").format(Identifier("views", name))


def _definition(view: View) -> Composed:
    return _VIEW.format(
        Identifier("views", view.name),
        _columns(view.columns),
        _rows(view),
        Literal(view.organization_id),
        Literal(view.integration_id),
    )


def _rows(view: View) -> Composable:
    table = Identifier("raw", view.table)
    if not view.items:
        return table
    way = SQL(" -> ").join([SQL("parent.extra"), *map(Literal, view.items)])
    return _ITEMS.format(table, list=way)


@lru_cache(maxsize=1024)
def _columns_text(columns: tuple[ViewColumn, ...]) -> str:
    return _columns(columns).as_string(None)


def _columns(columns: tuple[ViewColumn, ...]) -> Composed:
    return SQL(",\n       ").join(map(_column, columns))


def _column(column: ViewColumn) -> Composable:
    value: Composable = SQL("stored.{}").format(Identifier(column.source))
    if column.path:
        *way, last = (Literal(name) for name in column.path)
        for name in way:
            value = SQL("{} -> {}").format(value, name)
        text = column.type is ColumnType.TEXT
        value = SQL("{} ->> {}" if text else "{} -> {}").format(value, last)
        value = value if text else _READ_AS[column.type].format(value)
    return SQL("{} AS {}").format(value, Identifier(column.name))


@contextmanager
def _as_owner(connection: Connection) -> Iterator[None]:
    """The views' owner is who owns the tables; what fails is undone, and the transaction is the operator's again."""
    with connection.begin_nested():
        connection.exec_driver_sql(f"SET LOCAL ROLE {RAW}")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_IN_USE_SECONDS}s'")
        yield
        connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
        connection.exec_driver_sql(f"SET LOCAL ROLE {OPERATOR}")


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        if isinstance(error.orig, errors.LockNotAvailable):
            raise TableInUse(
                f"views.{name} has to be changed, but has been in use for {_IN_USE_SECONDS} s.",
                remedy="The next sync tries again; `pg_stat_activity` shows who uses it.",
            ) from None
        if isinstance(error.orig, errors.DependentObjectsStillExist):
            raise SchemaConflict(
                f"views.{name} has to be changed, but views of somebody else's stand on it.",
                remedy="Drop those; the next sync tries again.",
            ) from None
        raise


def _execute(connection: Connection, statement: Composed) -> None:
    connection.exec_driver_sql(statement.as_string(None).replace("%", "%%"))
