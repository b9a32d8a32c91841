"""Every lock between processes that is not a row's or a table's own, in one place, so that no two are the same.

Those that all organizations share are rows of ``control.locks``, which the role of an organization may not touch:
nothing that runs as it can hold up the others. Advisory locks, which every role may take, are left to what belongs to
one organization, by pairs of numbers: the first says what for.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, LiteralString

import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.sql import Identifier
from sqlalchemy import Connection

from churnguard_pipelines.errors import DatabaseUnavailable, TableInUse
from churnguard_pipelines.store.postgres.server import connect


class Shared(Enum):
    """Locks that are rows. Each has its row, made by a migration."""

    INBOX_WRITERS = "inbox writers"
    INBOX_DAYS = "inbox days"
    RAW_TABLES = "raw tables"


class Own(IntEnum):
    """Advisory locks. The first number of an advisory lock's pair."""

    VERSIONS = 1
    MRR = 2
    PLACES = 3
    STREAMS = 4
    DAEMON = 5


MIGRATION = 0x6368_7572_6E01
"""Of a database that has no schema yet, and therefore no other role than ours. An advisory lock of one number, which
no pair of numbers is."""
SET_UP = 0x6368_7572_6E02
"""Of the server, before our roles are there; an advisory lock, too. Nobody waits for it for ever: once they are there,
they may take it."""
_SET_UP_SECONDS = 120
_TABLE_SECONDS = 20

# Two rows where one belongs are an error that is nobody's data: who delivers is to try again.
_TAKE = """
SELECT CASE count(*) WHEN 1 THEN 1 ELSE (SELECT 1 FROM generate_series(1, 2)) END
  FROM (SELECT FROM control.locks WHERE name = '{}' FOR UPDATE) AS held
"""
_HELD = {lock: sa.text(_TAKE.format(lock.value)) for lock in Shared}


def taking(lock: Shared) -> str:
    """A query of one row that holds the lock until the transaction ends. It fails, rather than to go on without the
    lock, if somebody removed its row."""
    return _TAKE.format(lock.value)


def take(connection: Connection, lock: Shared) -> None:
    """Hold it until the transaction ends; as the operator or as the owner of tables."""
    connection.execute(_HELD[lock])


def taking_own(lock: Own, name: str, *, shared: bool = False) -> str:
    """The same of an organization's own lock; ``name``: an SQL expression of text that begins with the organization.
    ``shared``: with others who share it."""
    return f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({lock.value}, hashtext({name}))"


def take_table(connection: Connection, name: str) -> None:
    """A table of ``raw`` for a change of it, until the transaction ends; as its owner. Whoever may read it can keep us
    from it, by a transaction that is left open; but not for long, because all others wait behind us.

    Raises ``TableInUse``.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_TABLE_SECONDS}s'")
    table = Identifier("raw", name).as_string(None).replace("%", "%%")
    try:
        connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    except sa.exc.OperationalError as error:
        if not isinstance(error.orig, errors.LockNotAvailable):
            raise
        raise TableInUse(
            f"raw.{name} has to be changed, but has been in use for {_TABLE_SECONDS} s.",
            remedy="The next sync tries again; `pg_stat_activity` shows who uses it.",
        ) from None
    connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")


def take_for_migration(connection: Connection) -> None:
    """Hold it until the transaction ends: of several processes at once one migrates, the others wait for it."""
    if connection.scalar(sa.text("SELECT to_regclass('control.alembic_version')")) is None:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION})
    else:
        connection.execute(sa.text("LOCK TABLE control.alembic_version IN EXCLUSIVE MODE"))


def take_for_set_up(connection: psycopg.Connection[Any]) -> None:
    """Hold it until the connection is closed. Raises ``DatabaseUnavailable`` if somebody does not let go of it."""
    connection.execute(f"SET lock_timeout = '{_SET_UP_SECONDS}s'")
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [SET_UP])
    except errors.LockNotAvailable:
        raise DatabaseUnavailable(
            f"somebody else has been setting up this database for {_SET_UP_SECONDS} s.",
            remedy="`SELECT * FROM pg_locks WHERE locktype = 'advisory'` shows who; end it, and start again.",
        ) from None
    connection.execute("RESET lock_timeout")


# What is not to be tried is not in the array: a condition beside the lock's might be looked at after it.
_TRY_PLACES: LiteralString = """
SELECT place FROM unnest(%s::integer[]) AS place
 WHERE pg_try_advisory_lock(%s, hashtext(%s || '/' || place)) LIMIT 1
