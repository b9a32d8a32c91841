"""Follows a PostgreSQL database by logical replication: one publication and one slot of our own per integration."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from churnguard_pipelines.connectors.postgresql import messages as messages
from churnguard_pipelines.connectors.postgresql.catalog import FoundTable, object_name
from churnguard_pipelines.connectors.postgresql.connection import Connection, connect, translated
from churnguard_pipelines.connectors.postgresql.fingerprint import Fingerprint
from churnguard_pipelines.connectors.postgresql.following import GENERATED_ARE_PUBLISHED
from churnguard_pipelines.connectors.postgresql.messages import Relation
from churnguard_pipelines.connectors.postgresql.replication import ReplicationStream
from churnguard_pipelines.connectors.postgresql.types import Types
from churnguard_pipelines.connectors.sdk.change_memory import CHANGE_MEMORY
from churnguard_pipelines.connectors.sdk.database import (
    LONGEST_GATHERING,
    MOST_CHANGES,
    ChangeLog,
)
from churnguard_pipelines.engine.hearsay import quoted
from churnguard_pipelines.engine.malformed import Malformed, strictly
from churnguard_pipelines.errors import PermissionMissing, ProviderMisbehaved, ProviderUnavailable, SourceChanged
from churnguard_pipelines.mirrors import UNCHANGED, Change, ChangeBatch, SourceColumn, SourceTable, Values
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Position

MOST_RELATIONS = 100_000
FIRST_WORD_SECONDS = 20.0
"""A server hands a transaction over when it has read all of it, and says before how far it is only where it has nothing
left to read: that it has not said anything yet does not mean that there is nothing."""
SLOT_WAIT = 20.0  # for a reader before us, whose connection the server may not have missed yet


def slot_name(integration_id: str) -> str:
    """Of the slot and of the publication: letters, digits and underscores, 63 at most."""
    readable = re.sub(r"[^a-z0-9]+", "_", integration_id.lower()).strip("_")
    digest = hashlib.sha256(integration_id.encode()).hexdigest()[:8]
    return f"churnguard_{readable[:40]}_{digest}"


def lsn(number: int) -> str:
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def number(lsn: str) -> int:
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def publish(connection: Connection, integration: IntegrationConfiguration, found: Sequence[FoundTable]) -> list[str]:
    """The publication holds these tables and no others; returns the names of those that it did not hold before.

    Raises ``PermissionMissing`` with the statement to run.
    """
    name = Identifier(slot_name(integration.integration_id))
    listed = connection.execute(
        "SELECT (SELECT pg_catalog.array_agg(r.prrelid::bigint ORDER BY r.prrelid) "
        "FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid), "
        "coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 's') = 's' "  # older versions do not have it
        "FROM pg_catalog.pg_publication p WHERE p.pubname = %s",
        [slot_name(integration.integration_id)],
    ).fetchone()
    wanted = sorted(table.oid for table in found)
    held = (listed[0] or []) if listed is not None else []
    tables = SQL(", ").join(table.relation for table in found)
    options = SQL("publish_via_partition_root = true")
    if connection.info.server_version >= GENERATED_ARE_PUBLISHED:
        options = SQL("publish_via_partition_root = true, publish_generated_columns = stored")
    statements: list[Composed] = []
    if listed is None:
        clause = SQL(" FOR TABLE {}").format(tables) if found else SQL("")
        statements.append(SQL("CREATE PUBLICATION {}{} WITH ({})").format(name, clause, options))
    elif not found:
        statements.append(SQL("DROP PUBLICATION {}").format(name))
    else:
        if not listed[1] and any(table.generated for table in found):
            statements.append(SQL("ALTER PUBLICATION {} SET ({})").format(name, options))
        if held != wanted:
            statements.append(SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, tables))
    try:
        for statement in statements:
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        told = "; ".join(statement.as_string(None) for statement in statements)
        raise PermissionMissing(
            "the user may not publish the tables' changes.",
            integration_id=integration.integration_id,
            remedy=f"Run as the tables' owner or a superuser: `{told}`.",
        ) from None
    return [table.table.object for table in found if table.oid not in held]


def drop_slot(connection: Connection, integration: IntegrationConfiguration) -> None:
    """Raises ``ProviderUnavailable`` if something reads from it and does not stop."""
    if _free_slot(connection, integration) is not None:
        connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", [slot_name(integration.integration_id)])


def _free_slot(connection: Connection, integration: IntegrationConfiguration) -> tuple[str, int] | None:
    """The slot's ``wal_status`` and confirmed position once nobody reads from it; None if there is no slot."""
    deadline = time.monotonic() + SLOT_WAIT
    while True:
        row = connection.execute(
            "SELECT active_pid, wal_status, confirmed_flush_lsn::text FROM pg_catalog.pg_replication_slots "
            "WHERE slot_name = %s AND database = pg_catalog.current_database()",
            [slot_name(integration.integration_id)],
        ).fetchone()
        if row is None:
            return None
        if row[0] is None:
            return row[1], number(row[2])
        if time.monotonic() > deadline:
            raise _taken(integration, row[0])
        time.sleep(0.2)  # nothing tells when a slot becomes free


