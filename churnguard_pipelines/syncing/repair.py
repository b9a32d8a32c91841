"""What we have of one object of an integration, and how a few of its records are read again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from psycopg.sql import Identifier

from churnguard_pipelines.connectors.sdk import FETCHED_AT_ONCE, Object, Reading
from churnguard_pipelines.engine.pump import store_changes
from churnguard_pipelines.records import Counts, DataSyncMode, Deletion, Lane, Record, Window
from churnguard_pipelines.store.ingest import checkpoints
from churnguard_pipelines.store.ingest.objects import known_objects
from churnguard_pipelines.store.ingest.rejected import waiting_keys
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.postgres.deadlocks import past_deadlocks
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.sync import OpenedIntegration, mapper_of, refuse_another_source

LATEST = datetime.max.replace(tzinfo=UTC)


class Ours:
    """The records that we have and that are not deleted, by their time of creation."""

    def __init__(self, store: Store, use: OpenedIntegration, item: Object) -> None:
        self._store, self._connector, self._item = store, use.connector, item
        self._integration = use.integration
        self._table = use.connector.table_of(item)
        self._mapper = mapper_of(store, use.integration, self._table)
        self._warehouse = Warehouse(store)
        self._warehouse.ensure(self._table)
        self._lane = Lane(use.integration.organization_id, use.integration.integration_id, item.name)

    def refuse_another_account(self) -> None:
        """Its records are not ours. Raises ``SourceChanged``."""
        with self._store.organization(self._lane.organization_id) as connection:
            checkpoint = checkpoints.load(connection, self._lane)
        refuse_another_source(self._integration, checkpoint, self._connector.identity())

    def count(self, window: Window) -> int:
        return int(self._select("count(*)", window)[0])

    def keys(self, window: Window) -> frozenset[str]:
        return frozenset(self._select(_quoted(self._table.key), window))

    def changed_since(self, moment: datetime) -> frozenset[str]:
        """What the provider changed then or later, as far as its records say so."""
        changed = self._item.modified_column
        return frozenset(self._select(_quoted(self._table.key), Window(moment, LATEST), changed) if changed else ())

    def rejected(self, keys: Collection[str]) -> frozenset[str]:
        """Those that came, but could not be stored as they were."""
        return waiting_keys(self._store, self._lane.integration_id, self._item.name, keys) if keys else frozenset()

    def read_again(self, keys: Collection[str], window: Window) -> Counts:
        """The records of these keys as they are at the provider now; all of the window, which they were created in,
        from one that cannot be asked by key. Newer versions that we have stay. No checkpoint moves."""
        wanted, counts = sorted(keys), Counts()
        for start in range(0, len(wanted), FETCHED_AT_ONCE):
            fetched = self._connector.fetch(self._item, wanted[start : start + FETCHED_AT_ONCE])
            if fetched is None:
                return self._read(window)
            counts.add(self._keep(*fetched))
        return counts

    def _read(self, window: Window) -> Counts:
        known = known_objects(self._store, self._lane.integration_id).get(self._item.name)
        fields = known.fields if known else ()
        reading = Reading(DataSyncMode.FULL, None, self._store.now(), window, fields)
        counts = Counts()
        with closing(self._connector.read(self._item, reading)) as batches:
            for batch in batches:
                counts.add(self._keep(batch.records, batch.deletions))
        return counts

    def _keep(self, records: Sequence[Record], deletions: Sequence[Deletion]) -> Counts:
        mapped = self._mapper.rows(records)

        def store() -> Counts:
            with self._warehouse.transaction(self._lane.organization_id) as transaction:
                return store_changes(transaction, self._lane, self._table, mapped, deletions, None)

        return past_deadlocks(store)

    def _select(self, what: str, window: Window, by: str | None = None) -> Sequence[Any]:
        """``by``: a column of moments, when they were created if None."""
        moment = _quoted(by or self._item.created_column)
        statement = sa.text(
            f"SELECT {what} FROM {Identifier('raw', self._table.name).as_string(None)} "
            "WHERE organization_id = :organization_id AND integration_id = :id "
            f"AND deleted_at IS NULL AND {moment} >= :start AND {moment} < :end"
        )
        own = {"organization_id": self._lane.organization_id, "id": self._lane.integration_id}
        with self._store.organization(self._lane.organization_id) as connection:
            return connection.scalars(statement, own | {"start": window.start, "end": window.end}).all()


def _quoted(name: str) -> str:
    return Identifier(name).as_string(None)
