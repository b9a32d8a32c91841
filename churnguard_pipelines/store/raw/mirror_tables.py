"""Makes the mirrors of source tables in schema ``raw``, and changes them as their tables change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import Connection

from churnguard_pipelines.errors import SchemaConflict
from churnguard_pipelines.mirror_types import MOST_DIGITS, Base, MirrorType
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
_IN_THE_WAY = (errors.DependentObjectsStillExist, errors.FeatureNotSupported)
"""What PostgreSQL says of views and the like that stand on what is removed, and on what is widened."""
_CHAINS = (
    (Base.SMALLINT, Base.INTEGER, Base.BIGINT, Base.NUMERIC),
    (Base.REAL, Base.DOUBLE),
    (Base.DATE, Base.TIMESTAMP),
)

MOST_COLUMNS = 1600
"""Of a table in PostgreSQL, with those that it once had."""

Fit = Literal["same", "fits", "widen", "conflict"]


def ensure(connection: Connection, mirror: Mirror) -> list[Drift]:
    """Make the table, add columns it does not have yet, widen those that have become too narrow. As owner.

    A column whose new type cannot hold the stored values is made anew, and so is a mirror whose key is another now, or
    that has had all the columns that a table may have: ``lost_values`` tells, since the table has to be read once more.
    Nothing but the table itself is locked meanwhile: to widen a large one takes long, and is nobody else's matter.
    Returns what was changed.

    Raises ``SchemaConflict`` if a view of somebody else's stands on what would be changed, ``TableInUse`` if others
    do not let go of the table; nothing is changed then.
    """
    if not exists(connection, mirror.table) and _made(connection, mirror):
        return []
    if not any(_changes(connection, mirror)):
        return []
    locks.take_table(connection, mirror.table)
    changes, drift = _changes(connection, mirror)  # another process may have been first
    try:
        with connection.begin_nested():
            for statement in changes:
                _execute(connection, statement)
            if not exists(connection, mirror.table):
                _create(connection, mirror)
    except sa.exc.DBAPIError as error:
        if not isinstance(error.orig, _IN_THE_WAY):
            raise
        raise _in_the_way(mirror, drift, error.orig) from error
    return drift


def lost_values(drift: Sequence[Drift]) -> str | None:
    """What happened to the mirror by which it holds less than its table, in words."""
    lost = [each.detail for each in drift if each.kind in ("replaced_column", "replaced_mirror")]
    return "; ".join(lost) or None


def exists(connection: Connection, table: str) -> bool:
    return bool(_existing(connection, table))


def drop(connection: Connection, table: str) -> None:
    """As owner; for a mirror that is to be made anew. Raises ``TableInUse`` as ``ensure`` does."""
    if not exists(connection, table):
        return
    locks.take_table(connection, table)
    _execute(connection, _dropping(table))


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
        both = (whole + fraction, fraction) if whole + fraction <= MOST_DIGITS else None
        return MirrorType(Base.NUMERIC, both, stored.array)
    return MirrorType(Base.NUMERIC, None, stored.array) if stored.digits or new.digits else new


def _places(digits: tuple[int, int]) -> tuple[int, int]:
    """Before and after the point."""
    precision, scale = digits
    return precision - scale, scale


def _made(connection: Connection, mirror: Mirror) -> bool:
    """False if another process was first: PostgreSQL lets two that make one name wait for each other."""
    try:
        with connection.begin_nested():
            _create(connection, mirror)
    except (sa.exc.ProgrammingError, sa.exc.IntegrityError) as error:
        if not isinstance(error.orig, (errors.DuplicateTable, errors.DuplicateObject, errors.UniqueViolation)):
            raise
        return False
    return True


def _changes(connection: Connection, mirror: Mirror) -> tuple[list[Composed], list[Drift]]:
    """Statements that make the table one for the mirror, and what they change; one that they drop is to be created."""
    existing = _existing(connection, mirror.table)
    if (why := _other_key(mirror, existing, _stored_key(connection, mirror.table))) is not None:
        return [_dropping(mirror.table)], [Drift("", "replaced_mirror", why)]
    changes: list[Composable] = []
    drift: list[Drift] = []
    for column in mirror.columns:
        stored, name = existing.get(column.name), Identifier(column.name)
        if stored is None:
            changes.append(SQL("ADD COLUMN {} {}").format(name, column.type.sql))
            drift.append(Drift(column.name, "added_column", str(column.type)))
        elif (fit := fits(stored, column.type)) == "conflict":
            changes.append(SQL("DROP COLUMN {}, ADD COLUMN {} {}").format(name, name, column.type.sql))
            drift.append(Drift(column.name, "replaced_column", _was(column, stored)))
        elif fit == "widen":
            wider = _wider(stored, column.type)
            changes.append(SQL("ALTER COLUMN {} TYPE {}").format(name, wider.sql))
            drift.append(Drift(column.name, "widened_column", f"{stored} became {wider}"))
    if not changes:
        return [], []
    more = sum(each.kind != "widened_column" for each in drift)
    if more and _columns_ever(connection, mirror.table) + more > MOST_COLUMNS:
        why = f"its mirror has had {MOST_COLUMNS:,} columns, which is all that PostgreSQL gives a table"
        return [_dropping(mirror.table)], [Drift("", "replaced_mirror", why)]
    alter = SQL("ALTER TABLE {} {}").format(Identifier("raw", mirror.table), SQL(", ").join(changes))
    return [alter], drift


def _other_key(mirror: Mirror, existing: Mapping[str, MirrorType], stored_key: Sequence[str]) -> str | None:
    """How the key differs, if no row that is stored has one that new rows could be known by."""
    before = [name for name in stored_key if name not in OWN_COLUMNS]
    if set(before) != set(mirror.key):
        return f"its key was ({', '.join(before)}) and is ({', '.join(mirror.key)}) now"
    for column in mirror.columns:
        if column.name in mirror.key and fits(existing[column.name], column.type) == "conflict":
            return _was(column, existing[column.name])
    return None


def _was(column: MirrorColumn, stored: MirrorType) -> str:
    return f"column {column.source} was {stored} and is {column.type} now"


def _in_the_way(mirror: Mirror, drift: Sequence[Drift], error: psycopg.Error) -> SchemaConflict:
    changed = "; ".join(each.detail for each in drift if each.kind != "added_column")
    dependent = (error.diag.message_detail or "").split("\n", 1)[0]
    return SchemaConflict(
        f"{mirror.object} has changed ({changed}), and raw.{mirror.table} cannot: {dependent}.",
        remedy="Drop what depends on it; the next sync reads the table once more, and then it can be made again.",
    )


def _dropping(table: str) -> Composed:
    return SQL("DROP TABLE IF EXISTS {}").format(Identifier("raw", table))


def _create(connection: Connection, mirror: Mirror) -> None:
    key = [*mirror.key, "organization_id", "integration_id"]  # a mirror is one integration's: those tell no rows apart
    columns: list[Composable] = [SQL("organization_id text NOT NULL, integration_id text NOT NULL")]
    columns += [SQL("{} {}").format(Identifier(column.name), column.type.sql) for column in mirror.columns]
    columns += [
        SQL("source_version bigint NOT NULL, deleted_at timestamptz, delete_kind text"),
        SQL("synced_at timestamptz NOT NULL"),
        SQL("PRIMARY KEY ({})").format(SQL(", ").join(map(Identifier, key))),
    ]
    table = Identifier("raw", mirror.table)
    _execute(connection, SQL("CREATE TABLE {} ({})").format(table, SQL(", ").join(columns)))
    for statement in protect("raw", mirror.table, operator=READ):
        connection.exec_driver_sql(statement.replace("%", "%%"))


def _existing(connection: Connection, table: str) -> dict[str, MirrorType]:
    return {row[0]: MirrorType.parse(row[1]) for row in connection.execute(_COLUMNS, {"name": table})}


def _columns_ever(connection: Connection, table: str) -> int:
    statement = sa.text(
        "SELECT c.relnatts FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'raw' AND c.relname = :name"
    )
    return int(connection.scalar(statement, {"name": table}) or 0)


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