def create_slot(connection: Connection, integration: IntegrationConfiguration) -> Position:
    try:
        with connection.reading(row_by_row=False):  # it waits for transactions under way
            row = connection.execute(
                "SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput')",
                [slot_name(integration.integration_id)],
            ).fetchone()
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise PermissionMissing(
            f"PostgreSQL keeps no changes{quoted(integration, str(error))}.",
            integration_id=integration.integration_id,
            remedy="Run `ALTER SYSTEM SET wal_level = logical` and restart the server.",
        ) from None
    except psycopg.errors.ConfigurationLimitExceeded:
        raise PermissionMissing(
            "PostgreSQL has no replication slot left.",
            integration_id=integration.integration_id,
            remedy="Raise max_replication_slots and restart the server, or drop a slot that nothing uses.",
        ) from None
    except psycopg.errors.InsufficientPrivilege:
        raise PermissionMissing(
            "the user may not replicate.",
            integration_id=integration.integration_id,
            remedy=f"Run `ALTER ROLE {Identifier(str(integration.credentials.username)).as_string(None)} REPLICATION`.",
        ) from None
    assert row is not None
    return {"lsn": row[0]}


class PostgreSQLChanges(ChangeLog):
    """Values are PostgreSQL's text of them. The position is that after the last whole transaction."""

    def __init__(
        self, integration: IntegrationConfiguration, tables: Sequence[SourceTable], position: Position
    ) -> None:
        self._integration = integration
        self._tables = {table.object: table for table in tables}
        self._fingerprints = {table.object: Fingerprint.parse(table.fingerprint) for table in tables}
        self._at = number(position["lsn"])
        self._relations: dict[int, _Followed | None] = {}
        self._in_transaction = False
        self._in_parts = False  # whether the transaction under way has been handed over in part
        self._whole = 0  # how many of the changes read now belong to whole transactions
        self._version = 0
        self._committed_at: datetime | None = None
        self._side = connect(integration)  # for questions about types
        try:
            self._types = Types(self._side)
            self._objects = self._known_by_number()
            self._check_slot()
            self._stream = self._start()
            self._first_word_until = time.monotonic() + FIRST_WORD_SECONDS
        except BaseException:
            self._side.close()
            raise

    def _known_by_number(self) -> dict[int, str]:
        """Of two objects that were one table, before and after it was renamed, the one that has its name now."""
        found = {each.oid: object for object, each in self._fingerprints.items() if each.oid}
        with translated(self._integration):
            rows = self._side.execute(
                "SELECT c.oid::bigint, n.nspname, c.relname FROM pg_catalog.pg_class c "
                "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY(%s)",
                [list(found)],
            ).fetchall()
        for oid, schema, name in rows:
            now = self._fingerprints.get(object_name(schema, name))
            if now is not None and now.oid == oid:
                found[oid] = object_name(schema, name)
        return found

    def read(self, timeout: float) -> ChangeBatch | None:
        changes: list[Change] = []
        self._whole = 0
        try:
            return self._read(changes, timeout)
        except ProviderUnavailable:
            if not self._whole or self._in_parts:
                raise
            return self._batch(changes[: self._whole], whole=True)  # the next read meets the broken connection again

    def _read(self, changes: list[Change], timeout: float) -> ChangeBatch | None:
        deadline = time.monotonic() + timeout
        before = self._at
        size = 0
        while True:
            message = self._next()
            if message is None:
                if changes and not self._in_transaction:
                    return self._batch(changes, whole=True)
                if not self._in_transaction and self._stream.sent > self._at:
                    self._at = self._stream.sent  # everything up to here was read, and nothing of it is ours
                if not changes and self._at > before:
                    return ChangeBatch({"lsn": lsn(self._at)})
                heard = changes or self._stream.sent
                until = deadline if heard else max(deadline, self._first_word_until)
                if (left := until - time.monotonic()) <= 0:
                    return self._batch(changes, whole=False) if changes else None
                with translated(self._integration):
                    self._stream.wait(left)
                continue
            with self._understood():
                self._take(message, changes)
            size += len(message) if changes else 0
            if not self._in_transaction:
                self._whole = len(changes)
            if len(changes) >= MOST_CHANGES or size >= CHANGE_MEMORY.batch_bytes():
                return self._batch(changes, whole=not self._in_transaction)
            if changes and not self._in_transaction and time.monotonic() > deadline + LONGEST_GATHERING - timeout:
                return self._batch(changes, whole=True)

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except Malformed as error:
            name = self._integration.integration_id
            raise ProviderMisbehaved(
                f"the change log holds what cannot be read: {error}.",
                integration_id=name,
                remedy=f"If it lasts: `churnguard integrations reset {name}`, and the next sync reads all tables anew.",
            ) from error

    def confirm(self, position: Position) -> None:
        with translated(self._integration):
            self._stream.feed_back(self._at, number(position["lsn"]))

    def close(self) -> None:
        self._side.close()
        self._stream.close()

    def _batch(self, changes: list[Change], *, whole: bool) -> ChangeBatch:
        self._in_parts = not whole
        return ChangeBatch({"lsn": lsn(self._at)}, changes, whole, self._committed_at)

    def _take(self, message: bytes, changes: list[Change]) -> None:
        kind = message[:1]
        if kind in b"IUD":
            followed = self._relations.get(messages.relation_oid(message))
            if followed is not None:
                changes.append(change := followed.change(kind, message, self._version))
                if change.kind == "stopped":
                    del self._tables[change.object]
                    self._relations[messages.relation_oid(message)] = None
        elif kind == b"B":
            commit, self._committed_at = messages.begin(message)
            self._version = commit + 1  # a slot's or a snapshot's point may be where the commit record begins
            self._in_transaction = True
        elif kind == b"C":
            self._at = messages.commit_end(message)
            self._in_transaction = False
        elif kind == b"R":
            self._meet(messages.relation(message), changes)
        elif kind == b"T":
            gone = [self._relations.get(oid) for oid in messages.truncated(message)]
            changes.extend(Change(item.table.object, "truncate", self._version) for item in gone if item)

    def _meet(self, relation: Relation, changes: list[Change]) -> None:
        """How the rows look that follow; the table may have changed since we knew it. It is known by its number: for a
        while it may be called otherwise, and another as it was."""
        if len(self._relations) == MOST_RELATIONS:
            raise ProviderMisbehaved(
                f"PostgreSQL's change log names more than {MOST_RELATIONS} tables.",
                integration_id=self._integration.integration_id,
            )
        self._relations[relation.oid] = None
        name = self._objects.get(relation.oid) or object_name(relation.schema, relation.name)
        known = self._tables.get(name)
        if known is None or self._fingerprints[name].oid not in (0, relation.oid):
            return
        fingerprint = self._fingerprints[name]
        kinds = {column.name: self._types.kind(column.type_oid, column.modifier) for column in relation.columns}
        columns = tuple(SourceColumn(column, kind.type, kind.source_type) for column, kind in kinds.items())
        if reason := _lost_key(relation, known, partitioned=fingerprint.partitioned):
            del self._tables[name]
            changes.append(Change(name, "stopped", self._version, reason=reason))
            return
        table = replace(known, columns=columns)
        if columns != known.columns:
            self._tables[name] = table
            changes.append(Change(name, "altered", self._version, table=table))
        self._relations[relation.oid] = _Followed(table, partitioned=fingerprint.partitioned)

    def _next(self) -> bytes | None:
        with translated(self._integration):
            return self._stream.next()

    def _start(self) -> ReplicationStream:
        name = slot_name(self._integration.integration_id)
        with translated(self._integration):
            return ReplicationStream(self._integration, name, name, lsn(self._at))

    def _check_slot(self) -> None:
        """It must be there, ours alone, and not beyond our position: it would leave out what lies between."""
        name = slot_name(self._integration.integration_id)
        with translated(self._integration):
            slot = _free_slot(self._side, self._integration)
        if slot is None:
            raise self._lost(f"its replication slot {name} is gone")
        status, confirmed = slot
        if status == "lost":
            raise self._lost(f"its replication slot {name} was invalidated: the WAL it needs was removed")
        if confirmed > self._at:
            raise self._lost(
                f"its replication slot {name} stands at {lsn(confirmed)}, beyond our position {lsn(self._at)}"
            )

    def _lost(self, what: str) -> SourceChanged:
        name = self._integration.integration_id
        return SourceChanged(
            f"{what}; changes may be missing.",
            integration_id=name,
            remedy=f"`churnguard integrations reset {name}`, and the next sync reads all tables anew. "
            "max_slot_wal_keep_size says how much WAL the server keeps.",
        )


