"""Makes rows of a provider's events, however they came: pushed to our webhooks, or read from its feed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from churnguard_pipelines.connectors.sdk import ApiConnector, Object
from churnguard_pipelines.connectors.sdk.selection import is_chosen
from churnguard_pipelines.engine.mapping import Mapper
from churnguard_pipelines.engine.pump import store_changes
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Counts, Deletion, Lane, Record
from churnguard_pipelines.store.ingest import arrivals
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse, WarehouseTransaction
from churnguard_pipelines.syncing.sync import mapper_of

Changes = tuple[Sequence[Record], Sequence[Deletion]]


class EventWriter:
    """``lane``: whose the events are. One thread at a time."""

    def __init__(
        self,
        store: Store,
        warehouse: Warehouse,
        integration: IntegrationConfiguration,
        connector: ApiConnector,
        lane: Lane,
    ) -> None:
        self._store = store
        self._warehouse = warehouse
        self._integration = integration
        self._connector = connector
        self._lane = lane
        self._objects = {item.name: item for item in connector.objects}
        self._by_path: dict[str, Object] = {}
        self._account_asked = False
        self._mappers: dict[str, Mapper] = {}

    def find(self, told: str) -> Object | None:
        """The object that an event names, by its name or its path, if the integration reads it.

        The account is asked for its own objects once, when one is first told of.
        """
        item = self.known(told)
        return item if item is not None and is_chosen(self._integration, item.name) else None

    def known(self, told: str) -> Object | None:
        """The same, whether the integration reads it or not."""
        if told not in self._objects:
            self._ask_account()
        return self._objects.get(told) or self._by_path.get(told)

    def wanted(self) -> list[Object]:
        """All objects that the integration reads."""
        self._ask_account()
        return [item for item in self._objects.values() if is_chosen(self._integration, item.name)]

    def changes(self, name: str, told: Sequence[Mapping[str, Any]]) -> Changes:
        """What the events make of the object's records. Providers are asked here: no transaction is open meanwhile."""
        table = self._mapper(name).table

        def stored(keys: Collection[str]) -> Mapping[str, int]:
            with self._warehouse.transaction(self._lane.organization_id) as transaction:
                return transaction.versions(table, self._lane.integration_id, keys)

        return self._connector.changes(self._objects[name], told, stored)

    def store(self, transaction: WarehouseTransaction, changes: Mapping[str, Changes]) -> dict[str, Counts]:
        """Counts by object. What events brought is counted by the lane's name, the path that they took."""
        counts: dict[str, Counts] = {}
        for name, (records, deletions) in sorted(changes.items()):  # two writers lock tables in the same order
            mapper = self._mapper(name)
            mapped = mapper.rows(records)
            counts[name] = store_changes(transaction, self._lane, mapper.table, mapped, deletions, None)
        brought = {name: len(records) for name, (records, _) in changes.items()}
        arrivals.note_brought(transaction.connection, self._lane, self._lane.name, brought)
        return counts

    def _ask_account(self) -> None:
        if not self._account_asked:
            own = self._connector.discover_objects()
            self._objects = {item.name: item for item in own} | self._objects
            self._by_path = {item.path: item for item in own}
            self._account_asked = True

    def _mapper(self, name: str) -> Mapper:
        if (mapper := self._mappers.get(name)) is None:
            mapper = mapper_of(self._store, self._integration, self._connector.table_of(self._objects[name]))
            self._warehouse.ensure(mapper.table)
            self._mappers[name] = mapper
        return mapper
