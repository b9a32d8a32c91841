"""Follows a PostgreSQL database by logical replication: one publication and one slot of our own per integration."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from churnguard_pipelines.connectors.postgresql import messages
from churnguard_pipelines.connectors.postgresql.catalog import object_name
from churnguard_pipelines.connectors.postgresql.connection import connect, translated
from churnguard_pipelines.connectors.postgresql.fingerprint import Fingerprint
from churnguard_pipelines.connectors.postgresql.messages import Relation
from churnguard_pipelines.connectors.postgresql.replication import ReplicationStream
from churnguard_pipelines.connectors.postgresql.slot import free_slot, log_end, lsn, number, slot_name
from churnguard_pipelines.connectors.postgresql.types import Types
from churnguard_pipelines.connectors.sdk.database import ChangeLog
from churnguard_pipelines.connectors.sdk.gathering import LULL, Gathering
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.errors import ProviderMisbehaved, ProviderUnavailable, SourceChanged
from churnguard_pipelines.mirrors import UNCHANGED, Change, ChangeBatch, SourceColumn, SourceTable
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Position

MOST_RELATIONS = 100_000


class PostgreSQLChanges(ChangeLog):
    """The change log of a PostgreSQL database. Values are PostgreSQL's text of them. The position is that after the
    last whole transaction."""

    def __init__(
        self, integration: IntegrationConfiguration, tables: Sequence[SourceTable], position: Position
    ) -> None:
        self._integration = integration
        self._tables = {table.object: table for table in tables}
        self._fingerprints = {table.object: Fingerprint.parse(table.fingerprint) for table in tables}
        self._at = number(position["lsn"])
        self._relations: dict[int, _Followed | _Unnamed | None] = {}
        self._in_transaction = False
        self._gathering = Gathering()
        self._version = 0
        self._begun_at: datetime | None = None  # when the transaction under way was committed; the last whole one
        self._committed_at: datetime | None = None
        self._side = connect(integration)  # for questions about types
        try:
            self._types = Types(self._side)
            self._objects = self._known_by_number()
            self._check_slot()
            self._stream = self._start()
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
        try:
            with translated(self._integration), self._understood():
                return self._read(timeout)
        except ProviderUnavailable:
            if not self._gathering.whole:
                raise
            return self._batch()  # the next read meets the broken connection again

    def _read(self, timeout: float) -> ChangeBatch | None:
        deadline = time.monotonic() + timeout
        gathering, before = self._gathering, self._at
        gathering.begin()
        while True:
            message = self._stream.next()
            if message is None:
                if gathering.whole:
                    if self._stream.wait(LULL):
                        continue
                    return self._batch()
                if not self._in_transaction and self._stream.sent > self._at:
                    self._at = self._stream.sent  # everything up to here was read, and nothing of it is ours
                if not gathering.changes and self._at > before:
                    return ChangeBatch({"lsn": lsn(self._at)})
                if (left := deadline - time.monotonic()) <= 0:
                    return self._batch() if gathering.changes else None
                self._stream.wait(left)
                continue
            self._take(message, gathering.changes)
            if gathering.came(len(message), ended=not self._in_transaction):
                return self._batch()

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

    def end(self) -> int:
        """A server hands a transaction over when it has read all of it: that it says nothing for a while does not mean
        that there is nothing."""
        with translated(self._integration):
            return log_end(self._side)

    def progress(self) -> int:
        return max(self._at, self._stream.sent)

    def confirm(self, position: Position) -> None:
        with translated(self._integration):
            self._stream.send_status(self._at, number(position["lsn"]))

    def close(self) -> None:
        self._side.close()
        self._stream.close()

    def _batch(self) -> ChangeBatch:
        changes, whole = self._gathering.take()
        return ChangeBatch({"lsn": lsn(self._at)}, changes, whole, self._committed_at if whole else self._begun_at)

    def _take(self, message: bytes, changes: list[Change]) -> None:
        kind = message[:1]
        if kind in b"IUD":
            followed = self._relations.get(messages.relation_oid(message))
            if followed is not None:
                changes.append(change := followed.change(message, self._version))
                if change.kind == "stopped":
                    del self._tables[change.object]
                    self._relations[messages.relation_oid(message)] = None
        elif kind == b"B":
            commit, self._begun_at = messages.begin(message)
            self._version = commit + 1  # a slot's or a snapshot's point may be where the commit record begins
            self._in_transaction = True
        elif kind == b"C":
            self._at = messages.commit_end(message)
            self._committed_at = self._begun_at
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
            self._relations[relation.oid] = _Unnamed(known, reason)
            return
        table = replace(known, columns=columns)
        if columns != known.columns:
            self._tables[name] = table
            changes.append(Change(name, "altered", self._version, table=table))
        self._relations[relation.oid] = _Followed(table, partitioned=fingerprint.partitioned)

    def _start(self) -> ReplicationStream:
        name = slot_name(self._integration.integration_id)
        with translated(self._integration):
            return ReplicationStream(self._integration, name, name, lsn(self._at))

    def _check_slot(self) -> None:
        """It must be there, ours alone, and not beyond our position: it would leave out what lies between."""
        name = slot_name(self._integration.integration_id)
        with translated(self._integration):
            slot = free_slot(self._side, self._integration)
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

    def change(self, message: bytes, version: int) -> Change:
        """What an insert, update or delete says. Raises ``Malformed``."""
        object = self.table.object
        try:
            old, whole, new = messages.rows(message, len(self.table.columns))
        except Malformed as error:
            if not isinstance(error.__cause__, UnicodeDecodeError):
                raise
            reason = "a value of it is no UTF-8, and the database's encoding, SQL_ASCII, does not say what else it is."
            return Change(object, "stopped", version, reason=reason)
        if old is None:
            return Change(object, "upsert", version, new)
        former = tuple([old[place] for place in self._key_at])
        if None in former:
            return Change(object, "unnamed", version, reason="a partition's replica identity lacks columns of its key.")
        if new is None:
            return Change(object, "delete", version, key=former)
        if whole and not self._partitioned:
            new = tuple(before if value is UNCHANGED else value for value, before in zip(new, old, strict=True))
        moved = any(new[place] != value for place, value in zip(self._key_at, former, strict=True))
        return Change(object, "upsert", version, new, key=former if moved else None)


class _Unnamed:
    """One table's rows as long as the log names them by another key than the table's."""

    def __init__(self, table: SourceTable, reason: str) -> None:
        self.table = table
        self._reason = reason

    def change(self, message: bytes, version: int) -> Change:
        return Change(self.table.object, "unnamed", version, reason=self._reason)


def _lost_key(relation: Relation, known: SourceTable, *, partitioned: bool) -> str | None:
    names = {column.name for column in relation.columns}
    identity = {column.name for column in relation.columns if column.key}
    logged = partitioned or relation.identity == "f" or set(known.key) <= identity
    if not set(known.key) <= names or not logged:
        told = ", ".join(sorted(identity)) or "none"
        return f"its key was ({', '.join(known.key)}); the change log now names rows by ({told})."
    return None