class _Followed:
    """One table's rows as they come now. ``partitioned``: what is told of a row's former state is what its partition
    logs, under the name of the table's own replica identity."""

    def __init__(self, table: SourceTable, *, partitioned: bool) -> None:
        self.table = table
        self._partitioned = partitioned
        names = [column.name for column in table.columns]
        self._key_at = [names.index(name) for name in table.key]

    def change(self, kind: bytes, message: bytes, version: int) -> Change:
        """Raises ``Malformed``."""
        try:
            return self._change(kind, message, version)
        except Malformed as error:
            if not isinstance(error.__cause__, UnicodeDecodeError):
                raise
            reason = "a value of it is no UTF-8, and the database's encoding, SQL_ASCII, does not say what else it is."
            return Change(self.table.object, "stopped", version, reason=reason)

    @strictly
    def _change(self, kind: bytes, message: bytes, version: int) -> Change:
        object, key_at = self.table.object, self._key_at
        if kind == b"I":
            return Change(object, "upsert", version, self._row(messages.insert(message)))
        if kind == b"D":
            key = self._key(messages.delete(message))
            return self._another_key(version) if None in key else Change(object, "delete", version, key=key)
        old, whole, new = messages.update(message)
        if old is None:
            return Change(object, "upsert", version, self._row(new))
        if whole and not self._partitioned:
            new = tuple(before if value is UNCHANGED else value for value, before in zip(new, old, strict=True))
        former = self._key(old)
        if None in former:
            return self._another_key(version)
        moved = any(new[place] != value for place, value in zip(key_at, former, strict=True))
        return Change(object, "upsert", version, self._row(new), key=former if moved else None)

    def _row(self, values: Values) -> Values:
        if len(values) != len(self.table.columns):
            raise Malformed("a row with more values than columns, or fewer")
        return values

    def _key(self, row: Values) -> Values:
        return tuple(row[place] for place in self._key_at)

    def _another_key(self, version: int) -> Change:
        reason = "a partition's replica identity lacks columns of its key."
        return Change(self.table.object, "stopped", version, reason=reason)