"""
_LEAVE_PLACE: LiteralString = "SELECT pg_advisory_unlock(%s, hashtext(%s || '/' || %s::integer))"
# Whoever finds no place shares the lock of the one that would come after the last, until it has found one.
_WANT: LiteralString = "SELECT pg_try_advisory_lock_shared(%s, hashtext(%s || '/' || %s::integer))"
_HAVE: LiteralString = "SELECT pg_advisory_unlock_shared(%s, hashtext(%s || '/' || %s::integer))"
_WANTED: LiteralString = """
SELECT CASE WHEN pg_try_advisory_lock(kind, name) THEN NOT pg_advisory_unlock(kind, name) ELSE true END
  FROM (VALUES (%s::integer, hashtext(%s || '/' || %s::integer))) AS beyond (kind, name)
"""

_SPEAK_EVERY: LiteralString = "SELECT set_config('idle_session_timeout', %s, false)"

HELD_SECONDS = 120
"""After which places are given back of a process that neither takes nor leaves any: it hangs, and others wait."""


class PlaceLocks:
    """Some of ``most`` places of a ``name``, held by a connection of its own until it is closed or breaks, or the
    server ends it after ``HELD_SECONDS`` without a word. For one thread at a time. Raises ``DatabaseUnavailable`` where
    it cannot be opened."""

    def __init__(self, database_url: str, name: str, most: int, kind: Own = Own.PLACES) -> None:
        self._kind = kind
        self._connection = connect(database_url, autocommit=True)
        self._connection.execute(_SPEAK_EVERY, [f"{HELD_SECONDS}s"])
        self._name, self._most = name, most
        self._held: set[int] = set()
        self._wants = False

    @property
    def broken(self) -> bool:
        return self._connection.broken or self._connection.closed

    def take(self) -> int | None:
        """The number of a place that nobody had; None if there is none, or if the connection broke meanwhile."""
        free = [place for place in range(self._most) if place not in self._held]
        place: int | None = self._ask(_TRY_PLACES, [free, self._kind.value, self._name])
        if place is not None:
            self._held.add(place)
        if self._wants != (place is None):
            changed = self._ask(_HAVE if self._wants else _WANT, [self._kind.value, self._name, self._most])
            self._wants ^= bool(changed)
        return place

    def wanted(self) -> bool:
        """Whether somebody else has looked for a place, and found none so far."""
        return bool(self._ask(_WANTED, [self._kind.value, self._name, self._most]))

    def speak(self) -> bool:
        """A word to the server, for which it lets us keep what we have. False if the connection broke: all is lost."""
        if not self.broken:
            try:
                self._connection.execute("SELECT 1")
            except psycopg.OperationalError:
                self.close()
        return not self.broken

    def leave(self, place: int) -> None:
        self._held.discard(place)
        self._ask(_LEAVE_PLACE, [self._kind.value, self._name, place])

    def close(self) -> None:
        self._connection.close()

    def _ask(self, query: LiteralString, about: list[Any]) -> Any:
        """The answer's value; None if there is none, or if the connection broke."""
        if self.broken:
            return None
        try:
            row = self._connection.execute(query, about).fetchone()
        except psycopg.OperationalError:
            self.close()
            return None
        return row and row[0]
