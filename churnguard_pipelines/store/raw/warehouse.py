"""The warehouse writer: rows, deletions, rejected records and the checkpoint commit in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import itemgetter
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.records import Checkpoint, Counts, Deletion, Drift, Lane, Position, Rejected, Table
from churnguard_pipelines.store.ingest import checkpoints, ledger, rejected
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.row_security import APP, RAW
from churnguard_pipelines.store.raw import staging
from churnguard_pipelines.store.raw import tables as raw_tables
from churnguard_pipelines.store.raw.copy_text import Row, parts
from churnguard_pipelines.store.raw.statements import Statements, statements_for

LARGE_BATCH = 200
"""Rows from which on it pays to ask first whether all of them are new."""
_KEY, _VERSION = itemgetter(0), itemgetter(1)


class Warehouse:
    """The tables of schema ``raw``. Thread safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._complete: set[Table] = set()

    def ensure(self, table: Table) -> list[Drift]:
        """Create ``raw.<name>`` (and its versions) or add what is missing; cheap once it is complete.

        Returns how the declaration differed: ``added_column``, and ``type_mismatch`` for an existing column of
        another type, which stays as it is. Raises ``InvalidConfiguration`` for names that are taken or too long.
        """
        if table in self._complete:
            return []
        raw_tables.check_declaration(table)
        with self._store.owner() as connection:
            incomplete, drift = raw_tables.missing_columns(connection, table)
            if incomplete:
                raw_tables.create_or_widen(connection, table)
        self._complete.add(table)
        return drift

    @contextmanager
    def transaction(self, organization_id: str) -> Iterator[WarehouseTransaction]:
        """Everything written inside commits together, or not at all if an error leaves the block."""
        with self._store.organization(organization_id) as connection:
            transaction = WarehouseTransaction(connection, organization_id)
            with staging.as_undone(transaction.driver):
                yield transaction

    def count(self, name: str, organization_id: str, integration_id: str) -> int:
        """Rows of ``raw.<name>`` that are not deleted; 0 for a table that does not exist yet."""
        own = "organization_id = %(organization_id)s AND integration_id = %(integration_id)s"
        values = {"organization_id": organization_id, "integration_id": integration_id}
        live = f"SELECT count(*) FROM {raw_tables.quoted(name)} WHERE {own} AND deleted_at IS NULL"
        try:
            with self._store.organization(organization_id) as connection:
                return int(connection.exec_driver_sql(live, values).scalar_one())
        except sa.exc.ProgrammingError as error:
            if isinstance(error.orig, psycopg.errors.UndefinedTable):
                return 0
            raise