def _lost_key(relation: Relation, known: SourceTable, *, partitioned: bool) -> str | None:
    names = {column.name for column in relation.columns}
    identity = {column.name for column in relation.columns if column.key}
    logged = partitioned or relation.identity == "f" or set(known.key) <= identity
    if not set(known.key) <= names or not logged:
        told = ", ".join(sorted(identity)) or "none"
        return f"its key was ({', '.join(known.key)}); the change log now names rows by ({told})."
    return None


def _taken(integration: IntegrationConfiguration, pid: int) -> ProviderUnavailable:
    name = slot_name(integration.integration_id)
    return ProviderUnavailable(
        f"the replication slot {name} is in use by the server's process {pid}.",
        integration_id=integration.integration_id,
        remedy=f"If that is no reader of ours: `SELECT pg_terminate_backend({pid})`.",
    )


def drop_publication(connection: Connection, integration: IntegrationConfiguration) -> None:
    name = Identifier(slot_name(integration.integration_id))
    connection.execute(SQL("DROP PUBLICATION IF EXISTS {}").format(name))


def current_lag(connection: Connection, integration: IntegrationConfiguration, position: Position) -> Any:
    """(bytes behind, bytes the slot may still fall behind or None, its wal_status or None, the server's limit)."""
    statement = SQL(
        "SELECT greatest(pg_catalog.pg_current_wal_lsn() - {at}::pg_lsn, 0)::bigint, s.safe_wal_size, s.wal_status "
        "FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = {name}"
    ).format(at=Literal(position["lsn"]), name=Literal(slot_name(integration.integration_id)))
    return connection.execute(statement).fetchone()
