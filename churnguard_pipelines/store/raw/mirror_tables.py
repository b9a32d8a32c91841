"""Makes and widens the mirrors of source tables in schema ``raw``, and refuses a change that would lose values."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import Connection

from churnguard_pipelines.errors import SchemaConflict
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import Mirror, MirrorColumn
from churnguard_pipelines.records import Drift
from churnguard_pipelines.store.postgres import locks
from churnguard_pipelines.store.postgres.row_security import READ, protect

OWN_COLUMNS = ("organization_id", "integration_id", "source_version", "deleted_at", "delete_kind", "synced_at")
SYSTEM_COLUMNS = ("ctid", "tableoid", "xmin", "xmax", "cmin", "cmax")

# By a join: to_regclass() answers from a cache that does not see what another process created since the first look.
_COLUMNS = sa.text("""
SELECT a.attname, format_type(a.atttypid, a.atttypmod)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'raw' AND c.relname = :name AND a.attnum > 0 AND NOT a.attisdropped
""")
_CHAINS = (
    (Base.SMALLINT, Base.INTEGER, Base.BIGINT, Base.NUMERIC),
    (Base.REAL, Base.DOUBLE),
    (Base.DATE, Base.TIMESTAMP),
)

Fit = Literal["same", "fits", "widen", "conflict"]


def ensure(connection: Connection, mirror: Mirror) -> list[Drift]:
    """Make the table, add columns it does not have yet, widen those that have become too narrow. As owner.

    Nothing but the table itself is locked meanwhile: to widen a large one takes long, and is nobody else's matter.
    Returns what was added and widened. Raises ``SchemaConflict`` for a type or a key that changed in a way that the
    stored rows cannot follow, ``TableInUse`` if others do not let go of the table; nothing is changed then.
    """
    if not exists(connection, mirror.table) and _made(connection, mirror):
        return []
    _check_key(mirror, _stored_key(connection, mirror.table))
    if not _changes(connection, mirror)[0]:
        return []
    locks.take_table(connection, mirror.table)
    changes, drift = _changes(connection, mirror)  # another process may have been first
    if changes:
        _execute(connection, SQL("ALTER TABLE {} ").format(Identifier("raw", mirror.table)) + SQL(", ").join(changes))
    return drift


def exists(connection: Connection, table: str) -> bool:
    return bool(_existing(connection, table))


def drop(connection: Connection, table: str) -> None:
    """As owner; for a mirror that is to be made anew. Raises ``TableInUse`` as ``ensure`` does."""
    if not exists(connection, table):
        return
    locks.take_table(connection, table)
    _execute(connection, SQL("DROP TABLE IF EXISTS {}").format(Identifier("raw", table)))


def fits(stored: MirrorType, new: MirrorType) -> Fit:
    """Whether values of the type ``new`` can be kept in a column of the type ``stored``."""
    if stored == new:
        return "same"
    if stored.array != new.array:
        return "conflict"
    if stored.digits and new.digits:
        (whole, fraction), (new_whole, new_fraction) = _places(stored.digits), _places(new.digits)
        return "fits" if new_whole <= whole and new_fraction <= fraction else "widen"
    if stored.digits or new.digits:  # the other is an unconstrained numeric, or an integer
        other = new.base if stored.digits else stored.base
        if other not in _CHAINS[0]:
            return "conflict"
        return "fits" if new.digits and other is Base.NUMERIC else "widen"
    for chain in _CHAINS:
        if stored.base in chain and new.base in chain:
            return "fits" if chain.index(new.base) < chain.index(stored.base) else "widen"
    return "conflict"


def _wider(stored: MirrorType, new: MirrorType) -> MirrorType:
    if stored.digits and new.digits:
        whole, fraction = map(max, _places(stored.digits), _places(new.digits))
        return MirrorType(Base.NUMERIC, (whole + fraction, fraction), stored.array)
    return MirrorType(Base.NUMERIC, None, stored.array) if stored.digits or new.digits else new


def _places(digits: tuple[int, int]) -> tuple[int, int]:
    """Before and after the point."""
    precision, scale = digits
    return precision - scale, scale


def _made(connection: Connection, mirror: Mirror) -> bool:
    """False if another process was first: PostgreSQL lets two that make one name wait for each other."""
    try:
        with connection.begin_nested():
            _execute(connection, _creation(mirror))
            for statement in protect("raw", mirror.table, operator=READ):
                connection.exec_driver_sql(statement.replace("%", "%%"))
    except (sa.exc.ProgrammingError, sa.exc.IntegrityError) as error:
        if not isinstance(error.orig, (errors.DuplicateTable, errors.UniqueViolation)):
            raise
        return False
    return True


def _changes(connection: Connection, mirror: Mirror) -> tuple[list[Composable], list[Drift]]:
    """What the table lacks for the mirror. Raises ``SchemaConflict``."""
    existing = _existing(connection, mirror.table)
    changes: list[Composable] = []
    drift: list[Drift] = []
    for column in mirror.columns:
        stored = existing.get(column.name)
        if stored is None:
            changes.append(SQL("ADD COLUMN {} {}").format(Identifier(column.name), column.type.sql))
            drift.append(Drift(column.name, "added_column", str(column.type)))
        elif (fit := fits(stored, column.type)) == "conflict":
            raise _conflict(mirror, f"column {column.source} was {stored} and is {column.type} now")
        elif fit == "widen":
            wider = _wider(stored, column.type)
            changes.append(SQL("ALTER COLUMN {} TYPE {}").format(Identifier(column.name), wider.sql))
            drift.append(Drift(column.name, "widened_column", f"{stored} became {wider}"))
    return changes, drift


def _check_key(mirror: Mirror, stored_key: list[str]) -> None:
    if set(stored_key) - set(OWN_COLUMNS) != set(mirror.key):
        before = ", ".join(name for name in stored_key if name not in OWN_COLUMNS)
        raise _conflict(mirror, f"its key was ({before}) and is ({', '.join(mirror.key)}) now")


def _conflict(mirror: Mirror, what: str) -> SchemaConflict:
    return SchemaConflict(f"{mirror.object} has changed so that raw.{mirror.table} cannot follow: {what}.")


def _creation(mirror: Mirror) -> Composed:
    key = ["organization_id", "integration_id", *mirror.key]
    columns: list[Composable] = [SQL("organization_id text NOT NULL, integration_id text NOT NULL")]
    columns += [_column(column) for column in mirror.columns]
    columns += [
        SQL("source_version bigint NOT NULL, deleted_at timestamptz, delete_kind text"),
        SQL("synced_at timestamptz NOT NULL"),
        SQL("PRIMARY KEY ({})").format(SQL(", ").join(map(Identifier, key))),
    ]
    return SQL("CREATE TABLE {} ({})").format(Identifier("raw", mirror.table), SQL(", ").join(columns))


def _column(column: MirrorColumn) -> Composed:
    return SQL("{} {}").format(Identifier(column.name), column.type.sql)


def _existing(connection: Connection, table: str) -> dict[str, MirrorType]:
    return {row[0]: MirrorType.parse(row[1]) for row in connection.execute(_COLUMNS, {"name": table})}


def _stored_key(connection: Connection, table: str) -> list[str]:
    statement = sa.text(
        "SELECT a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey) "
        "WHERE n.nspname = 'raw' AND c.relname = :name AND i.indisprimary"
    )
    return list(connection.scalars(statement, {"name": table}))


def _execute(connection: Connection, statement: Composed) -> None:
    connection.exec_driver_sql(statement.as_string(None).replace("%", "%%"))