class WarehouseTransaction:
    """One organization's transaction; made by :meth:`Warehouse.transaction`."""

    def __init__(self, connection: Connection, organization_id: str) -> None:
        self.connection = connection
        self._organization_id = organization_id
        self.driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        self._staged: set[str] = set()

    def upsert(self, table: Table, integration_id: str, rows: Sequence[Row]) -> Counts:
        """Store rows, newest version wins. A row: (key, source_version, *declared columns, extra).

        A value is None or fits its column: strings for text, numbers, dates and moments with a time zone (or their
        ISO 8601 text), JSON *as its text* for jsonb columns and for ``extra``. Of several rows of one key the one
        with the highest version wins, of equal versions the last. An older version than the stored one changes
        nothing but ``synced_at``. Raises ``ValueError`` for text with NUL. ``written + stale == len(rows)``.
        """
        statements = statements_for(table)
        values = self._values(table, integration_id)
        written = 0
        with self.driver.cursor() as cursor:
            for unique in _rounds(rows) if table.versioned else [_winners(rows)]:
                self._stage(cursor, statements, unique)
                if table.versioned:
                    _keep_versions(cursor, statements, values)
                stored = self._insert_if_all_new(cursor, statements, values) if len(unique) >= LARGE_BATCH else 0
                if not stored:
                    stored = cursor.execute(statements.upsert, values).rowcount
                if stored < len(unique):
                    cursor.execute(statements.touch_stale, values)
                written += stored
        return Counts(written=written, stale=len(rows) - written)

    def append(self, table: Table, integration_id: str, rows: Sequence[Row], *, new: bool = False) -> Counts:
        """Store rows, as for :meth:`upsert`, that never change: of a key that is there nothing is written. Raises
        ``ValueError`` for text with NUL. ``written + stale == len(rows)``.

        ``new``: no key is there, as far as anybody knows. To look for them as well costs PostgreSQL a third of the
        whole; if one is there, its unique violation leaves this.
        """
        statements = statements_for(table)
        statement = statements.append if new else statements.append_missing
        with self.driver.cursor() as cursor:
            self._stage(cursor, statements, rows)
            written = cursor.execute(statement, self._values(table, integration_id)).rowcount
        return Counts(written=written, stale=len(rows) - written)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is written inside is undone alone, if an error leaves the block; the transaction goes on."""
        staged = set(self._staged)
        try:
            with staging.as_undone(self.driver), self.connection.begin_nested():
                yield
        except BaseException:
            self._staged = staged
            raise

    def versions(self, table: Table, integration_id: str, keys: Collection[str]) -> dict[str, int]:
        """The stored version of each of these keys that is there, deleted ones too."""
        statement = statements_for(table).versions_of
        values = self._values(table, integration_id) | {"keys": list(keys)}
        with self.driver.cursor() as cursor:
            return dict(cursor.execute(statement, values).fetchall())

    def delete(self, table: Table, integration_id: str, deletions: Sequence[Deletion]) -> int:
        """Mark as deleted unless a newer version stands; returns how many rows that were not, now are."""
        gone = _winners([(item.key, item.version, item.kind.value) for item in deletions])
        keys, versions, kinds = map(list, zip(*gone, strict=True)) if gone else ([], [], [])
        values = self._values(table, integration_id) | {"keys": keys, "versions": versions, "kinds": kinds}
        statements = statements_for(table)
        with self.driver.cursor() as cursor:
            if table.versioned:
                cursor.execute(statements.lock_versions, values)
            [(deleted,)] = cursor.execute(statements.delete, values)
            if table.versioned:
                cursor.execute(statements.close_versions, values)
        return int(deleted)

    def delete_absent(self, table: Table, integration_id: str, since: datetime) -> int:
        """After a complete read that began at ``since`` (:meth:`Store.now`, the database's clock): what was not seen
        no longer exists. Returns how many; none if a record without a readable key was rejected meanwhile."""
        values = self._values(table, integration_id) | {"since": since, "object": table.object}
        statements = statements_for(table)
        with self.driver.cursor() as cursor:
            if table.versioned:
                cursor.execute(statements.lock_versions, values)
            keys = [key for (key,) in cursor.execute(statements.delete_absent, values)]
            if table.versioned:
                cursor.execute(statements.close_versions, values | {"keys": keys})
        return len(keys)

    def reject(self, lane: Lane, object: str, rejected_records: Sequence[Rejected], sync_id: str | None) -> None:
        rejected.add(self.connection, lane, object, rejected_records, sync_id)

    def advance(self, lane: Lane, expected: Checkpoint | None, to: Position, source: str) -> Checkpoint:
        """Raises ``LaneTakenOver``: let it leave the transaction's block, so that nothing of it is stored."""
        return checkpoints.advance(self.connection, lane, expected, to, source)

    def progress(self, sync_id: str, object: str, counts: Counts) -> None:
        """Call it last: lanes of one object wait for each other's commit here."""
        ledger.add_progress(self.connection, sync_id, object, counts)

    @contextmanager
    def as_owner(self) -> Iterator[Connection]:
        """For a change of a table that must commit with its rows; the rows themselves stay the organization's."""
        with self.connection.begin_nested():  # an error undoes the role with all else
            self.connection.exec_driver_sql(f"SET LOCAL ROLE {RAW}")
            yield self.connection
            self.connection.exec_driver_sql(f"SET LOCAL ROLE {APP}")

    def _insert_if_all_new(self, cursor: psycopg.Cursor[Any], statements: Statements, values: dict[str, Any]) -> int:
        """How many rows: none if a key is there, or another writer brings one meanwhile. Takes PostgreSQL two thirds
        of what an upsert of new rows takes."""
        try:
            with self.attempt():
                return cursor.execute(statements.insert_if_all_new, values).rowcount
        except psycopg.errors.UniqueViolation:
            return 0

    def _values(self, table: Table, integration_id: str) -> dict[str, Any]:
        return {"organization_id": self._organization_id, "integration_id": integration_id, "table": table.name}

    def _stage(self, cursor: psycopg.Cursor[Any], statements: Statements, rows: Sequence[Row]) -> None:
        name = statements.staging
        staging.prepare(cursor, name, statements.staging_columns, may_have_rows=name in self._staged)
        self._staged.add(name)
        with cursor.copy(statements.copy) as copy:
            for part in parts(rows, statements.text_columns):
                copy.write(part)


def _keep_versions(cursor: psycopg.Cursor[Any], statements: Statements, values: dict[str, Any]) -> None:
    """One writer per table and integration: two could otherwise each leave a version open."""
    cursor.execute(statements.lock_versions, values)
    keys = [key for (key,) in cursor.execute(statements.add_versions, values)]
    if keys:
        cursor.execute(statements.merge_versions, values | {"keys": keys})
        cursor.execute(statements.chain_versions, values | {"keys": keys})


def _winners(rows: Sequence[Row]) -> Sequence[Row]:
    """One row per key: the highest version, of equal ones the last. In the order of the keys, in which all writers
    lock rows, so that none waits for another in a circle."""
    if len(set(map(_KEY, rows))) < len(rows):
        rows = list({row[0]: row for row in sorted(rows, key=_VERSION)}.values())
    return sorted(rows, key=_KEY)


def _rounds(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Rows with one key come one per round, in the order of their versions."""
    rest = rows
    while rest:
        if len(set(map(_KEY, rest))) == len(rest):
            yield sorted(rest, key=_KEY)
            return
        ordered = sorted(rest, key=_VERSION)
        first = {row[0]: row for row in reversed(ordered)}
        yield sorted(first.values(), key=_KEY)
        rest = [row for row in ordered if first[row[0]] is not row]
